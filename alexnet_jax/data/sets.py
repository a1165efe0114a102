"""Any prepared tfds image set as batches for the step: found, shuffled, decoded (section 5).

The stream is a function of (seed, step) alone. Grain shuffles and batches record numbers; only
then are the records of a batch read, so no number of processes, threads or workers changes it.
"""

import contextlib
import dataclasses
import importlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from alexnet_jax.data.records import Batch, Records, Source
from alexnet_jax.data.shards import check_shards

WITHOUT_DOWNLOAD = ("digits",)  # prepared on first use


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


class _Relabelled:
    """A source whose labels are numbered anew: a `Source`."""

    def __init__(self, source: Source, numbers: np.ndarray):
        """`numbers` int32[K]: old label -> new label."""
        self._source = source
        self._numbers = np.append(numbers, np.int32(-1))  # so that -1, no label, stays -1

    def __len__(self) -> int:
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        return {**example, "label": int(self._numbers[example["label"]])}

    def read(self, indices: np.ndarray) -> Batch:
        """The images `indices`, as `Source.read`."""
        batch = self._source.read(indices)
        return {**batch, "label": self._numbers[batch["label"]]}


def match_classes(
    dataset: Dataset, class_names: Sequence[str], *, owner: str, by_position: bool = False
) -> tuple[Dataset, str]:
    """Numbers the labels of `dataset` as `class_names` does, and says so.

    Args:
      dataset: a split, its classes in any order.
      class_names: those that the network tells apart, in its order.
      owner: whose they are, for the messages, such as a workdir.
      by_position: class n of the data set is class n of the network, whatever their names.

    Returns:
      The data set, and one line to tell the user; "" where the names are the same already.

    Raises:
      ValueError: the names differ, and not only in their order.
    """
    names, wanted = tuple(dataset.class_names), tuple(class_names)
    if names == wanted:
        return dataset, ""
    what = f"{dataset.name} {dataset.split}"
    if by_position and len(names) == len(wanted):
        renamed = dataclasses.replace(dataset, class_names=wanted)
        return renamed, f"classes of {what} are matched with those of {owner} by position"
    if sorted(names) != sorted(wanted):
        odd = next(
            (
                f"{name!r} is only in {where}"
                for only, where in (
                    (set(names) - set(wanted), what),
                    (set(wanted) - set(names), owner),
                )
                for name in sorted(only)
            ),
            "a name stands twice",
        )
        rest = (
            "; --classes_by_position takes class n for class n whatever the names"
            if len(names) == len(wanted)
            else ""
        )
        raise ValueError(
            f"{what} has {len(names)} classes and {owner} {len(wanted)}, or others ({odd}); give "
            f"the data set of its classes{rest}"
        )
    numbers = np.array([wanted.index(name) for name in names], np.int32)
    matched = dataclasses.replace(
        dataset, source=_Relabelled(dataset.source, numbers), class_names=wanted
    )
    return matched, f"classes of {what} are in another order than in {owner}: matched by name"


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
