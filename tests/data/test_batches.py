"""Batches: each image as often as promised, in an order that nothing changes."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from alexnet_jax.data.batches import batch_indices, eval_batches, steps_per_epoch, train_batches
from alexnet_jax.data.sets import open_dataset
from tests.tiers import slow


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


@pytest.mark.parametrize("workers", [2, *slow(1, 8)])
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


def test_a_batch_larger_than_the_set_is_refused():
    test = open_dataset("digits", "test", stored_size=8)
    with pytest.raises(ValueError, match="batch of 256 is larger than the data set of 219"):
        train_batches(test, batch_size=256, seed=0)
    with pytest.raises(ValueError, match="use a batch_size of at most 219"):
        steps_per_epoch(test, 10**9)  # or the run would have no step at all


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
