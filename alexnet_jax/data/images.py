"""One image: encoded bytes to square RGB pixels, checked (section 2: short side, centre crop)."""

import io
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

# The ends of names, in small letters, by which image files are found in folders.
IMAGE_SUFFIXES = frozenset(
    [".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)

MAX_PIXELS = 89_478_485  # PIL's own limit: a larger photograph is taken for a decompression bomb
MAX_BYTES = 6 * MAX_PIXELS + 2**20  # of a file: 16 bits a colour, not compressed, and a header
MAX_SCANS = 50  # each takes the time of a whole picture; libjpeg's own writing has up to 18
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # none that runs another program
MODES = ("RGB", "L", "CMYK", "P", "1", "RGBA", "LA", "PA", "RGBX", "YCbCr", "HSV", "I;16", "I;16B")


_UPRIGHT = {  # EXIF's orientation, 1 to 8 -> what undoes it; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = _UPRIGHT | {6: _UPRIGHT[8], 8: _UPRIGHT[6]}  # and what does it again


class ImageError(ValueError):
    """An image that cannot be used; the message names it and says what to do."""


def read_image(path: str | Path, *, name: str, offset: int = 0, size: int = -1) -> bytes:
    """The bytes of an image file, or the `size` bytes at `offset` of an archive.

    Raises:
      ImageError: it is a pipe or a device, or larger than images are; nothing is read of it.
      OSError: it cannot be read.
    """
    status = os.stat(path)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # it could wait for ever
        raise ImageError(f"{name} is a device or a pipe; give a plain file")
    if (found := status.st_size if size < 0 else size) > MAX_BYTES:
        raise ImageError(
            f"{name} has {found:,} bytes, and an image up to {MAX_BYTES:,}; leave it out"
        )
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def decode_image(
    data: bytes, size: int, *, name: str = "image", upright: bool = False
) -> np.ndarray:
    """Decodes `data` to `uint8[size, size, 3]`, RGB, pixels 0-255.

    The short side is scaled to `size` (bicubic, antialiased), then the centre is cut out. Grey,
    palette, CMYK and 16-bit images become RGB; transparent ones are laid on white. The format is
    read from the bytes, never from the file's name. Source: AlexNet §2.

    Args:
      data: an image file.
      size: the side of the result.
      name: what errors call it.
      upright: undo the turn or the mirroring that the file's orientation tag (EXIF) tells of.
        False takes the pixels as they are stored, in every format, as is usual for ImageNet.

    Raises:
      ImageError: there is no whole image.
    """
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); fetch it again or leave it out")
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name} has more than {MAX_BYTES:,} bytes; leave it out")
    if data.startswith(b"\xff\xd8") and (scans := _scans(data)) > MAX_SCANS:
        raise ImageError(
            f"{name} is a JPEG of {scans:,} scans, more than {MAX_SCANS} (made to take time?); "
            "save it anew"
        )
    pixels = _decode_jpeg(data, size)
    if pixels is None:
        pixels = _decode(data, size, name)
    elif pixels.shape[:2] != (size, size):
        pixels = square(pixels, size)
    if not upright:
        return pixels
    # Turning the square that was cut out is the same as cutting it from the turned image, but for
    # the rounding of places and of PIL: with some sizes a photograph differs by up to 7 levels.
    turn = _UPRIGHT.get(_orientation(data))
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def _scans(data: bytes) -> int:
    """How many scans a JPEG has; 0 of a small one, where they take seconds at most."""
    # Within a picture's data these three bytes begin a scan and nothing else.
    return len(re.findall(rb"\xff\xda\x00", data)) if len(data) > 2**16 else 0


def _orientation(data: bytes) -> int:
    """1 to 8; 1 where the file has no tag, or one that cannot be read."""
    try:
        orientation = (
            Image.open(io.BytesIO(data), formats=FORMATS)
            .getexif()
            .get(ExifTags.Base.Orientation, 1)
        )
        return int(orientation) if orientation in _UPRIGHT else 1
    except Exception:  # damaged EXIF raises many kinds, and the picture may be good all the same
        return 1


def _decode(data: bytes, size: int, name: str) -> np.ndarray:
    """What `decode_image` does, for every format, by PIL."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        # PIL turns a TIFF by its tag while loading it, and no other format.
        turned = _orientation(data) if image.format == "TIFF" else 1
        if image.width * image.height <= MAX_PIXELS:
            # JPEG: decode at 1/2, 1/4 or 1/8 where that suffices; the drafted box is the exact
            # (fractional) size, of which image.size is the upper whole number.
            drafted = image.draft("RGB", (size, size))
            image.load()
    except UnidentifiedImageError:
        raise ImageError(
            f"{name} ({len(data):,} bytes) is none of {', '.join(FORMATS)}; "
            "convert it or leave it out"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name} {_TOO_LARGE}") from None
    except Exception as error:  # what a decoder raises on damaged bytes depends on the format
        raise ImageError(
            f"{name} ({len(data):,} bytes) is cut off or damaged: {error}; "
            "fetch it again or leave it out"
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{name} of {image.width}x{image.height} {_TOO_LARGE}")
    stored = image.transpose(_BACK[turned]) if turned in _BACK else image
    rgb = _to_rgb(stored, name, getattr(image, "tag_v2", {}))
    return square(rgb, size, extent=drafted[1][2:] if drafted else None)


def _decode_jpeg(data: bytes, size: int) -> np.ndarray | None:
    """uint8[H, W, 3] of a whole, usual JPEG; None for whatever is better left to PIL.

    The same decoder as PIL's (libjpeg-turbo), the same pixels in 0.6 of the time: they are not
    copied on the way. PIL takes those that it would decode at half the size or less, those of other
    colours than YCbCr or grey, and those with any defect, which it names.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        halved = min(height, width) >= 2 * size
        if halved or height * width > MAX_PIXELS or colors not in ("YCbCr", "Gray"):
            return None
        return simplejpeg.decode_jpeg(data)
    except ValueError:
        return None


_TOO_LARGE = f"has more than {MAX_PIXELS:,} pixels (a decompression bomb?); scale it down first"


def square(
    image: Image.Image | np.ndarray, size: int, *, extent: tuple[float, float] | None = None
) -> np.ndarray:
    """The centre of an RGB image, its short side scaled to `size`: `uint8[size, size, 3]`.

    `extent` is the part from the top left that holds the picture (width, height), default all.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    width, height = extent or image.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        # Only the pixels that stay are computed; those outside still count in the filter.
        image = image.resize(
            (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
        )
    return np.asarray(image)


def _to_rgb(image: Image.Image, name: str, tags: Mapping[int, Any]) -> Image.Image:
    """`tags` are those of a TIFF."""
    if image.mode not in MODES:
        raise ImageError(f"{name} has mode {image.mode}, not RGB; convert it to RGB first")
    if image.mode.startswith("I;16"):  # PIL would clip at 255 instead of scaling
        bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
        grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        # Where 0 is white PIL turns up to 8 bits round, and not 16.
        white = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
        return Image.fromarray(~grey if white else grey).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")  # no copy where it is RGB already
