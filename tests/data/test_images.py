"""Decoding: every kind of file becomes the right pixels, or an error that names it."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet_jax.data import images
from alexnet_jax.data.images import ImageError, decode_image

PHOTOGRAPHS = os.environ.get("ALEXNET_DATA_DIR")  # before a fixture takes it away


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photograph(width: int, height: int) -> Image.Image:
    """A smooth picture with a different ramp in each channel."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    channels = [x / width, y / height, 0.5 + 0.4 * np.sin(20 * x / width) * np.cos(15 * y / height)]
    return Image.fromarray((255 * np.stack(channels, -1)).astype(np.uint8))


def test_a_jpeg_of_very_many_scans_is_refused_before_they_are_decoded():
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "JPEG", progressive=True)
    usual = file.getvalue()
    assert decode_image(usual, 32).shape == (32, 32, 3)
    last = usual[usual.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match=r"^a\.jpg is a JPEG of 6,\d+ scans, more than 50 "):
        decode_image(usual[:-2] + 6000 * last + usual[-2:], 32, name="a.jpg")


@pytest.mark.parametrize("suffix", ["ppm", "bmp"])
def test_a_picture_of_pixels_that_look_like_scans_is_no_jpeg_of_them(suffix):
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (0xFF, 0xDA, 0x00)).save(file, suffix)
    assert decode_image(file.getvalue(), 16).shape == (16, 16, 3)


def test_more_bytes_than_an_image_has_are_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match=r"^a\.jpg has more than 100 bytes; leave it out"):
        decode_image(bytes(101), 16, name="a.jpg")


@pytest.mark.parametrize("shape", [(96, 64), (64, 96), (64, 64), (640, 64)])
def test_short_side_then_centre_crop(shape):
    image = photograph(*shape)
    small = image.resize((shape[0] // 2, shape[1] // 2), Image.Resampling.BICUBIC)
    left, top = (small.width - 32) // 2, (small.height - 32) // 2
    expected = np.asarray(small)[top : top + 32, left : left + 32]
    np.testing.assert_array_equal(decode_image(encode(image, "PNG"), 32), expected)


def test_an_image_of_the_stored_size_is_left_as_it_is():
    image = photograph(40, 40)
    np.testing.assert_array_equal(decode_image(encode(image, "PNG"), 40), np.asarray(image))


def test_fine_detail_is_averaged_not_sampled():
    board = np.indices((256, 256)).sum(0) % 2 * 255
    image = Image.fromarray(board.astype(np.uint8)).convert("RGB")
    assert np.abs(decode_image(encode(image, "PNG"), 32).astype(int) - 127).max() <= 2


def by_pil(data: bytes, size: int) -> np.ndarray:
    """What `decode_image` makes of a JPEG with PIL alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_decode_jpeg", lambda data, size: None)
        return decode_image(data, size)


@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    size=st.sampled_from([16, 40, 64]),
    mode=st.sampled_from(["RGB", "L"]),
    options=st.fixed_dictionaries(
        {
            "quality": st.sampled_from([30, 95, 100]),
            "subsampling": st.sampled_from([0, 1, 2]),
            "progressive": st.booleans(),
        }
    ),
)
@settings(max_examples=60, deadline=None)
def test_a_jpeg_has_the_same_pixels_by_either_decoder(width, height, size, mode, options):
    data = encode(photograph(width, height).convert(mode), "JPEG", **options)
    np.testing.assert_array_equal(decode_image(data, size), by_pil(data, size))


@pytest.mark.skipif(PHOTOGRAPHS is None, reason="no photographs: ALEXNET_DATA_DIR is not set")
def test_photographs_have_the_same_pixels_by_either_decoder():
    folder = Path(PHOTOGRAPHS).parent / "imagenet_samples"
    paths = sorted(folder.glob("*/*.JPEG"))[::5]
    if not paths:
        pytest.skip(f"no photographs in {folder}")
    taken = 0
    for path in paths:
        data = path.read_bytes()
        np.testing.assert_array_equal(decode_image(data, 256), by_pil(data, 256))
        taken += images._decode_jpeg(data, 256) is not None
    assert taken > len(paths) / 2


def test_the_reduced_jpeg_decode_agrees_with_the_full_one():
    data = encode(photograph(900, 700), "JPEG", quality=95)
    full = Image.open(io.BytesIO(data)).convert("RGB")
    expected = decode_image(encode(full, "PNG"), 64).astype(int)
    assert np.abs(decode_image(data, 64).astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "RGBA", "LA", "RGB", "I;16"])
def test_every_colour_mode_becomes_rgb(mode):
    """A plain grey of 255 is white in all of them."""
    white = {"I;16": 65535, "CMYK": (0, 0, 0, 0), "1": 1, "L": 255, "P": 255}
    image = Image.new(mode, (20, 10), white.get(mode, tuple([255] * len(mode))))
    if mode == "P":
        image.putpalette([255] * 768)
    pixels = decode_image(encode(image, "TIFF" if mode == "CMYK" else "PNG"), 8)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    assert pixels.min() >= 254


def test_sixteen_bits_are_scaled_not_clipped():
    image = Image.fromarray(np.full((9, 9), 0x4000, np.uint16))
    assert set(decode_image(encode(image, "PNG"), 9).ravel()) == {0x40}


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("zero_is_black", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
def test_a_grey_tiff_has_its_tones_at_any_depth_or_is_refused(bits, zero_is_black, order):
    ramp = np.tile(np.linspace(0, 2**bits - 1, 16).round().astype(int), (16, 1))
    data = grey_tiff(ramp, bits, zero_is_black, order)
    known = [(16, True)] if order == "MM" else [(16, True), (16, False), (12, True)]
    if bits > 8 and (bits, zero_is_black) not in known:  # of PIL
        with pytest.raises(ImageError, match="convert it"):
            decode_image(data, 16)
        return
    found = decode_image(data, 16)[0, :, 0]
    tones = ramp[0] * 255 / (2**bits - 1)
    np.testing.assert_allclose(found, tones if zero_is_black else 255 - tones, atol=1)


def grey_tiff(pixels, bits, zero_is_black, order):
    """As PIL cannot write it: `bits` a pixel, one strip, not compressed."""
    height, width = pixels.shape
    if bits == 16:
        strip = pixels.astype("<u2" if order == "II" else ">u2").tobytes()
    else:
        packed = "".join(f"{pixel:0{bits}b}" for pixel in pixels.ravel())
        strip = int(packed, 2).to_bytes(len(packed) // 8, "big")
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: int(zero_is_black), 273: 8, 277: 1}
    tags |= {278: height, 279: len(strip)}
    sign = "<" if order == "II" else ">"
    entries = [struct.pack(f"{sign}HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()]
    head = struct.pack(f"{sign}2sHI", order.encode(), 42, 8 + len(strip))
    return head + strip + struct.pack(f"{sign}H", len(entries)) + b"".join(entries) + bytes(4)


def test_cmyk_jpeg_keeps_its_colours():
    image = Image.new("RGB", (64, 64), (200, 60, 30))
    pixels = decode_image(encode(image.convert("CMYK"), "JPEG", quality=95), 32)
    assert np.abs(pixels.mean((0, 1)) - (200, 60, 30)).max() < 3


def test_transparent_pixels_become_white():
    hidden = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert decode_image(encode(hidden, "PNG"), 16).min() == 255


def test_the_format_is_read_from_the_bytes_not_the_name():
    data = encode(photograph(32, 32), "PNG")
    np.testing.assert_array_equal(
        decode_image(data, 32, name="n02105855_2933.JPEG"), np.asarray(photograph(32, 32))
    )


TURNED = {  # EXIF's orientation -> how NumPy makes the picture upright
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("shape", [(64, 64), (96, 64), (64, 96), (256, 192)])
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_the_orientation_tag_is_ignored_or_followed_in_every_format(format, options, shape):
    image = photograph(*shape)
    stored = decode_image(encode(image, format, **options), 64)
    for tag, upright in TURNED.items():
        exif = Image.Exif()
        exif[274] = tag
        data = encode(image, format, exif=exif, **options)
        np.testing.assert_array_equal(decode_image(data, 64), stored)
        found = decode_image(data, 64, upright=True)
        assert np.abs(found.astype(int) - upright(stored)).max() <= 1, tag


def test_a_damaged_orientation_tag_is_none():
    image = photograph(64, 64)
    for exif in (b"Exif\0\0nothing", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        data = encode(image, "JPEG", exif=exif)
        np.testing.assert_array_equal(decode_image(data, 64, upright=True), decode_image(data, 64))
    exif = Image.Exif()
    exif[274] = 9
    data = encode(image, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(data, 64, upright=True), np.asarray(image))


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is `width` x `height` and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JPEG = encode(photograph(100, 100), "JPEG")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"not an image", "is none of JPEG, PNG"),
        (JPEG[: len(JPEG) // 2], "cut off or damaged"),
        (encode(photograph(64, 64), "PNG")[:-40], "cut off or damaged"),
        (bomb(10_000, 10_000), "decompression bomb"),
        (bomb(50_000, 50_000), "decompression bomb"),
        (encode(Image.new("F", (8, 8)), "TIFF"), "convert it to RGB"),
    ],
)
def test_a_bad_image_is_named_with_what_to_do(data, message):
    with pytest.raises(ImageError, match=message) as error:
        decode_image(data, 32, name="n01440764/cat.JPEG")
    assert str(error.value).startswith("n01440764/cat.JPEG")
    assert "\n" not in str(error.value)
