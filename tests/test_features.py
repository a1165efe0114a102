"""`python -m alexnet_jax.features` as its user sees it."""

import errno
import os
import types
from functools import partial

import h5py
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.configs import digits
from alexnet_jax.inspect.features import extract_features, write_features
from alexnet_jax.runs.workdir import load_run
from tests.commands import run_command
from tests.data.conftest import png, write_dataset
from tests.tiny_run import write_run

extract = partial(run_command, "alexnet_jax.features")


def test_features_of_a_folder_are_saved_with_their_files_names(tmp_path):
    workdir = write_run(tmp_path / "run")
    photos, output = tmp_path / "photos", tmp_path / "out.npz"
    photos.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (3, 72, 72, 3)).astype(np.uint8)
    for name, image in zip("bca", images, strict=True):
        Image.fromarray(image).save(photos / f"{name}.png")
    argv = ["--workdir", workdir, "--output", output, "--layer=fc6", photos]
    done = extract(*argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{output}: fc6 of 3 images, 32 values each\n"
    with np.load(output) as saved:
        assert saved["files"].tolist() == [str(photos / f"{name}.png") for name in "abc"]
        expected = extract_features(load_run(workdir), images[[2, 0, 1]], layer="fc6")
        np.testing.assert_allclose(saved["features"], expected, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "photos", "run"]
    again = extract(*argv)
    assert again.stdout == f"{output} (replaced): fc6 of 3 images, 32 values each\n"


def test_a_split_of_other_classes_is_refused(tmp_path):
    workdir = write_run(tmp_path / "run")
    run = load_run(workdir)
    images = [png(np.zeros((72, 72, 3), np.uint8))]
    name = run.config.dataset
    write_dataset(tmp_path / "data", name, images, [0])
    argv = ["--workdir", workdir, "--split=train", f"--data_dir={tmp_path / 'data'}"]
    output = ["--output", tmp_path / "x.npz"]
    assert "has 3 classes" in extract(*argv, *output).stderr
    assert (
        "error: --split: split 'train[1:0]' of "
        in extract(*argv, "--split=train[1:0]", *output).stderr
    )
    assert not (tmp_path / "x.npz").exists()


def test_several_layers_are_saved_under_their_names(tmp_path):
    workdir, output = write_run(tmp_path / "run"), tmp_path / "out.npz"
    Image.new("RGB", (72, 72), "white").save(tmp_path / "a.png")
    argv = ["--workdir", workdir, "--output", output, tmp_path / "a.png"]
    assert "did you mean 'pool5'" in extract("--layer=fc7,pool55", *argv).stderr
    assert extract("--layer=conv5,", "--layer=pool5, fc6", *argv).returncode == 0
    with np.load(output) as saved:
        layers = ["conv5", "fc6", "pool5"]
        shapes = [f"{layer}.shape" for layer in layers]
        assert sorted(saved) == sorted([*layers, *shapes, "files", "weights"])
        np.testing.assert_array_equal(saved["conv5"], saved["pool5"])
        assert saved["weights"] == load_run(workdir).weights_digest
        assert saved["conv5"].shape[1] == np.prod(saved["conv5.shape"])


def test_all_layers_of_many_images_go_to_hdf5(tmp_path):
    workdir, output = write_run(tmp_path / "run"), tmp_path / "out.h5"
    photos = tmp_path / "photos"
    photos.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (70, 72, 72, 3)).astype(np.uint8)
    for number, image in enumerate(images):  # more than a batch
        Image.fromarray(image).save(photos / f"{number:02d}.png")
    (photos / "07.png").write_bytes(b"no image")
    done = extract("--layer=all", "--workdir", workdir, "--output", output, photos)
    assert done.returncode == 1
    assert f"1 of 70 images could not be read; {output} holds the other 69\n" in done.stderr
    run = load_run(workdir)
    kept = np.delete(images, 7, 0)
    expected = run.features(kept, ["all"])
    with h5py.File(output) as saved:
        assert set(saved) == {*(row.name for row in run.model.layers), "files"}
        assert saved.attrs["weights"] == run.weights_digest
        assert saved["files"].asstr()[7] == str(photos / "08.png")
        for layer, features in expected.items():
            assert saved[layer].shape == features.shape
            np.testing.assert_allclose(saved[layer][:], features, atol=1e-5)
        assert saved["conv1"].ndim == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "photos", "run"]


def a_run(workdir):
    """What is written of a run beside its features."""
    return types.SimpleNamespace(weights_digest="", config=digits.get_config(), workdir=workdir)


def test_names_that_are_no_utf8_are_kept_in_hdf5_byte_by_byte(tmp_path):
    names = [os.fsdecode(b"b\xe9d.png"), "网.png"]
    run, output = a_run(tmp_path / names[0]), tmp_path / "out.H5"
    rows = iter([{"fc7": np.ones((2, 3), np.float32)}])
    write_features(output, run, rows, lambda: {"files": np.array(names)})
    with h5py.File(output) as saved:
        assert saved["files"].asstr(errors="surrogateescape")[:].tolist() == names
        assert saved["files"][1].decode() == names[1]
        assert saved.attrs["workdir"] == str(run.workdir)


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_disk_without_room_for_hdf5_is_told_before_hdf5_writes_there(tmp_path, monkeypatch, room):
    """HDF5 ends the process where a write fails, so that none of its own may."""
    output, given = tmp_path / "out.h5", []

    def full(file, start, size):
        given.append(start + size)
        if len(given) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    rows = np.ones((64, 5, 5, 9), np.float32)
    run = a_run(tmp_path)
    with pytest.raises(OSError, match=f"No space left on device: '{output}'"):
        write_features(output, run, iter([{"conv1": rows}] * 9), dict)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: None)
    write_features(output, run, iter([{"conv1": rows}] * room), dict)
    assert output.stat().st_size < given[-1]  # what is asked for is enough


def test_a_name_that_is_no_such_file_is_told_before_the_work(tmp_path):
    done = extract("--workdir", tmp_path, "--output", tmp_path / "out.csv", tmp_path)
    assert done.returncode == 1 and "written as .npz, .h5 or .hdf5" in done.stderr
