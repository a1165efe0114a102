"""A run is compared with ours: each of our own passes, one of another recipe does not."""

import json

import numpy as np
import pytest

from alexnet_jax.configs import digits
from alexnet_jax.runs.configuration import save_config
from experiments import check_run, harness
from tests.commands import run_command
from tests.tiny_run import write_run

REFERENCES = sorted(harness.RESULTS.glob("reference_*.json"))


def runs_of(path):
    return json.loads(path.read_text())["result"]["runs"]


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_each_of_our_runs_passes_against_the_others(path):
    runs = runs_of(path)
    assert len(runs) >= 4
    for run in runs:
        others = [other["log"] for other in runs if other is not run]
        assert check_run.compare(run["log"], others).ours, run["seed"]


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("start", "part", "factor", "shift"),
    [
        ("train", "loss", 4 / 3, 0),
        ("train", "loss", 3 / 4, 0),
        ("validation", "top1_error", 1, 0.05),
        ("test", "error", 1, 0.02),
    ],
)
def test_a_run_that_learned_less_is_told(path, start, part, factor, shift):
    """Or more: what the docstring of `check_run` says of its power, with each of our runs."""
    runs = [one["log"] for one in runs_of(path)]
    for run in runs:
        other = {
            name: value * factor + shift if name.startswith(start) and part in name else value
            for name, value in run.items()
        }
        assert not check_run.compare(other, [one for one in runs if one is not run]).ours


@pytest.mark.slow
def test_one_in_fifty_runs_like_ours_fails():
    """Drawn with the means and covariances of ours."""
    logs = [one["log"] for one in runs_of(harness.RESULTS / "reference_digits.json")]
    is_error = np.array(["error" in name for name in logs[0]])
    ours = np.array([[*log.values()] for log in logs])
    ours = np.where(is_error, ours, np.log(np.maximum(ours, 1e-12)))
    factors = (ours - ours.mean(0)) / (len(ours) - 1) ** 0.5
    drawn = np.random.default_rng(0).normal(size=(500, 9, len(ours))) @ factors + ours.mean(0)
    drawn = np.where(is_error, np.maximum(drawn, 0), np.exp(drawn))
    fails = 0
    for nine in drawn:
        run, *others = (dict(zip(logs[0], values, strict=True)) for values in nine)
        fails += not check_run.compare(run, others).ours
    assert 0.002 < fails / len(drawn) < 0.03


def test_a_new_run_of_the_recipe_is_of_the_references_recipe(tmp_path):
    """Also where fields have come since the reference was made."""
    save_config(digits.get_config(), tmp_path, resumes=False)
    reference = json.loads((harness.RESULTS / "reference_digits.json").read_text())["result"]
    ours = reference["settings"]
    assert ours.pop("momentum") == 0.9
    assert list(check_run.differences(check_run.settings(tmp_path), ours)) == []


def test_a_run_of_other_logged_updates_is_refused():
    with pytest.raises(ValueError, match="0 of the 1 logged points of ours: was it as long"):
        check_run.compare({"train loss 7": 1.0}, [{"train loss 8": 1.0}] * 3)
    logs = [one["log"] for one in runs_of(harness.RESULTS / "reference_digits.json")]
    test = {name: value for name, value in logs[0].items() if name.startswith("test")}
    with pytest.raises(ValueError, match="4 of the 84 logged points"):
        check_run.compare(test, logs[1:])


@pytest.mark.parametrize(
    ("field", "factor", "status", "told"),
    [
        ("seed", 1, 0, "one of ours"),
        ("seed", 2, 1, "NOT one of ours"),
        ("momentum", 1, 1, "is of another recipe than ours of digits: momentum 0.5, ours 0.9"),
    ],
)
def test_a_run_that_is_not_ours_ends_in_status_1(field, factor, status, told, tmp_path):
    config = digits.get_config()
    config[field] = 9 if field == "seed" else 0.5
    save_config(config, tmp_path, resumes=False)
    (first, *_) = runs_of(harness.RESULTS / "reference_digits.json")
    rows = {}
    for name, value in first["log"].items():
        split, metric, *step = name.split()
        usual = {"epoch": 1.0, "top5_error": 0.0, "learning_rate": 0.01, "images_per_second": 1.0}
        row = {"split": split, "step": int([*step, 630][0]), **usual}
        rows.setdefault((split, *step), row)[metric] = value * factor
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows.values()))
    ended = run_command("experiments.check_run", tmp_path)
    assert told in ended.stdout + ended.stderr
    assert ended.returncode == status


def test_the_reference_of_the_fewest_differences_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    mine = check_run.settings(write_run(tmp_path / "run"))
    for name, rate, dataset in (("a", 0.5, "digits"), ("b", 0.01, "digits"), ("c", 0.01, "other")):
        content = {"settings": mine | {"learning_rate": rate, "dataset": dataset}}
        content["runs"] = [{"log": {}}] * 3
        (tmp_path / f"reference_{name}.json").write_text(json.dumps({"result": content}))
    assert check_run.nearest(mine)[0] == "b"
    assert check_run.nearest(mine | {"learning_rate": 0.5})[0] == "a"
    assert check_run.nearest(mine, "a")[0] == "a"
    with pytest.raises(ValueError, match="no reference is of imagenette; those there are: a, b, c"):
        check_run.nearest(mine | {"dataset": "imagenette"})
    with pytest.raises(ValueError, match="no reference is called 'd'"):
        check_run.nearest(mine, "d")


def test_of_an_ensemble_a_member_is_asked_for(tmp_path):
    """As training leaves it: a configuration above those of the members."""
    for folder in (tmp_path, tmp_path / "seed_0", tmp_path / "seed_1"):
        folder.mkdir(exist_ok=True)
        save_config(digits.get_config(), folder, resumes=False)
    ended = run_command("experiments.check_run", tmp_path)
    assert ended.returncode == 1
    assert f"{tmp_path} holds an ensemble of 2 runs; name one of them" in ended.stderr


DAMAGED = ["", "{}", "[]", '{"result": []}', '{"result": {"runs": []}}']
DAMAGED += [
    json.dumps({"result": {"settings": {}, "runs": [run] * count}})
    for run, count in (({"seed": 0}, 3), ({"log": []}, 3), ("log", 3), ({"log": {}}, 2))
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_reference_is_named(text, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    path = tmp_path / "reference_mine.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{path} .*; restore it, or make it again"):
        check_run.reference("mine")


def test_fields_that_differ_are_named_and_seeds_are_free(tmp_path):
    mine = check_run.settings(write_run(tmp_path / "a"))
    assert "seed" not in mine
    other = mine | {"learning_rate": 0.5}
    assert list(check_run.differences(other, mine)) == ["learning_rate 0.5, ours 0.01"]
    assert not list(check_run.differences(mine, mine))


def test_runs_of_two_recipes_make_no_reference(tmp_path, monkeypatch):
    workdirs = [
        of_seed(tmp_path / f"{n}", n, momentum) for n, momentum in enumerate((0.9, 0.9, 0.5))
    ]
    with pytest.raises(ValueError, match=r"of another recipe.*momentum 0\.5"):
        check_run.record(workdirs, "mine")


def of_seed(workdir, seed, momentum=0.9):
    """A run's configuration and log, and nothing else."""
    workdir.mkdir()
    config = digits.get_config()
    config.seed, config.momentum = seed, momentum
    save_config(config, workdir, resumes=False)
    usual = {"epoch": 1.0, "top1_error": 0.2, "top5_error": 0.0, "learning_rate": 0.01}
    with (workdir / "metrics.jsonl").open("w") as log:
        for split in ("train", "validation", "test"):
            row = {"split": split, "step": 9, "loss": 0.8, "images_per_second": 1.0, **usual}
            log.write(json.dumps(row) + "\n")
    return workdir


def test_what_makes_no_reference_is_refused_and_replaces_none(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    one, two, three = workdirs = [of_seed(tmp_path / f"{n}", n) for n in range(3)]
    with pytest.raises(ValueError, match=r"--record=\.\./x is no plain name; take letters"):
        check_run.record(workdirs, "../x")
    with pytest.raises(ValueError, match="1 runs are no reference; at least three are"):
        check_run.record([one], "mine")
    with pytest.raises(ValueError, match=f"{one} is a second run of seed 0; give one of each"):
        check_run.record([one, two, one], "mine")
    log = three / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    for text, told in (
        ("", f"{three} has logged no test; let it come to its end"),
        ("".join(lines[:2]), f"{three} has logged no test"),
        ("".join(lines[1:]), f"one of {one} and {three} has no train .* 9; give runs that"),
        ("".join(lines).replace("0.8", "NaN"), f"{three} has diverged; leave it out"),
    ):
        log.write_text(text)
        with pytest.raises(ValueError, match=told):
            check_run.record(workdirs, "mine")
    assert not (tmp_path / "results").exists()
    log.write_text("".join(lines))
    check_run.record(workdirs, "mine")
    assert [run["seed"] for run in check_run.reference("mine")["runs"]] == [0, 1, 2]


def test_vital_signs_are_no_points_and_a_run_without_its_test_is_no_end(tmp_path):
    workdir = write_run(tmp_path / "a")
    with (workdir / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 42, "epoch": 2.0, "split": "vitals", "layers": {}}) + "\n")
    found = check_run.curves(workdir)
    assert not any("vitals" in name for name in found)
    with pytest.raises(ValueError, match="2 runs are no reference; at least three"):
        check_run.compare(found, [found, found])
    killed = {name: value for name, value in found.items() if not name.startswith("test")}
    with pytest.raises(ValueError, match="has no test loss, as ours have: let it come to its end"):
        check_run.compare(killed, [found] * 3)


def test_the_log_of_a_run_is_named_by_split_metric_and_step(tmp_path):
    found = check_run.curves(write_run(tmp_path / "a"))
    assert found["validation loss 42"] == 0.9
    assert found["test loss"] == 0.8
