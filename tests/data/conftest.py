"""Data sets for the tests: the digits in a folder of their own, and small ones written by hand."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

ALEXNET_DATA_DIR = os.environ.get("ALEXNET_DATA_DIR")  # as it was before the fixture below


@pytest.fixture
def beside_data() -> Callable[[str], Path]:
    """Gives a file or folder that lies beside `ALEXNET_DATA_DIR`, or skips the test."""

    def find(name: str) -> Path:
        if not ALEXNET_DATA_DIR:
            pytest.skip("ALEXNET_DATA_DIR is not set")
        path = Path(ALEXNET_DATA_DIR).parent / name
        if not path.exists():
            pytest.skip(f"there is no {path}")
        return path

    return find


@pytest.fixture(autouse=True)
def user_folder(tmp_path_factory, monkeypatch) -> Path:
    """The user's tfds folder, shared by the tests of one worker; no other folder is looked in."""
    folder = tmp_path_factory.getbasetemp() / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    monkeypatch.delenv("ALEXNET_DATA_DIR", raising=False)
    return folder


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def grey(count: int = 4) -> list[bytes]:
    """Images of 4x4 pixels, all alike."""
    return [png(np.full((4, 4, 3), 100, np.uint8))] * count


def write_dataset(
    data_dir: Path,
    name: str,
    images: list[bytes],
    labels: list[int],
    *,
    num_classes: int = 3,
    shards: int = 1,
    image: tfds.features.FeatureConnector | None = None,
) -> Path:
    """A tfds data set with one split, `train`, of encoded (or raw) images; returns its folder."""
    path = data_dir / name / "1.0.0"
    path.mkdir(parents=True)
    parts = np.array_split(np.arange(len(images)), shards)
    for number, part in enumerate(parts):
        file = path / f"{name}-train.array_record-{number:05d}-of-{shards:05d}"
        writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")
        for index in part:
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(images[index])
            example.features.feature["label"].int64_list.value.append(labels[index])
            example.features.feature["file_name"].bytes_list.value.append(b"%d.png" % index)
            writer.write(example.SerializeToString())
        writer.close()
    tfds.folder_dataset.write_metadata(
        check_data=False,  # it would read through TensorFlow
        data_dir=str(path),
        features=tfds.features.FeaturesDict(
            {
                "image": image or tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(num_classes=num_classes),
                "file_name": tfds.features.Text(),
            }
        ),
        split_infos=[
            tfds.core.SplitInfo(
                name="train",
                shard_lengths=[len(part) for part in parts],
                num_bytes=sum(map(len, images)),
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=str(path), dataset_name=name, filetype_suffix="array_record"
                ),
            )
        ],
    )
    return path
