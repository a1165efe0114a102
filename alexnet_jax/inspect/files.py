"""A user's own image files: found in folders, read upright, each failure by itself."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from alexnet_jax.data.images import IMAGE_SUFFIXES, ImageError, decode_image, read_image
from alexnet_jax.data.names import is_litter
from alexnet_jax.files import local_path


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files named, and those of the folders named and below that end in `IMAGE_SUFFIXES`.

    Links are followed; hidden files and what systems leave in folders are passed over.

    Raises:
      ValueError: nothing is named, or a folder holds no image.
    """
    if not paths:
        raise ValueError("no image is named; give files or folders of images")
    files = []
    for path in map(local_path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(_images_below(path, seen=set()))
        if not inside:
            raise ValueError(
                f"{path} holds no image; put files there that end in "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        files += inside
    return files


def _images_below(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if is_litter(entry.name):
            continue
        if path.is_dir():
            yield from _images_below(path, seen)
        elif path.suffix.lower() in IMAGE_SUFFIXES:  # a broken link too: reading it names it
            yield path


def read_images(
    files: Sequence[Path], size: int, *, batch_size: int
) -> Iterator[list[tuple[Path, np.ndarray | ImageError]]]:
    """Batches of files with their images uint8 [size, size, 3], or with what is wrong of them.

    Cameras' rotation is undone, which training sets have none of.
    """
    with ThreadPoolExecutor() as pool:
        for at in range(0, len(files), batch_size):
            some = files[at : at + batch_size]
            yield list(zip(some, pool.map(partial(_read, size=size), some), strict=True))


def _read(file: Path, size: int) -> np.ndarray | ImageError:
    try:
        data = read_image(file, name=str(file))
        return decode_image(data, size, name=str(file), upright=True)
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(f"{file} cannot be read: {error.strerror}")
