"""`python -m alexnet_jax.predict` as its user sees it."""

import os
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.commands import run_command
from tests.tiny_run import CLASS_NAMES, write_run

predict = partial(run_command, "alexnet_jax.predict")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("predict") / "run")


def test_a_bad_image_is_named_and_the_others_are_predicted(workdir, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.jpg")
    Image.fromarray(pixels[:, ::-1]).save(tmp_path / "dog.png")
    (tmp_path / "bad.jpg").write_bytes(b"no image at all")
    done = predict(f"--workdir={workdir}", "--top=3", tmp_path)
    assert done.returncode == 1
    warning, error = done.stderr.strip().splitlines()
    assert warning.startswith(f"warning: {tmp_path / 'bad.jpg'} (15 bytes) is none of JPEG")
    assert error == "error: 1 of 3 images could not be read"
    lines = done.stdout.splitlines()
    assert [lines[0], lines[4]] == [str(tmp_path / "cat.jpg"), str(tmp_path / "dog.png")]
    for block in (lines[1:4], lines[5:8]):
        shares = [float(line.split()[0].rstrip("%")) for line in block]
        assert shares == sorted(shares, reverse=True)
        assert {line.split()[1] for line in block} < set(CLASS_NAMES)


def test_a_file_is_one_line_whatever_its_name(workdir, tmp_path):
    names = [os.fsdecode(b"a\n\x1b\xff.png"), "b\n.png", "c\u2028.png"]
    for name in (names[0], names[2]):
        Image.new("RGB", (72, 72)).save(tmp_path / name)
    (tmp_path / names[1]).write_bytes(b"no image at all")
    done = predict(f"--workdir={workdir}", "--top=1", tmp_path)
    first, _, third, _ = done.stdout.split("\n")[:-1]
    assert (first, third) == (rf"{tmp_path}/a\n\x1b\udcff.png", rf"{tmp_path}/c\u2028.png")
    assert done.stderr.startswith(rf"warning: {tmp_path}/b\n.png (15 bytes) is none of JPEG")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "holds no image; put files there that end in"),
        ("run", "holds no run (no config.json); train one with"),
    ],
)
def test_an_empty_folder_and_a_missing_run_are_told_in_one_line(name, message, tmp_path):
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    what = tmp_path / ("empty" if name == "empty" else "a.png")
    done = predict(f"--workdir={tmp_path / 'run'}", what)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {tmp_path / name} ")
    assert message in line
