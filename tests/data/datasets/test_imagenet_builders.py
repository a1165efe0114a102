"""The ImageNet builders, from fake archives in the layouts of the real ones to what tfds reads."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from alexnet_jax.data.archives import Member, PrepareError
from alexnet_jax.data.datasets.imagenet2010_256 import (
    imagenet2010_256_dataset_builder as imagenet2010,
)
from alexnet_jax.data.datasets.imagenet2010_256.imagenet2010_256_dataset_builder import (
    Builder as Imagenet2010,
)
from alexnet_jax.data.datasets.imagenet2012_256.imagenet2012_256_dataset_builder import (
    Builder as Imagenet2012,
)
from alexnet_jax.data.datasets.imagenet_fall2011_256.imagenet_fall2011_256_dataset_builder import (
    Builder as ImagenetFall2011,
)
from tests.fake_imagenet import (
    TEST_2010,
    VALIDATION_2010,
    WNIDS_2010,
    color_of,
    image_bytes,
    make_2010,
    make_2012,
    make_synset_tars,
    make_tar,
)

TFDS = Path(tfds.core.tfds_path("datasets/imagenet2012"))
NAMES_2012 = (TFDS / "labels.txt").read_text().split()
VALIDATION_2012 = (TFDS / "validation_labels.txt").read_text().split()


def prepare(builder, manual_dir):
    """Prepares and opens the set as one who does not have our code would."""
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    builder.download_and_prepare(download_config=config)
    return tfds.builder_from_directory(builder.data_dir)


def by_name(opened, split):
    source = opened.as_data_source(split=split)
    return {example["file_name"].decode(): example for example in source}


def assert_color(example, color):
    assert example["image"].shape == (256, 256, 3) and example["image"].dtype == np.uint8
    np.testing.assert_allclose(example["image"].mean((0, 1)), color, atol=3)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_imagenet2012_straight_from_its_tars(tmp_path, encoding):
    wnids = [NAMES_2012[i] for i in (0, 7, 999)]
    make_2012(tmp_path / "tars", wnids, validation=[1, 2, 5, 50_000], test=3)
    builder = Imagenet2012(data_dir=tmp_path, config=encoding, num_workers=0)
    opened = prepare(builder, tmp_path / "tars")
    assert opened.info.features["label"].names == NAMES_2012

    train = by_name(opened, "train")
    assert len(train) == 6
    for number, (wnid, label) in enumerate(zip(wnids, (0, 7, 999), strict=True)):
        for image in range(2):
            example = train[f"{wnid}_{image}.JPEG"]
            assert example["label"] == label
            assert_color(example, color_of(number))
    for name, example in by_name(opened, "test").items():
        assert example["label"] == -1 and name.startswith("ILSVRC2012_test_")


def test_imagenet2012_missing_validation_image_shifts_no_label(tmp_path):
    make_2012(tmp_path / "tars", NAMES_2012[:1], validation=[1, 2, 5, 50_000])
    opened = prepare(Imagenet2012(data_dir=tmp_path, num_workers=0), tmp_path / "tars")
    validation = by_name(opened, "validation")
    assert set(opened.info.splits) == {"train", "validation"}
    assert len(validation) == 4
    for number in (1, 2, 5, 50_000):
        example = validation[f"ILSVRC2012_val_{number:08d}.JPEG"]
        assert NAMES_2012[example["label"]] == VALIDATION_2012[number - 1]
        assert_color(example, color_of(number))


def test_cmyk_grey_and_png_in_disguise_become_rgb(tmp_path):
    tars = tmp_path / "tars"
    make_2012(tars, NAMES_2012[:1], validation=[1])
    odd = {
        "cmyk_1.JPEG": image_bytes((0, 255, 255, 0), mode="CMYK"),  # red
        "grey_1.JPEG": image_bytes((90,), mode="L"),
        "png_1.JPEG": image_bytes((10, 200, 30), format="PNG"),
    }
    inner = make_tar(tmp_path / "inner.tar", odd)
    make_tar(tars / "ILSVRC2012_img_train.tar", {f"{NAMES_2012[3]}.tar": inner})
    train = by_name(prepare(Imagenet2012(data_dir=tmp_path, num_workers=0), tars), "train")
    for name, color in zip(odd, [(255, 0, 0), (90, 90, 90), (10, 200, 30)], strict=True):
        assert_color(train[name], color)


def test_imagenet2010_with_public_test_labels(tmp_path):
    make_2010(tmp_path / "tars")
    opened = prepare(Imagenet2010(data_dir=tmp_path, num_workers=0), tmp_path / "tars")
    assert opened.info.features["label"].names == WNIDS_2010
    train = by_name(opened, "train")
    assert {name: example["label"] for name, example in train.items()} == {
        f"{wnid}_{i}.JPEG": label for label, wnid in enumerate(WNIDS_2010) for i in range(2)
    }
    for split, short, truth in (
        ("validation", "val", VALIDATION_2010),
        ("test", "test", TEST_2010),
    ):
        examples = by_name(opened, split)
        assert len(examples) == len(truth)
        for number, identity in enumerate(truth, start=1):
            example = examples[f"ILSVRC2010_{short}_{number:08d}.JPEG"]
            assert example["label"] == identity - 1
            assert_color(example, color_of(identity - 1))


def test_imagenet2010_patches_blank_images_and_opens_gzipped_ones(tmp_path):
    tars = tmp_path / "tars"
    make_2010(tars)
    (tars / "devkit-1.0.tar.gz").rename(tars / "ILSVRC2010_devkit-1.0.tar.gz")
    make_tar(
        tars / "patch_images.tar",
        {"patch_images/test/ILSVRC2010_test_00000002.JPEG": image_bytes((10, 20, 200))},
    )
    zipped = gzip.compress(image_bytes((200, 20, 10)))
    inner = make_tar(tmp_path / "inner.tar", {f"{WNIDS_2010[1]}_1.JPEG": zipped})
    make_tar(tars / "ILSVRC2010_images_train.tar", {f"{WNIDS_2010[1]}.tar": inner})
    opened = prepare(Imagenet2010(data_dir=tmp_path, num_workers=0), tars)
    test = by_name(opened, "test")
    assert len(test) == len(TEST_2010)
    assert_color(test["ILSVRC2010_test_00000002.JPEG"], (10, 20, 200))
    assert test["ILSVRC2010_test_00000002.JPEG"]["label"] == TEST_2010[1] - 1
    assert_color(by_name(opened, "train")[f"{WNIDS_2010[1]}_1.JPEG"], (200, 20, 10))


def test_fall2011_takes_any_number_of_synset_tars(tmp_path):
    tars = tmp_path / "tars"
    tars.mkdir()
    wnids = [f"n{number:08d}" for number in (5, 17, 20_001, 30_000, 40_000)]
    make_synset_tars(tars, wnids, 20)
    builder = ImagenetFall2011(data_dir=tmp_path, validation_share=0.2, num_workers=0)
    opened = prepare(builder, tars)
    train, validation = by_name(opened, "train"), by_name(opened, "validation")
    assert opened.info.features["label"].names == wnids
    assert not set(train) & set(validation) and len(train) + len(validation) == 100
    assert 5 <= len(validation) <= 40  # 20 expected
    for name, example in (train | validation).items():
        assert wnids[example["label"]] == name.split("_")[0]


def test_missing_tar_is_named_with_what_to_do(tmp_path):
    tars = tmp_path / "tars"
    make_2012(tars, NAMES_2012[:1], validation=[1])
    (tars / "ILSVRC2012_img_val.tar").unlink()
    with pytest.raises(PrepareError, match=r"lacks ILSVRC2012_img_val.tar; register at image-net"):
        prepare(Imagenet2012(data_dir=tmp_path), tars)


def test_skips_of_the_index_are_listed(tmp_path):
    tars = tmp_path / "tars"
    make_2012(tars, NAMES_2012[:1], validation=[1])
    good, image = NAMES_2012[3], image_bytes((10, 200, 30))
    inner = {
        f"{good}.tar": {f"{good}_0.JPEG": image, f"../{good}_1.JPEG": image},
        "n99999999.tar": {"n99999999_0.JPEG": image},
        f"{NAMES_2012[5]}.tar": {f"{NAMES_2012[5]}_{i}.JPEG": image for i in range(3)},
    }
    files = {name: make_tar(tmp_path / "inner.tar", content) for name, content in inner.items()}
    damaged = bytearray(files[f"{NAMES_2012[5]}.tar"])
    damaged[damaged.index(b"_1.JPEG")] ^= 255  # the second header no longer fits its checksum
    files[f"{NAMES_2012[5]}.tar"] = bytes(damaged)
    make_tar(tars / "ILSVRC2012_img_train.tar", files)
    with pytest.raises(PrepareError, match=r"points outside its archive; .* --on_error=skip"):
        prepare(Imagenet2012(data_dir=tmp_path, num_workers=0), tars)

    builder = Imagenet2012(data_dir=tmp_path, num_workers=0, on_error="skip")
    opened = prepare(builder, tars)
    assert set(by_name(opened, "train")) == {f"{good}_0.JPEG", f"{NAMES_2012[5]}_0.JPEG"}
    train = tars / "ILSVRC2012_img_train.tar"
    for skipped in (builder.info.metadata["skipped"], opened.info.metadata["skipped"]):
        assert skipped["count"] == 3
        outside, unknown, cut = skipped["files"]
        assert outside["file"] == f"{train}: ../{good}_1.JPEG"
        assert "points outside" in outside["problem"]
        assert unknown["file"] == f"{train}: n99999999.tar"
        assert "unknown class" in unknown["problem"]
        assert cut["file"].startswith(f"{train} at byte ")
        assert "not a whole tar file" in cut["problem"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\nx\n2", r"truth\.txt has labels outside 1 to 3 \('x'\); fetch it again"),
        (b"1\n\xff\n2", r"truth\.txt is no text in UTF-8 \(at byte 2\)"),
        (b"1\n2", r"no number from 1 to 2 .* in .*ILSVRC2010_test_ground_truth\.txt"),
        (b"\xef\xbb\xbf1\r\n2\r\n3\r\n", None),
    ],
)
def test_a_truth_that_is_none_is_named(tmp_path, content, message):
    tars = tmp_path / "tars"
    make_2010(tars)
    (tars / "ILSVRC2010_test_ground_truth.txt").write_bytes(content)
    builder = Imagenet2010(data_dir=tmp_path, num_workers=0)
    if not message:
        assert builder.plan(tars).images["test"] == 3
        return
    with pytest.raises(ValueError, match=message) as error:
        builder.plan(tars)
    assert "ILSVRC2010_test_ground_truth.txt" in str(error.value)


def test_a_gzipped_image_is_unpacked_no_further_than_images_go(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet2010, "MAX_BYTES", 1000)
    (tmp_path / "a").write_bytes(gzip.compress(bytes(10**6)))
    member = Member("a.JPEG", 0, str(tmp_path / "a"), 0, -1)
    assert len(imagenet2010._read_member(member)) == 1001


def test_damaged_devkit_and_foreign_labels_are_named(tmp_path):
    tars = tmp_path / "tars"
    make_2010(tars)
    (tars / "ILSVRC2010_test_ground_truth.txt").write_text("1\n4\n2")
    with pytest.raises(PrepareError, match=r"test_ground_truth.txt has labels outside 1 to 3"):
        prepare(Imagenet2010(data_dir=tmp_path), tars)
    devkit = tars / "devkit-1.0.tar.gz"
    whole = devkit.read_bytes()
    with tarfile.open(devkit, "w:gz") as tar:
        entry = tarfile.TarInfo("meta.mat")
        entry.size = 300
        tar.addfile(entry, io.BytesIO(b"MATLAB 5.0 MAT-file".ljust(300)))
    with pytest.raises(PrepareError, match=r"its meta.mat is damaged or another year's"):
        prepare(Imagenet2010(data_dir=tmp_path), tars)
    devkit.write_bytes(whole[:100])
    with pytest.raises(PrepareError, match=r"devkit-1.0.tar.gz is damaged"):
        prepare(Imagenet2010(data_dir=tmp_path), tars)
