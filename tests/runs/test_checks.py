"""Whatever is written into a configuration, it is a run or one line that names the field."""

import json
import math

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from alexnet_jax.configs import default, digits
from alexnet_jax.data.cache import CACHES
from alexnet_jax.runs.checks import check
from alexnet_jax.runs.recipe import build_model

NONSENSE = [
    None, 0, -1, 2**40, 10**400, 1e20, math.nan, math.inf, -0.5, "", "x", True, (), ("a", "b"),
    (0,), (math.nan,), [], {}, {"kernel": None}, (("a", "b"),), ((0, {"nofield": 1}),),
    ((math.nan, {}),),
]  # fmt: skip


def put(config, field, value):
    """Sets a field whatever the type of its value, as a file of one's own could."""
    group, _, name = field.rpartition(".")
    fields = config[group] if group else config
    with fields.unlocked():
        if name in fields:  # else a whole number in the place of a float is made one
            del fields[name]
        fields[name] = value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("log_every_steps", 0),
        ("num_epochs", 1e20),
        ("num_epochs", math.nan),
        ("batch_size", 0),
        ("learning_rate", math.nan),
        ("learning_rate", 1e-50),
        ("learning_rate", 1e39),
        ("bias_learning_rate", 1e39),
        ("weight_decay", 1e-40),
        ("momentum", 2),
        ("color_strength", 1e30),
        ("seed", -1),
        ("seed", 2**40),
        pytest.param("seed", 10**400, id="seed of 400 digits"),
        pytest.param("learning_rate", 10**400, id="learning_rate of 400 digits"),
        ("ensemble", 0),
        ("final_views", ("nine",)),
        ("final_views", "center"),
        ("schedule.drops", (math.nan,)),
        ("schedule.drops", ("a",)),
        ("schedule.factor", 0.0),
        ("schedule.patience", 0),
        ("schedule.warmup_epochs", -1.0),
        ("rate_multipliers.fc6", []),
        ("rate_multipliers.fc6", {"kernel": None}),
        ("hand_changes", (("a", "b"),)),
        ("hand_changes", ((0, {"nofield": 1}),)),
        ("hand_changes", ((0, {"weight_decay": "x"}),)),
        ("hand_changes", ((0, {"rate_multipliers": 1}),)),
        ("validate_every_epochs", 0),
        ("mesh.model", 3),
        ("augmentation.scale", 0.0),
        ("augmentation.scale", 1e-40),
        ("augmentation.scale", 1e40),
        ("rate_multipliers.fc6", 1e39),
        ("rate_multipliers.fc6", {"bias": 1e-50}),
        ("hand_changes", ((0, {"learning_rate": 1e39}),)),
        ("hand_changes", ((0, {"color_strength": 1e30}),)),
        ("hand_changes", ((0, {"decay_multipliers": {"fc6": 1e39}}),)),
        ("test_split", "None"),
        ("test_split", 3),
    ],
)
def test_a_value_that_makes_no_run_is_named(field, value):
    config = digits.get_config()
    put(config, field, value)
    with pytest.raises(ValueError) as error:
        check(config)
    assert field.partition(".")[2] in str(error.value) or field in str(error.value)
    assert field.split(".")[0] in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_takes_the_caches_that_there_are():
    config = digits.get_config()
    put(config, "cache", "no such")
    with pytest.raises(ValueError, match=f"it is one of {', '.join(map(repr, CACHES))}$"):
        check(config)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("lerning_rate", "unknown config field 'lerning_rate'; did you mean 'learning_rate'?"),
        ("mesh.modle", "unknown config field 'modle'; did you mean 'model'?"),
        ("augmentation.colour", "unknown config field 'colour'; did you mean 'color'?"),
        ("schedule.patients", "unknown config field 'patients'; did you mean 'patience'?"),
        ("drops", "'drops' there; most recipes have --config.schedule.drops"),
        ("nosuchthing", "'nosuchthing'; alexnet_jax/configs/default.py lists them"),
    ],
)
def test_a_field_that_no_run_has_is_named_unless_it_is_another_version_s(field, message):
    config = digits.get_config()
    put(config, field, 2)
    with pytest.raises(ValueError) as error:
        check(config)
    assert message in str(error.value)
    check(config, besides=None)


@pytest.mark.parametrize("group", ["augmentation", "schedule", "mesh", "model", "rate_multipliers"])
def test_a_value_in_the_place_of_a_group_is_named(group):
    config = digits.get_config()
    put(config, group, 3)
    with pytest.raises(ValueError, match=f"{group}=3; it has fields: "):
        check(config)
    with pytest.raises(ValueError, match=r"the configuration is None; let get_config\(\) return"):
        check(None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"read_workers": 2, "augment": "host"}, "read_workers=2 with augment='host'"),
        ({"read_workers": 2, "cache": "device"}, "read_workers=2 with cache='device'"),
        ({"learning_rate": 0.0, "bias_learning_rate": 0.02}, "learning_rate=0 with a bias_learn"),
        (
            {"hand_changes": ((1, {"learning_rate": 0.0}),), "bias_learning_rate": 0.02},
            "hand_changes has learning_rate=0 with a bias_learning_rate",
        ),
        (
            {"learning_rate": 1e-37, "bias_learning_rate": 100.0},
            "learning_rate=1e-37 with a bias_learning_rate",
        ),
        ({"learning_rate": 1e39}, r"it is 0, or from 1\.18e-38 to 3\.4e\+38, which float32 holds$"),
        ({"schedule.factor": 1e200}, "schedule.factor=1e.200; it is a number of at least 0.001"),
    ],
)
def test_fields_that_do_not_go_together_are_named(changes, message):
    config = digits.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        check(config)


def test_any_value_of_any_field_is_a_run_or_one_line_with_its_name():
    rng = np.random.default_rng(0)
    fields = sorted(flatten_dict(json.loads(default.get_config().to_json()), sep="."))
    refused = 0
    for _ in range(400):
        field, value = fields[rng.integers(len(fields))], NONSENSE[rng.integers(len(NONSENSE))]
        config = digits.get_config()
        put(config, field, value)
        try:
            check(config)
            build_model(config, 10)
        except ValueError as error:
            refused += 1
            assert field.rpartition(".")[2] in str(error), (field, value, str(error))
            assert "\n" not in str(error)
    assert refused > 200


@pytest.mark.parametrize(
    "field",
    [
        "checkpoint_every_steps",
        "keep_every_epochs",
        "mesh.data",
        "bias_learning_rate",
        "test_split",
    ],
)
def test_what_may_be_empty_may_be(field):
    config = digits.get_config()
    put(config, field, None)
    check(config)
