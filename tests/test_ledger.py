"""The ledger: its pages are those of the results, and its verdicts those of the intervals."""

import json
import subprocess
import sys

import pytest

from experiments import claims, harness, ledger


@pytest.mark.parametrize("template", ledger.PAGES)
def test_pages_are_those_of_the_results(template):
    assert ledger.PAGES[template].read_text() == ledger.render(template), (
        "the results or the ledger changed: run `python -m experiments.ledger`"
    )


@pytest.mark.parametrize(
    ("mean", "half", "word"),
    [
        (0.02, 0.01, "reproduced"),
        (-0.02, 0.01, "not"),
        (0.01, 0.02, "inside the spread"),
        (-0.01, 0.02, "inside the spread"),
    ],
)
def test_a_verdict_follows_from_the_interval(mean, half, word):
    assert claims.verdict(mean, half) == word


def test_what_was_not_run_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    verdicts = {row["verdict"] for row in ledger.lines()}
    assert verdicts == {"not run yet", claims.untested().verdict}


@pytest.mark.parametrize(("left_out", "told"), [([], ""), ([1, 2], "never reach it: 1, 2")])
def test_seeds_that_never_reach_the_target_are_told(left_out, told, tmp_path, monkeypatch):
    ratio = {"by_seed": [6.0]} | ({"seeds_left_out": left_out} if left_out else {})
    table = {
        "tanh_over_relu": ratio,
        "epochs_to_25_percent": {"relu": {"0": 1.0}, "tanh": {"0": 6.0}},
        "rates_tried": {"relu": [1, 2], "tanh": [1, 2]},
        "best_rates": {"relu": 1, "tanh": 1},
        "data": "cifar10",
    }
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    (tmp_path / "figure1.json").write_text(json.dumps({"result": table}))
    assert claims.figure1().ours.endswith(told)
    assert ("never" in claims.figure1().ours) is bool(left_out)


def test_the_summary_of_figure_1_names_the_seeds_that_it_leaves_out():
    """In a process of its own: its flags are those of other commands, too."""
    code = """
import json
from absl import flags
from experiments.paper import figure1
flags.FLAGS(["figure1"])
for never in ([], [1]):
    runs = [
        {"activation": name, "rate": 1, "seed": seed, "epochs_to_target": epochs}
        for name, epochs in (("relu", 2.0), ("tanh", 8.0))
        for seed in (0, 1)
    ]
    for seed in never:
        runs[2 + seed]["epochs_to_target"] = None
    print(json.dumps(figure1.summary(runs, {"relu": 1, "tanh": 1})["tanh_over_relu"]))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [
        {"by_seed": [4.0, 4.0], "mean": 4.0},
        {"by_seed": [4.0], "mean": 4.0, "seeds_left_out": [1]},
    ], ended.stderr


def test_seeds_are_paired():
    """The differences are 1, 2 and 3 points: 2 ± 4.30 / sqrt(3); the errors differ far more."""
    ours = {"seeds": [0, 1, 2], "test": {"values": [0.11, 0.22, 0.33]}}
    theirs = {"seeds": [2, 0, 1], "test": {"values": [0.30, 0.10, 0.20]}}
    mean, half = claims._difference(ours, theirs, "test", 1000)
    assert mean == pytest.approx(0.02)
    assert half == pytest.approx(0.01 * 4.30265 / 3**0.5, rel=1e-3)


def test_one_seed_is_judged_by_the_number_of_images():
    rows = [{"seeds": [0], "test": {"mean": error}} for error in (0.2, 0.1)]
    mean, half = claims._difference(*rows, "test", 1000)
    assert mean == pytest.approx(0.1)
    assert half == pytest.approx(1.96 * (0.16 / 1000 + 0.09 / 1000) ** 0.5)


def _row(seeds, **values):
    return {"seeds": seeds, **{name: {"values": found, "mean": sum(found) / len(found)}
                               for name, found in values.items()}}  # fmt: skip


def test_a_single_shared_seed_is_compared_with_itself():
    ours = _row([1], test_ten=[0.3])
    theirs = _row([0, 1, 2], test_ten=[0.1, 0.2, 0.1])
    mean, half = claims._difference(ours, theirs, "test_ten", 1000)
    assert mean == pytest.approx(0.1)
    assert half == pytest.approx(1.96 * (0.3 * 0.7 / 1000 + 0.2 * 0.8 / 1000) ** 0.5)


def test_a_gap_has_the_spread_of_both_errors():
    ours = _row([0], gap=[-0.02], test_center=[0.3], train=[0.32])
    theirs = _row([0], gap=[0.05], test_center=[0.25], train=[0.2])
    mean, half = claims._difference(ours, theirs, "gap", 1000)
    assert mean == pytest.approx(-0.07)
    shares = (0.3, 0.25, 0.32, 0.2)
    assert half == pytest.approx(1.96 * sum(e * (1 - e) / 1000 for e in shares) ** 0.5)
