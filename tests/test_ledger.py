"""The ledger: its pages are those of the results, and its verdicts those of the intervals."""

import json

import pytest

from experiments import errors_table, harness, ledger
from experiments.findings_of_ablations import ABLATIONS
from experiments.found import IMAGENET, untested
from experiments.verdicts import (
    CUT_SHORT,
    MEANINGS,
    NOT,
    NOT_RUN,
    NOTHING,
    OF_ONE_RUN,
    PARTLY,
    REPRODUCED,
    SPREAD,
    UNTESTED,
    Errors,
    judge,
    sooner,
    verdict,
)
from tests.commands import run_command


@pytest.mark.parametrize("template", ledger.PAGES)
def test_pages_are_those_of_the_results(template):
    assert ledger.PAGES[template].read_text() == ledger.render(template), (
        "the results or the ledger changed: run `python -m experiments.ledger`"
    )


@pytest.mark.parametrize(
    ("mean", "half", "seeds", "word"),
    [
        (0.02, 0.01, 2, "reproduced"),
        (-0.02, 0.01, 2, "not"),
        (0.01, 0.02, 2, "inside the spread"),
        (-0.01, 0.02, 2, "inside the spread"),
        (0.02, 0.01, 1, "one run: for it"),
        (-0.02, 0.01, 1, "one run: against it"),
        (0.01, 0.02, 1, "inside the spread"),
    ],
)
def test_a_verdict_follows_from_the_interval_and_the_seeds(mean, half, seeds, word):
    assert verdict(mean, half, seeds) == word


def test_the_legend_defines_every_verdict():
    words = {REPRODUCED, PARTLY, NOT, SPREAD, NOTHING, NOT_RUN, UNTESTED}
    assert words <= MEANINGS.keys()
    qualified = [*OF_ONE_RUN.values(), *CUT_SHORT.values()]
    for word in qualified:
        why, of = word.split(": ")
        assert any(key.startswith(f"{why}: ") and of in key for key in MEANINGS)
    of_rows = {row["verdict"].removesuffix(f": {IMAGENET}") for row in ledger.lines()}
    assert of_rows <= words | {*qualified}


def test_what_was_not_run_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    verdicts = {row["verdict"] for row in ledger.lines()}
    assert verdicts == {"not run yet", untested().verdict}


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
    ended = run_command("-c", code)
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [
        {"by_seed": [4.0, 4.0], "mean": 4.0},
        {"by_seed": [4.0], "mean": 4.0, "seeds_left_out": [1]},
    ], ended.stderr


def test_new_runs_join_every_table_of_ablations():
    """With the flags of its line in the ledger, each comes out of its own runs as it stands."""
    code = """
import json
from absl import flags
from experiments import harness
from experiments.findings_of_ablations import ABLATIONS
from experiments.paper import ablations
for name in ABLATIONS:
    table = harness.recorded(name)["result"]
    names = dict(image_size="image_size", width="width", epochs="num_epochs", precision="precision")
    flags.FLAGS(["ablations", *(f"--{flag}={table[field]}" for field, flag in names.items())])
    before = ablations.earlier(harness.recorded(ablations.result_name("ablations")))["result"]
    pairs = ablations.joined_pairs(before["variants"], before["runs"], {})
    again = json.loads(json.dumps(ablations.summary(before["runs"], pairs)))
    print(json.dumps(before == table == again))
"""
    ended = run_command("-c", code)
    assert json.loads(f"[{','.join(ended.stdout.split())}]") == [True] * len(ABLATIONS), (
        ended.stderr
    )


def test_a_table_joins_new_runs_to_those_of_an_earlier_result():
    """Rows are made of all runs; pairs are kept where neither of their two runs is made anew."""
    code = """
import json
from absl import flags
from experiments import harness
from experiments.paper import ablations
flags.FLAGS(["ablations", "--image_size=64", "--width=0.5"])
before = ablations.earlier(harness.recorded(ablations.result_name("ablations")))["result"]
new = [before["runs"][0] | {"seed": 1}, before["runs"][0] | {"seed": 9}]  # of the paper's net
for now in ([], new):
    kept = ablations.untouched_runs(before["runs"], now, ("variant", "seed"))
    pairs = ablations.joined_pairs(before["variants"], kept, {})
    result = json.loads(json.dumps(ablations.summary(now + kept, pairs)))
    rows = {row["variant"]: row for row in result["variants"]}
    print(json.dumps([
        result == before, rows["paper"]["seeds"], rows["paper"]["test_ten"]["values"],
        sorted(rows["no LRN"]["pairs"]),
    ]))
flags.FLAGS(["ablations", "--image_size=64", "--width=0.5", "--num_epochs=50"])
print(json.dumps(ablations.earlier({"result": before})))
"""
    ended = run_command("-c", code)
    same, joined, other = (json.loads(line) for line in ended.stdout.splitlines())
    assert same[0], ended.stderr
    seeds, errors, paired = same[1:]
    assert joined[1:] == [
        [*seeds, 9],
        [errors[0], errors[0], *errors[2:], errors[0]],
        [seed for seed in paired if seed != "1"],
    ]
    assert other == {}


def test_the_cifar_pairs_join_new_seeds_to_an_earlier_result():
    code = """
import json
from absl import flags
from experiments import harness
from experiments.paper import lrn_cifar
flags.FLAGS(["lrn_cifar", "--num_epochs=12"])
before = lrn_cifar.earlier(harness.recorded("lrn_cifar_18pct"))["result"]
for new in ([], [before["runs"][0] | {"seed": 5}], [before["runs"][0]]):
    kept = lrn_cifar.untouched_runs(before["runs"], new, lrn_cifar.CHOICE)
    pairs = lrn_cifar.joined_pairs(before["nets"], kept, {})
    net = json.loads(json.dumps(lrn_cifar.summary(kept + new, pairs)))["nets"]["18%"]
    print(json.dumps([net, before["nets"]["18%"]]))
"""
    ended = run_command("-c", code)
    (same, before), (more, _), (again, _) = map(json.loads, ended.stdout.splitlines())
    assert same == before, ended.stderr
    assert more == before | {"with_norm": before["with_norm"] | {"5": before["with_norm"]["0"]}}
    assert again == before | {"pairs": {}}


def _half(*errors, images=1000, differences=()):
    """Half the width, by hand: of the images, and of three differences."""
    of_images = sum(1.96**2 * e * (1 - e) / images for e in errors)
    mean = sum(differences) / 3
    return (of_images + 4.30265**2 * sum((d - mean) ** 2 for d in differences) / 2 / 3) ** 0.5


def _told(mean, half):
    return f"{100 * mean:+.2f} ± {100 * half:.2f} points"


def test_an_interval_holds_the_paired_seeds_and_the_shared_images():
    """The differences are 1, 2 and 3 points; the errors themselves differ far more."""
    found = judge(Errors({2: 0.30, 0: 0.10, 1: 0.20}, {0: 0.11, 1: 0.22, 2: 0.33}, 1000))
    half = _half(0.2, 0.22, differences=(0.01, 0.02, 0.03))
    assert found.text.startswith(_told(0.02, half))
    assert found.verdict == "inside the spread"  # the seeds alone would not hold nought: 2 ± 2.48


def test_seeds_that_agree_by_accident_leave_the_sampling_of_the_images():
    found = judge(Errors({0: 0.2, 1: 0.2}, {0: 0.21, 1: 0.21}, 1000))
    assert found.text.startswith(_told(0.01, _half(0.2, 0.21)))
    assert found.verdict == "inside the spread"


def test_a_single_shared_seed_is_judged_by_its_images_and_the_word_is_capped():
    found = judge(Errors({0: 0.1, 1: 0.2, 2: 0.1}, {1: 0.3}, 1000))
    assert found.text.startswith(_told(0.1, _half(0.2, 0.3)))
    assert (found.verdict, found.seeds) == ("one run: for it", 1)


def test_a_gap_has_the_sampling_of_both_errors():
    test, train = Errors({0: 0.25}, {0: 0.3}, 1000), Errors({0: 0.2}, {0: 0.32}, 4000, sign=-1)
    half = (_half(0.25, 0.3) ** 2 + _half(0.2, 0.32, images=4000) ** 2) ** 0.5
    assert judge(test, train).text == _told(-0.07, half) + " (5.00 → -2.00%)"


@pytest.mark.parametrize(
    ("fast", "slow", "word"),
    [
        ([1.0, 2.0], [6.0, 10.0], "reproduced"),
        ([1.0, 2.0], [6.0, None], "reproduced"),
        ([1.0, 2.0], [3.0, 4.0], "partly"),
        ([1.0, 2.0], [None, None], "partly"),
        ([1.0, 2.0], [30.0, 1.0], "not"),
        ([1.0, None], [30.0, 1.0], "not"),
        ([None], [None], "nothing to compare"),
        ([], [3.0], "nothing to compare"),
        ([1.0, None], [6.0, None], "one run: for it"),
    ],
)
def test_sooner_is_with_every_seed(fast, slow, word):
    assert sooner(dict(enumerate(fast)), dict(enumerate(slow)), 5).verdict == word


def test_a_ratio_of_several_seeds_has_their_interval():
    fast, slow = {0: 1.0, 1: 1.0, 2: 1.0}, {0: 3.0, 1: 4.0, 2: 5.0}
    assert sooner(fast, slow, 5).text == "4.0 ± 2.5 times as many epochs"  # 4.303 / 3 ** 0.5
    assert sooner({0: 1.0}, slow, 5).text == "3.0 times as many epochs"


def test_overfitting_is_judged_by_the_gap_and_the_row_says_so():
    rows = {row["claim"]: row["ours"] for row in ledger.lines()}
    claims = [claim for claim in rows if "overfit" in claim]
    assert len(claims) == 3
    assert all(rows[claim].startswith("gap from training to test error") for claim in claims)


def test_the_table_of_errors_is_that_of_the_results(tmp_path, monkeypatch):
    stored = {row.method: row for row in errors_table.rows()}
    assert stored["5 CNNs"].top1 == "23.21" and stored["Sparse coding"].top5 == "2.73"
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    assert errors_table.rows() == []
    means = [
        {"nets": 1, "top1_error": [0.2, 0.4], "top5_error": [0.1, 0.2]},
        {"nets": 2, "top1_error": [0.25], "top5_error": [0.125]},
    ]
    views = {"ten": {"means": means}}
    table = {"image_size": 64, "epochs": 60, "seeds": [3, 4], "views": views}
    (tmp_path / "ensemble.json").write_text(json.dumps({"result": table}))
    one, both = errors_table.rows()
    assert one == ("1 CNN", "30.00", "15.00", "64 pixels, 60 epochs, the mean of 2 seeds")
    assert both == ("2 CNNs", "25.00", "12.50", "64 pixels, 60 epochs")
