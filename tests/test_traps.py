"""The traps' table names code and tests that are there."""

import ast
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax import alexnet, ops
from alexnet_jax.augment import view_offsets
from alexnet_jax.configs import imagenet2012_original
from alexnet_jax.models.layer_table import layer_table
from alexnet_jax.schedules import PAPER_DROPS
from alexnet_jax.scores import image_scores
from experiments.traps import TRAPS

ROOT = Path(__file__).parents[1]


def names_in(path):
    """Functions, classes and variables of a module."""
    names = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                names.add(target.id)
    return names


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.trap[:40])
def test_code_and_test_of_a_trap_are_there(trap):
    path, _, name = trap.code.partition(":")
    assert name in names_in(path)
    path, _, name = trap.test.partition("::")
    assert name in names_in(path)
    assert trap.choice


def effect(start):
    """Of the trap that begins so."""
    (found,) = (trap.effect for trap in TRAPS if trap.trap.startswith(start))
    return found


def test_effects_on_sizes_are_computed():
    rows = {row.name: row for row in layer_table(alexnet())}
    neurons = rows["conv1"].neurons
    assert f"{neurons - 253_440:,} neurons" in effect("The paper's caption")
    inputs, units = 6 * 6 * 256, rows["fc6"].neurons
    more = (7 * 7 * 256 - inputs) * units
    assert f"{more / 1e6:.1f} million parameters more" in effect("`SAME` padding")
    places = (rows["conv1"].output[0] / rows["pool1"].output[0]) ** 2
    assert f"{places:.1f} times fewer places" in effect("What stands between conv1")
    (whole, one) = (
        sum(row.parameters for row in layer_table(alexnet(preset)))
        for preset in ("paper", "one_gpu")
    )
    text = f"{(whole - one) / 1e6:.2f} million parameters fewer, of {whole / 1e6:.2f} million"
    assert text == effect("The one-GPU net")
    margin = int(view_offsets(256 - 224).max())
    assert f"{2 * (margin + 1) ** 2:,} variants" in effect("Training crops")


def test_effects_on_values_are_computed():
    rows = np.arange(6 * 6 * 256).reshape(6, 6, 256)
    by_tower = np.concatenate([rows[..., :128].ravel(), rows[..., 128:].ravel()])
    moved = (by_tower != rows.ravel()).sum()
    assert f"{moved:,} of the {rows.size:,} rows" in effect("Rows of fc6")

    for maps, layer in ((96, "conv1"), (256, "conv2")):
        x = np.random.default_rng(0).normal(0, 100, (1, maps)).astype(np.float32)
        other = ops.local_response_norm(x, towers=1) != ops.local_response_norm(x, towers=2)
        assert f"{int(other.sum())} of {layer}'s {maps}" in effect("LRN's window")

    scores = image_scores(np.full((1, 1000), -np.log(1000)), np.array([3]))
    assert f"{100 * scores['top1_error'][0]:.1f}% top-1" in effect("Equal scores")


def test_effects_on_the_update_are_computed():
    momentum, decay, steps = 0.9, 5e-4, 1_281_167 / 128  # of an epoch
    after = momentum / (1 - momentum)
    assert f"{after:.0f} steps of its size, not {after / 10:.1f}" in effect("Momentum")
    drops = (0, *PAPER_DROPS, 90)
    rates = [0.01 / 10**k for k in range(len(drops) - 1)]
    sum_of_rates = steps * np.dot(np.diff(drops), rates)
    left = np.exp(-decay * sum_of_rates / (1 - momentum))
    for trap in ("Weight decay", "Averaging gradients"):
        assert f"to {left:.0e}".replace("e-0", "e-") in effect(trap)

    config = imagenet2012_original.get_config()
    rates = config.learning_rate / 10.0 ** np.array([0, len(config.schedule.drops)])
    first, last = config.bias_learning_rate / rates
    told = f"{first:.0f} times as fast as the kernels at the start, and {last:,.0f} times"
    assert told in effect("Rates of biases")


def test_effects_on_dropout_are_those_of_its_masks():
    keys = jax.random.split(jax.random.key(0), 64)
    dropped = ~np.asarray(ops.dropout_mask(keys, np.arange(2), 128, 0.5)).reshape(64, 2, 128)
    together, alone = dropped.all(1).mean(), dropped.mean()
    told = f"together {25 * round(4 * together)}% of the time, not {25 * round(4 * alone)}%"
    assert told in effect("Both towers")


def test_effects_on_the_start_are_those_of_the_result():
    path = ROOT / "experiments" / "results" / "ablations_64_width_0.5_20_epochs.json"
    nets = {net["variant"]: net for net in json.loads(path.read_text())["result"]["variants"]}
    one, tenth, none = (
        f"{100 * nets[name]['test_ten']['mean']:.1f}%"
        for name in ("paper", "biases 0.1", "biases 0")
    )
    assert f"{one} with 1, {tenth} with 0.1, {none} with 0" in effect("Initial biases")
    stays = nets["0.01 everywhere"]["left_the_plateau"]
    assert stays == [None] * 3 and "for 20 (three seeds" in effect("Initial weights")
