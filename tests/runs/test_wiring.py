"""Every field of a configuration does what it says, to the last digit that float32 can show.

Each is changed once. What the training makes of it is compared with the paper's rule in plain NumPy
(`tests/reference`), which reads the configuration by itself; or, for what happens around the steps,
with a validation curve that is dictated: its best is not its last, and loss and error disagree.
"""

import json
import time

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from alexnet_jax.configs import default, digits
from alexnet_jax.data.batches import batch_indices
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.runs import final_test as final_test_module
from alexnet_jax.runs import launch as launch_module
from alexnet_jax.runs import recipe as recipe_module
from alexnet_jax.runs import training as training_module
from alexnet_jax.runs.checkpoint import Checkpointer
from alexnet_jax.runs.configuration import save_config
from alexnet_jax.runs.evaluation import Measured
from alexnet_jax.runs.launch import train
from alexnet_jax.runs.recipe import Recipe
from alexnet_jax.runs.workdir import load_run
from alexnet_jax.scores import METRICS
from tests.data.conftest import grey, write_dataset
from tests.reference import alexnet_numpy as reference
from tests.reference.cases import relative
from tests.reference.training_numpy import color_shift, update
from tests.tiers import slow_rows
from tests.tiny_run import write_run

pytestmark = pytest.mark.usefixtures("quick_compilation")


NARROW = {"conv_features": (4, 4, 4, 4, 4), "fc_features": (8, 8), "image_size": 64}


def small_config(**changes):
    """Two epochs of one update of 8 images; `changes` by dotted name, dots as __."""
    config = digits.get_config()
    config.train_split, config.validation_split = "train[:8]", "validation[:16]"
    config.test_split = None
    config.mesh.data = 1
    config.batch_size, config.num_epochs = 8, 2
    config.log_every_steps, config.validate_every_epochs = 1, 1
    config.schedule.name = "constant"
    config.augmentation.flip, config.augmentation.color = True, "std"
    config.weight_decay = 0.1  # enough to be seen after one update
    config.color_strength = 0.5
    config.model.update(NARROW)
    for field, value in changes.items():
        config.update_from_flattened_dict({field.replace("__", "."): value})
    return config


def log_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_hyperparameters_are_made_again_only_where_something_changes():
    changes = ((1, {"weight_decay": 0.2}), (2, {"color_strength": 0.3}))
    config = small_config(num_epochs=4, schedule__name="drops", schedule__drops=(3,))
    config.hand_changes, config.train_split = changes, "train[:16]"  # two updates an epoch
    recipe = Recipe(config)
    at = [recipe.hyperparameters(step) for step in range(8)]
    found = [(h.learning_rate, h.weight_decay, h.color_strength) for h in at]
    expected = [
        *[(0.01, 0.1, 0.5)] * 2, *[(0.01, 0.2, 0.5)] * 2,
        *[(0.01, 0.2, 0.3)] * 2, *[(0.001, 0.2, 0.3)] * 2,
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert all(at[step] is at[step + 1] for step in range(0, 8, 2))


def test_changes_by_hand_reach_decay_rate_and_log_and_compile_nothing_again(tmp_path):
    config = small_config(num_epochs=3, bias_learning_rate=0.02)
    config.hand_changes = (
        (1, {"decay_multipliers": {"fc8": {"bias": 1.0}}}),
        (2, {"learning_rate": 0.001}),
    )
    recipe = Recipe(config)
    at = [recipe.hyperparameters(step) for step in range(3)]
    assert len({jax.tree.structure(hparams) for hparams in at}) == 1
    assert [float(h.decay_multipliers["fc8"]["bias"]) for h in at] == [0, 1, 1]
    biases = [h.learning_rate * h.rate_multipliers["fc8"]["bias"] for h in at]
    np.testing.assert_allclose(biases, 0.02, rtol=1e-5)
    train(config, tmp_path)  # its step may be traced once
    rates = [row["learning_rate"] for row in log_of(tmp_path) if row["split"] == "train"]
    assert rates == [0.01, 0.01, 0.001]


# --- the steps --------------------------------------------------------------------------------

IMAGENET = {
    "mean": np.array([127.305, 119.715, 104.913]),
    "deviations": np.array([19.72083, 37.09389, 121.78006]),
    "axes": np.array(
        [
            [0.41796, -0.71258, -0.56351],
            [-0.81698, -0.02354, -0.57618],
            [0.39731, 0.70120, -0.59200],
        ]
    ),
}


def constants(config, pixels):
    """Mean image and principal axes of the colours of the training images [N, S, S, 3]."""
    if config.augmentation.statistics == "imagenet":
        return IMAGENET
    colors = pixels.reshape(-1, 3).astype(float)
    variances, axes = np.linalg.eigh(np.cov(colors.T, bias=True))
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), range(3)])
    deviations = np.sqrt(variances.clip(0))
    return {"mean": pixels.mean(0, dtype=float), "deviations": deviations, "axes": axes}


def draws(config, key, step, place, margin):
    """Offset (y, x), flip, colour's alphas and dropout masks of one image."""
    key = jax.random.fold_in(jax.random.fold_in(key, step), place)
    offset_key, flip_key, color_key = jax.random.split(jax.random.fold_in(key, 0), 3)
    if config.augmentation.crop == "random":
        offset = np.asarray(jax.random.randint(offset_key, (2,), 0, margin + 1))
    else:
        places = [(0, 0), (0, margin), (margin // 2,) * 2, (margin, 0), (margin, margin)]
        ten = config.augmentation.crop == "ten"
        offset = places[int(jax.random.randint(offset_key, (), 0, 5)) if ten else 2]
    masks = {
        f"fc{number}": np.concatenate(
            [
                jax.random.bernoulli(
                    jax.random.fold_in(jax.random.fold_in(key, number), tower), 0.5, (width // 2,)
                )
                for tower in (0, 1)
            ]
        )
        for number, width in zip((6, 7), config.model.fc_features, strict=True)
    }
    alphas = np.asarray(jax.random.normal(color_key, (3,)), float)
    return offset, bool(jax.random.bernoulli(flip_key)), alphas, masks


def augmented(config, image, drawn, strength, mean, deviations, axes):
    """The crop [s, s, 3] of a stored image, as section 4.1 has it."""
    settings, size = config.augmentation, config.model.image_size
    (y, x), flip, alphas, _ = drawn
    crop = image[y : y + size, x : x + size].astype(float)
    if mean.ndim == 3:
        middle = (len(mean) - size) // 2
        top, left = (y, x) if settings.mean_at == "crop" else (middle, middle)
        mean = mean[top : top + size, left : left + size]
    if settings.mean_at == "crop":
        crop = crop - mean
    if settings.flip and flip:
        crop = crop[:, ::-1]
    if settings.mean_at == "center":
        crop = crop - mean
    if settings.color != "none":
        lengths = deviations if settings.color == "std" else deviations**2 / 255
        crop = crop + color_shift(strength * alphas, axes, lengths)
    if settings.get("scale_with_color") and strength > 0:
        crop = crop / (1 + strength)
    return crop * settings.scale


def layer_factor(multipliers, layer, leaf, default):
    """What a multiplier's tree says of a leaf: layer -> factor, or layer -> leaf -> factor."""
    given = multipliers.get(layer)
    if given is None:
        return default
    if isinstance(given, int | float):
        return given if default else 0.0
    return given.get(leaf, default)


def write_weights(path, config):
    """He-sized weights to start from: at them no operation is idle, and every draw is seen."""
    net = network(config)
    std = {n: np.sqrt(2 / np.prod(s.kernel[:-1])) for n, s in reference.sizes(net).items()}
    params = reference.random_params(net, 0, std)
    flat = flatten_dict(params, sep="/")
    np.savez(path, **{name: value.astype(np.float32) for name, value in flat.items()})


def network(config):
    """The reference's description of the configuration's network."""
    return reference.Net(
        num_classes=10,
        image_size=config.model.image_size,
        conv=config.model.conv_features,
        fc=config.model.fc_features,
    )


def expected_run(config):
    """The parameters before and after the run, and its losses, by the rules of the paper."""
    data = open_dataset("digits", config.train_split, stored_size=config.stored_size)
    stored = data.source.read(np.arange(len(data)))
    measured = constants(config, stored["image"])
    _, run_key = jax.random.split(jax.random.key(config.seed))
    with np.load(config.init_from) as file:
        weights = unflatten_dict(
            {name: value.astype(float) for name, value in file.items()}, sep="/"
        )
    before = jax.tree.map(np.copy, weights)
    velocity = jax.tree.map(np.zeros_like, weights)
    net = network(config)
    order = batch_indices(len(data), batch_size=config.batch_size, seed=config.seed)
    per_epoch = len(data) // config.batch_size
    losses = []
    for step in range(round(config.num_epochs * per_epoch)):
        now = config.to_dict() | {"rate_multipliers": config.rate_multipliers.to_dict()}
        for epoch, changes in config.hand_changes:
            if step / per_epoch >= epoch:
                now |= changes
        rates = {k: v for k, v in now["rate_multipliers"].items() if v is not None}
        drawn = [
            draws(config, run_key, step, place, config.stored_size - config.model.image_size)
            for place in range(config.batch_size)
        ]
        chosen = order[step]
        images = np.stack(
            [
                augmented(config, image, draw, now["color_strength"], *measured.values())
                for image, draw in zip(stored["image"][chosen], drawn, strict=True)
            ]
        )
        masks = {
            name: np.stack([d[3][name] for d in drawn]).astype(float) for name in ("fc6", "fc7")
        }
        loss, _, gradients = reference.loss_and_gradients(
            net, weights, images, stored["label"][chosen], masks
        )
        losses.append(loss)
        for layer, leaves in weights.items():
            for leaf, value in leaves.items():
                bias = leaf == "bias"
                rate = config.learning_rate
                if bias and config.bias_learning_rate is not None:
                    rate = config.bias_learning_rate
                rate *= layer_factor(rates, layer, leaf, 1.0)
                decay = now["weight_decay"] * layer_factor(
                    config.decay_multipliers, layer, leaf, 0.0 if bias else 1.0
                )
                leaves[leaf], velocity[layer][leaf] = update(
                    value,
                    velocity[layer][leaf],
                    gradients[layer][leaf],
                    rate=rate,
                    momentum=now["momentum"],
                    decay=decay,
                )
    return before, weights, losses


STEP_FIELDS = [
    ("seed", 7),
    ("train_split", "train[8:16]"),
    ("stored_size", 70),
    ("cache", "none"),
    ("augment", "host"),
    ("augmentation.crop", "center"),
    ("augmentation.crop", "ten"),
    ("augmentation.flip", False),
    ("augmentation.color", "none"),
    ("augmentation.color", "eigenvalue"),
    ("augmentation.mean_at", "center"),
    ("augmentation.scale", 0.5),
    ("augmentation.scale_with_color", True),
    ("augmentation.statistics", "imagenet"),
    ("batch_size", 4),
    ("num_epochs", 1),
    ("learning_rate", 0.03),
    ("bias_learning_rate", 0.2),
    ("momentum", 0.1),
    ("weight_decay", 0.7),
    ("color_strength", 2.0),
    ("rate_multipliers.conv1", 0.0),
    ("rate_multipliers.fc8", {"bias": 5.0}),
    ("decay_multipliers.conv2", 3.0),
    ("decay_multipliers.fc8", {"bias": 2.0}),
    ("hand_changes", ((1, {"weight_decay": 0.0, "rate_multipliers": {"conv2": 0.0}}),)),
    ("hand_changes", ((1, {"color_strength": 0.0, "momentum": 0.0}),)),
]


# The same, several at once: each still counts, as the rule reads the configuration by itself.
TOGETHER = [
    (
        "rates",
        {
            "learning_rate": 0.03,
            "bias_learning_rate": 0.2,
            "momentum": 0.1,
            "weight_decay": 0.7,
            "color_strength": 2.0,
            "rate_multipliers.conv1": 0.0,
            "rate_multipliers.fc8": {"bias": 5.0},
            "decay_multipliers.conv2": 3.0,
            "decay_multipliers.fc8": {"bias": 2.0},
            "seed": 7,
            "augmentation.crop": "ten",
            "batch_size": 4,
        },
    ),
    (
        "images",
        {
            "train_split": "train[8:16]",
            "stored_size": 70,
            "augment": "host",
            "augmentation.crop": "center",
            "augmentation.flip": False,
            "augmentation.mean_at": "center",
            "augmentation.scale": 0.5,
            "augmentation.scale_with_color": True,
            "num_epochs": 1,
        },
    ),
    (
        "colours",
        {
            "cache": "none",
            "augmentation.color": "eigenvalue",
            "augmentation.statistics": "imagenet",
            "hand_changes": ((1, {"weight_decay": 0.0, "rate_multipliers": {"conv2": 0.0}}),),
        },
    ),
    (
        "no colour",
        {
            "augmentation.color": "none",
            "hand_changes": ((1, {"color_strength": 0.0, "momentum": 0.0}),),
        },
    ),
]


def alone():
    """Each field by itself: what names the culprit."""
    yield pytest.param({}, id="none", marks=pytest.mark.slow)
    for field, value in STEP_FIELDS:
        name = f"{field}-{value}".replace("[", "(")
        yield pytest.param({field: value}, id=name, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "changes", [*(pytest.param(changes, id=name) for name, changes in TOGETHER), *alone()]
)
def test_fields_change_the_updates_as_the_paper_s_rule_would(tmp_path, changes):
    config = small_config()
    for field, value in changes.items():
        group, _, name = field.rpartition(".")
        (config[group] if group else config)[name] = value
    config.init_from = str(tmp_path / "weights.npz")
    write_weights(config.init_from, config)
    train(config, tmp_path / "run")
    before, after, losses = expected_run(config)
    before, after = flatten_dict(before), flatten_dict(after)
    found = [row["loss"] for row in log_of(tmp_path / "run") if row["split"] == "train"]
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    params = flatten_dict(load_run(tmp_path / "run", which="last").params)
    for path, start in before.items():
        change, expected = params[path] - start, after[path] - start
        if (after[path] == start).all():  # frozen
            np.testing.assert_array_equal(change, 0)
            continue
        print(path, relative(change, expected))
        assert relative(change, expected) < 2e-3, path


@pytest.mark.slow
def test_an_earlier_run_s_weights_are_what_it_starts_from(tmp_path):
    train(small_config(seed=3), tmp_path / "old")
    config = small_config(init_from=str(tmp_path / "old"), learning_rate=0.0)
    train(config, tmp_path / "new")
    old, new = (load_run(tmp_path / name) for name in ("old", "new"))
    jax.tree.map(np.testing.assert_array_equal, old.params, new.params)


def test_changes_by_hand_reach_the_host_s_colour():
    config = small_config(augment="host", color_strength=0.5)
    config.hand_changes = ((1, {"color_strength": 0.0}),)
    assert [Recipe(config).color_strength(step) for step in range(3)] == [0.5, 0, 0]


def test_every_field_of_the_data_reaches_them(monkeypatch):
    def opened(name, split, **options):
        return name, split, options

    monkeypatch.setattr(recipe_module, "open_dataset", opened)
    config = small_config(dataset="photos", data_dir="folder", stored_size=70, verify_data=True)
    options = {"data_dir": "folder", "stored_size": 70, "verify": True, "labels": True}
    for name, split in (("train", "train[:8]"), ("validation", "validation[:16]")):
        flag = f"--config.{name}_split"
        assert Recipe(config).split(name) == ("photos", split, {**options, "flag": flag})


MODEL_VALUES = {
    "image_size": 70,
    "geometry": "valid224",
    "towers": 1,
    "conv_features": (8, 8, 8, 8, 8),
    "conv6_features": 4,
    "fc_features": (16, 16),
    "remove": ("conv4",),
    "exchange": ("fc8",),
    "activation": "tanh",
    "conv1_order": ("lrn", "activation", "pool"),
    "conv2_order": ("pool", "activation"),
    "lrn": False,
    "lrn_size": 3,
    "lrn_k": 1.0,
    "lrn_alpha": 1e-3,
    "lrn_beta": 0.5,
    "lrn_alpha_over_n": True,
    "lrn_scope": "all",
    "pool_window": 2,
    "pool_stride": 1,
    "dropout_rate": 0.2,
    "dropout_style": "inverted",
    "dropout_at": ("conv5", "fc6"),
    "initialization": "caffe",
    "hidden_bias": 0.5,
    "precision": "bfloat16",
}


@pytest.mark.parametrize("field", list(default.get_config().model))
def test_a_field_of_the_network_reaches_it(field):
    value = MODEL_VALUES[field]
    config = small_config(**{"model__image_size": 67, f"model__{field}": value})
    assert getattr(Recipe(config).model, field) == value
    config.model[field] = None
    assert getattr(Recipe(config).model, field) != value


def test_the_preset_reaches_the_network():
    assert Recipe(small_config(preset="original")).model.lrn_alpha_over_n


# --- around the steps -------------------------------------------------------------------------

# (loss, top-1 error) of each validation: best by error at the second, by loss at the third.
CURVE = [(3.0, 0.9), (2.0, 0.3), (1.0, 0.5), (1.5, 0.6), (2.5, 0.4), (2.6, 0.7)]


@pytest.fixture
def dictated(monkeypatch):
    """Trains with the validations of `CURVE`; gives the log, the run and the evaluations' calls."""

    def run(workdir, **changes):
        calls = []
        curve = iter(CURVE)

        def validate(eval_step, state, dataset, batch_size, *rest):
            calls.append(("validation", int(state.step), dataset.split, batch_size))
            loss, error = next(curve)
            return Measured({"loss": loss, "top1_error": error, "top5_error": 0.0}, 1.0)

        def test(eval_step, state, dataset, batch_size, *rest):
            calls.append(("test", int(state.step), dataset.split, batch_size))
            return Measured({"loss": 9.0, "top1_error": 0.9, "top5_error": 0.9}, 1.0)

        monkeypatch.setattr(training_module, "evaluate", validate)
        monkeypatch.setattr(final_test_module, "evaluate", test)
        config = small_config(num_epochs=6, test_split="test[:8]", **changes)
        train(config, workdir)
        return log_of(workdir), calls

    return run


def rates(log):
    return [row["learning_rate"] for row in log if row["split"] == "train"]


@pytest.mark.parametrize(("metric", "step"), [("loss", 3), *slow_rows(("top1_error", 2))])
def test_the_best_checkpoint_is_that_of_the_metric_named_and_is_the_one_tested(
    tmp_path, dictated, metric, step
):
    log, calls = dictated(tmp_path, best_metric=metric)
    assert load_run(tmp_path, which="best").step == step
    assert load_run(tmp_path, which="last").step == 6
    assert [call for call in calls if call[0] == "test"] == [
        ("test", step, "test[:8]", 256),
        ("test", step, "test[:8]", 25),
    ]
    assert [(row["step"], row["split"]) for row in log[-2:]] == [
        (step, "test"),
        (step, "test_ten_views"),
    ]


def test_the_plateau_is_one_of_the_validation_error(tmp_path, dictated):
    log, _ = dictated(
        tmp_path, **{"schedule__name": "plateau", "schedule__patience": 2, "best_metric": "loss"}
    )
    # Errors 90, 30, 50, 60: two in a row above the best after the fourth validation. By the loss
    # (3, 2, 1, 1.5, 2.5) that would be one later.
    assert rates(log) == pytest.approx([0.01] * 4 + [0.001] * 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"schedule__name": "drops", "schedule__drops": (2.0,), "schedule__factor": 2.0},
            [1, 1, 0.5, 0.5, 0.5, 0.5],
        ),
        (
            {
                "schedule__name": "plateau",
                "schedule__patience": 1,
                "schedule__max_drops": 1,
                "schedule__stop": False,
            },
            [1, 1, 1, 0.1, 0.1, 0.1],
        ),
        (
            {"schedule__name": "plateau", "schedule__patience": 1, "schedule__min_delta": 0.7},
            [1, 1, 0.1, 0.01, 0.001],  # 90 to 30 is no improvement of 70
        ),
        *slow_rows(
            ({"schedule__warmup_epochs": 4.0}, [0.25, 0.5, 0.75, 1, 1, 1]),
            ({"learning_rate": 0.02}, [0.02] * 6),
            (
                {"schedule__name": "drops", "schedule__drops": (2.0, 4.0)},
                [1, 1, 0.1, 0.1, 0.01, 0.01],
            ),
            ({"schedule__name": "drops", "schedule__drops": (0.5,)}, [1, 1, 1, 0.1, 0.1, 0.1]),
            ({"schedule__name": "plateau", "schedule__patience": 1}, [1, 1, 1, 0.1, 0.01, 0.001]),
            (
                {"schedule__name": "plateau", "schedule__patience": 1, "schedule__max_drops": 1},
                [1, 1, 1, 0.1],  # the next stall ends the run
            ),
        ),
    ],
)
def test_a_field_of_the_schedule_changes_the_rates(tmp_path, dictated, changes, expected):
    log, _ = dictated(tmp_path, **changes)
    base = 1 if "learning_rate" in changes else 0.01
    assert rates(log) == pytest.approx([base * factor for factor in expected])


@pytest.mark.parametrize(
    ("changes", "validations", "trained"),
    [
        ({"validate_every_epochs": 4, "log_every_steps": 5}, [4, 6], [5, 6]),
        *slow_rows(({}, [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])),
    ],
)
def test_it_validates_and_logs_when_it_is_told_to(
    tmp_path, dictated, changes, validations, trained
):
    log, calls = dictated(tmp_path, **changes)
    assert [call[1] for call in calls if call[0] == "validation"] == validations
    for split, steps in (("validation", validations), ("train", trained)):
        assert [row["step"] for row in log if row["split"] == split] == steps


def test_the_splits_views_and_batch_of_the_evaluations(tmp_path, dictated):
    _, calls = dictated(
        tmp_path,
        validation_split="validation[16:24]",
        eval_batch_size=40,
        final_views=("ten",),
    )
    assert {call[2:] for call in calls if call[0] == "validation"} == {("validation[16:24]", 40)}
    assert [call for call in calls if call[0] == "test"] == [("test", 3, "test[:8]", 4)]


def test_checkpoints_are_written_when_they_are_asked_for(tmp_path, dictated, monkeypatch):
    saved = []
    save = training_module.Checkpointer.save

    def spy(self, step, state, **rest):
        saved.append((step, rest["best_metric"]))
        return save(self, step, state, **rest)

    monkeypatch.setattr(training_module.Checkpointer, "save", spy)
    dictated(tmp_path, validate_every_epochs=3, checkpoint_every_steps=2, best_metric="top1_error")
    assert saved == [(2, None), (3, 0.9), (4, None), (6, 0.3)]


def test_kept_checkpoints_stay_from_the_first_on(tmp_path, dictated):
    dictated(tmp_path, keep_every_epochs=2.0, validate_every_epochs=3)
    with Checkpointer(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == (0, 2, 4, 6)
        assert checkpoints.best_step == 6


def test_parameters_that_are_no_numbers_are_not_saved(tmp_path, dictated):
    with pytest.raises(FloatingPointError, match="a parameter is not a number at step 1, before"):
        dictated(tmp_path, learning_rate=1e30, weight_decay=1e30)  # their product is infinite
    assert not any((tmp_path / "checkpoints").iterdir())


def stand_in_for_updates(monkeypatch, told):
    """Calls of many updates that compute nothing and tell the images that they were given."""

    def make(*_, **__):
        def train_steps(state, data, indices, hparams):
            told(indices)
            metrics = dict.fromkeys(METRICS, np.zeros(len(indices), np.float32))
            return state.replace(step=state.step + len(indices)), metrics

        return train_steps

    monkeypatch.setattr(training_module, "make_train_steps", make)


def test_many_updates_in_one_call_take_the_images_of_single_ones(tmp_path, dictated, monkeypatch):
    taken = []
    stand_in_for_updates(monkeypatch, taken.extend)
    split = {"train_split": "train[:24]", "cache": "device"}
    dictated(tmp_path, seed=7, steps_per_call=2, log_every_steps=3, **split)
    order = batch_indices(24, batch_size=8, seed=7)
    np.testing.assert_array_equal(taken, [order[step] for step in range(18)])


def test_calls_that_something_cuts_short_take_few_programs(tmp_path, dictated, monkeypatch):
    calls = []
    stand_in_for_updates(monkeypatch, lambda indices: calls.append(len(indices)))
    split = {"train_split": "train[:24]", "cache": "device"}  # 24 updates an epoch
    dictated(tmp_path, batch_size=1, steps_per_call=10, log_every_steps=17, **split)
    assert sum(calls) == 6 * 24
    assert set(calls) == {10, 8, 4, 2, 1}  # and not every number up to 10


@pytest.mark.slow
def test_the_time_that_compiling_takes_is_not_logged_as_training(tmp_path, dictated, monkeypatch):
    lengths = set()

    def takes_its_time(indices):
        time.sleep(0.05 if len(indices) in lengths else 1)
        lengths.add(len(indices))

    stand_in_for_updates(monkeypatch, takes_its_time)
    split = {"train_split": "train[:24]", "cache": "device"}
    dictated(tmp_path, batch_size=1, steps_per_call=5, log_every_steps=12, **split)  # 5, 5, 2 …
    rates = [row["images_per_second"] for row in log_of(tmp_path) if row["split"] == "train"]
    assert len(rates) == 12
    assert all(15 < rate < 110 for rate in rates)  # 100, and 80, where all else takes no time


def test_the_networks_of_an_ensemble_have_seeds_of_their_own(tmp_path, monkeypatch):
    trained = {}

    def one(config, workdir, **_):
        trained[workdir.name] = (config.seed, config.ensemble)
        return {"test": {}}

    monkeypatch.setattr(launch_module, "_train_one", one)
    results = train(small_config(seed=5, ensemble=3), tmp_path)
    assert trained == {"seed_5": (5, 1), "seed_6": (6, 1), "seed_7": (7, 1)}
    assert results.keys() == {"seed_5/test", "seed_6/test", "seed_7/test"}


def test_an_ensemble_takes_more_networks_and_not_fewer(tmp_path):
    save_config(small_config(ensemble=2), tmp_path, resumes=False)
    changes = save_config(small_config(ensemble=3), tmp_path, resumes=True)
    assert changes == ["ensemble was 2 and is 3 from here on"]
    for count in (2, 1):
        with pytest.raises(ValueError, match=f"ensemble was 3 and is {count}; give"):
            save_config(small_config(ensemble=count), tmp_path, resumes=True)
    save_config(small_config(), tmp_path, resumes=False)  # one run is no ensemble
    with pytest.raises(ValueError, match="ensemble was 1 and is 2; give"):
        save_config(small_config(ensemble=2), tmp_path, resumes=True)


def test_an_ensemble_and_a_run_leave_each_others_folder_alone(tmp_path):
    run = write_run(tmp_path / "run")
    before = (run / "config.json").read_bytes()
    with pytest.raises(ValueError, match="holds a run of another configuration"):
        train(small_config(ensemble=2), run)
    assert (run / "config.json").read_bytes() == before
    both = tmp_path / "both"
    write_run(both / "seed_0")
    save_config(small_config(ensemble=2), both, resumes=False)
    before = (both / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"holds an ensemble; give its --config\.ensemble"):
        train(small_config(), both)
    assert (both / "config.json").read_bytes() == before


def test_a_split_without_labels_is_told_before_anything_is_trained(tmp_path):
    path = write_dataset(tmp_path, "bare", grey(8), [0, 1, 2, 0, 1, 2, 0, -1], num_classes=10)
    config = small_config(dataset="bare", data_dir=str(tmp_path), stored_size=72)
    config.train_split, config.validation_split = "train[:4]", "train[4:7]"
    config.test_split = "train[7:]"
    with pytest.raises(
        ValueError, match=r"^the test split, train\[7:\] of bare/1.0.0, has no labe"
    ):
        train(config, tmp_path / "run")
    config.validation_split, config.test_split = config.test_split, None
    with pytest.raises(ValueError, match="has label -1, outside 0 to 9; take a split with labels"):
        train(config, tmp_path / "run")
    assert path.exists() and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_ensemble_is_the_runs_of_its_seeds(tmp_path):
    results = train(
        small_config(seed=5, ensemble=2, test_split="test[:8]", final_views=("center",)),
        tmp_path / "both",
    )
    assert results.keys() == {"seed_5/test", "seed_6/test"}
    for seed in (5, 6):
        train(small_config(seed=seed), tmp_path / str(seed))
        alone, member = (
            load_run(folder, which="last")
            for folder in (tmp_path / str(seed), tmp_path / "both" / f"seed_{seed}")
        )
        assert member.config.seed == seed and member.config.ensemble == 1
        jax.tree.map(np.testing.assert_array_equal, alone.params, member.params)


# --- all of them ------------------------------------------------------------------------------

# Fields that the tests above change, by dotted name; and where the others are tested.
ELSEWHERE = {
    "read_workers": "test_main.py: where the images are kept changes no run",
    "watch_every_steps": "test_vitals.py",
    "mesh.data": "test_parallel.py",
    "mesh.model": "test_parallel.py",
}


def test_every_field_is_tested():
    config = default.get_config()
    fields = set(flatten_dict(json.loads(config.to_json()), sep="."))
    together = {field for _, changes in TOGETHER for field in changes}
    assert together == {field for field, _ in STEP_FIELDS}
    tested = together | {f"model.{name}" for name in MODEL_VALUES}
    tested |= {
        "preset", "init_from", "ensemble", "validation_split", "test_split", "eval_batch_size",
        "final_views", "best_metric", "validate_every_epochs", "log_every_steps",
        "checkpoint_every_steps", "keep_every_epochs", "schedule.name", "schedule.drops",
        "schedule.factor",
        "schedule.patience", "schedule.min_delta", "schedule.max_drops", "schedule.stop",
        "schedule.warmup_epochs", "dataset", "data_dir", "verify_data", "steps_per_call",
    }  # fmt: skip
    tested |= ELSEWHERE.keys()
    for group in ("rate_multipliers", "decay_multipliers"):  # one layer stands for all
        tested |= {f"{group}.{layer}" for layer in config[group]}
    assert fields <= tested
