"""Names for people of ImageNet's classes, which data sets number by WordNet synset."""

import functools
from collections.abc import Sequence
from importlib import resources


def readable_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names with ILSVRC-2012's synset numbers replaced: "n01440764" becomes "tench".

    Others stay as they are.

    Source: the first word of each synset, WordNet 3.0, Copyright 2006 by Princeton University.
    """
    words = _words()
    return tuple(words.get(name, name) for name in class_names)


def synsets() -> tuple[str, ...]:
    """ILSVRC-2012's 1,000 synset numbers in their usual order, which is Caffe's, too."""
    return tuple(_words())


@functools.cache
def _words() -> dict[str, str]:
    lines = (resources.files(__package__) / "synsets.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)
