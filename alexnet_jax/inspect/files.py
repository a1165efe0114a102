"""A user's own image files: found in folders, read upright, each failure by itself."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from alexnet_jax.data.images import ImageError, decode_image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

_UPRIGHT = {  # EXIF's orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files named, and those of the folders named and below that end in `SUFFIXES`.

    Raises:
      ValueError: nothing is named, or a folder holds no image.
    """
    if not paths:
        raise ValueError("no image is named; give files or folders of images")
    files = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES]
        if not inside:
            raise ValueError(
                f"{path} holds no image; put files there that end in {', '.join(SUFFIXES)}"
            )
        files += inside
    return files


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
        data = file.read_bytes()
        pixels = decode_image(data, size, name=str(file))
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(f"{file} cannot be read: {error.strerror}")
    # Turning the square that was cut out is the same as cutting it from the turned image.
    turn = _UPRIGHT.get(Image.open(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation, 1))
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))
