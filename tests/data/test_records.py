"""Records: the right pixels and labels, and one that cannot be used is named."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from alexnet_jax.data.batches import eval_batches, train_batches
from alexnet_jax.data.sets import open_dataset
from tests.data.conftest import grey, write_dataset


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


@pytest.mark.parametrize(
    ("label", "workers"), [(-1, 0), (3, 0), pytest.param(-1, 1, marks=pytest.mark.slow)]
)
def test_a_label_outside_the_classes_names_the_record(tmp_path, label, workers):
    write_dataset(tmp_path, "bad", grey(), [0, 1, label, 2])
    dataset = open_dataset("bad", "train", data_dir=str(tmp_path), stored_size=4)
    message = rf"record 2 of bad/1.0.0 train \(2.png\) has label {label}, outside 0 to 2"
    with pytest.raises(ValueError, match=message):
        next(train_batches(dataset, batch_size=4, seed=0, workers=workers))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: b"\xff\xff", r"record 1 of bad/1.0.0 train is no tf.train.Example"),
        (lambda record: b"", r"record 1 of bad/1.0.0 train has no label, or no image as bytes"),
    ],
)
def test_a_record_of_another_kind_is_named(tmp_path, monkeypatch, change, message):
    write_dataset(tmp_path, "bad", grey(2), [0, 1])
    source = open_dataset("bad", "train", data_dir=str(tmp_path), stored_size=4).source
    first, second = source._records[0], source._records[1]
    monkeypatch.setattr(source, "_records", [first, change(second)])
    assert source[0]["label"] == 0
    with pytest.raises(ValueError, match=message):
        source[1]


def test_a_damaged_image_names_the_record(tmp_path):
    write_dataset(tmp_path, "bad", [*grey(2), grey()[0][:50]], [0, 1, 2])
    dataset = open_dataset("bad", "train", data_dir=str(tmp_path), stored_size=4)
    with pytest.raises(ValueError, match=r"record 2 of bad/1.0.0 train \(2.png\)"):
        list(eval_batches(dataset, batch_size=3))


def test_a_damaged_shard_is_noticed(tmp_path):
    path = write_dataset(tmp_path, "bad", grey(), [0, 1, 2, 0])
    shard = path / "bad-train.array_record-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[data.index(b"\x89PNG") + 20] ^= 1
    shard.write_bytes(data)
    dataset = open_dataset("bad", "train", data_dir=str(tmp_path), stored_size=4)
    with pytest.raises(
        ValueError,
        match=rf"of bad/1\.0\.0 train cannot .*; {shard} is damaged: copy .* delete {path} and",
    ):
        list(eval_batches(dataset, batch_size=4))
