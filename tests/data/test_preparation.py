"""Preparing: what is written is what was decoded, shards mix classes, nothing half is whole."""

import errno
import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from alexnet_jax import machine, prepare
from alexnet_jax.data import locks, preparation, workers, writing
from alexnet_jax.data.archives import Member, PrepareError, read_member
from alexnet_jax.data.batches import train_batches
from alexnet_jax.data.datasets.image_folder.image_folder_dataset_builder import Builder
from alexnet_jax.data.images import ImageError, decode_image
from alexnet_jax.data.names import classes_without
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.data.shards import DESCRIBING
from tests.fake_imagenet import image_bytes, make_folder


@pytest.fixture
def photos(tmp_path):
    """60 + 60 noisy images of two classes."""
    folder = tmp_path / "photos"
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(60):
            content = image_bytes((100 * label + number, number, 255 - number), size=(20, 16))
            (folder / name / f"{number:02d}.jpg").write_bytes(content)
    return folder


def make_builder(photos, **kwargs):
    return Builder(
        **dict(folder=photos, name="photos", data_dir=photos.parent / "out", num_workers=0) | kwargs
    )


def examples(builder, split="train"):
    return list(tfds.builder_from_directory(builder.data_dir).as_data_source(split=split))


def manifest(builder):
    return json.loads((builder.data_path / "manifest.json").read_text())


def test_raw_records_are_the_decoded_pixels(photos):
    builder = make_builder(photos)
    builder.download_and_prepare()
    every = examples(builder) + examples(builder, "validation")
    names = [example["file_name"].decode() for example in every]
    assert sorted(names) == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.jpg"))
    for example in every:
        path = photos / example["file_name"].decode()
        np.testing.assert_array_equal(example["image"], decode_image(path.read_bytes(), 256))
        assert ["cat", "dog"][example["label"]] == path.parent.name


def test_jpeg_records_are_close_to_the_decoded_pixels(photos):
    builder = make_builder(photos, config="jpeg")
    builder.download_and_prepare()
    for example in examples(builder)[:10]:
        pixels = decode_image((photos / example["file_name"].decode()).read_bytes(), 256)
        assert np.abs(example["image"].astype(int) - pixels).mean() < 2


def test_set_is_opened_by_its_name_alone(photos):
    builder = make_builder(photos, config="jpeg")
    builder.download_and_prepare()
    source = tfds.data_source("photos", data_dir=photos.parent / "out", split="validation")
    assert len(source) == builder.info.splits["validation"].num_examples
    make_builder(photos).download_and_prepare()  # raw is the default once it exists
    opened = tfds.builder("photos", data_dir=photos.parent / "out")
    assert opened.info.config_name == "raw"


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_prepared_set_feeds_the_pipeline(photos, encoding):
    builder = make_builder(photos, config=encoding)
    builder.download_and_prepare()
    dataset = open_dataset("photos", "train", data_dir=str(photos.parent / "out"))
    assert dataset.class_names == ("cat", "dog") and dataset.image_size == 256
    stored = {example["image"].tobytes(): example["label"] for example in examples(builder)}
    batch = next(train_batches(dataset, batch_size=32, seed=1))
    assert batch["image"].shape == (32, 256, 256, 3)
    for image, label in zip(batch["image"], batch["label"], strict=True):
        assert stored[image.tobytes()] == label


def test_shards_mix_classes_and_do_not_depend_on_workers(photos):
    alone = make_builder(photos)
    alone.download_and_prepare()
    pool = make_builder(photos, data_dir=photos.parent / "pool", num_workers=2)
    pool.download_and_prepare()
    assert manifest(alone) == manifest(pool)
    labels = [example["label"] for example in examples(alone)]
    changes = np.count_nonzero(np.diff(labels))
    assert len(alone.info.splits["train"].shard_lengths) == 2
    assert changes > len(labels) / 4  # sorted by class there would be one


def test_manifest_has_the_digests_of_the_shards_and_of_what_describes_them(photos):
    builder = make_builder(photos)
    builder.download_and_prepare()
    paths = {path.name: path for path in builder.data_path.glob("*array_record*")}
    entries = manifest(builder)
    assert set(entries) == {*paths, *DESCRIBING}
    for name, entry in entries.items():
        content = (builder.data_path / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["bytes"] == len(content)
        shard = name in paths
        records = ArrayRecordReader(str(paths[name])).num_records() if shard else 0
        assert entry["records"] == records


@pytest.mark.parametrize("name", [*DESCRIBING, "metadata.json"])
def test_what_describes_a_set_is_compared_with_the_manifest(photos, name):
    """Swapped names are told always, as it costs nothing; what else says other things, if asked."""
    builder = make_builder(photos)
    builder.download_and_prepare()
    path = Path(builder.data_path / name)
    swapped = "dog\ncat\n" if name.endswith("txt") else path.read_text() + "\n"
    path.write_text(swapped)
    told = (
        rf"^{path} is not what was written \(sha256 .*\); copy it again, or delete {path.parent} a"
    )
    for verify in (False, True):
        opened = partial(open_dataset, "photos", "train", data_dir=photos.parent / "out")
        if name == "label.labels.txt" or (verify and name in DESCRIBING):
            with pytest.raises(ValueError, match=told):
                opened(verify=verify)
        else:
            opened(verify=verify)


def test_a_set_of_an_earlier_version_is_opened_and_verified(photos):
    builder = make_builder(photos)
    builder.download_and_prepare()
    entries = {k: v for k, v in manifest(builder).items() if k not in DESCRIBING}
    (builder.data_path / "manifest.json").write_text(json.dumps(entries))
    assert open_dataset("photos", "train", data_dir=photos.parent / "out", verify=True)
    assert make_builder(photos).is_there()


@pytest.mark.parametrize("content", [None, b"", b"half", b"\xd2\xff"])
@pytest.mark.parametrize(
    "name",
    [*DESCRIBING, "metadata.json", "manifest.json", "photos-train.array_record-00000-of-00002"],
)
def test_a_finished_set_is_looked_at_before_it_is_called_prepared(photos, name, content):
    builder = make_builder(photos)
    builder.download_and_prepare()
    path = Path(builder.data_path / name)
    if content is None:
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(PrepareError) as error:
        make_builder(photos).download_and_prepare()
    message = str(error.value)
    assert str(path) in message and f"or delete {path.parent} and prepare the data" in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "content", [b"", b"no image", image_bytes((1, 2, 3), size=(90, 90))[:-200]]
)
def test_bad_image_stops_or_is_skipped_and_listed(photos, content):
    bad = photos / "dog" / "07.jpg"
    bad.write_bytes(content)
    with pytest.raises(ImageError, match=r"dog/07\.jpg .*"):
        make_builder(photos).download_and_prepare()

    builder = make_builder(photos, on_error="skip")  # continues what stopped
    builder.download_and_prepare()
    opened = tfds.builder_from_directory(builder.data_dir)
    assert sum(split.num_examples for split in opened.info.splits.values()) == 119
    skipped = opened.info.metadata["skipped"]
    assert skipped["count"] == 1
    assert skipped["files"][0]["file"] == "dog/07.jpg"
    assert "dog/07.jpg" in skipped["files"][0]["problem"]


def test_repaired_image_is_read_again_on_continuing(photos):
    bad = photos / "dog" / "07.jpg"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(ImageError):
        make_builder(photos).download_and_prepare()
    bad.write_bytes(good)
    builder = make_builder(photos)
    builder.download_and_prepare()
    assert sum(split.num_examples for split in builder.info.splits.values()) == 120


def test_first_error_of_a_worker_process_is_raised(photos):
    (photos / "cat" / "03.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"^cat/03\.jpg \(.*/cat/03\.jpg\) is empty"):
        make_builder(photos, num_workers=1).download_and_prepare()


def die(member):
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_worker_is_told(photos, monkeypatch):
    builder = make_builder(photos, num_workers=1)
    monkeypatch.setattr(builder, "_read", lambda: die)
    with pytest.raises(PrepareError, match=r"a worker process was killed .* --num_workers"):
        builder.download_and_prepare()


def test_interrupted_preparation_keeps_whole_shards(photos, monkeypatch):
    whole = make_builder(photos, data_dir=photos.parent / "whole")
    whole.download_and_prepare()

    builder = make_builder(photos)
    reads = 0

    def read(member):
        nonlocal reads
        reads += 1
        if reads == 70:  # in the second shard
            raise KeyboardInterrupt
        return read_member(member)

    monkeypatch.setattr(builder, "_read", lambda: read)
    with pytest.raises(KeyboardInterrupt):
        builder.download_and_prepare()
    assert not builder.data_path.exists()  # nothing half-written is taken for the set
    partial = builder.data_path.with_name("1.0.0.partial")
    assert len(list(partial.glob("photos-*.array_record-?????-of-?????"))) == 1
    assert not list(partial.glob("incomplete*"))

    reads = 1000
    builder.download_and_prepare()
    assert reads - 1000 < 120  # the first shard was not read again
    assert manifest(builder) == manifest(whole)
    assert not partial.exists()
    assert {path.name for path in builder.data_path.iterdir()} == {
        path.name for path in whole.data_path.iterdir()
    }


def test_shard_cut_off_behind_our_back_is_written_again(photos, monkeypatch):
    builder = make_builder(photos)
    with monkeypatch.context() as patch:
        patch.setattr(builder, "_finish", lambda plan: None)
        builder.download_and_prepare()
    shard = next(builder.data_path.with_name("1.0.0.partial").glob("*array_record-00000-of-00002"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    builder.download_and_prepare()
    assert (builder.data_path / shard.name).read_bytes() == whole


@pytest.fixture
def planned(photos):
    """The folder of a set of which the plan is made, and no shard."""
    return make_builder(photos, validation_share=0).plan().folder


@pytest.mark.parametrize("damage", ["lines lost", "lines twice", "label", "gone", "one too many"])
def test_a_plan_whose_lists_are_damaged_makes_no_set(photos, planned, damage):
    path = planned / "plan" / "train-00000.jsonl"
    text = path.read_text()
    if damage == "gone":
        path.unlink()
    elif damage == "one too many":
        path = path.with_name("train-00002.jsonl")
        path.write_text(text)
    else:
        name, label, *rest = json.loads(text.splitlines()[0])
        other = json.dumps([name, 1 - label, *rest])
        start = text.index("\n")
        path.write_text(
            {
                "lines lost": text[start + 1 :],
                "lines twice": text * 2,
                "label": other + text[start:],
            }[damage]
        )
    with pytest.raises(PrepareError) as error:
        make_builder(photos, validation_share=0).download_and_prepare()
    assert str(error.value) == f"{path} is damaged; delete {planned} and start again"
    assert not planned.with_name("1.0.0").exists()


def test_a_list_that_goes_away_while_shards_are_written_is_named(planned):
    path = planned / "plan" / "train-00000.jsonl"
    path.unlink()
    with pytest.raises(PrepareError, match=rf"^{path} is gone; delete {planned} and start again$"):
        writing.read_plan(str(path))


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "[]", "null", "\udcff", '{"extra": 1}', '{"images": {"train": "a"}}']
)
def test_a_damaged_plan_is_named(photos, planned, content):
    path = planned / "plan.json"
    if content.startswith('{"'):
        content = json.dumps(json.loads(path.read_text()) | json.loads(content))
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(PrepareError, match=rf"^{path} .*; delete {planned} and start again$"):
        make_builder(photos, validation_share=0).download_and_prepare()


def test_a_plan_with_fewer_classes_or_other_splits_or_counts_makes_no_set(photos, planned):
    path = planned / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"shards": {"test": 1}}))
    with pytest.raises(PrepareError, match=r"plan\.json is damaged \(its splits\)"):
        make_builder(photos, validation_share=0).download_and_prepare()
    path.write_text(json.dumps(plan | {"class_names": ["cat"]}))
    with pytest.raises(PrepareError, match=r"has label 1 and .*plan\.json 1 classes; delete"):
        make_builder(photos, validation_share=0).download_and_prepare()
    for change in ({"images": {"train": 121}}, {"shards": {"train": 1}}):
        path.write_text(json.dumps(plan | change))
        with pytest.raises(PrepareError, match=r"/plan lists \d+ images of split train and its"):
            make_builder(photos, validation_share=0).download_and_prepare()


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"bytes": "x"}', '{"skipped": [1]}'])
def test_a_shard_with_a_damaged_report_is_written_again(photos, monkeypatch, content):
    builder = make_builder(photos, validation_share=0)
    with monkeypatch.context() as patch:
        patch.setattr(builder, "_finish", lambda plan: None)
        builder.download_and_prepare()
    report = next(builder.data_path.with_name("1.0.0.partial").glob("*-00000-of-00002.json"))
    if content.startswith('{"'):
        content = json.dumps(json.loads(report.read_text()) | json.loads(content))
    report.write_text(content)
    builder.download_and_prepare()
    assert len(examples(builder)) == 120


def test_too_little_space_is_told_before_the_first_shard(photos, monkeypatch):
    usage = preparation.shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda path: usage)
    builder = make_builder(photos)
    with pytest.raises(PrepareError, match=r"has 1.00MB free, the rest .* takes about 23.6MB"):
        builder.download_and_prepare()
    assert not list(photos.parent.rglob("*array_record*"))


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (errno.ENOSPC, r"partial is full; free space .* are kept"),
        (errno.EDQUOT, r"partial is full; free space .* are kept"),
        (errno.EFBIG, r"00001-of-00002 cannot be written \(File too large\); put .* are kept"),
    ],
)
def test_full_disk_or_file_keeps_what_is_written(photos, monkeypatch, problem, told):
    class FullDisk:
        written = 0

        def __init__(self, path, options):
            self.writer = ArrayRecordWriter(path, options)

        def write(self, record):
            FullDisk.written += 1
            if FullDisk.written == 70:  # as ArrayRecord says it
                raise RuntimeError(f"write() failed: {os.strerror(problem)}; writing x; at byte 9")
            self.writer.write(record)

        def close(self):
            self.writer.close()

    ArrayRecordWriter = writing.ArrayRecordWriter
    builder = make_builder(photos)
    with monkeypatch.context() as patch:
        patch.setattr(writing, "ArrayRecordWriter", FullDisk)
        with pytest.raises(PrepareError, match=told):
            builder.download_and_prepare()
    partial = builder.data_path.with_name("1.0.0.partial")
    assert len(list(partial.glob("photos-*.array_record-?????-of-?????"))) == 1
    builder.download_and_prepare()
    assert len(examples(builder)) + len(examples(builder, "validation")) == 120


def test_changed_archive_is_refused_on_continuing(photos, monkeypatch):
    archive = photos.parent / "a.tar"
    archive.write_bytes(b"1")
    monkeypatch.setattr(Builder, "_inputs", lambda self, manual_dir: [archive])
    make_builder(photos).plan()
    archive.write_bytes(b"22")
    with pytest.raises(PrepareError, match=r"a\.tar was of 1 bytes .* is of 2 bytes .*; go back"):
        make_builder(photos).plan()


def test_removed_and_added_archives_are_refused_on_continuing(photos, monkeypatch):
    archives = [photos.parent / "a.tar", photos.parent / "b.tar"]
    for archive in archives:
        archive.write_bytes(b"1")
    monkeypatch.setattr(Builder, "_inputs", lambda self, manual_dir: archives)
    make_builder(photos).plan()
    removed = archives.pop()
    with pytest.raises(PrepareError, match=r"b\.tar was of 1 bytes .* and is not there; go back"):
        make_builder(photos).plan()
    make_builder(photos, data_dir=photos.parent / "two").plan()
    archives.append(removed)
    with pytest.raises(PrepareError, match=r"b\.tar was not there in the .* and is of 1 bytes"):
        make_builder(photos, data_dir=photos.parent / "two").plan()


def test_images_added_and_removed_are_refused_on_continuing(photos):
    make_builder(photos).plan()
    new = photos / "cat" / "deep" / "new.png"
    new.parent.mkdir()
    new.write_bytes(b"1")
    with pytest.raises(
        PrepareError,
        match=r"/cat was of 60 images \(names \w{8}\) in .* is of 61 images .*; go back .* delete",
    ):
        make_builder(photos).plan()
    new.rename(photos / "notes.txt")  # no image
    (photos / "bird").mkdir()
    with pytest.raises(PrepareError, match=r"/bird was not there in .* is of 0 images"):
        make_builder(photos).plan()
    (photos / "bird").rmdir()
    make_builder(photos).plan()
    image = next((photos / "dog").iterdir())
    image.rename(image.with_stem("another"))
    with pytest.raises(PrepareError, match=r"/dog was of 60 images .* is of 60 images"):
        make_builder(photos).plan()


def test_changed_options_are_refused_on_continuing(photos):
    make_builder(photos).plan()
    with pytest.raises(PrepareError, match=r"--validation_share was the default .* is 0\.2; go"):
        make_builder(photos, validation_share=0.2).plan()
    photos.rename(photos.with_name("moved"))
    moved = make_builder(photos.with_name("moved"))
    with pytest.raises(PrepareError, match=r"--folder was .*/photos .* is .*/moved; .* delete"):
        moved.plan()
    assert not list(photos.parent.rglob("*array_record*"))


@pytest.mark.parametrize("when", ["indexing", "writing"])
def test_images_left_out_are_not_forgotten_on_continuing(photos, monkeypatch, when):
    if when == "writing":
        (photos / "dog" / "07.jpg").write_bytes(b"")
    else:  # a class that is not among the training images
        (photos / "train").mkdir()
        for name in ("cat", "dog"):
            (photos / name).rename(photos / "train" / name)
        make_folder(photos / "val", ["cat", "cow"], 1)
    builder = make_builder(photos, on_error="skip")
    monkeypatch.setattr(builder, "_finish", lambda plan: None)
    builder.download_and_prepare()
    left_out = {"indexing": "val/cow", "writing": r"dog/07\.jpg"}[when]
    with pytest.raises(PrepareError, match=rf"left out .*{left_out}; go on with --on_error=skip"):
        make_builder(photos).download_and_prepare()
    builder = make_builder(photos, on_error="skip")
    builder.download_and_prepare()
    assert builder.info.metadata["skipped"]["count"] == 1


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_vanished_image_stops_even_where_bad_ones_are_skipped(photos, on_error, monkeypatch):
    builder = make_builder(photos, on_error=on_error)
    plan = builder.plan()
    monkeypatch.setattr(builder, "_plan", lambda manual_dir: plan)  # it vanishes after this
    (photos / "dog" / "07.jpg").unlink()
    with pytest.raises(PrepareError, match=r"dog/07\.jpg is gone; put it back"):
        builder.download_and_prepare()


def test_unreadable_image_is_skipped_and_listed(photos, monkeypatch):
    builder = make_builder(photos, on_error="skip")
    plan = builder.plan()
    monkeypatch.setattr(builder, "_plan", lambda manual_dir: plan)
    (photos / "dog" / "07.jpg").unlink()
    (photos / "dog" / "07.jpg").mkdir()
    builder.download_and_prepare()
    (skipped,) = builder.info.metadata["skipped"]["files"]
    assert (
        skipped["file"] == "dog/07.jpg" and "cannot be read: Is a directory" in skipped["problem"]
    )


def test_failure_of_a_crashed_beam_pipeline_is_forgotten(photos, monkeypatch):
    builder = make_builder(photos)
    folder = builder.plan().folder
    stale = folder / "photos-train.array_record-00000-of-00002.failure"
    stale.write_text("an image of long ago")
    seen = []

    def write(task):
        seen.append(Path(f"{task.path}.failure").exists())

    task = writing.ShardTask("plan", str(stale).removesuffix(".failure"))
    workers._attempt(write, task)
    assert seen == [False] and not stale.exists()
    stale.write_text("an image of long ago")
    builder.download_and_prepare()
    assert not (builder.data_path / stale.name).exists()


def test_second_process_on_the_same_set_is_refused(photos):
    builder = make_builder(photos)
    with (
        locks.locked(Path(builder.data_path.parent)),
        pytest.raises(PrepareError, match="another process is preparing"),
    ):
        builder.download_and_prepare()


def test_plan_deals_every_image_to_one_shard(tmp_path):
    names = [f"{i}.jpg" for i in range(5000)]
    images = (("train", Member(name, 0, "x.tar", 0, 1)) for name in names)
    assert writing.write_plan(tmp_path, images) == {"train": (5000, 16)}
    dealt = [writing.read_plan(str(path)) for path in sorted(tmp_path.iterdir())]
    assert len(dealt) == 16 and all(200 < len(members) < 440 for members in dealt)
    assert sorted(member.name for members in dealt for member in members) == sorted(names)


@pytest.mark.parametrize(
    ("images", "shards"),
    [(60, 1), (1_797, 16), (50_000, 49), (1_281_167, 512), (15_000_000, 512)],
)
def test_shards_of_a_split_can_all_be_open(images, shards):
    assert writing._number_of_shards(images) == shards


def test_plan_does_not_depend_on_the_order_of_the_index(tmp_path):
    members = [Member(f"{i}.jpg", i, "x.tar", i, 1) for i in range(300)]
    for folder, order in ((tmp_path / "a", members), (tmp_path / "b", members[::-1])):
        folder.mkdir()
        writing.write_plan(folder, (("train", member) for member in order))
    for path in (tmp_path / "a").iterdir():
        other = tmp_path / "b" / path.name
        assert writing.read_plan(str(path)) == writing.read_plan(str(other))


@pytest.mark.parametrize("share", [None, 0.9])
def test_setting_images_aside_leaves_every_class_one_to_train_on(tmp_path, share):
    classes = [f"c{number:02d}" for number in range(30)]
    make_folder(tmp_path / "photos", classes, 1)
    make_folder(tmp_path / "photos", ["more"], 20)
    builder = make_builder(tmp_path / "photos", validation_share=share)
    builder.download_and_prepare()
    assert builder.info.metadata["classes_without_training_images"] == []
    assert {example["label"] for example in examples(builder)} == set(range(31))
    assert sum(split.num_examples for split in builder.info.splits.values()) == 50
    assert {example["label"] for example in examples(builder, "validation")} == {30}


def test_validation_share_is_kept():
    kept = sum(writing.in_validation(f"n01_{i}.JPEG", 0.1) for i in range(10_000))
    assert 850 < kept < 1150


def test_builder_survives_pickling(photos):
    builder = make_builder(photos, on_error="skip")
    assert pickle.loads(pickle.dumps(builder)).data_dir == builder.data_dir


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_images_of_two_splits_are_counted_whatever_they_are_called(photos, encoding):
    shutil.copytree(photos, photos.parent / "split" / "train")
    shutil.copytree(photos / "cat", photos.parent / "split" / "val" / "dog")
    shutil.copytree(photos / "dog", photos.parent / "split" / "test" / "dog")
    for image in (photos.parent / "split" / "val" / "dog").iterdir():
        image.rename(image.with_stem(f"other_{image.stem}"))
    make_folder(photos.parent / "split" / "val", ["cat"], 3)
    make_folder(photos.parent / "split" / "test", ["cat"], 1)
    builder = make_builder(photos.parent / "split", config=encoding)
    builder.download_and_prepare()
    assert builder.info.metadata["also_in_training"] == {"validation": 60, "test": 60}
    told = prepare.summarize(builder)
    assert "warning: 60 of 63 validation images are training images, too; take them out" in told
    assert "warning: 60 of 61 test images are training images, too; take them out" in told


def test_folder_with_splits_keeps_them(tmp_path):
    for split, images in (("train", 3), ("val", 2)):
        make_folder(tmp_path / "photos" / split, ["ant", "bee"], images)
    builder = make_builder(tmp_path / "photos")
    builder.download_and_prepare()
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 6,
        "validation": 4,
    }


def test_validation_share_is_taken_from_train_alone(tmp_path):
    for split in ("train", "test"):
        make_folder(tmp_path / "photos" / split, ["ant", "bee"], 50)
    builder = make_builder(tmp_path / "photos", validation_share=0.2)
    plan = builder.plan()
    assert plan.images["test"] == 100 and plan.images["train"] + plan.images["validation"] == 100
    assert 5 <= plan.images["validation"] <= 40
    (tmp_path / "photos" / "test").rename(tmp_path / "photos" / "val")
    other = make_builder(tmp_path / "photos", validation_share=0.2, data_dir=tmp_path / "other")
    with pytest.raises(PrepareError, match="have a validation split; leave out"):
        other.plan()


@pytest.mark.parametrize("share", [1, 1.5, -0.1])
def test_a_share_that_leaves_no_training_image_is_refused(photos, share):
    with pytest.raises(PrepareError, match=rf"^--validation_share={share} is not from 0 to below"):
        make_builder(photos, validation_share=share)


def test_a_bucket_is_refused(photos):
    with pytest.raises(ValueError, match=r"gs://bucket is a URL .* mount"):
        make_builder(photos, data_dir="gs://bucket")


def test_unknown_class_in_a_folder_is_named(tmp_path):
    make_folder(tmp_path / "photos" / "train", ["ant", "bee"], 1)
    make_folder(tmp_path / "photos" / "val", ["ant", "cow"], 1)
    with pytest.raises(
        PrepareError, match=r"val/cow: unknown .*; rename it as its training folder, or leave it"
    ):
        make_builder(tmp_path / "photos").plan()


def test_a_class_name_is_the_same_in_either_unicode_form(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    make_folder(tmp_path / "photos" / "train", ["bee", apart], 1)
    make_folder(tmp_path / "photos" / "val", [composed], 1)
    builder = make_builder(tmp_path / "photos")
    builder.download_and_prepare()
    assert builder.info.features["label"].names == ["bee", composed]
    assert [example["label"] for example in examples(builder, "validation")] == [1]
    assert {example["label"] for example in examples(builder)} == {0, 1}


@pytest.mark.parametrize("split", ["train", "val"])
def test_two_class_folders_that_look_alike_are_refused(tmp_path, split):
    make_folder(tmp_path / "photos" / "train", ["bee", "caf\u00e9"], 1)
    make_folder(tmp_path / "photos" / split, ["cafe\u0301"], 1)
    if split == "val":
        make_folder(tmp_path / "photos" / split, ["caf\u00e9"], 1)
    with pytest.raises(PrepareError, match=rf"/{split} has two folders caf.*, whose .* one$"):
        make_builder(tmp_path / "photos", on_error="skip").plan()


@pytest.mark.parametrize(("folder", "split"), [("photos", "train"), ("photos/Valid", "validation")])
def test_empty_split_is_named_with_its_folder(tmp_path, folder, split):
    if split == "validation":
        make_folder(tmp_path / "photos" / "train", ["cat", "dog"], 1)
    for name in ("cat", "dog"):
        (tmp_path / folder / name).mkdir(parents=True)
    with pytest.raises(PrepareError, match=rf"{folder} has no images for split {split}"):
        make_builder(tmp_path / "photos").plan()
    assert not (tmp_path / "out").exists()  # nothing is left of what came to nothing


def test_a_class_without_training_images_is_an_error_or_told(tmp_path):
    make_folder(tmp_path / "photos", ["ant", "cow"], 30)
    for image in (tmp_path / "photos" / "ant").iterdir():
        image.rename(image.with_suffix(".heic"))
    with pytest.raises(PrepareError, match=r"^class 'ant' has no training images in .*photos; add"):
        make_builder(tmp_path / "photos").plan()
    assert classes_without(["ant", "bee"]) == "class 'ant' and 1 more have no training images"
    builder = make_builder(tmp_path / "photos", on_error="skip")
    assert builder.plan().notes == [
        f"left out files: 30 without an image's suffix (such as {tmp_path}/photos/ant/0.heic)"
    ]
    builder.download_and_prepare()
    assert builder.info.metadata["classes_without_training_images"] == ["ant"]
    assert {example["label"] for example in examples(builder)} == {1}  # the number of cow


def test_a_class_of_which_every_image_is_skipped_is_told(photos):
    for image in (photos / "dog").iterdir():
        image.write_bytes(b"")
    builder = make_builder(photos, on_error="skip")
    builder.download_and_prepare()
    assert builder.info.metadata["classes_without_training_images"] == ["dog"]
    assert all(set(entry) == {"sha256", "bytes", "records"} for entry in manifest(builder).values())


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_file_names_are_stored_whatever_their_bytes(tmp_path, on_error):
    make_folder(tmp_path / "photos", ["cat", "dog"], 1)
    names = [b"caf\xe9.jpg", b"new\nline.jpg", "katze_😺.jpg".encode()]
    for name in names:
        path = os.fsencode(tmp_path / "photos/cat") + b"/" + name
        Path(os.fsdecode(path)).write_bytes(image_bytes((1, 2, 3)))
    builder = make_builder(tmp_path / "photos", on_error=on_error, validation_share=0)
    builder.download_and_prepare()
    stored = {example["file_name"] for example in examples(builder)}
    assert stored == {b"cat/0.jpg", b"dog/0.jpg", *(b"cat/" + name for name in names)}


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_bad_file_of_a_bad_name_is_named_in_one_printable_line(tmp_path, on_error):
    make_folder(tmp_path / "photos", ["cat", "dog"], 2)
    Path(os.fsdecode(os.fsencode(tmp_path / "photos/cat") + b"/\xff\n.jpg")).touch()
    builder = make_builder(tmp_path / "photos", on_error=on_error, validation_share=0)
    if on_error == "skip":
        builder.download_and_prepare()
        problem = builder.info.metadata["skipped"]["files"][0]["problem"]
    else:
        with pytest.raises(ImageError) as error:
            builder.download_and_prepare()
        problem = str(error.value)
    assert problem.startswith(r"cat/\udcff\n.jpg (") and problem.isprintable()


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize(
    "name", [b"cat\nfish", b"\xff", b"cat\x1b[0m", b" cat", "a\u2028b".encode()]
)
def test_a_class_name_that_a_list_cannot_hold_is_refused(tmp_path, name, on_error):
    make_folder(tmp_path / "photos", ["dog"], 1)
    make_folder(Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/" + name)), ["x"], 1)
    with pytest.raises(PrepareError, match=r"^class name '.*rename it$") as error:
        make_builder(tmp_path / "photos", on_error=on_error).plan()
    assert str(error.value).isprintable()


def test_a_set_inside_its_own_folder_is_refused(photos):
    with pytest.raises(PrepareError, match=r"set would lie in --folder=.*photos and be"):
        make_builder(photos, data_dir=photos / "out")
    with pytest.raises(PrepareError, match="choose another --data_dir or --name"):
        make_builder(photos, data_dir=photos.parent)


def test_without_system_locks_a_set_is_prepared_all_the_same(photos, monkeypatch):
    monkeypatch.setattr(machine, "fcntl", None)
    monkeypatch.delattr(os, "sched_getaffinity")
    builder = make_builder(photos, num_workers=None)
    builder.plan()
    assert builder._num_workers == os.cpu_count()


def test_a_script_that_starts_itself_again_is_told_what_to_do(tmp_path):
    make_folder(tmp_path / "photos", ["ant", "bee"], 3)
    script = tmp_path / "script.py"
    script.write_text(
        "from alexnet_jax.data.datasets.image_folder import image_folder_dataset_builder as m\n"
        f"m.Builder(folder='{tmp_path}/photos', name='photos', data_dir='{tmp_path}/out', "
        "num_workers=1).download_and_prepare()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert 'a script that prepares needs `if __name__ == "__main__":`' in done.stderr


def test_the_example_of_a_data_set_of_ones_own_prepares_it(tmp_path):
    page = (Path(__file__).parents[2] / "docs/prepare.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "pets.py").write_text(example)
    (tmp_path / "PETS").mkdir()
    for name in ("cat_1", "cat_2", "dog_1"):
        (tmp_path / "PETS" / f"{name}.jpg").write_bytes(image_bytes((1, 2, 3)))
    command = [sys.executable, "pets.py"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    dataset = open_dataset("pets/raw", "train", data_dir=tmp_path / "OUT")
    assert set(dataset.source.read(np.arange(len(dataset)))["label"]) == {0, 1}
