"""The files that describe a prepared data set, beside its shards: can they be read, all of them?"""

import json
from pathlib import Path

import tensorflow_datasets as tfds

from alexnet_jax.wording import first_line

DESCRIPTION = "dataset_info.json"  # these are tfds's own, as are their names
FEATURES = "features.json"
NAMES = "label.labels.txt"
METADATA = "metadata.json"


def again(folder: Path) -> str:
    """What to do about a set in `folder` that is damaged: both commands leave what lies there."""
    return f"copy it again, or delete {folder} and prepare the data set again"


def damage(folder: Path, error: Exception) -> str:
    """What to say where tfds cannot read the description of the set in `folder`, or below."""
    # Where a file holds nonsense that is well formed, it is this one.
    rest = next(folder.rglob(DESCRIPTION), folder)
    files = (*sorted(folder.rglob("*.json")), *folder.rglob(NAMES))
    culprit = next(filter(_problem, files), rest)
    return f"{culprit} is damaged ({first_line(error)}); {again(culprit.parent)}"


def check_descriptions(folder: Path) -> None:
    """Checks that the set that `prepare` has written to `folder` is described there.

    Raises:
      ValueError: a file is missing, or cannot be read; the message names it.
    """
    for name in (DESCRIPTION, FEATURES, NAMES, METADATA):
        file = folder / name
        if not file.exists():
            raise ValueError(f"{file} is missing; {again(folder)}")
        if problem := _problem(file):
            raise ValueError(f"{file} is damaged ({problem}); {again(folder)}")


def _problem(file: Path) -> str:
    """Why a file of a description cannot be read; "" where it can."""
    try:
        if file.name == NAMES:
            file.read_text(encoding="utf-8")
            return ""
        if file.name == FEATURES:
            tfds.features.FeatureConnector.from_config(file.parent)
        elif file.name == DESCRIPTION:
            tfds.core.dataset_info.read_proto_from_builder_dir(file.parent)
        return "" if isinstance(json.loads(file.read_bytes()), dict) else "it holds no object"
    except Exception as error:  # of many kinds; what matters is which file
        return first_line(error) or type(error).__name__
