"""Pickles of arrays: a damaged one is an error, and never the end of the process."""

import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from alexnet_jax.interop.pickled import load_arrays


class Told:
    """Is pickled as an array of the state that is given."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return np.ndarray((0,), np.int8).__reduce__()[0], (np.ndarray, (0,), b"b"), self.state


class ToldDtype:
    def __init__(self, name, state):
        self.name, self.state = name, state

    def __reduce__(self):
        return np.dtype, (self.name, False, True), self.state


ORDER = (3, "<", None, None, None, -1, -1, 0)


def pickled(shape, content, *, name="f4", state=ORDER):
    return pickle.dumps(Told((1, shape, ToldDtype(name, state), False, content)), protocol=2)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<f4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i2"),
        np.array(7, np.uint8),
        np.array([[True, False]]),
        np.array({"conv1": 1}, dtype=object),
    ],
    ids=lambda array: array.dtype.str,
)
def test_arrays_are_those_that_were_written(array, protocol):
    found = load_arrays(io.BytesIO(pickle.dumps(OrderedDict(a=array), protocol)))["a"]
    assert found.dtype == array.dtype.newbyteorder("=") and found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def test_scalars_too():
    found = load_arrays(io.BytesIO(pickle.dumps([np.float32(0.5), np.int64(-3)])))
    assert found == [0.5, -3]


@pytest.mark.parametrize(
    "content",
    [
        pickled((2,), b"1234"),
        pickled((-1,), b"1234"),
        pickled((2**40,), b"1234"),
        pickled((1, "2"), b"1234"),
        pickled([1], b"1234"),
        pickled((1,), b"12345678", name="O"),
        pickled((3,), [1], name="O"),
        pickled((1,), [1]),
        pickled((1,), b"1234", name="V4"),
        pickled((1,), b"1234", name="f4,f4"),
        pickled((1,), b"1234", state=(3, "x", None, None, None, -1, -1, 0)),
        pickled((1,), b"1234", state=()),
    ],
    ids=range(12),
)
def test_what_does_not_fit_is_an_error(content):
    with pytest.raises((pickle.UnpicklingError, IndexError, TypeError)):
        load_arrays(io.BytesIO(content))


def test_fields_that_a_dtype_does_not_have_are_not_looked_at():
    """NumPy's own dtype took them, and the process ended where they were wrong."""
    wrong = (3, "<", ("f4", 3), ("a",), {"a": 1}, -7, 99, 63)
    found = load_arrays(io.BytesIO(pickled((1,), b"\0\0\x80?", state=wrong)))
    assert found.dtype == "<f4" and found.tolist() == [1.0]


def test_a_number_of_an_object_takes_no_memory():
    content = pickle.dumps([1], protocol=2)
    number = pickle.BINPUT + b"\0"
    assert content.count(number) == 1
    huge = content.replace(number, pickle.LONG_BINPUT + b"\xff\xff\xff\x7f")
    with pytest.raises(pickle.UnpicklingError, match="numbers an object 2147483647"):
        load_arrays(io.BytesIO(huge))


def test_a_tower_of_tuples_as_a_key_is_refused_before_it_is_hashed():
    tower = ("a", "b")
    for _ in range(60):  # 2 ** 60 values, written out
        tower = (tower, tower)
    evil = b"\x80\x02}" + pickle.dumps(tower, 2)[2:-1] + b"K\x01s."
    with pytest.raises(pickle.UnpicklingError, match="nests tuples without end"):
        load_arrays(io.BytesIO(evil))


@pytest.mark.parametrize("protocol", range(5))
def test_what_lies_on_the_stack_is_followed_through_every_container(protocol):
    shared = (1, (2, 3))
    content = {"a": [shared, shared, {"b": None}], "c": (), "d": (0.5,) * 4, "e": [[], "x"]}
    assert load_arrays(io.BytesIO(pickle.dumps(content, protocol))) == content
