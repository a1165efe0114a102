"""Cached data sets give the very batches that the disk gives."""

import itertools
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.data import cache as cache_module
from alexnet_jax.data.batches import eval_batches, train_batches
from alexnet_jax.data.cache import cached
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.parallel import make_mesh, place_batch


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(data=2)


def open_test():
    return open_dataset("digits", "test", stored_size=8)


def assert_same(batches, expected):
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])
            assert batch[key].dtype == other[key].dtype


@pytest.mark.parametrize("on_mesh", [False, True])
@pytest.mark.parametrize("cache", ["none", "host", "device"])
def test_batches_do_not_depend_on_the_cache(cache, on_mesh, mesh):
    dataset = cached(open_test(), cache, mesh=mesh if on_mesh else None)
    for start in (0, 5):  # 219 images make 4 steps an epoch
        expected = train_batches(open_test(), batch_size=50, seed=2, step=start)
        batches = train_batches(dataset, batch_size=50, seed=2, step=start)
        assert_same(itertools.islice(batches, 5), itertools.islice(expected, 5))
    batches = eval_batches(dataset, batch_size=50)
    assert_same(batches, list(eval_batches(open_test(), batch_size=50)))


def test_device_batches_are_split_over_the_mesh(mesh):
    dataset = cached(open_test(), "device", mesh=mesh)
    batch = next(train_batches(dataset, batch_size=50, seed=0))
    expected = NamedSharding(mesh, P("data"))
    for array in batch.values():
        assert isinstance(array, jax.Array) and array.sharding.is_equivalent_to(
            expected, array.ndim
        )


def test_an_unknown_cache_names_those_there_are():
    with pytest.raises(ValueError, match="cache='gpu'; use one of none, host, device"):
        cached(open_test(), "gpu")


def test_a_set_that_does_not_fit_is_refused(monkeypatch):
    memory = SimpleNamespace(available=1.2 * 219 * 8 * 8 * 3)
    monkeypatch.setattr(cache_module.psutil, "virtual_memory", lambda: memory)
    message = (
        r"test takes 0.0 GB decoded and memory has 0.0 GB free, of which 80% may be filled; use"
    )
    with pytest.raises(ValueError, match=message):
        cached(open_test(), "host")
    memory.available *= 1.1
    cached(open_test(), "host")


@pytest.mark.parametrize("read", ["train", "eval"])
def test_placed_batches_are_the_same_on_the_devices(read, mesh):
    def batches(**more):
        if read == "train":
            return train_batches(open_test(), batch_size=50, seed=0, **more)
        return eval_batches(open_test(), batch_size=50, **more)

    placed = list(itertools.islice(batches(place=lambda batch: place_batch(batch, mesh)), 5))
    assert placed[0]["image"].sharding.is_equivalent_to(NamedSharding(mesh, P("data")), 4)
    assert_same(placed, itertools.islice(batches(), 5))


def test_batches_are_placed_ahead_in_a_thread():
    placed = []

    def place(batch):
        placed.append(threading.current_thread())
        return batch

    stream = train_batches(open_test(), batch_size=50, seed=0, place=place)
    next(stream)
    until = time.monotonic() + 10
    while len(placed) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(placed) >= 3
    assert threading.main_thread() not in placed
