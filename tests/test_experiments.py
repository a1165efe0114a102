"""The experiments: what they compute from their runs."""

import errno
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from alexnet_jax.configs import digits
from alexnet_jax.runs.recipe import Recipe
from alexnet_jax.scores import METRICS
from experiments import fitting, harness, provenance
from experiments.sweep import Sweep
from tests.commands import run_command


def test_epochs_to_the_target_lie_between_two_epochs():
    assert harness.epochs_to([0.5, 0.3, 0.2], 0.25) == pytest.approx(2.5)
    assert harness.epochs_to([0.25], 0.25) == 1
    assert harness.epochs_to([0.5, None, 0.3], 0.25) is None
    assert harness.epochs_to([2.2, 1.8], 2.0, start=2.3) == pytest.approx(1.5)
    assert harness.epochs_to([1.8], 2.0, start=2.4) == pytest.approx(2 / 3, abs=0.01)


def test_contenders_take_turns_and_first_turns_are_dropped():
    calls = []
    contenders = {name: partial(calls.append, name) for name in "ab"}
    seconds = harness.interleaved(contenders, turns=2, dropped=1)
    assert "".join(calls) == "baabba"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_an_argument_that_no_experiment_takes_is_refused():
    done = run_command("experiments.ledger", "now")
    assert done.returncode == 1
    assert "unexpected argument 'now'; flags are written --name=value" in done.stderr


def test_a_record_holds_the_result_and_the_machine(tmp_path):
    harness.record("name", harness.rounded({"x": 1 / 3, "y": float("nan")}), folder=tmp_path)
    content = json.loads((tmp_path / "name.json").read_text())
    assert content["result"] == {"x": 0.33333, "y": None}
    assert {"device", "cores", "cpu", "versions", "command"} <= set(content["environment"])


def test_a_record_names_no_folder_of_the_machine(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "--workdir=/home/me/runs", "/data/y", "--a=b/c", "--n=1"])
    command = provenance.environment()["command"]
    assert command.endswith("--workdir=runs y --a=b/c --n=1")


def tiny(**fields):
    config = digits.get_config()
    config.train_split, config.validation_split = "train[:128]", "train[128:192]"
    config.test_split = "test[:50]"
    config.stored_size, config.model.image_size = 72, 64
    config.model.conv_features, config.model.fc_features = (4, 4, 4, 4, 4), (8, 8)
    config.num_epochs = 1
    config.update_from_flattened_dict(fields)
    return config


def test_fit_trains_and_tests_on_what_lies_on_the_device(quick_compilation):
    """And what diverged has no errors."""
    programs, said = fitting.Programs(Recipe(tiny())), []
    result, arrays = fitting.fit(tiny(), programs=programs, say=said.append)
    assert result["test"]["center"]["of"] == len(arrays["log_probs_center"]) == 50
    assert result["epochs"][0]["train"]["loss"] == pytest.approx(np.log(10), abs=0.3)
    assert "seed 0: test " in said[0]

    diverging = tiny(learning_rate=1e12, num_epochs=3.0)
    result, _ = fitting.fit(diverging, programs=programs, say=said.append)
    errors = [result["epochs"][-1]["validation"], result["train"], result["test"]["center"]]
    assert [one["top1_error"] for one in errors] == [None] * 3
    assert result["test"]["center"]["top5_error"] is None
    assert len(result["epochs"]) < 3
    assert "seed 0: diverged, " in said[1]


def test_pairs_are_the_images_that_one_run_alone_got_wrong(tmp_path, monkeypatch):
    wrong = {0.01: [0, 1], 0.02: [1, 2, 3]}  # by learning rate
    sweep = Sweep(tiny(), tmp_path)

    def arrays(setting):
        classes = np.arange(5)
        classes[wrong[setting["learning_rate"]]] += 1
        return {"log_probs_ten": np.log(np.eye(10)[classes] * 0.8 + 0.02).astype(np.float16)}

    monkeypatch.setattr(sweep, "arrays", arrays)
    monkeypatch.setattr(fitting, "on_device", lambda config, name: {"label": np.arange(5)})
    theirs, ours = ({"learning_rate": rate, "seed": 0} for rate in wrong)
    assert sweep.pairs(theirs, ours, "ten") == [1, 2]


@pytest.mark.parametrize("verify", [False, True])
def test_fit_compares_data_with_their_digests_where_asked(verify, monkeypatch):
    def opened(*_, **how):
        raise ValueError(f"verify={how['verify']}")

    monkeypatch.setattr(fitting, "open_dataset", opened)
    config = tiny(train_split="train[:5]", verify_data=verify)
    with pytest.raises(ValueError, match=f"verify={verify}"):
        fitting.fit(config, programs=fitting.Programs(Recipe(tiny())))


@pytest.mark.parametrize("test_split", ["", None, "test[:50]"])
def test_fit_trains_one_tower_of_odd_width_without_a_test(test_split, monkeypatch):
    """And ends when the schedule says so."""
    fields = {"preset": "one_gpu", "model.conv_features": (3, 4, 4, 4, 4)}
    plateau = {"schedule.name": "plateau", "schedule.patience": 1, "schedule.max_drops": 0}
    config = tiny(num_epochs=5.0, test_split=test_split, **fields, **plateau)
    programs = fitting.Programs(Recipe(config))
    monkeypatch.setattr(programs, "create", lambda key: SimpleNamespace(params=_conv1(3)))
    monkeypatch.setattr(programs, "train", lambda state, *_: (state, _errors(0.5)))
    monkeypatch.setattr(programs, "evaluate", lambda *_: _errors(0.5))
    said = []
    result, arrays = fitting.fit(
        config, programs=programs, views=() if test_split else ("center",), say=said.append
    )
    assert (result["test"], result["images"]["test"], list(arrays)) == ({}, 0, ["conv1"])
    assert [len(shares) for shares in result["color_shares"]] == [1, 1]
    assert "seed 0: no test, 2 epochs" in said[0]


def _conv1(kernels):
    return {"conv1": {"kernel": np.ones((11, 11, 3, kernels), np.float32)}}


def _errors(error):
    return dict.fromkeys(METRICS, error)


@pytest.mark.parametrize("test_split", ["", None])
def test_a_shortened_recipe_without_a_test_has_none(test_split):
    assert fitting.shortened(tiny(test_split=test_split)).test_split == test_split


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_no_error(bad):
    log_probs = np.log(np.full((3, 10), 0.1, np.float32))
    assert fitting._errors(log_probs, np.arange(3))["of"] == 3
    log_probs[1, 4] = bad
    assert set(fitting._errors(log_probs, np.arange(3)).values()) == {None, 3}


def test_ties_are_scored_as_the_project_scores_them():
    """Of classes all alike a tenth is the first and half are among five; else errors are counts."""
    labels = np.arange(10)
    alike = np.log(np.full((10, 10), 0.1, np.float32))
    found = fitting._errors(alike, labels)
    assert found == pytest.approx({"top1_error": 0.9, "top5_error": 0.5, "wrong": 9, "of": 10})
    half = alike.copy()
    half[0, :2] += 1
    assert fitting._errors(half, labels)["wrong"] == pytest.approx(0.5 + 9 * 0.9)
    clear = np.eye(10, dtype=np.float32)[[0, 1, 2, 3, 4, 5, 6, 7, 9, 9]]
    found = fitting._errors(clear, labels)
    assert (found["wrong"], type(found["wrong"]), found["top1_error"]) == (1, int, 0.1)


def test_an_ensemble_is_scored_for_every_number_of_its_nets():
    """Ties as the project scores them; of the pairs an image counts where a net alone differs."""
    code = """
import json
import numpy as np
from experiments.paper import ensemble
right = np.array([  # probability of the right class, by net and image
    [0.8, 0.4, 0.4, 0.1],
    [0.7, 0.7, 0.4, 0.6],
    [0.9, 0.9, 0.4, 0.4],
])
nets = np.log(np.stack([right, 1 - right], -1)).astype(np.float32)
print(json.dumps(ensemble.compared(nets, np.zeros(4, int))))
alike = np.full((1, 10, 10), np.log(0.1)).astype(np.float16).astype(np.float32)
print(json.dumps(ensemble.compared(alike, np.arange(10))["means"]))
"""
    ended = run_command("-c", code)
    assert not ended.returncode, ended.stderr
    found, tied = map(json.loads, ended.stdout.splitlines())
    assert [row["nets"] for row in found["means"]] == [1, 2, 3]
    # Of the second image the first net and the second make 0.55, and so on.
    errors = [[0.75, 0.25, 0.5], [0.5, 0.5, 0.375], [0.5]]
    assert [row["top1_error"] for row in found["means"]] == errors
    assert {len(row["loss"]) for row in found["means"][:2]} == {3}
    last = -np.log([0.8, 2 / 3, 0.4, 1.1 / 3]).mean()
    assert found["means"][2]["loss"] == pytest.approx([last], abs=1e-6)
    # The first net alone errs at the second image, the second net alone is right at the last.
    assert found["pairs"] == pytest.approx([1 / 3, 1 / 3])
    assert tied[0]["top1_error"] == [pytest.approx(0.9)] and tied[0]["top5_error"] == [0.5]


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    """And nothing is left of it."""

    class Full:
        def savefig(self, *_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"name\.png"):
        harness.record("name", {}, Full(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["name.json"]


def test_another_version_that_is_none_or_fails_is_told(tmp_path):
    ended = run_command("experiments.speed.versions", f"--other={tmp_path}")
    assert f"{tmp_path} is no checkout of this library; give --other=" in ended.stderr
    (tmp_path / "alexnet_jax").mkdir()
    (tmp_path / "alexnet_jax" / "__init__.py").touch()
    (tmp_path / "alexnet_jax" / "main.py").write_text("raise SystemExit('it cannot')")
    ended = run_command("experiments.speed.versions", f"--other={tmp_path}")
    assert ended.stderr == f"error: {tmp_path} fails: it cannot\n"
