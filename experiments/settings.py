"""The settings of sweeps: what each changes in a recipe, and what names it."""

import ast
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from alexnet_jax.configs import default
from alexnet_jax.runs import checks
from alexnet_jax.runs.recipe import Recipe, build_model
from alexnet_jax.wording import suggestion

Setting = Mapping[str, Any]
# Fields of which no result depends: where a run computes, what it logs and keeps.
COMPUTES_NOTHING = ("data_dir", "cache", "read_workers", "verify_data", "mesh", "steps_per_call")
COMPUTES_NOTHING += ("eval_batch_size", "log_every_steps", "watch_every_steps")
COMPUTES_NOTHING += ("checkpoint_every_steps", "keep_every_epochs")
# And those of which none of a sweep does: it validates after each epoch and tests the last state.
UNASKED = (*COMPUTES_NOTHING, "best_metric", "validate_every_epochs")


def name_of(setting: Setting) -> str:
    """A setting in words, without its seed."""
    fields = {field: value for field, value in setting.items() if field != "seed"}
    words = [f"{field.split('.')[-1]} {value}" for field, value in fields.items()]
    return ", ".join(words) or "as configured"


def flat(config: ConfigDict, without: Sequence[str] = COMPUTES_NOTHING) -> dict[str, Any]:
    """The fields on which results depend, "group.field" -> value, as JSON has them."""
    fields = flatten_dict(config.to_dict(), sep=".")
    kept = {field: value for field, value in fields.items() if not _among(without, field)}
    return json.loads(json.dumps(kept, default=str))


@cache
def usual() -> dict[str, Any]:
    """`flat` of the configuration whose fields all have their defaults."""
    return flat(default.get_config())


def identity(config: ConfigDict, target: float | None = None) -> str:
    """What names a run that ends after its epochs, or before at the error `target`: a digest.

    Without the fields that have their default: one that is added later gives the runs of before no
    other names.
    """
    return _digest(json.dumps([own_fields(config, UNASKED), target], sort_keys=True))


def own_fields(config: ConfigDict, without: Sequence[str] = COMPUTES_NOTHING) -> dict[str, Any]:
    """`flat` without the fields that have their default."""
    fields = flat(config, without).items()
    return {field: value for field, value in fields if value != usual().get(field)}


def _among(fields: Sequence[str], field: str) -> bool:
    """Whether a field, or its group, is one of these."""
    return field.partition(".")[0] in fields


def architecture(recipe: Recipe) -> str:
    """What runs must share to share their programs: network, augmentation, data and batch."""
    config = recipe.config
    given = jax.tree.structure(recipe.hyperparameters(0))
    splits = (config.dataset, config.train_split, config.validation_split, config.test_split)
    constants = [np.asarray(value).tobytes() for value in recipe.constants.values()]
    parts = (recipe.model, dict(config.augmentation), splits, config.batch_size, given, constants)
    sizes = (config.stored_size, tuple(config.final_views))
    return _digest(repr((*parts, *sizes)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def configure(base: ConfigDict, setting: Setting) -> ConfigDict:
    """A copy of `base` with the fields of `setting`.

    Raises:
      ValueError: it names a field that is not there or that changes no run of a sweep, or a value
        that the field cannot have.
    """
    config = base.copy_and_resolve_references()
    known = list(flatten_dict(config.to_dict(), sep="."))
    try:
        for field in setting:
            if field not in known:
                raise ValueError(f"unknown config field {field!r}: {suggestion(field, known)}")
            _override(config, field, setting[field])
        checks.check(config)
        build_model(config, num_classes=10)
        for field, usual in _UNUSED.items():
            group, _, name = field.rpartition(".")
            value = (config[group] if group else config)[name]
            if value not in usual:
                raise ValueError(
                    f"{field}={value!r}, which a sweep does not use; it is {usual[0]!r}"
                )
        if config.schedule.name == "plateau" and config.validate_every_epochs != 1:
            raise ValueError(
                f"validate_every_epochs={config.validate_every_epochs} of a plateau; a sweep "
                "validates after each epoch, it is 1"
            )
        if round(config.num_epochs) != config.num_epochs or config.num_epochs < 1:
            raise ValueError(f"num_epochs={config.num_epochs}; a sweep trains whole epochs")
        for field in setting:  # two values would be two trainings of the same run
            asked = field == "validate_every_epochs" and config.schedule.name == "plateau"
            if _among(UNASKED, field) and not asked:
                raise ValueError(f"{field} changes nothing of what a sweep trains; leave it out")
    except ValueError as error:
        raise ValueError(f"setting {dict(setting)}: {error.args[0]}") from error
    return config


# Fields that `fitting.fit` does not use and that would change what comes out, or what for.
_UNUSED = {
    "init_from": (None,),
    "ensemble": (1,),
    "augment": ("device",),
    "mesh.data": (None, 1),
    "mesh.model": (1,),
}


def plain(value: Any) -> Any:
    """A value of NumPy as Python has it; what is none as it is."""
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value


def _override(config: ConfigDict, field: str, value: Any) -> None:
    group, _, name = field.rpartition(".")
    kind = (config[group] if group else config).get_type(name)
    value = plain(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)  # 2 and 2.0 are the same run
    try:
        config.update_from_flattened_dict({field: value})
    except TypeError as error:
        now = type(flatten_dict(config.to_dict(), sep=".")[field]).__name__
        raise ValueError(
            f"{field}={value!r} is a {type(value).__name__} where a {now} is wanted"
        ) from error


def grid(axes: Sequence[str]) -> Iterator[Setting]:
    """All combinations of "field=value,value,…", the last one varying fastest.

    Values are as Python writes them, commas in brackets are theirs; others are words.

    Raises:
      ValueError: an axis is not of this form, or two are of one field.
    """
    fields, values = [], []
    for axis in axes:
        field, equals, listed = axis.partition("=")
        if not (field and equals and listed):
            raise ValueError(f"--grid={axis!r}: write it as --grid=field=value,value")
        if field in fields:
            raise ValueError(f"--grid has {field} twice; give all its values in one")
        fields.append(field)
        values.append([_parsed(text) for text in _split(listed)])
    for chosen in itertools.product(*values):
        yield dict(zip(fields, chosen, strict=True))


def _split(listed: str) -> list[str]:
    """The texts between the commas that stand in no brackets."""
    texts, depth = [""], 0
    for letter in listed:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            texts.append("")
        else:
            texts[-1] += letter
    return texts


def _parsed(text: str) -> Any:
    """The value where the text is one as Python writes it, or JSON's true, false, null."""
    text = {"true": "True", "false": "False", "null": "None"}.get(text, text)
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
