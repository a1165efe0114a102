"""The pipeline: the right images, each as often as promised, in an order that nothing changes."""

import itertools
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import flags
from sklearn.datasets import load_digits

from alexnet_jax import prepare
from alexnet_jax.data.batches import batch_indices, eval_batches, steps_per_epoch, train_batches
from alexnet_jax.data.builders import make_builder
from alexnet_jax.data.sets import open_dataset
from tests.data.conftest import png, write_dataset


@pytest.fixture
def digits():
    return open_dataset("digits", "train", stored_size=8)


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_same(batches, expected):
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


def test_digits_are_scikit_learns_each_once_and_lossless():
    found = []
    for split in ("train", "validation", "test"):
        dataset = open_dataset("digits", split, stored_size=8)
        for example in map(dataset.source.__getitem__, range(len(dataset))):
            assert (example["image"] == example["image"][..., :1]).all()
            levels = np.round(example["image"][..., 0] * 16.0 / 255).astype(int)
            found.append((*levels.ravel(), example["label"]))
    digits = load_digits()
    expected = np.column_stack([digits.data.astype(int), digits.target])
    assert sorted(found) == sorted(map(tuple, expected.tolist()))


def test_digit_splits_are_stratified():
    for split, share in (("train", 6 / 8), ("validation", 1 / 8), ("test", 1 / 8)):
        dataset = open_dataset("digits", split, stored_size=8)
        labels = [dataset.source[i]["label"] for i in range(len(dataset))]
        expected = np.bincount(load_digits().target) * share
        assert np.abs(np.bincount(labels, minlength=10) - expected).max() <= 1


def test_digits_are_enlarged_smoothly():
    small = open_dataset("digits", "test", stored_size=8).source[0]["image"].astype(float)
    large = open_dataset("digits", "test", stored_size=72).source[0]["image"].astype(float)
    assert large.shape == (72, 72, 3)
    np.testing.assert_array_equal(large[4::9, 4::9], small)  # the middles of the 9x9 blocks
    assert np.abs(np.diff(large, axis=0)).max() < 100  # without the blocks' edges (of up to 255)


def test_every_image_comes_once_an_epoch_in_a_new_order(digits):
    order = batch_indices(len(digits), batch_size=64, seed=0)
    per_epoch = steps_per_epoch(digits, 64)
    assert per_epoch == 1352 // 64
    epochs = [np.concatenate([order[t] for t in range(e, e + per_epoch)]) for e in (0, per_epoch)]
    for epoch in epochs:
        assert len(set(epoch)) == per_epoch * 64
    assert (epochs[0] != epochs[1]).mean() > 0.95
    assert (batch_indices(len(digits), batch_size=64, seed=1)[per_epoch - 1] != order[0]).any()


def test_no_two_seeds_share_an_epoch(digits):
    per_epoch = steps_per_epoch(digits, 64)
    first = {
        tuple(batch_indices(len(digits), batch_size=64, seed=seed)[epoch * per_epoch])
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(first) == 16


def test_batches_hold_the_images_of_their_indices(digits):
    order = batch_indices(len(digits), batch_size=32, seed=3)
    for step, batch in enumerate(take(train_batches(digits, batch_size=32, seed=3), 3)):
        assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32
        for position, index in enumerate(order[step]):
            example = digits.source[int(index)]
            np.testing.assert_array_equal(batch["image"][position], example["image"])
            assert batch["label"][position] == example["label"]


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 40])
def test_order_is_the_same_for_any_number_of_processes(digits, parts, start):
    """Step 40 lies in the middle of the second epoch of 21 steps."""
    whole = take(train_batches(digits, batch_size=64, seed=5), 44)[start : start + 4]
    shares = [
        train_batches(digits, batch_size=64, seed=5, step=start, rows=slice(p, p + 64 // parts))
        for p in range(0, 64, 64 // parts)
    ]
    joined = [
        {key: np.concatenate([share[key] for share in step]) for key in ("image", "label")}
        for step in zip(*(take(share, 4) for share in shares), strict=True)
    ]
    assert_same(joined, whole)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_order_is_the_same_for_any_number_of_threads(digits, threads):
    expected = take(train_batches(digits, batch_size=64, seed=1), 24)
    assert_same(take(train_batches(digits, batch_size=64, seed=1, threads=threads), 24), expected)


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 8))])
def test_order_is_the_same_for_any_number_of_workers(digits, workers):
    expected = take(train_batches(digits, batch_size=64, seed=1, step=19), 5)
    stream = train_batches(digits, batch_size=64, seed=1, step=19, workers=workers)
    assert_same(take(stream, 5), expected)


@pytest.mark.parametrize("rows", [None, slice(0, 25), slice(25, 50)])
def test_evaluation_counts_every_image_once(rows):
    dataset = open_dataset("digits", "test", stored_size=8)
    batches = list(eval_batches(dataset, batch_size=50, rows=rows))
    assert len(batches) == 5  # of 219 images
    positions = np.arange(250).reshape(5, 50)[:, rows or slice(None)]
    for batch, wanted in zip(batches, positions, strict=True):
        assert batch["image"].shape == (len(wanted), 8, 8, 3)
        assert batch["mask"].dtype == np.float32
        np.testing.assert_array_equal(batch["mask"], wanted < 219)
        for position, index in enumerate(wanted):
            if index < 219:
                expected = dataset.source[int(index)]
                np.testing.assert_array_equal(batch["image"][position], expected["image"])
                assert batch["label"][position] == expected["label"]


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


@pytest.mark.parametrize("stored_size", [16, 8])
def test_raw_records_are_read_as_they_are_or_scaled(tmp_path, stored_size):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    feature = tfds.features.Tensor(shape=(16, 16, 3), dtype=np.uint8, encoding="bytes")
    write_dataset(
        tmp_path, "raw", [p.tobytes() for p in pixels], [0, 1, 2, 0, 1], image=feature, shards=2
    )
    dataset = open_dataset("raw", "train", data_dir=str(tmp_path), stored_size=stored_size)
    images = np.stack([dataset.source[i]["image"] for i in range(5)])
    assert images.shape == (5, stored_size, stored_size, 3)
    if stored_size == 16:
        np.testing.assert_array_equal(images, pixels)
    else:
        assert np.abs(images.mean((1, 2)) - pixels.mean((1, 2))).max() < 8


def grey(count=4):
    return [png(np.full((4, 4, 3), 100, np.uint8))] * count


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


def test_a_batch_larger_than_the_set_is_refused():
    test = open_dataset("digits", "test", stored_size=8)
    with pytest.raises(ValueError, match="batch of 256 is larger than the data set of 219"):
        train_batches(test, batch_size=256, seed=0)


@pytest.mark.parametrize(
    ("label", "workers"), [(-1, 0), (3, 0), pytest.param(-1, 1, marks=pytest.mark.slow)]
)
def test_a_label_outside_the_classes_names_the_record(tmp_path, label, workers):
    write_dataset(tmp_path, "bad", grey(), [0, 1, label, 2])
    dataset = open_dataset("bad", "train", data_dir=str(tmp_path), stored_size=4)
    message = rf"record 2 of bad/1.0.0 train \(2.png\) has label {label}, outside 0 to 2"
    with pytest.raises(ValueError, match=message):
        take(train_batches(dataset, batch_size=4, seed=0, workers=workers), 1)


def test_a_damaged_image_names_the_record(tmp_path):
    write_dataset(tmp_path, "bad", [*grey(2), grey()[0][:50]], [0, 1, 2])
    dataset = open_dataset("bad", "train", data_dir=str(tmp_path), stored_size=4)
    with pytest.raises(ValueError, match=r"record 2 of bad/1.0.0 train \(2.png\)"):
        list(eval_batches(dataset, batch_size=3))


def test_a_missing_shard_is_named(tmp_path):
    path = write_dataset(tmp_path, "bad", grey(), [0, 1, 2, 0], shards=2)
    (path / "bad-train.array_record-00001-of-00002").unlink()
    with pytest.raises(ValueError, match=r"00001-of-00002 is missing; copy it again"):
        open_dataset("bad", "train", data_dir=str(tmp_path))


def test_a_damaged_shard_is_noticed(tmp_path):
    path = write_dataset(tmp_path, "bad", grey(), [0, 1, 2, 0])
    shard = path / "bad-train.array_record-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[data.index(b"\x89PNG") + 20] ^= 1
    shard.write_bytes(data)
    dataset = open_dataset("bad", "train", data_dir=str(tmp_path), stored_size=4)
    with pytest.raises(ValueError, match=r"of bad/1\.0\.0 train cannot be read"):
        list(eval_batches(dataset, batch_size=4))


def test_images_without_three_channels_are_refused(tmp_path):
    feature = tfds.features.Tensor(shape=(4, 4, 4), dtype=np.uint8, encoding="bytes")
    write_dataset(tmp_path, "bad", [bytes(64)], [0], image=feature)
    with pytest.raises(ValueError, match=r"shape \(4, 4, 4\), not three channels"):
        open_dataset("bad", "train", data_dir=str(tmp_path))


def test_reading_loads_neither_tensorflow_nor_a_device():
    code = """
import sys
from alexnet_jax.data.batches import train_batches
from alexnet_jax.data.builders import make_builder
from alexnet_jax.data.sets import open_dataset
next(train_batches(open_dataset("digits", "train"), batch_size=2, seed=0))
assert "tensorflow" not in sys.modules
print("jax" in sys.modules and bool(sys.modules["jax"]._src.xla_bridge._backends))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr
