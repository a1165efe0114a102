"""Which part of a data set a split is, in tfds's words, or what to write instead."""

import re
from pathlib import Path

import tensorflow_datasets as tfds

from alexnet_jax.data.names import PARTS

# The flags that may have nothing behind their =.
_MAY_BE_EMPTY = ("--config.test_split", "--validation_split", "--test_split")


def split_files(info: tfds.core.DatasetInfo, split: str, flag: str = "") -> list[Path]:
    """The shards that hold the images of a split.

    Args:
      info: of the data set.
      split: as tfds writes it, such as `train[:90%]` or `train+test`.
      flag: what names the split on a command line, for the messages.

    Raises:
      ValueError: the set has no such split, or a part of it is no slice, or ends before it begins,
        which tfds would take for a negative number of images; or all are empty.
    """
    try:
        for part in re.split(r"\s*\+\s*", split):
            _check_part(info, part, flag)
        files = [Path(file) for file in info.splits[split].filepaths]
        if not files:
            raise ValueError(f"split {split!r} of {info.full_name} is empty; take a larger part")
    except ValueError as error:
        raise ValueError(f"{flag}: {error}" if flag else str(error)) from None
    return files


def _check_part(info: tfds.core.DatasetInfo, part: str, flag: str) -> None:
    name, sliced, selector = part.partition("[")
    if name not in info.splits and part != "all":
        raise ValueError(
            f"{info.full_name} has no split {part!r}; it has {split_names(info)}"
            f"{_hint(info, part, flag)}"
        )
    if not sliced:
        return
    count = info.splits[name].num_examples
    try:
        (taken,) = tfds.core.ReadInstruction.from_spec(part).to_absolute(info.splits)
    except ValueError:
        raise ValueError(
            f"{part!r} is no slice of {info.full_name}: {name} has {count:,} images; write "
            f"{name}[:{count // 2}] or {name}[50%:], say"
        ) from None
    # None is the beginning and the end.
    if (taken.from_ or 0) > (count if taken.to is None else taken.to):
        begin, _, end = selector.removesuffix("]").partition(":")
        raise ValueError(
            f"split {part!r} of {info.full_name} ends before it begins; write {name}[{end}:{begin}]"
        )


def _hint(info: tfds.core.DatasetInfo, part: str, flag: str) -> str:
    if flag in _MAY_BE_EMPTY and part.lower() in ("none", "null", "validation", "test"):
        return f"; {flag}= with nothing behind it names none"
    if flag == "--config.validation_split" and part == "validation" and "train" in info.splits:
        return f"; train with {PARTS}"
    return ""


def split_names(info: tfds.core.DatasetInfo) -> str:
    """Those of the set, in one line."""
    return ", ".join(sorted(info.splits))
