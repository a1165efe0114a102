"""Any prepared tfds image set as batches for the step: found, shuffled, decoded (section 5).

The stream is a function of (seed, step) alone. Grain shuffles and batches record numbers; only
then are the records of a batch read, so no number of processes, threads or workers changes it.
"""

import contextlib
import dataclasses
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags, logging
from tensorflow_datasets.proto import tf_example_pb2

from alexnet_jax.data.images import decode_image, square
from alexnet_jax.data.shards import allow_open_shards, check_shards

Batch = dict[str, Any]  # of arrays

WITHOUT_DOWNLOAD = ("digits",)  # prepared on first use


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
    """A split on disk.

    Raises `ValueError` that names the record where its image or its label cannot be used.
    `labels=False` takes a label of -1 too, as test splits have it.
    """

    def __init__(
        self, builder: tfds.core.DatasetBuilder, split: str, image_size: int, labels: bool = True
    ):
        features = builder.info.features
        image, label = features["image"], features["label"]
        # The bytes are parsed here: tfds's own parser is 5 times slower than PNG decoding.
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._records = builder.as_data_source(split, deserialize_method=raw).data_source
        allow_open_shards()
        self._name = f"{builder.info.full_name} {split}"
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
            raise ValueError(
                f"record {index} of {self._name} cannot be read ({error}); "
                "its shard is damaged: delete it and prepare the data set again"
            ) from error
        return tf_example_pb2.Example.FromString(record).features.feature

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
            return values[0].decode(errors="replace")
    return ""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split of a prepared data set; `source[i]` is `{"image": uint8[S, S, 3], "label"}`."""

    name: str  # as tfds writes it, with configuration and version
    split: str
    source: Source
    num_classes: int
    class_names: tuple[str, ...]
    image_size: int  # S, the side of the stored image, of which the step takes crops
    path: Path  # the folder that holds the shards

    def __len__(self) -> int:
        return len(self.source)


def open_dataset(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    stored_size: int = 256,
    verify: bool = False,
    labels: bool = True,
) -> Dataset:
    """Open a prepared tfds image-classification set, images scaled to `stored_size`.

    Looked for in `data_dir`, then `ALEXNET_DATA_DIR`, then the user's tfds folder. `name` and
    `split` are written as tfds does: `cifar10`, `imagenette/160px-v2`, `train[:90%]`.
    `verify` reads all shards once and compares their digests with the manifest. `labels=False`
    opens splits without labels too: theirs are -1.
    Raises `ValueError` that says what to run where the set is not prepared or not whole.
    """
    folders = [
        folder
        for folder in (data_dir, os.environ.get("ALEXNET_DATA_DIR"), _user_folder())
        if folder
    ]
    builder = _find(name, folders)
    if builder is None and name.partition(":")[0] in WITHOUT_DOWNLOAD:
        _prepare(name.partition(":")[0], _user_folder())
        builder = _find(name, folders)
    if builder is None:
        raise ValueError(
            f"data set {name!r} is not prepared in {', '.join(folders)} "
            f"(there: {', '.join(_prepared(folders)) or 'nothing'}); run "
            f"`{_how_to_prepare(name)}`, or name the folder that has it with --data_dir"
        )
    _check(builder, split, verify)
    label = builder.info.features["label"]
    return Dataset(
        name=builder.info.full_name,
        split=split,
        source=Records(builder, split, stored_size, labels),
        num_classes=label.num_classes,
        class_names=tuple(label.names),
        image_size=stored_size,
        path=Path(builder.data_path),
    )


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    step: int = 0,
    rows: slice | None = None,
    threads: int | None = None,
    workers: int = 0,
    transform: Callable[[int, Batch], Batch] | None = None,
    place: Callable[[Batch], Batch] | None = None,
) -> grain.DatasetIterator[Batch]:
    """The endless batches of the global steps `step`, `step + 1`, …, each epoch shuffled anew.

    A batch is `{"image": uint8[B, S, S, 3], "label": int32[B]}`, cut to `rows` where a process
    loads only its part. What does not fill a batch is left out of that epoch. Read by `threads`
    (default: one a core) in each of `workers` processes (0: in this one), where
    `transform(step, batch)` is applied too (`host_augment` makes one). `place` puts a batch on the
    devices; it is called in a thread, two batches ahead, so that the copy overlaps the step.
    """
    order = batch_indices(len(dataset), batch_size=batch_size, seed=seed)
    wanted = rows or slice(None)

    def load(step: int) -> Batch:
        batch = dataset.source.read(order[step][wanted])
        return batch if transform is None else transform(step, batch)

    stream = grain.MapDataset.range(step, sys.maxsize).map(load)
    return _read(stream, threads, workers, place)


def eval_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    rows: slice | None = None,
    threads: int | None = None,
    place: Callable[[Batch], Batch] | None = None,
) -> grain.DatasetIterator[Batch]:
    """Every image once, in the stored order; `mask` (float32[B]) is 0 where the last is padded."""
    size = len(dataset)
    wanted = rows or slice(None)

    def load(batch: int) -> Batch:
        positions = np.arange(batch * batch_size, (batch + 1) * batch_size)[wanted]
        loaded = dataset.source.read(np.minimum(positions, size - 1))
        return {**loaded, "mask": (positions < size).astype(np.float32)}

    return _read(grain.MapDataset.range(-(-size // batch_size)).map(load), threads, 0, place)


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Whole batches in an epoch."""
    return len(dataset) // batch_size


def batch_indices(size: int, *, batch_size: int, seed: int) -> grain.MapDataset[np.ndarray]:
    """The record numbers of every global step: `[t]` is `int[B]`, each epoch a new permutation."""
    if batch_size > size:
        raise ValueError(
            f"a batch of {batch_size} is larger than the data set of {size} images; "
            f"use a batch_size of at most {size}"
        )
    # Grain seeds epoch e with seed + e: hashed, so that seeds 0 and 1 share no epoch.
    (hashed,) = np.random.SeedSequence(seed).generate_state(1)
    order = grain.MapDataset.range(size).shuffle(seed=int(hashed))
    return order.batch(batch_size, drop_remainder=True).repeat()


def _read(
    batches: grain.MapDataset[Batch],
    threads: int | None,
    workers: int,
    place: Callable[[Batch], Batch] | None,
) -> grain.DatasetIterator[Batch]:
    threads = threads or len(os.sched_getaffinity(0))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    stream = batches.to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags, parsed or not
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    if place is not None:
        stream = grain.experimental.ThreadPrefetchIterDataset(
            stream.map(place), prefetch_buffer_size=2
        )
    return iter(stream)


def _user_folder() -> str:
    return os.path.expanduser(tfds.core.constants.get_default_data_dir())


def _find(name: str, folders: Sequence[str]) -> tfds.core.DatasetBuilder | None:
    try:
        tfds.core.naming.parse_builder_name_kwargs(name)
    except ValueError:
        raise ValueError(
            f"{name!r} is no data set name; write name, name/configuration or name:version"
        ) from None
    for folder in folders:
        with contextlib.suppress(tfds.core.registered.DatasetNotFoundError):
            return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    return None


def _how_to_prepare(name: str) -> str:
    """The command that makes data set `name` appear in DIR."""
    bare, _, config = name.partition(":")[0].partition("/")
    if bare.startswith("imagenet2") or bare.startswith("imagenet_"):  # those with tars
        encoding = f" --encoding={config}" if config in ("raw", "jpeg") else ""
        dataset = bare.removesuffix("_256") + "_256"
        return (
            f"python -m alexnet_jax.prepare --dataset={dataset}{encoding} --manual_dir=TARS "
            "--data_dir=DIR"
        )
    if bare in tfds.list_builders(with_community_datasets=False):
        return f"python -m alexnet_jax.prepare --dataset={name} --data_dir=DIR"
    return (
        f"python -m alexnet_jax.prepare --dataset=folder --folder=PHOTOGRAPHS --name={bare} "
        "--data_dir=DIR"
    )


def _prepared(folders: Sequence[str]) -> list[str]:
    """The names of the data sets in `folders`."""
    infos = [info for folder in folders for info in Path(folder).glob("*/**/dataset_info.json")]
    names = {
        str(info.parent.parent.relative_to(folder))
        for folder in folders
        for info in infos
        if info.is_relative_to(folder)
    }
    return sorted(names)


def _prepare(name: str, folder: str) -> None:
    module = f"alexnet_jax.data.datasets.{name}.{name}_dataset_builder"
    builder = importlib.import_module(module).Builder(data_dir=folder, file_format="array_record")
    logging.info("Preparing %s in %s (once)", name, folder)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it speaks of a download
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(num_shards=1, try_download_gcs=False)
            )
    except OSError:  # another process has just renamed its copy into place: that one will do
        if not (Path(builder.data_path) / "dataset_info.json").exists():
            raise
    finally:
        tfds.enable_progress_bar()


def _check(builder: tfds.core.DatasetBuilder, split: str, verify: bool) -> None:
    """Raise `ValueError` unless the split has labelled images in whole ArrayRecord shards."""
    info = builder.info
    if info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{info.full_name} in {builder.data_path} is stored as {info.file_format.value}; run "
            f"`tfds convert_format --dataset_version_dir={builder.data_path} "
            "--out_file_format=array_record`"
        )
    try:
        files = info.splits[split].filepaths
    except (KeyError, ValueError):
        raise ValueError(
            f"{info.full_name} has no split {split!r}; it has {', '.join(sorted(info.splits))}"
        ) from None
    if not files:
        raise ValueError(f"split {split!r} of {info.full_name} is empty; take a larger part")
    check_shards([Path(file) for file in files], verify=verify)
    features = dict(info.features.items())
    image, label = features.get("image"), features.get("label")
    if not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(f"{info.full_name} has no class label; it is no classification set")
    if isinstance(image, tfds.features.Image):
        return
    if not isinstance(image, tfds.features.Tensor) or image.np_dtype != np.uint8:
        raise ValueError(f"{info.full_name} has no image; it is no image-classification set")
    if tuple(image.shape)[2:] != (3,):
        raise ValueError(
            f"{info.full_name} has images of shape {tuple(image.shape)}, not three channels; "
            "convert them to RGB and prepare the data set again"
        )
