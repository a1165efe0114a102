"""Data sets: found, checked and opened, or what to do in one line."""

import multiprocessing
import os

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import flags

from alexnet_jax import prepare
from alexnet_jax.data.builders import make_builder
from alexnet_jax.data.sets import open_dataset
from tests.data.conftest import grey, png, write_dataset


@pytest.fixture
def digits():
    return open_dataset("digits", "train", stored_size=8)


def test_splits_may_be_sliced(digits):
    half = open_dataset("digits", "train[50%:]", stored_size=8)
    assert len(half) == 676
    np.testing.assert_array_equal(half.source[0]["image"], digits.source[676]["image"])


def _open_digits(folder, barrier, queue):
    os.environ["TFDS_DATA_DIR"] = folder
    barrier.wait()
    queue.put(len(open_dataset("digits", "train")))


def test_two_processes_may_prepare_digits_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    arguments = (str(tmp_path), barrier, queue)
    processes = [context.Process(target=_open_digits, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [1352, 1352]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_data_dir_is_looked_in_first_and_never_written(tmp_path, monkeypatch):
    pictures = [png(np.full((4, 4, 3), value, np.uint8)) for value in (1, 2, 3)]
    write_dataset(tmp_path / "a", "photos", pictures[:1], [0])
    write_dataset(tmp_path / "b", "photos", pictures[:2], [0, 0])
    monkeypatch.setenv("ALEXNET_DATA_DIR", str(tmp_path / "b"))
    assert len(open_dataset("photos", "train", data_dir=str(tmp_path / "a"))) == 1
    assert len(open_dataset("photos", "train")) == 2
    open_dataset("digits", "test", data_dir=str(tmp_path / "a"))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["photos"]
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["photos"]


def test_an_unprepared_set_says_what_to_run(digits, user_folder):
    with pytest.raises(ValueError, match=r"alexnet_jax\.prepare --dataset=imagenet2012") as error:
        open_dataset("imagenet2012", "train")
    assert str(user_folder) in str(error.value) and "there: digits" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("imagenet2012_256/raw", "--dataset=imagenet2012_256 --encoding=raw --manual_dir=TARS"),
        ("imagenet_fall2011_256", "--dataset=imagenet_fall2011_256 --manual_dir=TARS"),
        ("imagenet2010", "--dataset=imagenet2010_256 --manual_dir=TARS"),
        ("imagenette/160px-v2", "--dataset=imagenette/160px-v2 --data_dir=DIR"),
        ("imagenette_160px_v2_256/jpeg", "--dataset=imagenette/160px-v2 --encoding=jpeg"),
        ("cifar10_256", "--dataset=cifar10 --data_dir=DIR"),
        ("imagenet2012_real", "--dataset=imagenet2012_real --data_dir=DIR"),
        ("my_photos/jpeg", "--dataset=folder --folder=PHOTOGRAPHS --name=my_photos"),
    ],
)
def test_the_command_that_prepares_a_set_is_one_that_prepare_takes(digits, name, command):
    with pytest.raises(ValueError) as error:
        open_dataset(name, "train")
    advised = str(error.value).partition("`")[2].partition("`")[0]
    assert advised.startswith(f"python -m alexnet_jax.prepare {command}")
    values = flags.FlagValues()
    prepare.define_flags(values)
    values(advised.split()[2:])
    make_builder(
        values.dataset,
        data_dir=values.data_dir,
        encoding=values.encoding,
        manual_dir=values.manual_dir,
        folder=values.folder,
        name=values.name,
    )


@pytest.mark.parametrize("name", ["foo bar", "", "a/b/c/d"])
def test_a_name_that_is_none_says_so(name):
    with pytest.raises(ValueError, match="is not the name of a data set"):
        open_dataset(name, "train")


def test_an_unknown_split_names_those_there_are(digits):
    with pytest.raises(ValueError, match="no split 'val'; it has test, train, validation"):
        open_dataset("digits", "val")


def test_a_missing_shard_is_named(tmp_path):
    path = write_dataset(tmp_path, "bad", grey(), [0, 1, 2, 0], shards=2)
    (path / "bad-train.array_record-00001-of-00002").unlink()
    with pytest.raises(ValueError, match=r"00001-of-00002 is missing; copy it again"):
        open_dataset("bad", "train", data_dir=str(tmp_path))


def test_images_without_three_channels_are_refused(tmp_path):
    feature = tfds.features.Tensor(shape=(4, 4, 4), dtype=np.uint8, encoding="bytes")
    write_dataset(tmp_path, "bad", [bytes(64)], [0], image=feature)
    with pytest.raises(ValueError, match=r"shape \(4, 4, 4\), not three channels"):
        open_dataset("bad", "train", data_dir=str(tmp_path))
