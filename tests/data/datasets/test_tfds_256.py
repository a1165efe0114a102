"""Real photographs and CIFAR images of another tfds set are stored again at 256x256."""

import itertools
import os

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from alexnet_jax.configs import imagenette
from alexnet_jax.data.archives import PrepareError
from alexnet_jax.data.datasets.image_folder import image_folder_dataset_builder as image_folder
from alexnet_jax.data.datasets.tfds_256.tfds_256_dataset_builder import Builder, Source
from alexnet_jax.data.pipeline import open_dataset
from alexnet_jax.data.statistics import load_statistics
from alexnet_jax.train import train
from tests.fake_imagenet import make_folder

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


def test_set_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PrepareError, match=r"tfds build mnist --file_format=array_record"):
        Builder(source="mnist", data_dir=tmp_path).plan()
    with pytest.raises(PrepareError, match=r"tfds knows no no_such_set in .*; check the name"):
        Builder(source="no_such_set", data_dir=tmp_path).plan()


def test_set_without_encoded_images_is_refused(tmp_path):
    make_folder(tmp_path / "photos", ["ant"], 2)
    raw = dict(folder=tmp_path / "photos", name="photos", data_dir=tmp_path, validation_share=0)
    image_folder.Builder(**raw, num_workers=0).download_and_prepare()
    with pytest.raises(PrepareError, match=r"photos/raw has the features .* are needed"):
        Builder(source="photos/raw", data_dir=tmp_path).plan()
