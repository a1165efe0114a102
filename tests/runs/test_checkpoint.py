"""Checkpoints: exact on any mesh, never silently wrong, never lost."""

import contextlib
import errno
import json
import logging
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from alexnet_jax import alexnet, create_train_state, make_mesh, parallel
from alexnet_jax.runs.checkpoint import Checkpointer, CheckpointError, DamagedCheckpoint
from alexnet_jax.runs.digest import crc, digest
from alexnet_jax.runs.orbax_errors import without_orbax
from tests.commands import on_devices


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any
    key: Any


def make_state(seed=0, step=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {
        "conv1": {"kernel": normal(3, 3, 4, 8), "bias": normal(8)},
        "fc8": {"kernel": normal(64, 10), "bias": normal(10)},
    }
    velocity = optax.TraceState(jax.tree.map(lambda leaf: normal(*leaf.shape), params))
    return State(jnp.int32(step), params, (optax.EmptyState(), velocity), jax.random.key(seed))


def place(state, data, model):
    """The state on a data x model mesh: kernels split over their last axis, fc8 over its first."""
    if data * model == 1:
        return jax.device_put(state, SingleDeviceSharding(jax.devices()[0]))
    mesh = jax.make_mesh(
        (data, model), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )

    def spec(path, leaf):
        name = jax.tree_util.keystr(path)
        if "fc8" in name:
            return PartitionSpec("model") if "kernel" in name else PartitionSpec()
        return PartitionSpec(*[None] * (leaf.ndim - 1), "model") if "conv" in name else None

    shardings = jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, spec(path, leaf) or PartitionSpec()), state
    )
    return jax.device_put(state, shardings)


def abstract(state):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def bits(state):
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(state)
    ]


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(bits(left), bits(right), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


ARRAYS = {"mean": np.random.default_rng(0).normal(size=(48, 48, 3)).astype(np.float32)}
METADATA = {"config": {"preset": "paper"}, "schedule": {"drops": 1, "best": 0.25}, "names": ["a"]}


def save(checkpointer, step, state=None, metric=None, arrays=ARRAYS):
    state = make_state(step, step) if state is None else state
    checkpointer.save(step, state, arrays=arrays, metadata=METADATA, best_metric=metric)


def steps(directory):
    return sorted(int(path.name) for path in Path(directory).iterdir())


def test_everything_saved_comes_back(tmp_path):
    state = make_state(3, 7)
    with Checkpointer(tmp_path / "new" / "directory") as checkpointer:
        save(checkpointer, 7, state)
    with Checkpointer(tmp_path / "new" / "directory", read_only=True) as checkpointer:
        restored = checkpointer.restore(abstract(state))
        assert checkpointer.metadata(7) == METADATA
    assert_same(restored.state, state)
    assert (restored.metadata, restored.step) == (METADATA, 7)
    np.testing.assert_array_equal(restored.arrays["mean"], ARRAYS["mean"])
    assert jax.random.key_impl(restored.state.key) == "threefry2x32"
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored.state))


@pytest.mark.parametrize(
    "here, there",
    [((1, 2), (2, 1)), ((1, 2), (1, 1)), ((1, 1), (2, 2)), ((2, 1), (1, 2)), ((4, 2), (1, 2))],
)
def test_restores_onto_any_mesh_bit_for_bit(tmp_path, here, there):
    state = make_state(1)
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, place(state, *here))
        template = place(make_state(2), *there)
        restored = checkpointer.restore(abstract(template)).state
        assert_same(restored, state)
        for leaf, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(template), strict=True):
            assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
        save(checkpointer, 2, restored)
        assert_same(checkpointer.restore(place(state, *here)).state, state)


def test_the_train_state_moves_from_two_towers_to_two_batches_and_back(tmp_path):
    widths = {"conv_features": (8,) * 5, "fc_features": (32, 32)}
    model = alexnet("paper", num_classes=10, image_size=64, **widths)
    template = jax.eval_shape(lambda: create_train_state(model, jax.random.key(0)))
    rng = np.random.default_rng(0)
    numbers = template.replace(step=jnp.zeros(()), key=jnp.zeros(()))
    numbers = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), numbers)
    state = numbers.replace(step=jnp.int32(5), key=jax.random.key(3))
    states = [
        jax.device_put(state, parallel.shardings(template, model, mesh))
        for mesh in (make_mesh(1, 2), make_mesh(2, 1))
    ]
    assert states[0].params["conv1"]["kernel"].sharding.spec[-1] == "model"
    with Checkpointer(tmp_path) as checkpointer:
        for step, (here, there) in enumerate([states, states[::-1]]):
            save(checkpointer, step, here)
            moved = checkpointer.restore(abstract(there)).state
            assert_same(moved, state)
            for leaf, wanted in zip(jax.tree.leaves(moved), jax.tree.leaves(there), strict=True):
                assert leaf.sharding == wanted.sharding


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    state = {"w": jnp.arange(2**21, dtype=jnp.float32)}
    expected = np.asarray(state["w"]).copy()
    spoil = jax.jit(lambda s: jax.tree.map(lambda leaf: -leaf, s), donate_argnums=0)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, arrays={}, metadata={}, best_metric=None)
        for _ in range(5):
            state = spoil(state)
        restored = checkpointer.restore(state)
    np.testing.assert_array_equal(restored.state["w"], expected)


def test_keeps_the_last_and_the_best(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step is None and checkpointer.best_step is None
        for step, metric, kept, best in [
            (1, None, [1], None),
            (2, 0.5, [2], 2),
            (3, None, [2, 3], 2),
            (4, 0.5, [2, 4], 2),  # a tie keeps the earlier
            (5, float("nan"), [2, 5], 2),
            (6, 0.25, [6], 6),
            (7, 0.75, [6, 7], 6),
            (8, None, [6, 8], 6),
        ]:
            save(checkpointer, step, metric=metric)
            checkpointer.wait()
            assert steps(tmp_path) == kept
            assert (checkpointer.latest_step, checkpointer.best_step) == (step, best)
    with Checkpointer(tmp_path) as checkpointer:  # still known after a restart
        assert (checkpointer.latest_step, checkpointer.best_step) == (8, 6)
        assert_same(checkpointer.restore(make_state(), step=6).state, make_state(6, 6))
        save(checkpointer, 9, metric=0.25)
    assert steps(tmp_path) == [6, 9]


def test_a_step_is_replaced_only_by_one_with_a_metric(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 5, make_state(1))
        save(checkpointer, 5, make_state(2))
        assert_same(checkpointer.restore(make_state()).state, make_state(1))
        save(checkpointer, 5, make_state(3), metric=0.5)
        assert_same(checkpointer.restore(make_state()).state, make_state(3))
        assert checkpointer.best_step == 5
    assert [path.name for path in tmp_path.iterdir()] == ["5"]


def test_a_replacement_that_fails_leaves_what_it_was_to_replace(tmp_path):
    large = {"mean": np.random.default_rng(0).normal(size=200_000)}
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 5, make_state(1))
        checkpointer.wait()
        with file_size_limit(100_000):
            save(checkpointer, 5, make_state(2), metric=0.5, arrays=large)
            with pytest.raises(CheckpointError, match="checkpoint 5 is intact"):
                checkpointer.wait()
        assert_same(checkpointer.restore(make_state()).state, make_state(1))
    assert [path.name for path in tmp_path.iterdir()] == ["5"]


def test_killed_while_replacing_leaves_what_was_to_be_replaced(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 5, make_state(1))
    (tmp_path / "5").rename(tmp_path / "5.replaced")
    (tmp_path / "5.orbax-checkpoint-tmp").mkdir()
    with Checkpointer(tmp_path) as checkpointer:
        assert_same(checkpointer.restore(make_state()).state, make_state(1))
    shutil.copytree(tmp_path / "5", tmp_path / "5.replaced")  # killed after the commit
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step == 5
    assert [path.name for path in tmp_path.iterdir()] == ["5"]


@pytest.mark.parametrize(("keep_every", "kept"), [(None, [2, 4]), (3, [2, 3, 4])])
def test_what_a_killed_save_did_not_remove_goes_when_the_run_goes_on(tmp_path, keep_every, kept):
    metrics = {1: 0.7, 2: 0.5, 3: 0.6, 4: None}
    for step, metric in metrics.items():
        with Checkpointer(tmp_path / f"run {step}") as checkpointer:
            save(checkpointer, step, metric=metric)
        shutil.copytree(tmp_path / f"run {step}" / str(step), tmp_path / "run" / str(step))
    with Checkpointer(tmp_path / "run", keep_every=keep_every) as checkpointer:
        restored, problems = checkpointer.restore_newest(make_state())
    assert (restored.step, problems) == (4, [])
    assert steps(tmp_path / "run") == kept


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["float32", "int32", "uint8", "bfloat16", "float16", "uint32"]),
    position=st.integers(0, 59),
    bit=st.integers(0, 31),
)
def test_any_one_bit_changes_thedigest(dtype, position, bit):
    array = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype(jnp.dtype(dtype))
    changed = array.copy()
    words = changed.reshape(-1).view(f"u{array.dtype.itemsize}")
    words[position] ^= words.dtype.type(1 << bit % (8 * array.dtype.itemsize))
    assert int(digest(jnp.asarray(array))) != int(digest(jnp.asarray(changed)))


def test_the_digest_sees_order_and_sign():
    array = jnp.arange(1.0, 25.0).reshape(4, 6)
    swapped = array.at[0, 0].set(array[3, 5]).at[3, 5].set(array[0, 0])
    signs = jnp.ones(64).at[3].set(-1)
    assert int(digest(array)) != int(digest(swapped))
    assert int(digest(array)) != int(digest(-array))
    assert int(digest(signs)) != int(digest(jnp.roll(signs, 1)))


def flip_bits_until(directory, damaged, attempts=400):
    """Flips single bits spread over every file below `directory`; yields what `damaged` says."""
    rng = np.random.default_rng(0)
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    sizes = np.array([path.stat().st_size for path in files])
    for _ in range(attempts):
        path = files[rng.choice(len(files), p=sizes / sizes.sum())]
        content = path.read_bytes()
        if not content:
            continue
        spoilt = bytearray(content)
        spoilt[rng.integers(len(spoilt))] ^= 1 << rng.integers(8)
        path.write_bytes(spoilt)
        yield damaged(path)
        path.write_bytes(content)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_is_noticed_and_names_the_leaf(tmp_path):
    state = make_state(1)
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, state, metric=0.5)
        save(checkpointer, 2, state, metric=0.9)

    def attempt(path):
        with Checkpointer(tmp_path, read_only=True) as checkpointer:
            try:
                assert_same(checkpointer.restore(state, step=2).state, state)
            except CheckpointError as error:
                return str(error)
        return None

    reports = list(flip_bits_until(tmp_path / "2" / "state", attempt, attempts=25))
    noticed = [report for report in reports if report]
    assert len(noticed) >= 15  # the rest fell on bytes nobody reads; what came back was exact
    for report in noticed:
        assert report.startswith(f"checkpoint {tmp_path / '2'} is damaged: ")
        assert report.endswith("; delete that directory to use checkpoint 1")
        assert "\n" not in report
    assert any("params/fc8/kernel is not what was saved" in report for report in noticed)


def test_a_checkpoint_that_a_training_replaces_meanwhile_is_not_called_damaged(tmp_path):
    state = make_state(1)
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, state, metric=0.5)
        checkpointer.wait()
        with Checkpointer(tmp_path, read_only=True) as reader:
            shutil.rmtree(tmp_path / "1")
            with pytest.raises(CheckpointError, match=r"1 is gone: a run that trains has newer"):
                reader.restore(state, step=1)


def test_a_reader_leaves_what_a_training_is_about_to_replace(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 5)
    (tmp_path / "5").rename(tmp_path / "5.replaced")
    (tmp_path / "5.orbax-checkpoint-tmp").mkdir()  # being written
    before = sorted(tmp_path.rglob("*"))
    with (
        Checkpointer(tmp_path, read_only=True) as reader,
        pytest.raises(CheckpointError, match="has no checkpoint 5"),
    ):
        reader.restore(make_state(), step=5)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("item, fact", [("arrays", "mean"), ("manifest", "")])
def test_damage_beside_the_state_is_noticed(tmp_path, item, fact):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1)

    def attempt(path):
        with Checkpointer(tmp_path, read_only=True) as checkpointer:
            try:
                restored = checkpointer.restore(make_state())
                np.testing.assert_array_equal(restored.arrays["mean"], ARRAYS["mean"])
                assert restored.metadata == METADATA
            except CheckpointError as error:
                return str(error)
        return None

    noticed = list(filter(None, flip_bits_until(tmp_path / "1" / item, attempt, attempts=12)))
    assert len(noticed) >= 6
    assert all("is damaged" in report and "to start again" in report for report in noticed)
    assert any(fact in report for report in noticed)


def noted(item, name, **values):
    return lambda content: content[item][name].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: 5, "holds 5 where an object"),
        (lambda content: content.pop("state") and content, "has no table 'state'"),
        (lambda content: content.pop("arrays") and content, "has no table 'arrays'"),
        (lambda content: content.update(metadata=None), "has no table 'metadata'"),
        (lambda content: content.update(best_metric="x"), "has the metric 'x'"),
        (lambda content: content.update(best_metric=10**400), "has the metric 100"),
        (lambda content: content["state"].update({"params/fc8/bias": 1}), "1 of params/fc8/bias"),
        (noted("state", "params/fc8/bias", shape=10), "of params/fc8/bias"),
        (noted("state", "params/fc8/bias", shape=["10"]), "of params/fc8/bias"),
        (noted("state", "params/fc8/bias", dtype=4), "of params/fc8/bias"),
        (noted("state", "params/fc8/bias", digest=None), "of params/fc8/bias"),
        (noted("state", "key", key="zzz"), "of key"),
        (noted("arrays", "mean", dtype="zzz"), "of mean"),
        (noted("arrays", "mean", dtype="object"), "of mean"),
        (noted("arrays", "mean", shape=[-1]), "of mean"),
        (noted("arrays", "mean", shape=[10**5, 10**5, 3]), "of mean"),
    ],
)
def test_metadata_with_a_digest_of_their_own_are_looked_at(tmp_path, change, message):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1)
    path = tmp_path / "1" / "manifest" / "metadata"
    content = json.loads(json.loads(path.read_text())["content"])
    text = json.dumps(change(content) or content)
    path.write_text(json.dumps({"crc32": crc(text.encode()), "content": text}))
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        with pytest.raises(DamagedCheckpoint, match=f"1 is damaged: its metadata .*{message}") as e:
            checkpointer.restore(make_state())
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("content", ["[]", "5"])
def test_a_file_of_orbax_that_is_damaged_is_to_be_removed(tmp_path, content):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1)
    path = tmp_path / "1" / "_CHECKPOINT_METADATA"
    path.write_text(content)
    with pytest.raises(DamagedCheckpoint, match=r"a file _CHECKPOINT_METADATA in .* remove it"):
        Checkpointer(tmp_path, read_only=True)
    path.unlink()
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert_same(checkpointer.restore(make_state()).state, make_state(1, 1))


@contextlib.contextmanager
def file_size_limit(size):
    """The nearest thing to a full disk that needs no root: longer files fail with EFBIG."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_failed_write_is_one_clear_line_and_harms_nothing(tmp_path, capfd):
    large = {"mean": np.random.default_rng(0).normal(size=200_000)}
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, metric=0.5)
        save(checkpointer, 2, metric=0.75)
        checkpointer.wait()
        with file_size_limit(100_000):
            save(checkpointer, 3, metric=0.25, arrays=large)
            with pytest.raises(CheckpointError) as error:
                checkpointer.wait()
        assert re.fullmatch(
            rf"checkpoint 3 could not be written in {tmp_path}: File too large; allow larger "
            r"files \(`ulimit -f`; a checkpoint takes 1\.6 MB\) or use another --workdir; "
            "checkpoint 2 is intact",
            str(error.value),
        )
        assert steps(tmp_path) == [1, 2]  # no leftovers
        assert (checkpointer.latest_step, checkpointer.best_step) == (2, 1)
        assert_same(checkpointer.restore(make_state()).state, make_state(2, 2))
        save(checkpointer, 4, metric=0.4)  # and the next save is as good as any
        assert_same(checkpointer.restore(make_state()).state, make_state(4, 4))
        with file_size_limit(100_000):
            save(checkpointer, 5, arrays=large)
            with pytest.raises(CheckpointError, match="checkpoint 5 could not be written"):
                save(checkpointer, 6)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No room"),
            r"No room; make room there \(a checkpoint takes .* free\)",
        ),
        (OSError(errno.EDQUOT, "Quota"), r"Quota; make room there \(a checkpoint takes .* free\)"),
        (ValueError("x [os_error_code='28'] y"), "No space left on device; make room there"),
        (OSError(errno.ENOTDIR, "No folder"), "No folder; see that files and folders can be made"),
        (ValueError("of another kind"), "of another kind; see that files and folders can be made"),
    ],
)
def test_room_is_asked_for_where_there_is_none(tmp_path, monkeypatch, error, message):
    def fails(*_, **__):
        raise error

    with Checkpointer(tmp_path) as checkpointer:
        monkeypatch.setattr(checkpointer._manager, "save", fails)
        with pytest.raises(CheckpointError, match=message):
            save(checkpointer, 1)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_link_to_nowhere_and_a_file_in_place_of_a_checkpoint_are_told(tmp_path, read_only):
    with Checkpointer(tmp_path / "run") as checkpointer:
        save(checkpointer, 1)
    (tmp_path / "run" / "2").symlink_to("/nonexistent/x")
    with pytest.raises(CheckpointError, match="/2 is a link to /nonexistent/x, which is not there"):
        Checkpointer(tmp_path / "run", read_only=read_only)
    (tmp_path / "run" / "2").unlink()
    (tmp_path / "run" / "2").touch()
    with pytest.raises(CheckpointError, match=r"/2 is a file, not a folder; put the checkpoint"):
        Checkpointer(tmp_path / "run", read_only=read_only)
    (tmp_path / "run" / "2").unlink()
    (tmp_path / "run" / "2").symlink_to(tmp_path / "run" / "1")  # as good as a folder
    Checkpointer(tmp_path / "run", read_only=read_only).close()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match=r"/link is a link to nowhere, .*put the checkpoints"):
        Checkpointer(tmp_path / "link", read_only=read_only)


@pytest.mark.parametrize("name", ["[a]", "a*", "b?"])
def test_a_folder_that_orbax_takes_for_a_pattern_is_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match="in its name, which Orbax takes for a pattern"):
        Checkpointer(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_whose_name_is_not_utf8_is_refused_before_the_work(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"c\\udce9d has bytes in its name that are not UTF-8"
    ):
        Checkpointer(tmp_path / os.fsdecode(b"c\xe9d"))
    assert not list(tmp_path.iterdir())


def test_close_reports_a_failed_save_and_never_hides_another_error(tmp_path):
    large = {"mean": np.zeros(200_000) + np.random.default_rng(0).normal(size=200_000)}
    with file_size_limit(100_000):
        with (
            pytest.raises(CheckpointError, match="could not be written"),
            Checkpointer(tmp_path) as checkpointer,
        ):
            save(checkpointer, 1, arrays=large)
        with pytest.raises(KeyError) as error, Checkpointer(tmp_path) as checkpointer:
            save(checkpointer, 1, arrays=large)
            raise KeyError("what ended the run")
    assert "could not be written" in error.value.__notes__[0]


def test_a_checkpoint_half_removed_by_a_killed_save_goes_when_the_run_goes_on(tmp_path):
    for step in (1, 2):
        with Checkpointer(tmp_path / f"run {step}") as checkpointer:
            save(checkpointer, step, metric=0.5)
        shutil.copytree(tmp_path / f"run {step}" / str(step), tmp_path / "run" / str(step))
    shutil.rmtree(tmp_path / "run" / "1" / "manifest")
    with Checkpointer(tmp_path / "run") as checkpointer:
        restored, (told,) = checkpointer.restore_newest(make_state())
    assert restored.step == 2 and "1 was half removed" in told
    assert steps(tmp_path / "run") == [2]


def test_what_fails_while_closing_never_hides_what_ended_the_run(tmp_path, monkeypatch):
    def close():
        raise ValueError("a file of the save is gone")

    with pytest.raises(KeyError) as error, Checkpointer(tmp_path) as checkpointer:
        monkeypatch.setattr(checkpointer._manager, "close", close)
        raise KeyError("what ended the run")
    assert error.value.__notes__ == ["a file of the save is gone"]


def test_an_unwritable_directory_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot open .*: Not a directory; make .*--workdir"):
        Checkpointer(tmp_path / "file" / "checkpoints")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda params: params["fc8"].update(kernel=jnp.zeros((64, 7))),
            r"params/fc8/kernel is float32\[64, 10\] in the checkpoint, float32\[64, 7\] in the",
        ),
        (
            lambda params: params["fc8"].update(bias=jnp.zeros(10, jnp.bfloat16)),
            r"params/fc8/bias is float32\[10\] in the checkpoint, bfloat16\[10\] in the model",
        ),
        (
            lambda params: params.pop("conv1"),
            r"the model has no params/conv1/bias \(float32\[8\] in the checkpoint\)",
        ),
        (
            lambda params: params.update(conv6={"bias": jnp.zeros(3)}),
            r"the checkpoint has no params/conv6/bias \(float32\[3\] in the model\)",
        ),
    ],
)
def test_a_checkpoint_of_another_model_names_the_first_difference(tmp_path, change, message):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1)
        template = make_state()
        change(template.params)
        with pytest.raises(CheckpointError, match=message) as error:
            checkpointer.restore(template)
    assert str(error.value).endswith("it was saved with, or another --workdir")


def test_a_missing_checkpoint_says_what_is_there(tmp_path):
    with (
        Checkpointer(tmp_path / "none", read_only=True) as checkpointer,
        pytest.raises(CheckpointError, match=r"there is no checkpoint in .*; train first"),
    ):
        checkpointer.restore(make_state())
    assert not (tmp_path / "none").exists()
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 3)
        with pytest.raises(CheckpointError, match=r"has no checkpoint 4; there: 3"):
            checkpointer.restore(make_state(), step=4)


def test_killed_while_saving_leaves_the_last_finished_checkpoint(tmp_path):
    program = textwrap.dedent(
        """
        import sys, jax.numpy as jnp
        from alexnet_jax.runs.checkpoint import Checkpointer
        with Checkpointer(sys.argv[1]) as checkpointer:
            for step in range(1, 100_000):
                state = {"w": jnp.full(1_000_000, step), "step": jnp.int32(step)}
                checkpointer.save(step, state, arrays={}, metadata={}, best_metric=100.0 - step)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    while not list(tmp_path.glob("[2-9]")):
        time.sleep(0.01)
        assert process.poll() is None
    time.sleep(0.1)
    process.kill()
    process.wait()
    (tmp_path / "99.orbax-checkpoint-tmp").mkdir(exist_ok=True)
    with Checkpointer(tmp_path) as checkpointer:
        assert not list(tmp_path.glob("*tmp*"))
        template = {"w": jnp.zeros(1_000_000, jnp.int32), "step": jnp.int32(0)}
        restored = checkpointer.restore(template)
        assert int(restored.state["step"]) == restored.step == checkpointer.latest_step
        assert int(restored.state["w"].min()) == int(restored.state["w"].max()) == restored.step


@pytest.mark.slow
def test_two_processes_write_one_checkpoint(tmp_path):
    program = textwrap.dedent(
        """
        import sys, jax, jax.numpy as jnp, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from alexnet_jax.runs.checkpoint import Checkpointer
        directory, address, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, 2, index)
        mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        whole = np.arange(8.0, dtype=np.float32).reshape(4, 2)
        def place(array, spec):
            sharding = NamedSharding(mesh, spec)
            return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])
        state = {"split": place(whole, P("data")), "same": place(whole, P())}
        arrays = {"mean": np.ones((4, 4), np.float32)}
        with Checkpointer(directory) as checkpointer:
            for step in (1, 2, 3, 3):
                checkpointer.save(
                    step, state, arrays=arrays, metadata={"step": step}, best_metric=abs(step - 1)
                )
            restored = checkpointer.restore(state)
            assert restored.metadata == {"step": 3} and checkpointer.best_step == 1
            for name, leaf in restored.state.items():
                for shard in leaf.addressable_shards:
                    assert np.array_equal(shard.data, whole[shard.index]), name
        """
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), address, str(index)],
            env=on_devices(1),
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for process in processes:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert steps(tmp_path) == [1, 3]
    whole = np.arange(8.0, dtype=np.float32).reshape(4, 2)
    template = {"split": jnp.zeros((4, 2)), "same": jnp.zeros((4, 2))}
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        for leaf in checkpointer.restore(template).state.values():
            np.testing.assert_array_equal(leaf, whole)


def test_importing_the_package_does_not_import_orbax():
    program = "import sys, alexnet_jax; sys.exit('orbax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        (
            "future: <Future exception=ValueError('Error writing \"a\" in OCDBT database at …')>",
            False,
        ),
        (f"coro=<f() at {os.sep}lib{os.sep}orbax{os.sep}a.py>", False),
        ("Task was destroyed but it is pending!", True),
    ],
)
def test_what_threads_of_a_failed_save_say_later_is_not_shown(message, kept):
    record = logging.LogRecord("asyncio", logging.ERROR, "events.py", 1, message, (), None)
    assert without_orbax(record) is kept


def test_nor_are_errors_that_orbax_raised_in_tasks_of_its_own():
    def record(file):
        try:
            exec(compile("raise OSError(28, 'No space left on device')", file, "exec"))
        except OSError:
            message = "Task exception was never retrieved"
            where = ("asyncio", logging.ERROR, "base_events.py", 1, message, ())
            return logging.LogRecord(*where, sys.exc_info())

    assert not without_orbax(record(f"{os.sep}lib{os.sep}orbax{os.sep}path.py"))
    assert without_orbax(record(f"{os.sep}mine.py"))
