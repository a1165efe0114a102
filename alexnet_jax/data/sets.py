"""Any prepared tfds image set: found, checked, opened, or what to run to have it (section 2)."""

import contextlib
import dataclasses
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from alexnet_jax.data.builders import WITHOUT_DOWNLOAD, builder_class, how_to_prepare
from alexnet_jax.data.descriptions import DESCRIPTION, FEATURES, NAMES, again, damage
from alexnet_jax.data.names import prepared_name
from alexnet_jax.data.records import Batch, Records, Source
from alexnet_jax.data.shards import MANIFEST, check_counts, check_shards
from alexnet_jax.data.splits import split_files, split_names
from alexnet_jax.files import local_path
from alexnet_jax.kinds import is_kind

_BEGINNING = 1 << 14  # bytes of a shard that tell it from another of its size


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

    def digest(self) -> str:
        """SHA-256 by which the images are told from others of the set's name and split.

        Of their number and of each shard's size and beginning: raw images of another set may be as
        large to the byte.
        """
        digest = hashlib.sha256(f"{self.name} {self.split} {len(self)}".encode())
        for file in sorted(self.path.glob("*.array_record*")):
            digest.update(f"{file.name} {file.stat().st_size}".encode())
            with file.open("rb") as shard:
                digest.update(shard.read(_BEGINNING))
        return digest.hexdigest()


def open_dataset(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    stored_size: int = 256,
    verify: bool = False,
    labels: bool = True,
    flag: str = "",
) -> Dataset:
    """Opens a prepared tfds image-classification set.

    Args:
      name: as tfds writes it, `cifar10` or `imagenette/160px-v2`.
      split: as tfds writes it, `train` or `train[:90%]`.
      data_dir: looked in first, then `ALEXNET_DATA_DIR`, then the user's tfds folder.
      stored_size: the side of the images; those of another size are scaled to it.
      verify: read all shards once and compare their digests, and those of the files that describe
        the set, with the manifest.
      labels: False opens splits without labels too: theirs are -1.
      flag: what the user names the split with, for messages.

    Raises:
      ValueError: it is not prepared (the message says what to run), not whole, or has no such
        split, or a slice of it ends before it begins.
    """
    if not (isinstance(name, str) and isinstance(split, str | None)):
        raise ValueError(f"data set {name!r}, split {split!r}: give both as text")
    if not is_kind(stored_size, like=0) or stored_size < 1:
        raise ValueError(f"stored_size={stored_size!r}; give a side in pixels from 1")
    folders = _folders(data_dir)
    builder = _find(name, folders)
    if builder is None and (bare := name.partition(":")[0]) in WITHOUT_DOWNLOAD:
        _prepare(bare)
        builder = _find(name, folders)
    if builder is None:
        there = _prepared(folders)
        copies = [
            copy
            for copy in there
            if copy.partition("/")[0] == prepared_name(name.partition(":")[0])
        ]
        advice = (
            f"its images are there at 256x256: take --config.dataset={copies[0]}"
            if copies
            else how_to_prepare(name)
        )
        raise ValueError(
            f"data set {name!r} is not prepared in {', '.join(map(str, folders))} "
            f"(there: {', '.join(there) or 'nothing'}); {advice}, or name the folder that has it "
            "with --data_dir"
        )
    try:
        _check(builder, split, flag, verify)
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
    except (ValueError, OSError):
        raise
    except Exception as error:  # what tfds raises for a damaged description depends on where
        raise ValueError(damage(Path(builder.data_path), error)) from error


class _Relabelled:
    """A source whose labels are numbered anew: a `Source`."""

    def __init__(self, source: Source, numbers: np.ndarray):
        """`numbers` int32[K]: old label -> new label."""
        self._source = source
        self._numbers = np.append(numbers, np.int32(-1))  # so that -1, no label, stays -1

    def __len__(self) -> int:
        return len(self._source)

    def file_name(self, index: int) -> str:
        """As `Records.file_name`."""
        return self._source.file_name(index)  # type: ignore[attr-defined]  # of records alone

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


def _folders(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """Where to look, in this order.

    Raises:
      ValueError: the first that is named is not there; another folder may hold another copy.
    """
    given = {"--data_dir": data_dir, "ALEXNET_DATA_DIR": os.environ.get("ALEXNET_DATA_DIR")}
    named = {name: local_path(folder) for name, folder in given.items() if folder}
    folders = list(named.values())
    if folders and not folders[0].is_dir():
        raise ValueError(
            f"there is no folder {folders[0]}; give that of the prepared data sets with "
            f"{next(iter(named))}"
        )
    user = _user_folder()
    return folders if user is None else [*folders, user]


def _user_folder() -> Path | None:
    """The user's tfds folder; None where not even the home folder is known."""
    folder = tfds.core.constants.get_default_data_dir()
    if not folder or (folder.startswith("~") and os.path.expanduser(folder) == folder):
        return None
    return local_path(folder)


def _find(name: str, folders: Sequence[Path]) -> tfds.core.DatasetBuilder | None:
    try:
        bare, _ = tfds.core.naming.parse_builder_name_kwargs(name)
    except ValueError:
        raise ValueError(
            f"{name!r} is not the name of a data set; write name, name/configuration or "
            "name:version"
        ) from None
    for folder in folders:
        try:
            return tfds.core.read_only_builder.builder_from_files(name, data_dir=str(folder))
        except tfds.core.registered.DatasetNotFoundError:
            continue
        except Exception as error:  # what tfds raises depends on what is damaged
            raise ValueError(damage(folder / bare.name, error)) from error
    for folder in folders:
        for path in folder.glob(f"{bare.name}/**/{DESCRIPTION}"):
            if not (path.parent / FEATURES).exists() and ".partial" not in str(path):
                raise ValueError(f"{path.parent} has no {FEATURES}; {again(path.parent)}")
    return None


def _prepared(folders: Sequence[Path]) -> list[str]:
    """The names of the data sets in `folders`."""
    return sorted(
        {
            str(path.parent.parent.relative_to(folder))
            for folder in folders
            for path in folder.glob(f"*/**/{DESCRIPTION}")
        }
    )


def _prepare(name: str) -> None:
    """Writes one of `WITHOUT_DOWNLOAD` into the user's folder."""
    folder = _user_folder()
    where_else = "set TFDS_DATA_DIR to a folder that can be written to"
    if folder is None:
        raise ValueError(f"there is no home folder to write the data set {name} to; {where_else}")
    logging.info("Preparing %s in %s (once)", name, folder)
    tfds.disable_progress_bar()
    try:
        builder = builder_class(name)(data_dir=str(folder), file_format="array_record")
        with contextlib.redirect_stdout(io.StringIO()):  # it speaks of a download
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(num_shards=1, try_download_gcs=False)
            )
    except OSError as error:
        # Where another process has just renamed its copy into place, that one will do.
        if not any(folder.glob(f"{name}/*/{DESCRIPTION}")):
            problem = error.strerror or error
            raise ValueError(
                f"the data set {name} cannot be written to {folder} ({problem}); {where_else}"
            ) from error
    finally:
        tfds.enable_progress_bar()


def _check(builder: tfds.core.DatasetBuilder, split: str, flag: str, verify: bool) -> None:
    """Raises `ValueError` unless the split has labelled images in whole ArrayRecord shards."""
    info = builder.info
    if not split:
        raise ValueError(
            f"no split of {info.full_name} is named; set the field (--config.train_split, "
            f"--config.validation_split) to one of {split_names(info)}; only --config.test_split "
            "may be empty"
        )
    if info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{info.full_name} in {builder.data_path} is stored as {info.file_format.value}; run "
            f"`tfds convert_format --dataset_version_dir={builder.data_path} "
            "--out_file_format=array_record`"
        )
    files = split_files(info, split, flag)
    check_shards(files, verify=verify)
    lengths = {
        Path(file): length
        for part in info.splits.values()
        for file, length in zip(part.filepaths, part.shard_lengths, strict=True)
    }
    check_counts({file: lengths[file] for file in files})
    features = dict(info.features.items())
    image, label = features.get("image"), features.get("label")
    if not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            f"{info.full_name} in {builder.data_path} has no class label; it is not a "
            "classification set"
        )
    names, count = label.names, label.num_classes or 0
    file = Path(builder.data_path) / NAMES
    # tfds may do without a file of names; where it cannot read one, it makes up 0, 1, 2, ...
    named = file.exists() or (file.parent / MANIFEST).exists()
    if count < 1 or len(set(names)) != count or len(names) != count or (named and not _text(file)):
        raise ValueError(
            f"{file} names {len(set(names)) if _text(file) else 0} classes and "
            f"{file.with_name(FEATURES)} {count}; one is damaged: {again(file.parent)}"
        )
    if isinstance(image, tfds.features.Image):
        return
    if not isinstance(image, tfds.features.Tensor) or image.np_dtype != np.uint8:
        raise ValueError(
            f"{info.full_name} in {builder.data_path} has no image; it is not an "
            "image-classification set"
        )
    if tuple(image.shape)[2:] != (3,):
        raise ValueError(
            f"{info.full_name} in {builder.data_path} has images of shape {tuple(image.shape)}, "
            "not three channels; convert them to RGB and prepare the data set again"
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
