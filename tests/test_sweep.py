"""Sweeps: every setting once, by however many processes, with the results of plain training."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alexnet_jax.configs import default
from alexnet_jax.runs.launch import train
from alexnet_jax.runs.metrics_log import read_metrics
from experiments import fitting, harness, search, settings, sweep, tables
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
def test_tasks_of_an_array_train_a_setting_each(tmp_path, recipe):
    lines = finish(*(start(tmp_path, recipe, f"--sweep_index={task}") for task in (3, 0)))
    found = [line.partition(": test")[0] for line in lines]
    assert found == ["learning_rate 0.02: seed 1", "learning_rate 0.01: seed 0"]
    finish(start(tmp_path, recipe, "--sweep_index=3"))  # trained already: the table has both
    assert [row["seed"] for row in table(tmp_path)] == [0, 1]


@pytest.mark.slow
def test_two_processes_search_one_study(tmp_path, recipe):
    workers = [start(tmp_path, recipe, "--trials=4") for _ in range(2)]
    trained = finish(*workers)
    rows = table(tmp_path)
    assert len(trained) in (4, 5)  # one may have begun as the last one ended
    assert len({row["learning_rate"] for row in rows}) >= 4
    assert all(0.001 <= row["learning_rate"] <= 0.1 for row in rows)


def result(error, test=None):
    errors = {"top1_error": error}
    line = {"validation": errors, "train": {"loss": 1.0}}
    shared = {"seed": 0, "seconds": 1, "compiled": 0, "train": errors}
    return {"epochs": [line], "test": {"center": errors} if test is None else test, **shared}


def test_a_search_waits_for_a_setting_of_another_process_and_counts_what_diverged(
    tmp_path, base, monkeypatch, recwarn
):
    found = iter([None, None, result(0.5), result(None), result(0.25)])
    runs = sweep.Sweep(base, tmp_path)
    monkeypatch.setattr(runs, "train", lambda settings: [next(found)])
    monkeypatch.setattr(search, "WAIT_SECONDS", 0)
    space = sweep.module_of(str(tmp_path / "recipe.py")).space
    settings = search.search(runs, space, 3, tmp_path / "study.log")
    assert len({setting["learning_rate"] for setting in settings}) == 3
    assert next(found, None) is None
    assert not [warning for warning in recwarn if "could not be cast" in str(warning.message)]


def test_a_search_counts_no_trials_of_another_space(tmp_path, base, monkeypatch, capsys):
    runs = sweep.Sweep(base, tmp_path)
    monkeypatch.setattr(runs, "train", lambda settings: [result(0.5)])

    def rates(trial):
        return {"learning_rate": trial.suggest_float("learning_rate", 0.1, 0.2)}

    def seeds(trial):
        return {"seed": np.int64(trial.suggest_int("seed", 0, 9))}

    for _ in range(2):
        found = search.search(runs, rates, 2, tmp_path / "study.log")
        assert [[*setting] for setting in found] == [["learning_rate"]] * 2
    assert not capsys.readouterr().out
    (found,) = search.search(runs, seeds, 1, tmp_path / "study.log")
    assert [*found] == ["seed"]
    assert "2 trials in" in (told := capsys.readouterr().out)
    assert told.endswith("study.log are of another space(trial) and are not counted\n")


def test_a_search_waits_for_no_lock_that_a_killed_process_left(tmp_path, base, monkeypatch):
    """Optuna breaks a lock that leads to the journal; one that leads nowhere it waits for."""
    made, symlink = [], os.symlink

    def counted(target, link, **how):
        made.append(target)
        assert len(made) < 100, "it waits"
        symlink(target, link, **how)

    monkeypatch.chdir(tmp_path)
    folder = Path("opt")
    folder.mkdir()
    symlink("opt/study.log", "opt/study.log.lock")
    monkeypatch.setattr(os, "symlink", counted)
    runs = sweep.Sweep(base, folder)
    monkeypatch.setattr(runs, "train", lambda settings: [result(0.5)])
    search.search(runs, lambda trial: {"seed": trial.number}, 1, folder / "study.log")
    assert set(made) == {str(tmp_path / "opt" / "study.log")}
    assert not (folder / "study.log.lock").is_symlink()


@pytest.mark.parametrize("text", ["no journal\n{}\n", "{}\n", "[]\n", '{"op_code": 0}\n', "null\n"])
def test_a_damaged_journal_is_named(text, tmp_path, base):
    journal = tmp_path / "study.log"
    journal.write_text(text)
    with pytest.raises(ValueError, match=rf"{journal} is damaged .*; delete it to begin"):
        search.search(sweep.Sweep(base, tmp_path), None, 1, journal)


DAMAGED = ["", "{}", "[]", "null", '{"epochs": []}', '{"epochs": [1]}', "\xff", "[" * 100_000]


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:20] or "empty")
def test_a_damaged_result_is_named_before_anything_is_trained(text, tmp_path, base, monkeypatch):
    runs = sweep.Sweep(base, tmp_path)
    monkeypatch.setattr(runs, "_train_one", lambda *_: pytest.fail("it trained"))
    name = sweep.identity(sweep.configure(base, {"seed": 2}))
    path = tmp_path / "runs" / f"{name}.json"
    path.write_text(text, encoding="latin-1")
    message = rf"^{re.escape(str(path))} .*; delete it to train that run again$"
    with pytest.raises(ValueError, match=message) as told:
        runs.train([{"seed": 1}, {"seed": 2}])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [None, b"", b"PK\3\4" + bytes(50), b"x"])
def test_damaged_arrays_are_named(content, tmp_path, base):
    path = tmp_path / "runs" / f"{sweep.identity(sweep.configure(base, {}))}.npz"
    runs = sweep.Sweep(base, tmp_path)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} is missing or damaged; delete {path.stem}.json"):
        runs.arrays({})


def test_a_quick_sweep_leaves_the_reports_of_the_others(tmp_path, base):
    assert sweep.Sweep(base, tmp_path).reports == tmp_path
    quick = sweep.Sweep(base, tmp_path, quick=True)
    assert quick.reports == quick.runs == tmp_path / "quick"
    assert quick.base.train_split == "train[:256]"


@pytest.mark.slow
def test_a_worker_of_ray_is_as_quick_as_its_command(tmp_path):
    """It knows no flags. Ray itself is not needed for that."""
    code = """
import pathlib, sys, types
sys.modules["ray"] = types.SimpleNamespace(tune=types.SimpleNamespace(Trainable=object))
from alexnet_jax.configs import digits
from experiments import ray_tune
worker = ray_tune.trainable(digits.get_config(), pathlib.Path(sys.argv[1]), True)()
worker.setup({"setting": {}})
print(worker.sweep.runs, worker.sweep.base.num_epochs)
"""
    ended = run_command("-c", code, tmp_path)
    assert ended.stdout == f"{tmp_path / 'quick'} 1.0\n", ended.stderr


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ([result(None)], "diverged     diverged     diverged"),
        ([result(0.5, {})], "validation   (error, %)"),
        ([result(0.5), result(0.5, {})], "test (error, %)"),
    ],
)
def test_a_report_says_what_diverged_and_what_had_no_test(results, told, tmp_path, base, capsys):
    runs = sweep.Sweep(base, tmp_path)
    settings = [{"learning_rate": 0.1 * (n + 1)} for n in range(len(results))]
    runs.result = dict(zip(map(repr, settings), results, strict=True)).get
    runs.result = lambda setting, found=runs.result: found(repr(setting))
    sweep.report(tmp_path, settings, runs)
    assert told in capsys.readouterr().out
    assert (tmp_path / "sweep.png").exists()


def test_a_report_of_no_run_leaves_the_table(tmp_path, base, capsys):
    (tmp_path / "table.jsonl").write_text("{}\n")
    sweep.report(tmp_path, [{"seed": 3}], sweep.Sweep(base, tmp_path))
    assert capsys.readouterr().out.startswith("0 of 1 runs are finished; other processes")
    assert (tmp_path / "table.jsonl").read_text() == "{}\n"


def test_numbers_of_numpy_are_those_of_python(base):
    base.model.lrn_k = 1.0
    offered = [
        {"seed": np.int64(3), "model.lrn_k": np.float32(2), "schedule.drops": np.arange(1, 3)}
    ]
    (setting,) = sweep.checked(offered, base)
    assert json.dumps(setting) == '{"seed": 3, "model.lrn_k": 2.0, "schedule.drops": [1, 2]}'
    settings_of = [{"model.lrn_k": 2}, {"model.lrn_k": 2.0}]
    assert len({settings.identity(settings.configure(base, one)) for one in settings_of}) == 1


@pytest.mark.parametrize(
    ("function", "line", "told"),
    [
        ("def sweep():\n    yield {'seed': rate}", 2, "NameError: name 'rate' is not defined"),
        ("def sweep():\n    return {}['a']", 2, "KeyError: 'a'"),
        ("def sweep(trial):\n    return []", 1, "TypeError: sweep() missing 1 required positional"),
        ("def sweep():\n    raise OSError('no\\nfile')", 2, "OSError: no\n"),
    ],
)
def test_a_mistake_in_a_file_is_told_by_its_line(function, line, told, recipe):
    recipe.write_text(f"{RECIPE.partition('def sweep')[0]}{function}\n")
    ended = run_command("experiments.sweep", "--workdir=w", f"--config={recipe}", "--list")
    line += RECIPE.partition("def sweep")[0].count("\n")
    assert ended.stderr.startswith(f"error: {recipe} line {line}: {told}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.01,.01,1e-3,5", [0.01, 0.01, 0.001, 5]),
        ("True,false,null,None", [True, False, None, None]),
        ("train[:10%],train[10%:]", ["train[:10%]", "train[10%:]"]),
        ("(0.6,0.85),(0.5,)", [(0.6, 0.85), (0.5,)]),
        ("((67,{'color_strength':0.0}),)", [((67, {"color_strength": 0.0}),)]),
        ("drops,constant", ["drops", "constant"]),
        ("imagenette/160px-v2,'0'", ["imagenette/160px-v2", "0"]),
        (",test", ["", "test"]),
    ],
)
def test_values_of_a_grid_are_as_python_writes_them(text, values):
    found = [setting["field"] for setting in sweep.grid([f"field={text}"])]
    assert repr(found) == repr(values)


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


def test_a_sweep_without_settings_is_told(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.partition("def sweep")[0] + "def sweep():\n    return []\n")
    for flag in ("--sweep_index=0", "--list"):
        ended = run_command(
            "experiments.sweep", f"--workdir={tmp_path}", f"--config={recipe}", flag
        )
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "error: the sweep has no setting; let its `def sweep()` yield one" in ended.stderr


IGNORED = "which a sweep does not use"


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("sweep", ["--grid=lerning_rate=1"], "lerning_rate"),
        ("sweep", ["--grid=learning_rate"], "--grid=field=value,value"),
        ("sweep", ["--grid=batch_size=-1"], "batch_size=-1"),
        ("sweep", ["--grid=seed=1", "--grid=seed=2"], "--grid has seed twice; give all its"),
        ("sweep", ["--list", "--grid=seed=1,2,1"], "settings 0 and 2 are the same run"),
        ("sweep", ["--grid=num_epochs=0.5"], "whole epochs"),
        ("sweep", ["--sweep_index=4"], "it is 0 to 3"),
        ("sweep", ["--config.init_from=runs/a"], f"init_from='runs/a', {IGNORED}"),
        ("sweep", ["--profile"], "--profile is for alexnet_jax.main"),
        ("sweep", ["--trials=1", "--list"], "--list with --trials"),
        ("sweep", ["--list", "--sweep_index=0"], "--sweep_index with --list"),
        ("sweep", ["--config=digits"], "has no `def sweep()`; give one, or --grid"),
        ("sweep", ["--grid=log_every_steps=1,2"], "log_every_steps changes nothing of what a"),
        ("ray_tune", ["--workdir="], "--workdir is missing"),
        ("ray_tune", ["--config=digits"], "has no `def sweep()`; give one"),
        ("ray_tune", ["--config.ensemble=2"], f"ensemble=2, {IGNORED}"),
    ],
)
def test_what_cannot_run_ends_in_one_line(tmp_path, recipe, command, flags, message):
    flags = [f"--workdir={tmp_path}", f"--config={recipe}", *flags]
    ended = run_command(f"experiments.{command}", *flags)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ") and message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.slow
def test_a_setting_trains_and_ends_as_the_training_command_does(tmp_path, base):
    """After several epochs, with the last state the one checkpoint to choose from."""
    base.num_epochs, base.validate_every_epochs, base.mesh.data = 3, 3.0, 1
    setting = {"learning_rate": 0.03, "seed": 5}
    (found,) = sweep.Sweep(base, tmp_path / "sweep").train([setting])
    train(sweep.configure(base, setting), tmp_path / "run")
    rows = {row["split"]: row for row in read_metrics(tmp_path / "run")}
    losses = [line["validation"]["loss"] for line in found["epochs"]]
    assert len({*losses}) == 3
    assert losses[-1] == pytest.approx(rows["validation"]["loss"], rel=1e-5)
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
        ({"init_from": "a"}, "init_from='a', which a sweep does not use; it is None"),
        ({"ensemble": 2}, "ensemble=2, which a sweep does not use; it is 1"),
        ({"augment": "host"}, "augment='host', which a sweep"),
        ({"mesh.data": 2}, "mesh.data=2, which a sweep"),
        ({"mesh.model": 2}, "mesh.model=2, which a sweep"),
        *(
            ({field: value}, f"{field} changes nothing of what a sweep trains; leave it out")
            for field, value in {
                "best_metric": "loss",
                "validate_every_epochs": 1.0,
                "keep_every_epochs": 1.0,
                "eval_batch_size": 8,
                "mesh.data": 1,
            }.items()
        ),
        ({"schedule.name": "plateau"}, "validate_every_epochs=3.0 of a plateau; a sweep"),
    ],
)
def test_a_setting_that_cannot_be_is_named_before_anything_is_trained(
    setting, message, tmp_path, base
):
    with pytest.raises(ValueError, match=f"setting {re.escape(repr(setting))}: {message}"):
        sweep.Sweep(base, tmp_path).train([{"seed": 1}, setting])
    assert not list(tmp_path.glob("**/*.json*"))


@pytest.mark.parametrize(
    ("offered", "told"),
    [
        (None, "the sweep is None; let its `def sweep()` yield dictionaries {field: value}"),
        ([["learning_rate", 0.1]], "['learning_rate', 0.1] is no setting of the sweep; let its"),
        ({"learning_rate": 0.1}, "'learning_rate' is no setting of the sweep; let its"),
        ([{1: 2}], "setting {1: 2}: unknown config field 1"),
    ],
)
def test_a_sweep_of_another_form_is_told(offered, told, base):
    with pytest.raises(ValueError, match=re.escape(told)):
        sweep.checked(offered, base)


@pytest.mark.parametrize("found", [None, 0.1, ["learning_rate", 0.1]])
def test_a_space_of_another_form_is_told(found, tmp_path, base):
    told = re.escape(f"space(trial) gave {found}; let it return a dictionary {{field: value}}")
    with pytest.raises(ValueError, match=told):
        search.search(sweep.Sweep(base, tmp_path), lambda trial: found, 1, tmp_path / "study.log")


def test_a_list_is_no_function_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "recipe.py"
    path.write_text("sweep = [{}]")
    monkeypatch.setattr(sweep, "FLAGS", {"config": None})
    monkeypatch.setattr(sweep.config_flags, "get_config_filename", lambda flag: str(path))
    with pytest.raises(ValueError, match=r"recipe.py has no `def sweep\(\)`; give one"):
        sweep.from_file("sweep()", "give one")


def test_a_plateau_may_be_a_setting(base):
    sweep.configure(base, {"schedule.name": "plateau", "validate_every_epochs": 1.0})


def test_a_run_keeps_its_name_where_nothing_of_it_changes(base, monkeypatch):
    """Fields that compute nothing, and fields that come later, with their default."""
    name = sweep.identity(base)
    assert sweep.identity(base, 0.25) != name
    for field, value in (("verify_data", True), ("eval_batch_size", 8), ("best_metric", "loss")):
        base[field] = value
        assert sweep.identity(base) == name
    base.learning_rate = 0.5
    assert sweep.identity(base) != (name := sweep.identity(base, 0.25))
    later = default.get_config()
    with later.unlocked(), base.unlocked():
        later.added = base.added = 3
    settings.usual.cache_clear()
    monkeypatch.setattr(default, "get_config", lambda: later)
    assert sweep.identity(base, 0.25) == name
    base.added = 4
    assert sweep.identity(base, 0.25) != name
    settings.usual.cache_clear()


def fitted(monkeypatch):
    """Runs take no time; the reports that each setting's run ends after."""
    shared = {"seed": 0, "seconds": 1, "train": {"top1_error": 0.5}, "test": {}}
    ends = []

    def fit(config, *, until, **_):
        lines = [
            {"train": {"loss": 1.0}, "validation": {"top1_error": error}} for error in (0.5, 0.2)
        ]
        ends.append([until(line) for line in lines])
        return shared | {"epochs": lines}, {}

    fake = SimpleNamespace(fit=fit, Programs=lambda recipe: None, digests=lambda config: {})
    monkeypatch.setattr(sweep, "fitting", fake)
    return ends


def test_a_run_says_what_made_it_and_a_report_where_that_was_elsewhere(tmp_path, base, monkeypatch):
    fitted(monkeypatch)
    runs = sweep.Sweep(base, tmp_path)
    offered = [{"seed": seed} for seed in range(4)]
    runs.train(offered[:3])
    assert runs.origins(offered) == []
    paths = [runs._path(sweep.configure(base, setting)) for setting in offered[:3]]
    content = json.loads(paths[0].read_text())
    assert content["configuration"]["train_split"] == "train[:128]"
    assert content["environment"].keys() >= {"commit", "versions", "device"}
    assert not {"configuration", "environment"} & runs.result(offered[0]).keys()
    content["environment"]["commit"] = "0123"
    paths[0].write_text(json.dumps(content))
    paths[1].write_text(json.dumps(result(0.5)))  # of an earlier version
    sweep.report(tmp_path, offered, runs)
    report = json.loads((tmp_path / "sweep.json").read_text())
    assert [one["commit"] for one in report["runs_made_with"]] == ["0123", None]
    assert report["result"]["configuration"]["train_split"] == "train[:128]"
    content["configuration"]["momentum"] = 0.5
    paths[0].write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"is a run of another momentum; delete it to train"):
        runs.result(offered[0])


def test_who_wrote_an_earlier_result_made_its_runs_only_where_their_devices_say_so():
    environment = {"device": "cpu", "cores": 4, "cpu": {"name": "a chip"}, "commit": "0123"}
    for run, commits in (
        ({"device": "a chip, 4 cores"}, ["4567", "0123"]),
        ({}, ["4567"]),  # as runs of figure 1 were that earlier versions made
        ({"device": "NVIDIA H200"}, ["4567"]),
    ):
        before = {"environment": environment, "result": {"runs": [run]}}
        found = sweep.earlier_origins(before | {"runs_made_with": [{"commit": "4567"}]})
        assert [one["commit"] for one in found] == commits
    (found,) = sweep.earlier_origins({"environment": environment, "result": {"runs": [{}]}})
    assert found["commit"] == "0123"


def test_a_run_of_other_images_of_the_same_name_is_told(tmp_path, base, monkeypatch):
    fitted(monkeypatch)
    runs = sweep.Sweep(base, tmp_path)
    runs.train([{}])
    monkeypatch.setattr(sweep.fitting, "digests", lambda config: {"train": "others"})
    with pytest.raises(ValueError, match=r"is a run of other images than digits has now; give"):
        runs.train([{}])

    def gone(config):
        raise ValueError("data set 'digits' is not prepared")

    monkeypatch.setattr(sweep.fitting, "digests", gone)  # a finished run wants none
    assert runs.train([{}])[0]


def test_the_images_of_a_recipe_are_those_of_its_splits(base):
    found = fitting.digests(base)
    assert [*found] == ["train", "validation", "test"] and len({*found.values()}) == 3
    base.test_split = ""
    assert fitting.digests(base) == {name: found[name] for name in ("train", "validation")}


def test_a_target_ends_runs_and_gives_them_names_of_their_own(tmp_path, base, monkeypatch):
    ends = fitted(monkeypatch)
    sweep.Sweep(base, tmp_path).train([{}])
    sweep.Sweep(base, tmp_path, target=0.25).train([{}])
    assert ends == [[False, False], [False, True]]


def test_results_are_those_of_all_or_say_what_is_missing(tmp_path, base, monkeypatch, capsys):
    """A run that another process had when this one came by is there in the end."""
    fitted(monkeypatch)
    runs, other = sweep.Sweep(base, tmp_path), sweep.Sweep(base, tmp_path)
    offered = [{"seed": 0}, {"seed": 1}]
    with sweep.locked(runs.runs, f".{runs._path(sweep.configure(base, {'seed': 1})).stem}.lock"):
        assert [bool(one) for one in runs.train(offered)] == [True, False]
    with pytest.raises(ValueError, match=r'1 of 2 runs are not finished in .*: {"seed": 1}; where'):
        runs.results(offered)
    assert [bool(one) for one in runs.results(offered, partly=True)] == [True, False]
    assert "1 of 2 runs are not finished" in capsys.readouterr().out
    other.train(offered)
    assert all(runs.results(offered))


@pytest.mark.slow
def test_a_program_that_is_compiled_again_is_told(tmp_path, base, monkeypatch, quick_compilation):
    monkeypatch.setattr(sweep, "architecture", lambda recipe: "one for all")
    settings = [{"batch_size": 64}, {"batch_size": 32}]
    with pytest.raises(AssertionError, match="compiled again for batch_size 32"):
        sweep.Sweep(base, tmp_path).train(settings)


def test_the_spread_is_that_of_students_t():
    found = tables.spread([0.1, 0.2, 0.3])
    assert (found["mean"], found["deviation"]) == (0.2, 0.1)
    assert found["interval"] == pytest.approx(4.30265 * 0.1 / 3**0.5, abs=1e-5)
    assert tables.spread([0.1, None])["mean"] is None


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
