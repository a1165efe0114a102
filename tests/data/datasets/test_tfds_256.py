"""Real photographs and CIFAR images of another tfds set are stored again at 256x256."""

import importlib.util
import io
import itertools
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from alexnet_jax.configs import imagenette
from alexnet_jax.data.archives import Member, PrepareError
from alexnet_jax.data.datasets.image_folder import image_folder_dataset_builder as image_folder
from alexnet_jax.data.datasets.tfds_256.tfds_256_dataset_builder import Builder, Source
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.data.statistics import load_statistics
from alexnet_jax.runs.launch import train
from tests.fake_imagenet import image_bytes, make_folder

SOURCE_DIR = os.environ.get("ALEXNET_DATA_DIR")
needs_data = pytest.mark.skipif(
    not SOURCE_DIR,
    reason="set ALEXNET_DATA_DIR to a tfds data_dir with imagenette/160px-v2 and cifar10",
)


@needs_data
@pytest.mark.parametrize(
    ("source", "name"),
    [("imagenette/160px-v2", "imagenette_160px_v2_256"), ("cifar10", "cifar10_256")],
)
def test_real_set_keeps_pictures_labels_and_names(tmp_path, monkeypatch, source, name):
    members = Source.members
    monkeypatch.setattr(
        Source, "members", lambda self, split: itertools.islice(members(self, split), 40)
    )
    builder = Builder(source=source, source_dir=SOURCE_DIR, data_dir=tmp_path, num_workers=0)
    assert builder.name == name
    builder.download_and_prepare()
    prepared = tfds.builder_from_directory(builder.data_dir)
    original = tfds.builder(source, data_dir=SOURCE_DIR)
    assert prepared.info.features["label"].names == original.info.features["label"].names
    for split in original.info.splits:
        originals = {
            example.get("id", f"{split}_{i:08d}".encode()): example
            for i, example in zip(range(40), original.as_data_source(split=split), strict=False)
        }
        stored = prepared.as_data_source(split=split)
        assert len(stored) == 40
        for example in stored:
            expected = originals[example["file_name"]]
            assert example["label"] == expected["label"]
            picture = Image.fromarray(expected["image"]).resize((256, 256), Image.BICUBIC)
            difference = np.abs(np.asarray(picture).astype(int) - example["image"])
            assert difference.mean() < 1


@needs_data
@pytest.mark.slow
def test_real_subset_goes_through_prepare_statistics_and_training(tmp_path, monkeypatch):
    members = Source.members
    monkeypatch.setattr(
        Source, "members", lambda self, split: itertools.islice(members(self, split), 48)
    )
    source = dict(source="imagenette/160px-v2", source_dir=SOURCE_DIR, name="subset")
    Builder(**source, data_dir=tmp_path, num_workers=0).download_and_prepare()

    config = imagenette.get_config()
    config.dataset, config.data_dir = "subset", str(tmp_path)
    config.train_split, config.validation_split = "train", "validation"
    config.model.conv_features, config.model.fc_features = (4, 8, 8, 8, 8), (16, 16)
    config.model.image_size, config.mesh.data = 64, 1
    config.batch_size, config.eval_batch_size, config.num_epochs = 16, 48, 1
    config.final_views = ("center",)
    errors = train(config, tmp_path / "run")
    assert all(np.isfinite(list(means.values())).all() for means in errors.values())

    statistics = load_statistics(open_dataset("subset", "train", data_dir=str(tmp_path)))
    pixels = [
        example["image"].astype(float)
        for example in tfds.data_source("subset", data_dir=tmp_path, split="train")
    ]
    np.testing.assert_allclose(statistics.mean, np.mean(pixels, axis=0), atol=1e-3)


class TinyDots(tfds.core.GeneratorBasedBuilder):
    """A set that tfds knows, but that lies nowhere yet."""

    VERSION = tfds.core.Version("1.0.0")
    problem = None  # raised instead of the images

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(30, 40, 3)),
                    "label": tfds.features.ClassLabel(names=["red", "blue"]),
                }
            )
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(80)}

    def _generate_examples(self, images):
        if self.problem:
            raise self.problem
        for number in range(images):
            content = image_bytes((number, 0, 255 * (number % 2)))
            yield number, {"image": io.BytesIO(content), "label": number % 2}


@pytest.fixture
def dots(tmp_path):
    """Makes a builder that stores TinyDots, which it takes from `source`, in `out`."""

    def make(**kwargs):
        folders = dict(source_dir=str(tmp_path / "source"), data_dir=str(tmp_path / "out"))
        return Builder(source="tiny_dots", num_workers=0, **folders, **kwargs)

    return make


def images_of(builder):
    return sum(split.num_examples for split in builder.info.splits.values())


def test_set_that_tfds_knows_is_downloaded_and_written_first(dots, tmp_path, monkeypatch):
    dots().download_and_prepare()
    assert sorted(path.name for path in (tmp_path / "source/tiny_dots/1.0.0").glob("*record*")) == [
        "tiny_dots-train.array_record-00000-of-00001"
    ]
    monkeypatch.setattr(TinyDots, "problem", AssertionError("once is enough"))
    builder = dots(config="jpeg")
    builder.download_and_prepare()
    assert images_of(builder) == 80
    assert builder.info.features["label"].names == ["red", "blue"]


@pytest.mark.parametrize(
    ("problem", "advice"),
    [
        (
            ModuleNotFoundError("Failed:\nNo module named 'tensorflow'"),
            "(No module named 'tensorflow'); pip install tensorflow and start again",
        ),
        (OSError("no such host\nand more"), "no such host); put that right and start again"),
    ],
)
def test_set_that_tfds_cannot_write_is_named_with_both_ways_out(
    dots, tmp_path, monkeypatch, problem, advice
):
    with monkeypatch.context() as patch:
        patch.setattr(TinyDots, "problem", problem)
        with pytest.raises(PrepareError, match=r"^tfds cannot write tiny_dots \(") as caught:
            dots().plan()
    message = str(caught.value)
    assert advice in message and "\n" not in message
    command = "tfds build tiny_dots --file_format=array_record --data_dir"
    assert f"{command}={tmp_path}/source (which needs tensorflow" in message
    dots().download_and_prepare()  # nothing half-written is in the way


def test_a_package_or_a_host_that_is_missing_is_told_at_once(dots, monkeypatch):
    downloads = AssertionError("a download was begun")
    monkeypatch.setattr(TinyDots, "problem", downloads)
    with monkeypatch.context() as patch:
        module = SimpleNamespace(module_name="tensorflow")  # as tfds names it, without importing it
        patch.setattr(sys.modules[__name__], "tf", module, raising=False)
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(PrepareError, match=r"No module named 'tensorflow'.*pip install tensor"):
            dots().plan()
    monkeypatch.setattr(TinyDots, "url_infos", {"https://no-such-host.invalid/a.tar": None})
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PrepareError, match=r"\(the name no-such-host.invalid is not known from"):
        dots().plan()


def test_a_source_runs_no_code(dots, tmp_path, monkeypatch):
    source = tmp_path / "source"
    Source("tiny_dots", str(source)).prepare()
    path = source / "tiny_dots/1.0.0/features.json"
    path.write_text(
        path.read_text().replace("tensorflow_datasets.core.features.image_feature", "evil")
    )
    (source / "evil.py").write_text("raise SystemExit('code of a data set was run')")
    monkeypatch.syspath_prepend(source)
    with pytest.raises(PrepareError, match=rf"{source} \(it names the class evil\.Image, which"):
        dots().plan()


def test_set_stored_as_tfrecord_is_named_until_it_is_array_record_too(dots, tmp_path):
    folder = tmp_path / "source/tiny_dots/1.0.0"
    Source("tiny_dots", str(tmp_path / "source")).prepare()
    description = json.loads((folder / "dataset_info.json").read_text())
    description["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(description))
    command = f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record"
    with pytest.raises(PrepareError, match=rf"is stored as tfrecord; .*: {command}"):
        dots().plan()
    description["alternativeFileFormats"] = ["array_record"]  # what that command adds
    (folder / "dataset_info.json").write_text(json.dumps(description))
    builder = dots()
    builder.download_and_prepare()
    assert images_of(builder) == 80


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("when", ["indexing", "writing"])
def test_damaged_shard_is_named(dots, tmp_path, when, on_error):
    Source("tiny_dots", str(tmp_path / "source")).prepare()
    builder = dots(on_error=on_error)
    if when == "writing":
        builder.plan()
    (shard,) = (tmp_path / "source/tiny_dots/1.0.0").glob("*array_record*")
    content, changed = bytearray(shard.read_bytes()), shard.stat()
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    os.utime(shard, ns=(changed.st_atime_ns, changed.st_mtime_ns))  # as a failing disk does it
    message = (
        rf"image \d+ of tiny_dots train cannot be read \(.*\); delete {shard.parent} and start"
    )
    with pytest.raises(PrepareError, match=message):
        dots(on_error=on_error).download_and_prepare()


def test_missing_and_changed_shards_are_named(dots, tmp_path):
    dots().plan()
    (shard,) = (tmp_path / "source/tiny_dots/1.0.0").glob("*array_record*")
    os.utime(shard, (1, 1))
    with pytest.raises(PrepareError, match=rf"{shard} was of .* in the interrupted preparation"):
        dots().plan()
    shard.unlink()
    with pytest.raises(PrepareError, match=rf"tiny_dots: shard {shard} is missing; copy it again"):
        dots().plan()


def test_worker_that_does_not_see_the_set_says_so(tmp_path):
    with pytest.raises(PrepareError, match=r"tiny_dots/1.0.0 is gone, or not seen from this mach"):
        Source("tiny_dots", str(tmp_path))(Member("0", 0, "train", 0, 1))
    assert not list(tmp_path.iterdir())  # and downloads nothing


def test_set_that_tfds_does_not_know_is_named(tmp_path):
    with pytest.raises(PrepareError, match=r"tfds cannot open no_such_set in .*; check the name"):
        Builder(source="no_such_set", data_dir=tmp_path).plan()


def test_set_without_encoded_images_is_refused(tmp_path):
    make_folder(tmp_path / "photos", ["ant", "bee"], 1)
    raw = dict(folder=tmp_path / "photos", name="prepared", data_dir=tmp_path, validation_share=0)
    image_folder.Builder(**raw, num_workers=0).download_and_prepare()
    with pytest.raises(PrepareError, match=r"prepared/raw has the features .* are needed"):
        Builder(source="prepared/raw", data_dir=tmp_path).plan()
