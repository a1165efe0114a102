"""Keeps tfds from running code that a data set names; imported before a set is opened.

tfds imports the module of whatever class `features.json` or `dataset_info.json` names, from the
current folder too. Its one function for that is replaced, as a name may stand at any depth of
either file, in JSON inside JSON too.
"""

import sys
from typing import Any

import tensorflow_datasets as tfds

_class_of = tfds.features.FeatureConnector.cls_from_name


def _known_class(name: str) -> type[Any]:
    module = name.rpartition(".")[0]
    if not module.startswith("tensorflow_datasets.core.features.") and module not in sys.modules:
        raise ValueError(
            f"it names the class {name}, which is none of tfds's, and no code of a data set is run"
        )
    return _class_of(name)


tfds.features.FeatureConnector.cls_from_name = staticmethod(_known_class)
