"""A user's files: which are found, and that each is upright."""

import os

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from alexnet_jax.data.images import ImageError
from alexnet_jax.inspect.files import image_files, read_images


def test_folders_are_searched_and_named_files_taken_as_they_are(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.JPG", "a.png", "notes.txt", "sub/c.webp"):
        (tmp_path / name).touch()
    found = image_files([tmp_path, tmp_path / "notes.txt"])
    names = [str(file.relative_to(tmp_path)) for file in found]
    assert names == ["a.png", "b.JPG", "sub/c.webp", "notes.txt"]


def test_an_empty_folder_and_no_name_at_all_are_errors(tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        image_files([tmp_path])
    with pytest.raises(ValueError, match="no image is named"):
        image_files([])


def test_litter_is_passed_over_and_links_are_followed(tmp_path):
    photos, other = tmp_path / "photos", tmp_path / "other"
    (photos / ".ipynb_checkpoints").mkdir(parents=True)
    other.mkdir()
    for file in (photos / "a.JFIF", photos / "._a.jpg", photos / ".ipynb_checkpoints" / "b.jpg"):
        file.touch()
    (other / "c.jpe").touch()
    (photos / "linked").symlink_to(other)
    (photos / "up").symlink_to(photos)
    (photos / "broken.png").symlink_to(photos / "gone.png")
    found = [str(file.relative_to(photos)) for file in image_files([photos])]
    assert found == ["a.JFIF", "broken.png", "linked/c.jpe"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_photographs_are_turned_upright_as_pil_does(tmp_path, orientation, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).resize((50, 30), Image.Resampling.BICUBIC)
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    file = tmp_path / f"photo.{suffix}"
    image.save(file, exif=exif)
    ((_, read),) = next(read_images([file], 30, batch_size=1))
    upright = np.asarray(ImageOps.exif_transpose(image))
    height, width = upright.shape[:2]
    top, left = (height - 30) // 2, (width - 30) // 2
    np.testing.assert_array_equal(read, upright[top : top + 30, left : left + 30])


def test_each_failure_stands_beside_its_file(tmp_path):
    good, bad, missing = (tmp_path / name for name in ("good.png", "bad.jpg", "missing.jpg"))
    Image.new("RGB", (20, 20), "red").save(good)
    bad.write_bytes(b"\xff\xd8 cut off")
    batches = list(read_images([bad, good, missing], 16, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 1]
    (_, first), (_, second), (_, third) = (item for batch in batches for item in batch)
    assert isinstance(first, ImageError)
    assert "bad.jpg" in str(first)
    assert second.shape == (16, 16, 3)
    assert "missing.jpg cannot be read: No such file" in str(third)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "x.jpg is a device or a pipe; give a plain file"),
        (lambda path: path.symlink_to("/dev/zero"), "x.jpg is a device or a pipe; give a plain"),
        (lambda path: path.touch() or os.truncate(path, 2 * 10**11), "x.jpg has 200,000,000,000 b"),
    ],
)
def test_what_would_never_end_is_not_read(tmp_path, make, message):
    make(tmp_path / "x.jpg")
    (((_, read),),) = read_images(image_files([tmp_path]), 16, batch_size=1)
    assert isinstance(read, ImageError) and message in str(read)
