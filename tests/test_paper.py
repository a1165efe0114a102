"""The paper's experiments: what they write of runs that diverged, are missing, or came late.

Each in a process of its own, as their flags have the same names, with runs that take no time.
"""

import json

import pytest
from PIL import Image

from tests.commands import run_command
from tests.tiers import slow_rows

MACHINE = {"device": "cpu", "cores": 4, "cpu": {"name": "a chip"}}  # of an earlier result
RUNS = """
import json, sys
from absl import flags
import numpy as np
from experiments import harness
from experiments.paper import {module} as experiment
from experiments.sweep import Sweep

def result(setting, sweep):
    errors = dict(top1_error=0.2, top5_error=0.1, loss=0.5)
    test = dict(center=errors, ten=errors)
    line = dict(epoch=1, train=errors, validation=errors)
    shares = [None, None] if setting in DIVERGED else [0.3, 0.4]
    return dict(seed=setting["seed"], epochs=[line], color_shares=[shares], train=errors, test=test,
                seconds=1.0, device="a")

class Late(Sweep):
    "Another process is at all runs when this one comes by; then they are there, but for some."
    def train(self, settings):
        return [None] * len(settings)
    def result(self, setting):
        return None if MISSING(setting) else result(setting, self)
    def arrays(self, setting):
        return dict(conv1=np.random.default_rng(0).normal(size=(11, 11, 3, 8)))
    def origins(self, settings):
        return []
    def pairs(self, theirs, ours, view):
        return [3, 1] if theirs["seed"] == ours["seed"] and theirs != ours else [0, 0]

DIVERGED, MISSING = [], lambda setting: False
experiment.Sweep = Late
harness.record = lambda name, result, *_, **__: print(json.dumps([name, result]))
harness.results_folder = lambda: experiment.local_path(flags.FLAGS.workdir)
flags.FLAGS(sys.argv)
"""


def run(module, code, folder, *words):
    """The last of what was recorded, name and result; all that was said; the error."""
    program = f"{RUNS.format(module=module)}\n{code}\nexperiment.main(None)"
    ended = run_command("-c", program, f"--workdir={folder}", *words)
    recorded = [line for line in ended.stdout.splitlines() if line.startswith("[")]
    return json.loads(recorded[-1]) if recorded else None, ended.stdout, ended.stderr


@pytest.mark.parametrize("module", ["lrn_cifar", "learning_rates"])
def test_runs_that_another_process_had_are_read_in_the_end(module, tmp_path):
    (name, written), _, errors = run(module, "", tmp_path)
    runs = written["runs"] if isinstance(written, dict) else written
    assert (name, len(runs)) == (module, {"lrn_cifar": 12, "learning_rates": 15}[module]), errors


def test_nets_are_compared_image_by_image(tmp_path):
    (_, written), _, _ = run("lrn_cifar", "", tmp_path, "--seed=4", "--net=18%")
    assert written["nets"]["18%"]["pairs"] == {"4": [3, 1]}
    chosen = ("--variant=paper", "--variant=no LRN", "--seed=4")
    told = "from experiments.findings_of_ablations import FIRST_DROP as told"
    code = f"{told}\nassert experiment.configuration().schedule.drops[0] == told"
    (_, written), _, errors = run("ablations", code, tmp_path, *chosen)
    paper, other = (row["pairs"] for row in written["variants"])
    assert (paper, other) == ({}, {"4": {"test_center": [3, 1], "test_ten": [3, 1]}}), errors


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--variant=no LRN"],
            "--variant is for experiments.paper.ablations; here it is the paper's",
        ),
        (["--seed=3"], "--seed=3 alone has no mean; give --seed several times"),
        (["--seed=3", "--seed=4"], "the run of --seed=4 diverged; leave it out"),
    ],
)
def test_what_an_ensemble_cannot_be_made_of_is_named(tmp_path, flags, message):
    code = """
as_ever = result
def result(setting, sweep):
    run = as_ever(setting, sweep)
    return run | dict(train=dict(top1_error=None)) if setting["seed"] == 4 else run
"""
    _, _, errors = run("ensemble", code, tmp_path, *flags)
    assert message in errors.splitlines()[-1]


@pytest.mark.slow
def test_variants_of_an_earlier_run_of_the_same_scale_stay(tmp_path):
    (name, paper), _, _ = run("ablations", "", tmp_path, "--variant=paper", "--seed=4")
    paper["runs"][0]["device"] = "another"
    content = {"environment": MACHINE, "result": paper}
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (_, written), _, errors = run("ablations", "", tmp_path, "--variant=no LRN", "--seed=4")
    assert [row["variant"] for row in written["variants"]] == ["paper", "no LRN"], errors
    assert written["runs"][0] == paper["runs"][0] and len(written["runs"]) == 2
    assert sorted({run["device"] for run in written["runs"]}) == written["devices"]
    assert "another" in written["devices"] and len(written["devices"]) == 2
    content["result"]["epochs"] += 1
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (_, written), _, _ = run("ablations", "", tmp_path, "--variant=no LRN", "--seed=4")
    assert [row["variant"] for row in written["variants"]] == ["no LRN"]


NAMES = """
for scale in ((64, 1, 12), (128, 1, 60), (128, 0.5, 60), (64, 0.5, 12)):
    flags.FLAGS.image_size, flags.FLAGS.width, flags.FLAGS.num_epochs = scale
    print(*scale, *map(experiment.ablations.result_name, ("specialisation", "ablations")))
"""


@pytest.mark.slow
def test_a_net_that_diverged_has_no_colours_and_each_width_its_file(tmp_path):
    code = NAMES + "DIVERGED = [experiment.ablations.setting('paper', 1)]"
    (found, written), said, errors = run("specialisation", code, tmp_path)
    assert found == "specialisation_64", errors  # of half the width, as the ledger reads it
    assert written["nets"]["paper"]["seeds"] == [0, 2]
    assert written["nets"]["no LRN"]["seeds"] == [0, 1, 2]
    assert written["diverged"] == ["paper, seed 1"]
    assert "left out, as they diverged: paper, seed 1" in said
    assert said.splitlines()[:4] == [
        "64 1 12 specialisation_64_width_1 ablations_64_12_epochs",
        "128 1 60 specialisation_128 ablations_128",
        "128 0.5 60 specialisation_128_width_0.5 ablations_128_width_0.5",
        "64 0.5 12 specialisation_64 ablations_64_width_0.5_12_epochs",
    ]


def test_a_split_is_compared_with_random_halves_of_the_same_kernels(tmp_path):
    code = """
as_ever = result
def result(setting, sweep):
    shares = [0.3, 0.4] if setting["seed"] else [0.35, 0.35]
    return as_ever(setting, sweep) | dict(color_shares=[shares])
"""
    asked = ("--variant=paper", "--seed=0", "--seed=1")
    (_, written), _, errors = run("specialisation", code, tmp_path, *asked)
    (net,) = written["nets"].values()
    assert net["p"] == [1, 0], errors  # of normal weights, whose halves are hardly split
    assert 0 < net["by_chance"] < 0.05
    kernels = Image.open(tmp_path / "specialisation_128_filters.png")
    assert len(kernels.getcolors(1 << 24)) > 1000  # of a blank picture few


def test_a_seed_given_twice_is_not_counted_as_two(tmp_path):
    code = "from experiments import harness\nfrom experiments.paper import ensemble\n"
    ended = run_command("-c", f"{code}harness.run(ensemble.main)", "--seed=0", "--seed=0")
    assert ended.stderr == "error: --seed=0 is given twice; leave one out\n"


def test_a_net_without_towers_to_compare_is_named(tmp_path):
    recorded, _, errors = run("specialisation", "", tmp_path, "--variant=no conv3")
    assert recorded is None and "--variant=no conv3 has no towers to compare; use paper" in errors


@pytest.mark.parametrize(
    ("missing", "flags", "told", "nets"),
    [
        ("setting['learning_rate'] == 0.002", [], "2 of 8 runs are not finished", None),
        *slow_rows(
            ("False", [], "", ["relu", "tanh"]),
            ("False", ["--activation=relu"], "figure 1 wants tanh, too", ["relu"]),
        ),
    ],
    ids=["some", "all", "one net"],
)
def test_figure_1_says_what_is_missing(missing, flags, told, nets, tmp_path):
    recorded, said, errors = run(
        "figure1", f"MISSING = lambda setting: {missing}", tmp_path, *flags
    )
    assert told in said + errors, errors
    assert (recorded and list(recorded[1]["best_rates"])) == nets


BY_RATE = """
as_ever = result
def result(setting, sweep):
    line = dict(top1_error=0.1 if setting["learning_rate"] == 0.002 else 0.2, loss=0.5)
    return as_ever(setting, sweep) | dict(epochs=[dict(train=line, validation=line)])
"""


def test_figure_1_takes_the_rate_that_is_soonest_for_the_other_seeds(tmp_path):
    (_, written), _, errors = run("figure1", BY_RATE, tmp_path)
    assert written["best_rates"] == {"relu": 0.002, "tanh": 0.002}, errors
    others = {one["rate"] for one in written["runs"] if one["seed"]}
    assert others == {0.002} and len(written["runs"]) == 2 * (4 + 2)


@pytest.mark.slow
def test_figure_1_keeps_what_is_not_asked_for_and_trains_the_rest(tmp_path):
    few = ("--rate=0.001", "--seed=0", "--seed=1")
    (name, first), _, errors = run("figure1", "", tmp_path, *few)
    flags = {"images": 50_000, "num_epochs": 60, "precision": "tensorfloat32"}
    content = {"environment": MACHINE | {"flags": flags}, "result": first}
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(content))
    gone = f"{BY_RATE}\nMISSING = lambda setting: setting['learning_rate'] == 0.001"
    more = ("--rate=0.002", "--activation=tanh", "--seed=0", "--seed=1")
    (_, second), _, errors = run("figure1", gone, tmp_path, *more)
    assert second["runs"][:4] == first["runs"], errors
    assert [(one["activation"], one["rate"], one["seed"]) for one in second["runs"][4:]] == [
        ("tanh", 0.002, 0),
        ("tanh", 0.002, 1),
    ]
    assert second["best_rates"] == {"relu": 0.001, "tanh": 0.002}
    for asked in (few, (*more, "--rate=0.001")):  # what a result holds is measured again
        recorded, _, errors = run("figure1", gone, tmp_path, *asked)
        assert recorded is None and "runs are not finished" in errors
    content["environment"]["flags"]["num_epochs"] = 100
    path.write_text(json.dumps(content))
    (_, alone), _, errors = run("figure1", gone, tmp_path, *more)  # not of another length
    assert {(one["activation"], one["rate"]) for one in alone["runs"]} == {("tanh", 0.002)}, errors


@pytest.mark.parametrize("module", ["sift_fisher", "sparse_coding"])
def test_a_baseline_without_its_extra_says_what_to_install(module, tmp_path):
    code = f"""
import sys
sys.modules["cv2"] = sys.modules["skimage"] = None  # as if they were not installed
from experiments import harness
from experiments.baselines import {module}
harness.run({module}.main)
"""
    ended = run_command("-c", code)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert "is not installed; pip install '.[baselines]'" in ended.stderr


LOSSES = """
as_ever = result
def result(setting, sweep):
    losses = {LOSSES}
    epochs = [dict(epoch=n, train=dict(loss=loss, top1_error=0.2), validation=dict(top1_error=0.2))
              for n, loss in enumerate(losses, 1)]
    return as_ever(setting, sweep) | dict(epochs=epochs)
"""


def test_updates_to_the_end_of_the_plateau_are_counted_between_epochs(tmp_path):
    by_bias = "{1.0: [1.9], 0.1: [2.3, 2.3], 0.0: [2.2, 1.9]}[setting['model.hidden_bias']]"
    code = LOSSES.replace("{LOSSES}", by_bias)
    (_, written), _, errors = run("plateau", code, tmp_path, "--seed=4")
    assert written["updates_an_epoch"] == 21, errors
    updates = {row["bias"]: row["updates"]["4"] for row in written["starts"]}
    # ln 10 to 1.9 passes 2 after 0.75 of an epoch, 2.2 to 1.9 after two thirds of the second.
    assert updates == {1.0: round(21 * 0.75), 0.1: None, 0.0: round(21 * 1.67)}


def test_an_ablation_says_in_which_epoch_a_net_left_the_plateau(tmp_path):
    code = LOSSES.replace("{LOSSES}", "[2.3, None, 1.9, 2.1] if setting['seed'] else [2.3, 2.0]")
    (_, written), _, errors = run(
        "ablations", code, tmp_path, "--variant=paper", "--seed=0", "--seed=1"
    )
    assert written["variants"][0]["left_the_plateau"] == [None, 3], errors
