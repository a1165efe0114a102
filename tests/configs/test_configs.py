"""Every shipped recipe makes a network and a schedule, at the rates of the authors' logs."""

import importlib
import pkgutil

import jax
import pytest

from alexnet_jax import configs, schedules
from alexnet_jax.configs import (
    imagenet2010_original,
    imagenet2012_caffe,
    imagenet2012_pretrained,
)
from alexnet_jax.optimizer import expand
from alexnet_jax.runs.recipe import build_model
from alexnet_jax.step import create_train_state

NAMES = sorted(module.name for module in pkgutil.iter_modules(configs.__path__))
STEPS_PER_EPOCH = 10_009  # of ILSVRC-2012


def load(name):
    return importlib.import_module(f"alexnet_jax.configs.{name}").get_config()


def schedule_of(config):
    return schedules.make_schedule(
        **config.schedule,
        learning_rate=config.learning_rate,
        num_epochs=config.num_epochs,
        steps_per_epoch=STEPS_PER_EPOCH,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_makes_a_network_and_a_schedule(name):
    config = load(name)
    model = build_model(config, 1000)
    state = jax.eval_shape(lambda: create_train_state(model, jax.random.key(0)))
    assert state.params[model.head]["bias"].shape == (1000,)
    for multipliers in (config.rate_multipliers, config.decay_multipliers):
        given = {layer: m for layer, m in multipliers.to_dict().items() if m is not None}
        expand(given, state.params, {"kernel": 1.0, "bias": 1.0})  # raises for a layer it lacks
    schedule = schedule_of(config)
    assert schedule.learning_rate(0, schedule.initial_state()) == config.learning_rate
    layers = [layer.name for layer in model.layers]
    for epoch, _ in config.hand_changes:
        assert 0 <= epoch < config.num_epochs
        multipliers = rates_at(config, epoch)
        assert set(multipliers) <= set(layers)
    assert config.mesh.model in (1, 2)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("imagenet2012", 60_965_224),
        ("imagenet2010", 60_965_224),
        ("imagenet2012_two_gpus", 60_965_224),
        ("imagenet2012_original", 60_965_224),
        ("imagenet2012_caffe", 60_965_224),
        ("imagenet2012_pretrained", 61_555_304),
        ("imagenet_fall2011", 61_555_304),
    ],
)
def test_recipes_for_imagenet_have_the_paper_s_networks(name, parameters):
    model = build_model(load(name), 1000)
    state = jax.eval_shape(lambda: create_train_state(model, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == parameters


def rates_at(config, epoch):
    return schedules.hyperparameters_at(epoch, config.hand_changes).get("rate_multipliers", {})


@pytest.mark.parametrize(
    ("epoch", "conv1", "conv2", "fc8"),
    [
        (0, 1e-4, 1e-3, 1e-3),
        (0.3, 1e-4, 1e-3, 1e-2),
        (5, 1e-5, 1e-3, 1e-2),
        (7, 0, 1e-3, 1e-2),
        (9, 0, 1e-3, 1e-3),
        (22, 0, 1e-4, 1e-4),
        (42, 0, 1e-5, 1e-5),
    ],
)
def test_fine_tuning_runs_at_the_rates_of_the_authors_log(epoch, conv1, conv2, fc8):
    config = imagenet2012_pretrained.get_config()
    schedule = schedule_of(config)
    rate = schedule.learning_rate(round(epoch * STEPS_PER_EPOCH), schedule.initial_state())
    multipliers = rates_at(config, epoch)
    found = [
        rate * multipliers.get(layer, {"kernel": 1})["kernel"]
        for layer in ("conv1", "conv2", "fc8")
    ]
    assert found == pytest.approx([conv1, conv2, fc8])
    assert config.num_epochs == 54


def test_the_authors_recipe_has_their_rates():
    config = load("imagenet2012_original")
    schedule = schedule_of(config)
    kernels = {}
    for epoch in (0, 25, 51, 67, 72, 79):
        rate = schedule.learning_rate(epoch * STEPS_PER_EPOCH, {})
        fields = schedules.hyperparameters_at(
            epoch,
            config.hand_changes,
            layers=("conv1", "fc8"),
            learning_rate=rate,
            bias_learning_rate=config.bias_learning_rate,
        )["rate_multipliers"]
        kernels[epoch] = rate, rate * fields["conv1"]["kernel"]
        assert rate * fields["fc8"]["bias"] == pytest.approx(0.02)
    assert kernels == {
        0: (0.01, 0.01),
        25: (pytest.approx(1e-3),) * 2,
        51: (pytest.approx(1e-4),) * 2,
        67: (pytest.approx(1e-4), pytest.approx(1e-5)),
        72: (pytest.approx(1e-4), 0),
        79: (pytest.approx(1e-5), 0),
    }


def test_fine_tuning_turns_the_colour_shift_off_and_never_compiles_again():
    config = imagenet2012_pretrained.get_config()
    strengths, structures = [], set()
    for epoch in range(int(config.num_epochs)):
        fields = schedules.hyperparameters_at(epoch, config.hand_changes)
        strengths.append(fields.get("color_strength", config.color_strength))
        structures.add(str(jax.tree.structure(fields["rate_multipliers"])))
    assert strengths == [0.1] * 38 + [0.0] * 16
    assert len(structures) == 1


def test_caffes_iterations_are_exact():
    config = imagenet2012_caffe.get_config()
    schedule = schedules.make_schedule(
        **config.schedule,
        learning_rate=config.learning_rate,
        num_epochs=config.num_epochs,
        steps_per_epoch=1_281_167 // config.batch_size,
    )
    assert schedule.drops == (100_000, 200_000, 300_000, 400_000)
    assert round(config.num_epochs * (1_281_167 // config.batch_size)) == 450_000


def test_the_authors_run_on_ilsvrc_2010():
    config = imagenet2010_original.get_config()
    at = lambda epoch: schedules.hyperparameters_at(epoch, config.hand_changes)  # noqa: E731
    assert at(67) == {"rate_multipliers": {"conv1": {"kernel": 1.0, "bias": 1.0}}}
    assert at(68)["color_strength"] == 0
    assert at(72)["rate_multipliers"]["conv1"]["kernel"] == 0
    assert config.augmentation.scale_with_color and config.num_epochs == 93
