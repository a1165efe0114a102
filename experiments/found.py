"""How what results hold about a claim is read and told."""

import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from alexnet_jax.files import json_object, text_of
from experiments import harness
from experiments.verdicts import UNTESTED

IMAGENET = "needs ImageNet's photographs, which are not free to pass on"


class Found(NamedTuple):
    """What a claim came to."""

    ours: str
    scale: str  # data, size, length, seeds
    verdict: str
    command: str = ""  # which made the result; empty: the claim's
    picture: str = ""  # in results/
    rule: str = ""  # of the verdict, where it is not that of an interval


Find = Callable[[], Found | None]


def result(name: str) -> Any:
    """The result of a file in results/; None where it is not there.

    Raises:
      ValueError: it is damaged; the message names it.
    """
    content = harness.recorded(name)
    return content.get("result", content) or None


def log_of_one_net() -> dict[str, dict] | None:
    """The last line of each split in the log of Imagenette at the paper's size, once it is tested.

    Raises:
      ValueError: it is damaged; the message names it.
    """
    path = harness.RESULTS / "imagenette_224.jsonl"
    if not path.exists():
        return None
    lines = text_of(path.read_bytes(), path).splitlines()
    rows = [json_object(line, f"{path}, line {n}") for n, line in enumerate(lines, 1)]
    last = {row["split"]: row for row in rows}
    return last if {"test", "test_ten_views"} <= set(last) else None


def command(module: str, **flags: Any) -> str:
    """The command of an experiment with flags; a list is a flag each, None is left out."""
    words = ["python", "-m", f"experiments.{module}"]
    for name, value in flags.items():
        if value is not None:
            for one in value if isinstance(value, list) else [value]:
                words.append(f"--{name}={one:g}" if isinstance(one, float) else f"--{name}={one}")
    return shlex.join(words)


def listed(epochs: dict[Any, float | None]) -> str:
    """Epochs by seed in words."""
    return ", ".join("never" if one is None else f"{one:g}" for one in epochs.values())


def counted(images: dict[str, int]) -> str:
    """Training and test images in words."""
    return f"{images['train']:,} training and {images['test']:,} test images"


def size(table: dict) -> str:
    """Pixels, width and length of nets for Imagenette in words."""
    width = table.get("width", 1)
    narrower = "" if width == 1 else f"{width:g} of the width, "
    return f"{table['image_size']} pixels, {narrower}{table['epochs']} epochs"


def size_flags(table: dict) -> dict[str, Any]:
    """The same as flags of `command`."""
    return {
        "image_size": table["image_size"],
        "width": table.get("width"),
        "num_epochs": table["epochs"],
    }


def untested() -> Found:
    """A claim about ImageNet."""
    return Found("", "", f"{UNTESTED}: {IMAGENET}")
