"""The photographs that reading and preparing are timed on."""

import os
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "photographs", None, "folder of class/image.JPEG (default: imagenet_samples, ALEXNET_DATA_DIR)"
)


def find() -> list[Path]:
    """All of --photographs.

    Raises:
      ValueError: there are none.
    """
    folder = FLAGS.photographs
    if folder is None and (data := os.environ.get("ALEXNET_DATA_DIR")):
        folder = str(Path(data).parent / "imagenet_samples")
    paths = sorted(Path(folder).glob("*/*.JPEG")) if folder else []
    if not paths:
        where = folder or "a folder that nobody named"
        raise ValueError(f"no class/image.JPEG in {where}: give --photographs=DIR")
    return paths


def draw(folder: Path, images: int) -> list[Path]:
    """Writes small pictures of noise, in two classes."""
    rng = np.random.default_rng(0)
    paths = [folder / f"n0000000{number % 2}" / f"{number}.JPEG" for number in range(images)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((320, 240)).save(path, "JPEG")
    return paths
