"""Sweeps: every setting once, by however many processes, with the results of plain training."""

import json
import re
import subprocess
import sys

import pytest

from alexnet_jax.runs.launch import train
from alexnet_jax.runs.metrics_log import read_metrics
from experiments import harness, sweep
from tests.commands import run_command

RECIPE = """
from alexnet_jax.configs import digits

def get_config():
    config = digits.get_config()
    config.train_split, config.validation_split = "train[:128]", "train[128:192]"
    config.test_split = "test[:50]"
    config.model.conv_features, config.model.fc_features = (4, 4, 4, 4, 4), (8, 8)
    config.num_epochs = 1
    config.final_views = ("center",)
    return config

def sweep():
    for rate in (0.01, 0.02):
        for seed in (0, 1):
            yield {"learning_rate": rate, "seed": seed}

def space(trial):
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def base(recipe):
    return sweep.module_of(str(recipe)).get_config()


def start(folder, recipe, *flags):
    command = [sys.executable, "-m", "experiments.sweep", f"--workdir={folder}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, f"--config={recipe}", *flags], text=True, **pipes)


def finish(*processes):
    """What they print of the runs that they trained."""
    lines = []
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, output + errors
        lines += [line for line in output.splitlines() if "epochs" in line]
    return lines


def table(folder):
    return [json.loads(line) for line in (folder / "table.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_share_a_sweep_and_nothing_is_trained_twice(tmp_path, recipe):
    assert len(finish(start(tmp_path, recipe), start(tmp_path, recipe))) == 4
    assert finish(start(tmp_path, recipe)) == []
    rows = table(tmp_path)
    assert [(row["learning_rate"], row["seed"]) for row in rows] == [
        *[(0.01, 0), (0.01, 1)],
        *[(0.02, 0), (0.02, 1)],
    ]
    assert sum(bool(row["compiled"]) for row in rows) <= 2  # the first run of each process
    groups = json.loads((tmp_path / "sweep.json").read_text())["result"]["settings"]
    assert [group["seeds"] for group in groups] == [[0, 1], [0, 1]]
    assert (tmp_path / "sweep.png").exists()


@pytest.mark.slow
def test_an_index_trains_one_setting(tmp_path, recipe):
    (line,) = finish(start(tmp_path, recipe, "--sweep_index=3"))
    assert line.startswith("learning_rate 0.02: seed 1")
    assert len(table(tmp_path)) == 1


@pytest.mark.slow
def test_two_processes_search_one_study(tmp_path, recipe):
    workers = [start(tmp_path, recipe, "--trials=4") for _ in range(2)]
    trained = finish(*workers)
    rows = table(tmp_path)
    assert len(trained) in (4, 5)  # one may have begun as the last one ended
    assert len({row["learning_rate"] for row in rows}) >= 4
    assert all(0.001 <= row["learning_rate"] <= 0.1 for row in rows)


def test_a_search_waits_for_a_setting_of_another_process_and_counts_what_diverged(
    tmp_path, base, monkeypatch, recwarn
):
    def result(error):
        line = {"validation": {"top1_error": error}, "train": {"loss": 1.0}}
        errors = {"top1_error": error}
        shared = {"seed": 0, "seconds": 1, "compiled": 0, "train": errors}
        return {"epochs": [line], "test": {"center": errors}, **shared}

    found = iter([None, None, result(0.5), result(None), result(0.25)])
    runs = sweep.Sweep(base, tmp_path)
    monkeypatch.setattr(runs, "train", lambda settings: [next(found)])
    monkeypatch.setattr(sweep, "WAIT_SECONDS", 0)
    space = sweep.module_of(str(tmp_path / "recipe.py")).space
    settings = sweep.search(runs, space, 3, tmp_path / "study.log")
    assert len({setting["learning_rate"] for setting in settings}) == 3
    assert next(found, None) is None
    assert not [warning for warning in recwarn if "could not be cast" in str(warning.message)]


def test_two_workers_of_ray_compile_once_each(tmp_path, recipe):
    pytest.importorskip("ray", reason="Ray is not installed (make test-ray)")
    command = [sys.executable, "-m", "experiments.ray_tune", f"--workdir={tmp_path}"]
    ended = subprocess.run(
        [*command, f"--config={recipe}", "--runs_at_once=2"], text=True, capture_output=True
    )
    assert ended.returncode == 0, ended.stderr
    assert finish(start(tmp_path, recipe)) == []
    compiled = [bool(row["compiled"]) for row in table(tmp_path)]
    assert sorted(compiled) == [False, False, True, True]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--grid=lerning_rate=1"], "lerning_rate"),
        (["--grid=learning_rate"], "--grid=field=value,value"),
        (["--grid=batch_size=-1"], "batch_size=-1"),
        (["--grid=num_epochs=0.5"], "whole epochs"),
        (["--sweep_index=4"], "it is 0 to 3"),
    ],
)
def test_what_cannot_run_ends_in_one_line(tmp_path, recipe, flags, message):
    flags = [f"--workdir={tmp_path}", f"--config={recipe}", *flags]
    ended = run_command("experiments.sweep", *flags)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ") and message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.slow
def test_a_setting_ends_as_the_training_command_does(tmp_path, base):
    setting = {"learning_rate": 0.03, "seed": 5, "mesh.data": 1}
    (found,) = sweep.Sweep(base, tmp_path / "sweep").train([setting])
    train(sweep.configure(base, setting), tmp_path / "run")
    rows = {row["split"]: row for row in read_metrics(tmp_path / "run")}
    last = found["epochs"][-1]["validation"]
    assert last["loss"] == pytest.approx(rows["validation"]["loss"], rel=1e-5)
    assert found["test"]["center"]["top1_error"] == pytest.approx(rows["test"]["top1_error"])


@pytest.mark.slow
def test_another_architecture_has_programs_of_its_own(tmp_path, base, quick_compilation):
    settings = [{"model.lrn": lrn, "seed": seed} for lrn in (True, False) for seed in (0, 1)]
    results = sweep.Sweep(base, tmp_path).train(settings)
    assert [bool(result["compiled"]) for result in results] == [True, False, True, False]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"learning_rate": "abc"}, "learning_rate='abc' is a str where a float is wanted"),
        (
            {"learning_rat": 0.1},
            "unknown config field 'learning_rat': did you mean 'learning_rate'",
        ),
        ({"num_epochs": 0.5}, "num_epochs=0.5; a sweep trains whole epochs"),
        ({"model.precision": "half"}, "precision='half'; use one of float32"),
    ],
)
def test_a_setting_that_cannot_be_is_named_before_anything_is_trained(
    setting, message, tmp_path, base
):
    with pytest.raises(ValueError, match=f"setting {re.escape(repr(setting))}: {message}"):
        sweep.Sweep(base, tmp_path).train([{"seed": 1}, setting])
    assert not list(tmp_path.glob("**/*.json*"))


@pytest.mark.slow
def test_a_program_that_is_compiled_again_is_told(tmp_path, base, monkeypatch, quick_compilation):
    monkeypatch.setattr(sweep, "architecture", lambda recipe: "one for all")
    settings = [{"batch_size": 64}, {"batch_size": 32}]
    with pytest.raises(AssertionError, match="compiled again for batch_size 32"):
        sweep.Sweep(base, tmp_path).train(settings)


def test_the_spread_is_that_of_students_t():
    found = sweep.spread([0.1, 0.2, 0.3])
    assert (found["mean"], found["deviation"]) == (0.2, 0.1)
    assert found["interval"] == pytest.approx(4.30265 * 0.1 / 3**0.5, abs=1e-5)
    assert sweep.spread([0.1, None])["mean"] is None


def test_compilations_are_counted():
    with harness.compilations() as names:
        harness.jax.jit(lambda x: x * 3.25 + 1)(2.0).block_until_ready()
    assert len(names) == 1


def test_a_run_asked_for_twice_is_one_seed_and_fields_of_the_same_name_are_two_groups():
    settings = [
        {"learning_rate": 0.1, "seed": 0},
        {"learning_rate": 0.1, "seed": 0},
        {"rate_multipliers.fc8": 10, "seed": 1},
        {"decay_multipliers.fc8": 10, "seed": 1},
    ]
    rows = [
        dict.fromkeys(sweep.COLUMNS, error) | {"seed": setting["seed"]}
        for error, setting in zip((0.2, 0.2, 0.3, 0.4), settings, strict=True)
    ]
    found = sweep.summary(settings, rows)
    assert [group["seeds"] for group in found] == [[0], [1], [1]]
    assert found[0]["name"] == "learning_rate 0.1"
    assert found[0]["test_error"]["interval"] is None
    assert [group["test_error"]["mean"] for group in found] == [0.2, 0.3, 0.4]
    assert len({group["name"] for group in found}) == 3
