"""The layer table: every number of the published nets, for every preset."""

import pytest

from alexnet_jax import alexnet
from alexnet_jax.models.layer_table import format_table, layer_table
from alexnet_jax.models.presets import PRESETS
from tests.commands import run_command

# layer: output, parameters, neurons, MACs; the authors' layers-145.
PAPER = {
    "conv1": ((55, 55, 96), 34_944, 290_400, 105_415_200),
    "pool1": ((27, 27, 96), 0, 0, 0),
    "conv2": ((27, 27, 256), 307_456, 186_624, 223_948_800),
    "pool2": ((13, 13, 256), 0, 0, 0),
    "conv3": ((13, 13, 384), 885_120, 64_896, 149_520_384),
    "conv4": ((13, 13, 384), 663_936, 64_896, 112_140_288),
    "conv5": ((13, 13, 256), 442_624, 43_264, 74_760_192),
    "pool5": ((6, 6, 256), 0, 0, 0),
    "fc6": ((4096,), 37_752_832, 4_096, 37_748_736),
    "fc7": ((4096,), 16_781_312, 4_096, 16_777_216),
    "fc8": ((1000,), 4_097_000, 1_000, 4_096_000),
}
VALID224 = {
    "conv1": ((54, 54, 96), 34_944, 279_936, 101_616_768),
    "pool1": ((26, 26, 96), 0, 0, 0),
    "conv2": ((26, 26, 256), 307_456, 173_056, 207_667_200),
    "pool2": ((12, 12, 256), 0, 0, 0),
    "conv3": ((12, 12, 384), 885_120, 55_296, 127_401_984),
    "conv4": ((12, 12, 384), 663_936, 55_296, 95_551_488),
    "conv5": ((12, 12, 256), 442_624, 36_864, 63_700_992),
    "pool5": ((5, 5, 256), 0, 0, 0),
    "fc6": ((4096,), 26_218_496, 4_096, 26_214_400),
    "fc7": ((4096,), 16_781_312, 4_096, 16_777_216),
    "fc8": ((1000,), 4_097_000, 1_000, 4_096_000),
}
# (parameters, neurons, MACs) of each preset.
TOTALS = {
    "paper": (60_965_224, 659_272, 724_406_816),
    "original": (60_965_224, 659_272, 724_406_816),
    "valid224": (49_430_888, 609_640, 643_026_048),
    "caffe": (60_965_224, 659_272, 724_406_816),
    "caffenet": (60_965_224, 659_272, 724_406_816),
    "one_gpu": (59_798_312, 355_864, 391_514_384),
    "six_conv": (61_555_304, 668_488, 745_640_480),
    "torchvision": (61_100_840, 494_184, 714_188_480),
}


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        *((name, PAPER) for name in ("paper", "original", "caffe", "caffenet")),
        ("valid224", VALID224),
    ],
)
def test_every_row_is_the_published_net(preset, expected):
    rows = layer_table(alexnet(preset))
    assert {row.name: (row.output, row.parameters, row.neurons, row.macs) for row in rows} == (
        expected
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_totals_of_every_preset(preset):
    rows = layer_table(alexnet(preset))
    sums = (sum(row.parameters for row in rows), sum(r.neurons for r in rows))
    assert (*sums, sum(row.macs for row in rows)) == TOTALS[preset]


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (alexnet("paper", num_classes=10), 56_909_194),
        (alexnet("valid224", conv_features=(96, 256, 384, 384, 384)), 62_759_400),
        # The authors' wider net without communication, run 150.
        (
            alexnet(
                conv_features=(96, 320, 384, 384, 256), fc_features=(8192,) * 2, exchange=("fc8",)
            ),
            81_591_720,
        ),
        (alexnet(remove=("conv3",)), 60_301_288),
        (alexnet(remove=("conv4",)), 60_301_288),
        (alexnet(remove=("conv5",)), 60_301_288),
        (alexnet(exchange=("conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")), 62_378_344),
    ],
)
def test_parameters_of_other_nets(net, parameters):
    assert sum(row.parameters for row in layer_table(net)) == parameters


def test_windows_and_wiring_are_the_papers():
    rows = {row.name: row for row in layer_table(alexnet("paper"))}
    windows = {name: row.window for name, row in rows.items() if row.window}
    assert windows == {
        "conv1": "11 / 4 / (0, 3)",
        "pool1": "3 / 2 / 0",
        "conv2": "5 / 1 / 2",
        "pool2": "3 / 2 / 0",
        "conv3": "3 / 1 / 1",
        "conv4": "3 / 1 / 1",
        "conv5": "3 / 1 / 1",
        "pool5": "3 / 2 / 0",
    }
    assert [name for name, row in rows.items() if row.reads == "both"] == [
        "conv3",
        "fc6",
        "fc7",
        "fc8",
    ]
    assert rows["conv1"].then == "relu, LRN, pool"
    assert layer_table(alexnet("original"))[0].then == "LRN, pool, relu"
    after = {row.name: row.then for row in layer_table(alexnet("caffenet"))}
    assert after["conv1"] == after["conv2"] == "relu, pool, LRN"


def test_table_ends_with_the_totals():
    last = format_table(layer_table(alexnet("paper"))).splitlines()[-1]
    assert last.split() == ["total", "60,965,224", "659,272", "724,406,816"]


def test_unknown_preset_gives_one_line():
    done = run_command("alexnet_jax.summary", "--preset=orignal")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: unknown preset 'orignal'; did you mean 'original'?"


def test_what_is_no_flag_is_refused():
    done = run_command("alexnet_jax.summary", "torchvision")
    assert done.returncode == 1
    assert "unexpected argument 'torchvision'" in done.stderr


@pytest.mark.slow
def test_what_devices_exchange_is_shown_on_a_machine_with_one():
    """By the command itself: what reads jax's devices first would fix their number."""
    small = ("--batch_size=4", "--model=image_size=64", "--model=fc_features=(64,64)")
    done = run_command("alexnet_jax.summary", "--collectives", *small)
    assert done.returncode == 0, done.stderr
    assert "conv3  all-gather" in done.stdout
    assert done.stdout.split()[-3] == "total"
