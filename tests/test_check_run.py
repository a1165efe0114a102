"""A run is compared with ours: each of our own passes, one of another recipe does not."""

import json

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
@pytest.mark.parametrize(("split", "shift"), [("test", 0.05), ("validation", 0.2), ("train", 0.5)])
def test_a_run_that_learned_less_is_told(path, split, shift):
    run, *others = (one["log"] for one in runs_of(path))
    worse = {name: value + shift * name.startswith(split) for name, value in run.items()}
    assert not check_run.compare(worse, others).ours


def test_a_new_run_of_the_recipe_is_of_the_references_recipe(tmp_path):
    """Also where fields have come since the reference was made."""
    save_config(digits.get_config(), tmp_path, resumes=False)
    reference = json.loads((harness.RESULTS / "reference_digits.json").read_text())["result"]
    ours = reference["settings"]
    assert list(check_run.differences(check_run.settings(tmp_path), ours)) == []


def test_a_run_of_other_logged_updates_is_refused():
    with pytest.raises(ValueError, match="no logged update in common"):
        check_run.compare({"train loss 7": 1.0}, [{"train loss 8": 1.0}] * 3)


def test_of_an_ensemble_a_member_is_asked_for(tmp_path):
    """As training leaves it: a configuration above those of the members."""
    for folder in (tmp_path, tmp_path / "seed_0", tmp_path / "seed_1"):
        folder.mkdir(exist_ok=True)
        save_config(digits.get_config(), folder, resumes=False)
    ended = run_command("experiments.check_run", tmp_path)
    assert ended.returncode == 1
    assert f"{tmp_path} holds an ensemble of 2 runs; name one of them" in ended.stderr


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"result": []}', '{"result": {"runs": []}}'])
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
    workdirs = [write_run(tmp_path / name) for name in "ab"]
    config = json.loads((workdirs[1] / "config.json").read_text())
    config["momentum"] = 0.5
    del config["digest"]
    (workdirs[1] / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"of another recipe.*momentum 0\.5"):
        check_run.record(workdirs, "mine")


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
