"""The paper's experiments: what they write of runs that diverged, are missing, or came late.

Each in a process of its own, as their flags have the same names, with runs that take no time.
"""

import json

import pytest

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


def test_the_nets_of_the_specialisation_are_fixed(tmp_path):
    recorded, _, errors = run("specialisation", "", tmp_path, "--variant=paper")
    assert recorded is None and "--variant is for experiments.paper.ablations" in errors


LACKS = "MISSING = lambda setting: setting['learning_rate'] == 0.002 or setting['seed'] == 2"


@pytest.mark.parametrize(
    ("code", "flags", "told"),
    [
        ("", [], ""),
        (LACKS, ["--report"], "runs are not finished"),
        *slow_rows(
            ("MISSING = lambda setting: True", ["--report"], "no finished run of relu or tanh"),
            (LACKS, [], "2 of 8 runs are not finished"),
            ("", ["--activation=relu"], "figure 1 wants tanh, too"),
        ),
    ],
    ids=["all", "some, reported", "none", "some", "one net"],
)
def test_figure_1_says_what_is_missing(code, flags, told, tmp_path):
    recorded, said, errors = run("figure1", code, tmp_path, *flags)
    assert told in said + errors, errors
    if not flags and not code:
        assert "incomplete" not in recorded[1]
    elif code == LACKS and flags:
        missing = [(one["learning_rate"], one["seed"]) for one in recorded[1]["incomplete"]]
        assert missing == [(0.002, 0)] * 2 + [(0.0005, 2)] * 2
    else:
        assert recorded is None


@pytest.mark.slow
def test_figure_1_keeps_the_runs_of_an_earlier_result_and_trains_the_others_alone(tmp_path):
    few = ("--rate=0.001", "--seed=0", "--seed=1")
    (name, first), _, errors = run("figure1", "", tmp_path, *few)
    flags = {"images": 50_000, "num_epochs": 60, "precision": "tensorfloat32"}
    content = {"environment": MACHINE | {"flags": flags}, "result": first}
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    known = "MISSING = lambda setting: setting['learning_rate'] == 0.001 and setting['seed'] < 2"
    more = ("--rate=0.001", "--rate=0.002", "--seed=0", "--seed=1", "--seed=2")
    (_, second), _, errors = run("figure1", known, tmp_path, *more)
    assert second["runs"][:4] == first["runs"], errors
    assert [(one["rate"], one["seed"]) for one in second["runs"][4:6]] == [(0.002, 0)] * 2
    content["environment"]["flags"]["num_epochs"] = 100  # of another length: trained again
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    recorded, _, errors = run("figure1", known, tmp_path, *more)
    assert recorded is None and "runs are not finished" in errors


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
