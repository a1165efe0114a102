"""An imported run is one like any other: it can be trained on, and is there whole or not at all."""

import dataclasses
import os
import socket

import pytest

from alexnet_jax.files import part_folder
from alexnet_jax.interop import imported, save_run
from alexnet_jax.runs.checkpoint import Checkpointer, CheckpointError
from alexnet_jax.runs.configuration import load_config
from alexnet_jax.runs.launch import train
from alexnet_jax.runs.workdir import load_run
from alexnet_jax.state import run_key
from alexnet_jax.step import create_train_state
from tests.tiers import slow
from tests.tiny_run import write_run

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(write_run(tmp_path_factory.mktemp("workdir") / "run"))


@pytest.mark.parametrize("schedule", [*slow("drops"), "plateau"])
def test_it_can_be_trained_on(run, tmp_path, schedule):
    config = run.config.copy_and_resolve_references()
    config.train_split, config.final_views, config.schedule.name = "train[:64]", (), schedule
    config.mesh.data = 1
    save_run(dataclasses.replace(run, config=config, step=0), tmp_path / "new")
    config = load_config(tmp_path / "new")
    config.num_epochs = 1  # one update
    train(config, tmp_path / "new")
    assert load_run(tmp_path / "new", which="last").step == 1
    assert "validation" in (tmp_path / "new" / "metrics.jsonl").read_text()


def test_its_checkpoint_is_told_from_that_of_another_run(run, tmp_path):
    for seed in (0, 3):
        config = run.config.copy_and_resolve_references()
        config.seed = seed
        save_run(dataclasses.replace(run, config=config), tmp_path / f"{seed}")
    (tmp_path / "3" / "config.json").rename(tmp_path / "0" / "config.json")
    with pytest.raises(ValueError, match=r"than its config\.json: seed was 0 there"):
        load_run(tmp_path / "0", which="last")


@pytest.mark.parametrize(
    ("noted", "message"),
    [
        ({"progress": {"schedule": {}, "validated": 0, "sums": {}}}, None),  # of earlier versions
        ({}, "checkpoint 1 in .*new does not say how far its run was .'progress'"),
        ({"progress": {"step": 1}}, "checkpoint 1 in .*new does not say how far its run was"),
    ],
)
def test_what_a_checkpoint_says_of_its_run_is_enough_or_told(run, tmp_path, noted, message):
    config = run.config.copy_and_resolve_references()
    config.train_split, config.final_views, config.mesh.data = "train[:128]", (), 1
    config.num_epochs, config.schedule.name = 1, "plateau"
    save_run(dataclasses.replace(run, config=config, step=0), tmp_path / "new")
    with Checkpointer(tmp_path / "new" / "checkpoints") as checkpoints:
        restored = checkpoints.restore(create_train_state(run.model, run_key(0)), step=0)
        metadata = {k: v for k, v in restored.metadata.items() if k != "progress"} | noted
        state = restored.state.replace(step=restored.state.step + 1)
        checkpoints.save(1, state, arrays=restored.arrays, metadata=metadata, best_metric=None)
    if message is None:
        train(config, tmp_path / "new")
        return
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "new")


def test_two_that_make_one_run_are_told(run, tmp_path, monkeypatch):
    other = type(tmp_path).rename

    def overtaken(part, workdir):
        (workdir / "checkpoints").mkdir(parents=True)
        other(part, workdir)

    monkeypatch.setattr(type(tmp_path), "rename", overtaken)
    with pytest.raises(
        ValueError, match="/run was made by another process meanwhile; give"
    ) as told:
        save_run(run, tmp_path / "run")
    assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_cannot_be_written_is_named_as_its_user_knows_it(run, tmp_path, monkeypatch):
    def full(folder):
        raise CheckpointError(f"checkpoint 42 could not be written in {folder}: File too large")

    monkeypatch.setattr(imported, "Checkpointer", full)
    with pytest.raises(CheckpointError, match=f" in {tmp_path}/new/checkpoints: File too large"):
        save_run(run, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    start = f".net.{socket.gethostname()}"
    dead, alive = f"{start}.{2**22 + 1}.part", f"{start}.{os.getppid()}.part"
    names = (dead, alive, f"{start}.{os.getpid()}.part", f"{start}.notes.part")
    for name in names:
        (tmp_path / name / "full").mkdir(parents=True)
    with part_folder(tmp_path / "net") as part:
        assert not list(part.iterdir())
        assert not (tmp_path / dead).exists()
    assert {path.name for path in tmp_path.iterdir()} == {alive, f"{start}.notes.part"}
