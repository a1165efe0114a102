"""`python -m alexnet_jax.features` as its user sees it."""

import os
import subprocess
import sys

import numpy as np
from PIL import Image

from alexnet_jax.inspect.features import extract_features
from alexnet_jax.runs.workdir import load_run
from tests.tiny_run import write_run


def test_features_of_a_folder_are_saved_with_their_files_names(tmp_path):
    workdir = write_run(tmp_path / "run")
    photos, output = tmp_path / "photos", tmp_path / "out.npz"
    photos.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (3, 72, 72, 3)).astype(np.uint8)
    for name, image in zip("bca", images, strict=True):
        Image.fromarray(image).save(photos / f"{name}.png")
    argv = ["--workdir", workdir, "--output", output, "--layer=fc6", photos]
    done = subprocess.run(
        [sys.executable, "-m", "alexnet_jax.features", *argv],
        env=dict(os.environ, XLA_FLAGS=""),  # one device
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{output}: fc6 of 3 images, 32 values each\n"
    with np.load(output) as saved:
        assert saved["files"].tolist() == [str(photos / f"{name}.png") for name in "abc"]
        expected = extract_features(load_run(workdir), images[[2, 0, 1]], layer="fc6")
        np.testing.assert_allclose(saved["features"], expected, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "photos", "run"]


def test_several_layers_are_saved_under_their_names(tmp_path):
    workdir, output = write_run(tmp_path / "run"), tmp_path / "out.npz"
    Image.new("RGB", (72, 72), "white").save(tmp_path / "a.png")
    argv = ["--workdir", workdir, "--output", output, tmp_path / "a.png"]

    def run(layers):
        return subprocess.run(
            [sys.executable, "-m", "alexnet_jax.features", f"--layer={layers}", *argv],
            env=dict(os.environ, XLA_FLAGS=""),
            capture_output=True,
            text=True,
            timeout=300,
        )

    assert "did you mean 'pool5'" in run("fc7,pool55").stderr
    assert run("conv5,pool5,fc6").returncode == 0
    with np.load(output) as saved:
        assert sorted(saved) == ["conv5", "fc6", "files", "pool5"]
        np.testing.assert_array_equal(saved["conv5"], saved["pool5"])
