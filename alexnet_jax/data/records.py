"""The images of one split on disk, each read and checked by itself (section 2)."""

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from alexnet_jax.data import known_features  # noqa: F401 (what it is imported for)
from alexnet_jax.data.descriptions import again
from alexnet_jax.data.images import decode_image, square
from alexnet_jax.data.names import printable
from alexnet_jax.machine import allow_open_files

Batch = dict[str, Any]  # of arrays


class Source(Protocol):
    """Random access to the images of one split."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{"image": uint8[S, S, 3], "label": int}`."""
        ...

    def read(self, indices: np.ndarray) -> Batch:
        """`{"image": uint8[B, S, S, 3], "label": int32[B]}` of the images `indices` int[B]."""
        ...


class Records:
    """A split on disk: a `Source`.

    Reading raises `ValueError` that names the record where its image or label cannot be used.
    """

    def __init__(
        self, builder: tfds.core.DatasetBuilder, split: str, image_size: int, labels: bool = True
    ):
        """Opens the shards of `split`.

        Args:
          builder: of the prepared set, checked by `sets`.
          split: as tfds writes it.
          image_size: S, the side that images are given.
          labels: False takes a label of -1 too, as test splits have it.
        """
        features = builder.info.features
        image, label = features["image"], features["label"]
        # The bytes are parsed here: tfds's own parser is 5 times slower than PNG decoding.
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._records = builder.as_data_source(split, deserialize_method=raw).data_source
        allow_open_files()  # ArrayRecord keeps every shard open, and tfds writes up to 1,024
        self._name = f"{builder.info.full_name} {split}"
        self._files = builder.info.splits[split].file_instructions
        self._raw_shape = None if isinstance(image, tfds.features.Image) else tuple(image.shape)
        self._num_classes = label.num_classes
        self._image_size = image_size
        self._lowest = 0 if labels else -1

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        feature = self._features(index)
        name = f"record {index} of {self._name}"
        if file_name := _file_name(feature):
            name += f" ({file_name})"
        if not (feature["label"].int64_list.value and feature["image"].bytes_list.value):
            raise ValueError(
                f"{name} has no label, or no image as bytes; prepare the data set again"
            )
        label = feature["label"].int64_list.value[0]
        if not self._lowest <= label < self._num_classes:
            raise ValueError(
                f"{name} has label {label}, outside 0 to {self._num_classes - 1}; "
                "take a split with labels, or prepare the data set again"
            )
        return {"image": self._image(feature["image"].bytes_list.value[0], name), "label": label}

    def read(self, indices: np.ndarray) -> Batch:
        """The images `indices`, as `Source.read`."""
        size = self._image_size
        images = np.empty((len(indices), size, size, 3), np.uint8)
        labels = np.empty(len(indices), np.int32)
        for position, index in enumerate(indices):
            example = self[int(index)]
            images[position], labels[position] = example["image"], example["label"]
        return {"image": images, "label": labels}

    def file_name(self, index: int) -> str:
        """The name of the file that an image came from, "" where it was not stored."""
        return _file_name(self._features(index))

    def _features(self, index: int) -> Any:
        try:
            record = self._records[index]
        except Exception as error:  # ArrayRecord raises many kinds for a damaged shard
            if "Too many open files" in str(error):
                raise OSError(
                    f"{self._name} has more shards than this process may open files; raise the "
                    "limit with `ulimit -n`, or prepare the data set in fewer shards"
                ) from error
            shard = self._shard(index)
            raise ValueError(
                f"record {index} of {self._name} cannot be read ({error}); "
                f"{shard} is damaged: {again(shard.parent)}"
            ) from error
        try:
            return tf_example_pb2.Example.FromString(record).features.feature
        except DecodeError as error:
            shard = self._shard(index)
            raise ValueError(
                f"record {index} of {self._name} is no tf.train.Example; {shard} is another data "
                f"set's: {again(shard.parent)}"
            ) from error

    def _shard(self, index: int) -> Path:
        """The file that holds a record."""
        *others, last = self._files
        for file in others:
            taken = file.take if file.take >= 0 else file.examples_in_shard - file.skip
            if index < taken:
                return Path(file.filename)
            index -= taken
        return Path(last.filename)

    def _image(self, data: bytes, name: str) -> np.ndarray:
        if self._raw_shape is None:
            return decode_image(data, self._image_size, name=name)
        if len(data) != np.prod(self._raw_shape):
            height, width, channels = self._raw_shape
            raise ValueError(
                f"{name} holds {len(data):,} bytes, not {height}x{width}x{channels}; "
                "prepare the data set again"
            )
        pixels = np.frombuffer(data, np.uint8).reshape(self._raw_shape)
        if pixels.shape[:2] == (self._image_size, self._image_size):
            return pixels
        return square(pixels, self._image_size)


def _file_name(feature: Any) -> str:
    for key in ("file_name", "id"):
        if values := feature[key].bytes_list.value:
            return printable(os.fsdecode(values[0]))
    return ""
