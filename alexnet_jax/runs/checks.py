"""Is a configuration one that can be run? Asked before anything is written."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from alexnet_jax.augment import VIEWS
from alexnet_jax.configs import default
from alexnet_jax.kinds import IN_FLOAT32, is_finite, is_in_float32
from alexnet_jax.models.presets import CIFAR_PRESETS, PRESETS
from alexnet_jax.scores import METRICS
from alexnet_jax.state import Hyperparameters
from alexnet_jax.wording import suggestion

MOST_EPOCHS = 1e5
LARGEST = 2**31 - 1  # steps and seeds are counted in int32


def check(config: ConfigDict, *, besides: Collection[str] | None = ()) -> None:
    """Checks every field but those of the network, which checks its own.

    Args:
      config: of a run.
      besides: fields, or groups, that are taken though no configuration has them, as that of a run
        of another version may; None takes all.

    Raises:
      ValueError: a field is not known, or has a value that no run can have; it names the field and
        what it may be.
    """
    _check_names(config, besides)
    for field, test in _TESTS.items():
        group, _, name = field.rpartition(".")
        fields = config.get(group) if group else config
        if fields is None or name not in fields:  # a file of an earlier version
            continue
        if wanted := test(fields[name]):
            raise ValueError(f"{field}={_shown(fields[name])}; it is {wanted}")
    for group in _OF_LAYERS:
        for layer, value in (config.get(group) or {}).items():
            if value is not None:
                _check_multiplier(f"{group}.{layer}", value)
    _check_hand_changes(config.hand_changes)
    if config.seed > LARGEST + 1 - config.get("ensemble", 1):
        raise ValueError(
            f"ensemble={config.ensemble} takes the seeds from seed={config.seed} on, and "
            f"{LARGEST:,} is the largest; use a lower seed"
        )
    if (config.augment, config.cache) == ("host", "device"):
        raise ValueError(
            "augment='host' cannot work on images that cache='device' keeps on the device; use "
            "cache='host'"
        )
    if config.read_workers and (config.augment == "host" or config.cache == "device"):
        reason = "augment='host'" if config.augment == "host" else "cache='device'"
        raise ValueError(
            f"read_workers={config.read_workers} with {reason}, which needs the images in this "
            "process; use read_workers=0"
        )
    changes = [change for _, change in config.hand_changes if "learning_rate" in change]
    for told, fields in (("", config), *(("hand_changes has ", change) for change in changes)):
        rate, of_biases = fields["learning_rate"], config.bias_learning_rate
        if of_biases is not None and not (rate and is_in_float32(of_biases / rate)):
            raise ValueError(
                f"{told}learning_rate={rate:g} with a bias_learning_rate, which is a factor on it; "
                "use a larger one"
            )
    if config.steps_per_call > 1 and config.cache != "device":
        raise ValueError(
            f"steps_per_call={config.steps_per_call} with cache={config.cache!r}; it is 1, or more "
            "with cache='device'"
        )


# Groups whose fields are those of a network.
_OF_LAYERS = ("rate_multipliers", "decay_multipliers")


def _check_names(config: ConfigDict, besides: Collection[str] | None) -> None:
    """Raises ValueError for a field that is not known, and for a group that is none."""
    known = default.get_config()
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"the configuration is {config!r:.40}; let get_config() return that of "
            "alexnet_jax.configs.default, with what differs"
        )
    groups = {"": known} | {k: v for k, v in known.items() if isinstance(v, ConfigDict)}
    for group, wanted in groups.items():
        fields = config.get(group, wanted) if group else config
        if not isinstance(fields, ConfigDict):
            if group in _OF_LAYERS and fields is None:
                continue
            raise ValueError(f"{group}={fields!r:.40}; it has fields: {', '.join(wanted)}")
        if group == "model" or group in _OF_LAYERS or besides is None:
            continue
        for name in fields:
            if name not in wanted and (group or name not in besides):
                raise ValueError(unknown_field(str(name)))


def unknown_field(name: str) -> str:
    """What to say of a field that a configuration has not, or not in that group."""
    paths = flatten_dict(default.get_config().to_dict())
    known = {key: ".".join(path[: at + 1]) for path in paths for at, key in enumerate(path)}
    close = difflib.get_close_matches(name, known, n=1)
    if close == [name]:  # a field, but not there, or not of this network
        return f"unknown config field {name!r} there; most recipes have --config.{known[name]}"
    hint = f"did you mean {close[0]!r}?" if close else "alexnet_jax/configs/default.py lists them"
    return f"unknown config field {name!r}; {hint}"


def _shown(value: Any) -> str:
    """A value in one short line."""
    return " ".join(str(value).split())[:80] if isinstance(value, ConfigDict) else repr(value)[:80]


# A test of a value: "" where it will do, else what it has to be.
Test = Callable[[Any], str]


def _number(value: Any, whole: bool = False) -> bool:
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and is_finite(value)


def _whole(least: int, most: int = LARGEST, empty: bool = False) -> Test:
    wanted = f"a whole number from {least} to {most:,}{', or None' if empty else ''}"

    def test(value: Any) -> str:
        good = _number(value, whole=True) and least <= value <= most
        return "" if good or (empty and value is None) else wanted

    return test


def _real(
    least: float, most: float = math.inf, *, above: bool = False, empty: bool = False
) -> Test:
    wanted = "a number " + (f"above {least:g}" if above else f"of at least {least:g}")
    wanted += "" if most == math.inf else f" and at most {most:g}"

    def test(value: Any) -> str:
        if empty and value is None:
            return ""
        good = _number(value) and least <= value <= most and not (above and value == least)
        told = IN_FLOAT32 if good and not is_in_float32(value) else "" if good else wanted
        return told + ", or None" * bool(told and empty)

    return test


def _one_of(*choices: str) -> Test:
    def test(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return ""
        hint = suggestion(str(value), choices)
        listed = f"one of {', '.join(map(repr, choices))}"
        return f"{listed}; {hint}" if hint.startswith("did you mean") else listed

    return test


def _towers(value: Any) -> str:
    good = _number(value, whole=True) and value in (1, 2)
    return "" if good else "1, or 2 for a tower per device"


def _truth(value: Any) -> str:
    return "" if isinstance(value, bool) else "True or False"


def _text(value: Any) -> str:
    return "" if isinstance(value, str) and value else "a name"


def _text_or_none(value: Any) -> str:
    return "" if value is None or (isinstance(value, str) and value) else "a name, or None"


def _split_or_none(value: Any) -> str:
    good = value is None or (isinstance(value, str) and value.lower() not in ("none", "null"))
    return (
        "" if good else "a split; for no test write --config.test_split= with nothing after the ="
    )


def _views(value: Any) -> str:
    good = isinstance(value, Sequence) and not isinstance(value, str)
    good = good and all(isinstance(name, str) and name in VIEWS for name in value)
    return "" if good else f"a tuple of {', '.join(map(repr, VIEWS))}, such as ('center',)"


def _epochs(value: Any) -> str:
    good = isinstance(value, Sequence) and not isinstance(value, str)
    good = good and all(_number(epoch) and epoch > 0 for epoch in value)
    return "" if good else "a tuple of epochs, or of shares of the run below 1, such as (0.6, 0.85)"


_TESTS: dict[str, Test] = {
    "seed": _whole(0),
    "preset": _one_of(*PRESETS, *CIFAR_PRESETS),
    "init_from": _text_or_none,
    "ensemble": _whole(1, 10_000),
    "dataset": _text,
    "data_dir": _text_or_none,
    "train_split": _text,
    "validation_split": _text,
    "test_split": _split_or_none,
    "stored_size": _whole(1, 4096),
    "cache": _one_of("none", "host", "device"),  # `CACHES`, whose module takes a second
    "steps_per_call": _whole(1),
    "read_workers": _whole(0, 1024),
    "verify_data": _truth,
    "augment": _one_of("device", "host"),
    "augmentation.crop": _one_of("random", "center", "ten"),
    "augmentation.flip": _truth,
    "augmentation.color": _one_of("std", "eigenvalue", "none"),
    "augmentation.mean_at": _one_of("crop", "center"),
    "augmentation.scale": _real(1e-6, 1e6),  # of pixels 0-255
    "augmentation.scale_with_color": _truth,
    "augmentation.statistics": _one_of("dataset", "imagenet"),
    "batch_size": _whole(1),
    "num_epochs": _real(0, MOST_EPOCHS),
    "learning_rate": _real(0),
    "bias_learning_rate": _real(0, empty=True),
    "momentum": _real(0, 1),
    "weight_decay": _real(0),
    "color_strength": _real(0, 1e3),  # in standard deviations of the colours
    "schedule.name": _one_of("drops", "plateau", "dexp", "constant"),
    "schedule.drops": _epochs,
    "schedule.factor": _real(1e-3, 1e6),
    "schedule.patience": _whole(1),
    "schedule.min_delta": _real(0),
    "schedule.max_drops": _whole(0),
    "schedule.stop": _truth,
    "schedule.warmup_epochs": _real(0, MOST_EPOCHS),
    "mesh.data": _whole(1, empty=True),
    "mesh.model": _towers,
    "eval_batch_size": _whole(1),
    "validate_every_epochs": _real(0, MOST_EPOCHS, above=True),
    "best_metric": _one_of(*METRICS),
    "log_every_steps": _whole(1),
    "watch_every_steps": _whole(0),
    "checkpoint_every_steps": _whole(1, empty=True),
    "keep_every_epochs": _real(0, MOST_EPOCHS, above=True, empty=True),
    "final_views": _views,
}


_FACTOR = _real(0)


def _check_multiplier(field: str, value: Any) -> None:
    value = value.to_dict() if isinstance(value, ConfigDict) else value
    leaves = value if isinstance(value, Mapping) else {"": value}
    for leaf, factor in leaves.items():
        if wanted := _FACTOR(factor) if isinstance(leaf, str) else "by parameter":
            raise ValueError(
                f"{field}={value!r}; a factor is {wanted}, or there are several by parameter such "
                "as {'kernel': 1.0, 'bias': 2.0}"
            )


def _check_hand_changes(changes: Any) -> None:
    """`((epoch, {field of Hyperparameters: value}), …)`."""
    known = [field.name for field in dataclasses.fields(Hyperparameters)]
    shape = "it is a tuple of (epoch, {field: value}), such as ((67, {'color_strength': 0.0}),)"
    if not isinstance(changes, Sequence) or isinstance(changes, str):
        raise ValueError(f"hand_changes={_shown(changes)}; {shape}")
    for change in changes:
        if not (
            isinstance(change, Sequence)
            and len(change) == 2
            and _number(change[0])
            and change[0] >= 0
            and isinstance(change[1], Mapping)
        ):
            raise ValueError(f"hand_changes has {change!r}; {shape}")
        for name, value in change[1].items():
            if name not in known:
                hint = suggestion(str(name), known)
                raise ValueError(f"hand_changes has field {name!r}, which no step has; {hint}")
            if name not in _OF_LAYERS:
                if wanted := _TESTS[name](value):
                    raise ValueError(f"hand_changes has {name}={value!r}; it is {wanted}")
                continue
            if not isinstance(value, Mapping):
                raise ValueError(f"hand_changes has {name}={value!r}; it is factors by layer")
            for layer, factor in value.items():
                _check_multiplier(f"hand_changes {name}.{layer}", factor)
