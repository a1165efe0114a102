"""The same builders on Apache Beam write the same shards."""

import json

import pytest
import tensorflow_datasets as tfds

from alexnet_jax.data.archives import PrepareError
from alexnet_jax.data.datasets.image_folder.image_folder_dataset_builder import Builder
from tests.fake_imagenet import make_folder

pipeline_options = pytest.importorskip(
    "apache_beam.options.pipeline_options",
    reason="Apache Beam is not installed (it needs protobuf<7): pip install alexnet-jax[prepare]",
)


@pytest.fixture
def config():
    options = pipeline_options.PipelineOptions(
        direct_running_mode="multi_processing", direct_num_workers=2
    )
    return tfds.download.DownloadConfig(beam_runner="DirectRunner", beam_options=options)


def make_builder(folder, out):
    return Builder(folder=folder, name="photos", data_dir=folder.parent / out, num_workers=0)


def test_beam_writes_the_shards_that_local_processes_write(tmp_path, config):
    make_folder(tmp_path / "photos", ["ant", "bee"], 100)
    local, distributed = (make_builder(tmp_path / "photos", out) for out in ("local", "beam"))
    local.download_and_prepare()
    distributed.download_and_prepare(download_config=config)
    manifests = [
        json.loads((builder.data_path / "manifest.json").read_text())
        for builder in (local, distributed)
    ]
    assert len(manifests[0]) > 2 and manifests[0] == manifests[1]
    assert len(tfds.data_source("photos", data_dir=tmp_path / "beam", split="train")) > 150


def test_bad_image_is_named_and_the_other_shards_are_kept(tmp_path, config):
    make_folder(tmp_path / "photos", ["ant", "bee"], 100)
    bad = tmp_path / "photos" / "ant" / "7.jpg"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    builder = make_builder(tmp_path / "photos", "beam")
    with pytest.raises(PrepareError, match=r"ant/7\.jpg .* is empty"):
        builder.download_and_prepare(download_config=config)
    partial = builder.data_path.with_name("1.0.0.partial")
    assert len(list(partial.glob("*array_record-?????-of-?????"))) == 3  # of 4
    bad.write_bytes(good)
    builder.download_and_prepare()
    assert sum(split.num_examples for split in builder.info.splits.values()) == 200
