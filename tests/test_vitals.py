"""Vital signs: as NumPy finds them, on every mesh, in the log; and planted faults are named."""

import json
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import alexnet
from alexnet_jax.augment import Augmentation
from alexnet_jax.configs import digits
from alexnet_jax.optimizer import update_rule
from alexnet_jax.parallel import make_mesh
from alexnet_jax.runs import health, training
from alexnet_jax.runs.launch import train
from alexnet_jax.runs.layer_times import layer_times
from alexnet_jax.runs.metrics_log import read_metrics
from alexnet_jax.runs.profile import Profile
from alexnet_jax.runs.throughput import peak_images_per_second, training_flops
from alexnet_jax.state import Hyperparameters, run_key
from alexnet_jax.step import create_train_state, make_train_step, make_train_steps
from tests.tiers import slow

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIDE = 67
NET = alexnet(
    "original",
    image_size=SIDE,
    conv_features=(8, 8, 8, 8, 8),
    fc_features=(16, 16),
    num_classes=10,
    dropout_rate=0.0,
)
PLAIN = Augmentation(crop="center", flip=False, color="none")
HPARAMS = Hyperparameters(learning_rate=0.01, weight_decay=0.0)


def batch_of(count=4):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8),
        "label": np.arange(count, dtype=np.int32),
    }


def awake(state, dead_units=3):
    """Weights of a size at which signals reach every layer; some units of conv3 never fire."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.1
        return jax.device_put(np.float32(rng.normal(0, scale, leaf.shape)), leaf.sharding)

    params = jax.tree.map(draw, state.params)
    bias = np.array(params["conv3"]["bias"])
    bias[:dead_units] = -1e6
    params["conv3"]["bias"] = jax.device_put(bias, params["conv3"]["bias"].sharding)
    return state.replace(params=params)


def updated(shape=None, watch_every=5, hparams=HPARAMS):
    """An update's state before and after, and its metrics, on a mesh."""
    mesh = None if shape is None else make_mesh(*shape)
    step = make_train_step(NET, PLAIN, mesh=mesh, watch_every=watch_every)
    before = awake(create_train_state(NET, run_key(0), mesh=mesh))
    params = jax.device_get(before.params)
    after, metrics = step(before, batch_of(), hparams)
    return params, jax.device_get(after.params), jax.device_get(metrics)


@pytest.fixture(scope="module")
def one_device(quick_compilation):
    return updated()


def test_they_are_those_that_numpy_finds(one_device):
    before, after, metrics = one_device
    crops = batch_of()["image"].astype(np.float32) - PLAIN.mean
    logits, kept = NET.apply({"params": before}, crops, mutable=["intermediates"])
    sown = {name: np.asarray(x[0], np.float64) for name, x in kept["intermediates"].items()}
    found = metrics["vitals"]["layers"]
    assert list(found) == [row.name for row in NET.layers]
    for row in NET.layers:
        signs, linear = found[row.name], sown[f"{row.name}_linear"]
        change = np.linalg.norm(after[row.name]["kernel"] - before[row.name]["kernel"])
        size = np.linalg.norm(before[row.name]["kernel"])
        expected = {"mean": linear.mean(), "deviation": linear.std()}
        expected |= {"gradient": change / 0.01, "update": change / size}
        if row.operations:
            relu = sown[f"{row.name}_relu"]
            expected["dead"] = (relu.reshape(-1, relu.shape[-1]).max(0) <= 0).mean()
        names = ["linear", *(operation.name.lower() for operation in row.operations)]
        if "lrn" in names:
            ahead = names[names.index("lrn") - 1]
            whole, left = (np.abs(sown[f"{row.name}_{name}"]).mean() for name in (ahead, "lrn"))
            expected["suppression"] = 1 - left / (2**-0.75 * whole)
        assert signs.keys() == expected.keys()
        for name, value in expected.items():
            assert signs[name] == pytest.approx(value, rel=2e-3, abs=1e-6), (row.name, name)
    assert found["conv3"]["dead"] == pytest.approx(3 / 8)
    assert 0 < found["conv1"]["suppression"] < 1
    losses = -np.asarray(jax.nn.log_softmax(logits))[np.arange(4), batch_of()["label"]]
    assert metrics["vitals"]["loss_spread"] == pytest.approx(np.std(losses), rel=1e-4)


@pytest.mark.parametrize("shape", [(2, 2), *slow((2, 1), (1, 2))], ids=str)
def test_every_mesh_gives_the_same(one_device, shape):
    _, _, metrics = updated(shape)
    chex.assert_trees_all_close(metrics, one_device[2], rtol=1e-3, atol=1e-6)


def test_a_net_that_bursts_is_not_called_dead(one_device):
    """The signal is that from before the update, however large the update is."""
    _, _, metrics = updated(hparams=HPARAMS.replace(learning_rate=1e12))
    layers, usual = (found["vitals"]["layers"] for found in (metrics, one_device[2]))
    for name, signs in layers.items():
        assert signs["update"] == pytest.approx(1e14 * usual[name]["update"], rel=1e-3)
        for sign in signs.keys() - {"update"}:
            assert signs[sign] == pytest.approx(usual[name][sign], rel=1e-5, abs=1e-7)


def test_watching_changes_no_update(one_device):
    _, after, metrics = updated(watch_every=0)
    assert "vitals" not in metrics
    chex.assert_trees_all_close(after, one_device[1], rtol=1e-5, atol=1e-7)


def test_they_are_taken_when_due_by_one_program():
    chex.clear_trace_counter()
    step = make_train_step(NET, PLAIN, watch_every=3, max_traces=1)
    state, taken = create_train_state(NET, run_key(0)), []
    for _ in range(7):
        state, metrics = step(state, batch_of(), HPARAMS)
        taken.append(bool(metrics["vitals"]["layers"]["conv1"]["deviation"] > 0))
    assert taken == [True, False, True, False, False, True, False]
    steps = make_train_steps(NET, PLAIN, watch_every=3)
    indices = np.tile(np.arange(4, dtype=np.int32), (7, 1))
    hparams = jax.tree.map(lambda value: jnp.full(7, value), HPARAMS)
    _, metrics = steps(create_train_state(NET, run_key(0)), batch_of(), indices, hparams)
    assert (metrics["vitals"]["layers"]["conv1"]["deviation"] > 0).tolist() == taken


@pytest.mark.slow
def test_another_rule_is_watched_by_its_updates():
    def halved(learning_rate):
        return update_rule(learning_rate=learning_rate / 2, weight_decay=0.0)

    step = make_train_step(NET, PLAIN, rule=halved, watch_every=1)
    state = awake(create_train_state(NET, run_key(0), rule=halved))
    _, metrics = step(state, batch_of(), HPARAMS)
    signs = jax.device_get(metrics["vitals"]["layers"]["fc8"])
    kernel = awake(create_train_state(NET, run_key(0))).params["fc8"]["kernel"]
    size = np.linalg.norm(kernel)
    assert signs["update"] == pytest.approx(0.005 * signs["gradient"] / size, rel=1e-4)


# --- a run ----------------------------------------------------------------------------------------


def small_config(**changes):
    config = digits.get_config()
    config.train_split, config.validation_split = "train[:64]", "train[64:96]"
    config.test_split = None
    config.mesh.data = 1
    config.batch_size, config.num_epochs, config.log_every_steps = 8, 1, 4
    config.watch_every_steps = 4
    config.model.conv_features, config.model.fc_features = (4, 4, 4, 4, 4), (8, 8)
    config.update_from_flattened_dict(changes)
    return config


def test_the_log_has_lines_of_them_in_order(tmp_path, capsys):
    train(small_config(), tmp_path)
    rows = read_metrics(tmp_path)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
    found = [(row["step"], row["split"]) for row in rows]
    assert found == [
        *[(1, "vitals"), (4, "vitals"), (4, "train")],
        *[(8, "vitals"), (8, "train"), (8, "validation")],
    ]
    assert rows[0]["layers"].keys() == {f"conv{n}" for n in range(1, 6)} | {"fc6", "fc7", "fc8"}
    assert 0 <= rows[2]["input_wait"] <= 1 and 0 < rows[2]["mfu"] < 2
    assert "warning" not in capsys.readouterr().out


def test_a_trace_tells_the_time_of_each_layer(tmp_path, capsys):
    train(small_config(), tmp_path, profile=True)
    (trace,) = tmp_path.glob("profile/plugins/profile/*/*.xplane.pb")
    assert all(name.encode() in trace.read_bytes() for name in ("conv1", "conv5/", "fc8"))
    table = (tmp_path / "profile" / "layers.txt").read_text()
    said = capsys.readouterr().out
    assert table in said and "after a trace of 5 calls, from number 4 on, in" in said
    rows = [line.split() for line in table.splitlines()[2:]]
    layers = [f"conv{n}" for n in range(1, 6)] + ["fc6", "fc7", "fc8"]
    assert [row[0] for row in rows[:8]] == layers
    assert {"augmentation", "update"} <= {row[0] for row in rows[8:]}
    assert table.splitlines()[0].split() == ["forward", "ms", "backward", "ms", "share"]
    train(small_config(), tmp_path, profile=True)  # it has ended
    assert "No trace: it begins at call 4 of the step" in capsys.readouterr().out


def test_towers_exchange_where_the_papers_gpus_talk(tmp_path):
    config = small_config(watch_every_steps=0)
    config.mesh.model = 2
    train(config, tmp_path, profile=True)
    head, _, *rows = (tmp_path / "profile" / "layers.txt").read_text().splitlines()
    column = slice(head.index("exchange"), head.index("exchange ms") + len("exchange ms"))
    assert {row.split()[0] for row in rows if row[column].strip()} == {"conv3", "fc6", "fc7", "fc8"}


def test_the_time_of_a_layer_is_that_of_its_operations(tmp_path):
    """The layer that has nearly all of the work has nearly all of the time, on its way and back."""

    def f(weights, x):
        with jax.named_scope("heavy"):
            x = x @ weights
            for _ in range(4):
                x = jnp.tanh(x @ weights)
        with jax.named_scope("light"):
            return jnp.tanh(x * 2).sum()

    step = jax.jit(jax.grad(f))
    given = jnp.full((512, 512), 0.01), jnp.ones((256, 512))
    jax.block_until_ready(step(*given))
    with jax.profiler.trace(tmp_path):
        jax.block_until_ready(step(*given))
        jax.block_until_ready(jnp.sin(given[1]))  # another program's
    times = layer_times(tmp_path, step.lower(*given).compile().as_text(), ["light", "heavy"])
    assert list(times)[:2] == ["light", "heavy"]
    both = {part: sum(row.values()) for part, row in times.items()}
    assert both["heavy"] > 0.8 * sum(both.values())
    assert times["heavy"]["forward"] > 0 and times["heavy"]["backward"] > 0


PROGRAM = """HloModule jit_step, is_scheduled=true
  %while.1 = (f32[2]{0}, s32[]) while(%t), metadata={op_name="jit(step)/conv1/while"}
  dot.2 = f32[2]{0} dot(a, b), metadata={op_name="jit(step)/jvp(AlexNet)/conv1/dot_general"}
  ROOT %fusion.3 = f32[2]{0} fusion(%c), metadata={op_name="jit(step)/transpose(jvp(N))/conv1/add"}
  %all-gather.4 = f32[4]{0} all-gather(%d), metadata={op_name="jit(step)/conv3/all_gather"}
  %add.5 = f32[4]{0} add(%e, %f), metadata={op_name="jit(step)/vitals/AlexNet/conv1/add"}
"""


def test_a_loop_is_counted_by_what_it_runs_and_each_operation_once(monkeypatch, tmp_path):
    names = ("while.1", "dot.2", "fusion.3", "all-gather.4", "add.5", "copy.6")
    taken = [(name, 2.0**n) for n, name in enumerate(names)]
    monkeypatch.setattr("alexnet_jax.runs.layer_times._operations", lambda trace, module: taken)
    assert layer_times(tmp_path, PROGRAM, ["conv1", "conv3"]) == {
        "conv1": {"forward": 2, "backward": 4, "exchange": 0},
        "conv3": {"forward": 0, "backward": 0, "exchange": 8},
        "vitals": {"forward": 16, "backward": 0, "exchange": 0},
        "other": {"forward": 32, "backward": 0, "exchange": 0},
    }


def test_a_trace_that_shows_nothing_ends_no_run(tmp_path):
    said = []
    profile = Profile(tmp_path, said.append, lambda: "HloModule jit_other, x", ["conv1"])
    for call in range(1, 6):
        profile.before(call, ())
    profile.close()
    assert said == [f"The trace in {tmp_path} shows no operation of the step"]
    assert layer_times(tmp_path / "none", "HloModule m, x", ["conv1"]) == {
        "conv1": {"forward": 0, "backward": 0, "exchange": 0}
    }


def test_a_dead_layer_is_named(tmp_path, capsys):
    kernel = np.random.default_rng(0).normal(0, 0.01, (3, 3, 4, 4))
    bias = np.full(4, -1000.0)
    np.savez(tmp_path / "weights.npz", **{"conv3/kernel": kernel, "conv3/bias": bias})
    config = small_config(init_from=str(tmp_path / "weights.npz"))
    train(config, tmp_path / "run")
    output = capsys.readouterr().out
    assert "at step 1 100% of conv3's units are zero for every image" in output
    assert output.count("units are zero") == 1


@pytest.mark.parametrize("biases", [True, False])
def test_dead_units_are_advised_only_what_the_network_has(biases):
    signs = {"layers": {"conv1": {"dead": 1.0, "update": 0.0}}}
    (warning,) = health.Health(biases=biases).of_vitals(1, signs)
    assert ("hidden_bias" in warning) == biases


@pytest.mark.parametrize(
    ("fact", "step", "rate"),
    [
        ("the loss is nan", 1, False),  # of the weights before the first update
        ("the loss is nan", 2, True),
        ("the validation loss is nan", 0, False),
        ("a parameter is not a number", 0, False),
        ("a parameter is not a number", 1, True),
    ],
)
def test_no_rate_is_blamed_for_what_is_no_number_before_an_update(tmp_path, fact, step, rate):
    told = str(health.not_finite(fact, step, None, tmp_path))
    assert told.startswith(f"{fact} at step {step}, before ")
    assert ("learning_rate" in told, "--config.augmentation" in told) == (rate, not rate)


def test_a_rate_that_bursts_is_named_before_the_loss_is_no_number(tmp_path, capsys):
    with pytest.raises(FloatingPointError, match="loss is nan"):
        train(small_config(learning_rate=1e6), tmp_path)
    assert "update 1 changes fc8 by" in capsys.readouterr().out


def test_the_plateau_says_which_layers_starve(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(health, "PLATEAU_STEPS", 8)
    train(small_config(**{"model.initialization": "paper"}), tmp_path)
    output = capsys.readouterr().out
    assert "known plateau of small initial weights; conv1, conv2, conv3, conv4, conv5" in output
    assert "starve, with gradients below 0.001 of fc8's" in output


@pytest.mark.slow
def test_a_slow_source_is_named(tmp_path, capsys, monkeypatch):
    batches = training.train_batches

    def slow(*args, place, **kwargs):
        def slowly(batch):
            time.sleep(0.5)
            return place(batch)

        return batches(*args, place=slowly, **kwargs)

    monkeypatch.setattr(health, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(training, "train_batches", slow)
    train(small_config(), tmp_path)
    assert "of the time goes by waiting for images, which come at" in capsys.readouterr().out
    shares = [row["input_wait"] for row in read_metrics(tmp_path) if row["split"] == "train"]
    assert shares[-1] > 0.5


# --- speed ----------------------------------------------------------------------------------------


def test_flops_are_two_for_each_mac_there_and_two_back():
    paper = alexnet("paper")
    conv1 = 55 * 55 * 96 * 11 * 11 * 3
    assert training_flops(paper) == 2 * (3 * 724_406_816 - conv1)
    assert peak_images_per_second(paper, make_mesh(1)) > 0
