"""Prepare a data set once: every image at 256x256, in shards that are read at random (section 2).

A `PreparedBuilder` is a tfds builder that says where its images lie. From that index a plan is made
(which shard holds which images), and each shard is then written on its own, by a local process or
an Apache Beam worker. Everything stays in `<version>.partial` until the last shard is whole.
"""

import functools
import re
import shutil
import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder
from tqdm import tqdm

from alexnet_jax.data import known_features  # noqa: F401 (what it is imported for)
from alexnet_jax.data.archives import Member, PrepareError, Report, fingerprint, read_member
from alexnet_jax.data.descriptions import DESCRIPTION, again, check_descriptions, damage
from alexnet_jax.data.locks import locked
from alexnet_jax.data.names import classes_without, printable, unstorable_class
from alexnet_jax.data.shards import DESCRIBING, MANIFEST, check_shards
from alexnet_jax.data.workers import write_with_beam, write_with_processes
from alexnet_jax.data.writing import (
    IMAGE_SIZE,
    JPEG_BYTES,
    JPEG_QUALITY,
    RECORD_BYTES,
    ShardTask,
    WriteShard,
    check_lists,
    finished_shard,
    in_validation,
    list_digests,
    make_features,
    manifest_entry,
    read_json,
    read_report,
    report_path,
    start_again,
    write_json,
    write_plan,
)
from alexnet_jax.files import local_path
from alexnet_jax.machine import cores


class Plan(NamedTuple):
    """What will be written."""

    folder: Path  # where it grows
    images: dict[str, int]  # of each split
    shards: dict[str, int]
    class_names: list[str]
    skipped: list[dict[str, str]]  # members that could not even be indexed
    bytes: int  # estimate, all shards
    notes: Sequence[str] = ()  # what the user should know before training on it


_PLAN: dict[str, tuple[type, ...]] = {
    "inputs": (dict, str),
    "images": (dict, int),
    "shards": (dict, int),
    "class_names": (list, str),
    "lists": (dict, str),
    "skipped": (list, dict),
    "notes": (list, str),
}


class PreparedBuilder(FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A tfds builder of images stored once at 256x256, as raw pixels or JPEG.

    A data set says where its images lie (`_class_names`, `_index`, and `_inputs` for archives);
    the rest is here. `download_and_prepare` continues an interrupted preparation.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="raw", description="uint8 pixels: no decoding"),
        tfds.core.BuilderConfig(name="jpeg", description=f"JPEG of quality {JPEG_QUALITY}"),
    ]

    VALIDATION_SHARE = 0.0  # of the images, where the data are one training split
    EVERY_CLASS = False  # a class without images is an error, with on_error="skip" a note

    def __init__(
        self,
        *,
        on_error: str = "stop",
        num_workers: int | None = None,
        validation_share: float | None = None,
        **kwargs: Any,
    ):
        """Finds nothing yet; `plan` does.

        Args:
          on_error: "stop" at an image that cannot be used, or "skip", count and list it.
          num_workers: processes, default one per core, 0 for this one alone.
          validation_share: the part (0-1) of the training images, chosen by a hash of the file
            name, that becomes the validation split.
          **kwargs: as for any tfds builder.

        Raises:
          ValueError: `data_dir` is a URL or a name that is not UTF-8, the set's name is not one
            that tfds takes, no training image would be left, or what describes the set that lies
            there is damaged.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise PrepareError(
                f'name="{printable(self.name)}": take small letters, digits and _, a letter first'
            )
        if validation_share is not None and not 0 <= validation_share < 1:
            raise PrepareError(
                f"--validation_share={validation_share:g} is not from 0 to below 1; some images "
                "are needed to train on"
            )
        if on_error not in ("stop", "skip"):
            raise ValueError(f'on_error="{on_error}" is neither "stop" nor "skip"')
        if kwargs.get("data_dir"):
            kwargs["data_dir"] = local_path(kwargs["data_dir"])
            if printable(kwargs["data_dir"]) != str(kwargs["data_dir"]):
                raise PrepareError(
                    f"the folder {printable(kwargs['data_dir'])} has control characters or bytes "
                    "that are not UTF-8 in its name; choose another --data_dir"
                )
        self._on_error = on_error
        self._validation_share = validation_share
        self._num_workers = cores() if num_workers is None else num_workers
        try:
            super().__init__(file_format="array_record", **kwargs)
        except Exception as error:  # what tfds raises for a damaged set depends on where
            folder = getattr(self, "_data_dir", None)
            if folder is None or not Path(folder, DESCRIPTION).exists():
                raise
            raise PrepareError(damage(Path(folder), error)) from error
        self._original_state = {
            "on_error": on_error,
            "num_workers": num_workers,
            "validation_share": validation_share,
            **kwargs,
        }

    @abstractmethod
    def _class_names(self, manual_dir: Path) -> list[str]:
        """The class names by label. Raises PrepareError where files are missing."""

    @abstractmethod
    def _index(
        self, manual_dir: Path, class_names: list[str], report: Report
    ) -> dict[str, Iterator[Member]]:
        """The images of each split. `report(file, problem)` tells of one that cannot be used."""

    def _notes(self) -> list[str]:
        """What the user should know, once the index has been gone through."""
        return []

    def _place(self, split: str, manual_dir: Path) -> Path:
        """Where the images of `split` were looked for."""
        return manual_dir

    def _inputs(self, manual_dir: Path) -> list[Path]:
        """The archives that must not change between an interruption and its continuation."""
        return []

    def _fingerprints(self, manual_dir: Path) -> dict[str, str]:
        """What tells whether one of them has changed: `{path: text}`."""
        return {str(file): fingerprint(file) for file in self._inputs(manual_dir)}

    def _options(self) -> dict[str, str]:
        """What else must not change: `{option: value}`."""
        share = self._validation_share
        return {"--validation_share": "the default" if share is None else str(share)}

    def _read(self) -> Callable[[Member], bytes]:
        """A picklable function that gives the encoded image of a member."""
        return read_member

    @property
    def encoding(self) -> str:
        """`raw` or `jpeg`."""
        return self.builder_config.name

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=make_features(self.encoding),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def is_there(self) -> bool:
        """Whether the set is prepared already.

        Raises PrepareError where it is another one, or a file of it is missing, of another size or
        cannot be read.
        """
        if not self.data_path.exists():
            return False
        self._check_whole(Path(self.data_path))
        options = self._options()
        if changed := _changed(self.info.metadata.get("options", options), options):
            name, was, now = changed
            raise PrepareError(
                f"{self.data_dir} is prepared already: {name} was {was} and is {now}; go back to "
                "that, give another --name or --data_dir, or delete that folder"
            )
        return True

    def _check_whole(self, folder: Path) -> None:
        try:
            check_descriptions(folder)
            if not (folder / MANIFEST).exists():
                raise ValueError(f"{folder / MANIFEST} is missing; {again(folder)}")
            splits = self.info.splits.values()
            check_shards([Path(file) for split in splits for file in split.filepaths])
        except ValueError as error:
            raise PrepareError(str(error)) from error

    def plan(self, manual_dir: epath.PathLike | None = None) -> Plan:
        """What `download_and_prepare` will write; made once, then read back.

        Raises PrepareError where files are missing, or files or options are not those of the
        interrupted preparation.
        """
        with locked(Path(self.data_path.parent)):
            return self._plan(manual_dir)

    def _plan(self, manual_dir: epath.PathLike | None) -> Plan:
        manual_dir = Path(manual_dir or ".").expanduser().absolute()
        folder = Path(f"{self.data_dir}.partial").absolute()
        path = folder / "plan.json"
        inputs = self._options() | self._fingerprints(manual_dir)
        if not path.exists():
            try:
                write_json(path, {"inputs": inputs} | self._make_plan(manual_dir, folder))
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        plan = read_json(path, _PLAN)
        if plan["images"].keys() != plan["shards"].keys():
            raise PrepareError(f"{path} is damaged (its splits); {start_again(folder)}")
        check_lists(folder / "plan", plan.pop("lists"))
        if changed := _changed(plan.pop("inputs"), inputs):
            name, was, now = changed
            raise PrepareError(
                f"{name} was {was} in the interrupted preparation and is {now}; "
                f"go back to that, or {start_again(folder)}"
            )
        image_bytes = IMAGE_SIZE**2 * 3 if self.encoding == "raw" else JPEG_BYTES
        total = sum(plan["images"].values()) * (image_bytes + RECORD_BYTES)
        return Plan(folder=folder, bytes=total, **plan)

    def _make_plan(self, manual_dir: Path, folder: Path) -> dict[str, Any]:
        class_names = self._class_names(manual_dir)
        if problem := unstorable_class(class_names):
            raise PrepareError(f"{problem}; rename it")
        shutil.rmtree(folder, ignore_errors=True)  # a plan that was cut off
        (folder / "plan").mkdir(parents=True)
        skipped: list[dict[str, str]] = []
        index = self._index(manual_dir, class_names, functools.partial(self._report, skipped))
        found: Counter[int] = Counter()
        sizes = write_plan(folder / "plan", self._deal_splits(index, found))
        if empty := [split for split in index if split not in sizes]:
            where = printable(self._place(empty[0], manual_dir))
            raise PrepareError(f"{where} has no images for split {empty[0]}; look there")
        missing = [name for label, name in enumerate(class_names) if not found[label]]
        if missing and self.EVERY_CLASS and self._on_error == "stop":
            raise PrepareError(
                f"{classes_without(missing)} in {printable(self._place('train', manual_dir))}; add "
                "some, take such a folder away, or keep it as a class that is never learned with "
                "--on_error=skip"
            )
        return {
            "class_names": class_names,
            "images": {split: images for split, (images, _) in sizes.items()},
            "shards": {split: shards for split, (_, shards) in sizes.items()},
            "lists": list_digests(folder / "plan"),
            "skipped": skipped,
            "notes": self._notes(),
        }

    def _deal_splits(
        self, index: dict[str, Iterator[Member]], found: Counter[int]
    ) -> Iterator[tuple[str, Member]]:
        """Where each image goes; counts the training images found of each label in `found`.

        No class is set aside whole: of one that would be, its first image is for training.
        """
        share = self._validation_share
        if share and "validation" in index:
            raise PrepareError("the data have a validation split; leave out --validation_share")
        if share is None:
            share = self.VALIDATION_SHARE if list(index) == ["train"] else 0.0
        first: dict[int, Member] = {}  # of each class the first that is set aside
        kept = set()  # the labels of which one is not
        for split, members in index.items():
            for member in members:
                found[member.label] += split == "train"
                if split != "train":
                    yield split, member
                elif not in_validation(member.name, share):
                    kept.add(member.label)
                    yield split, member
                elif first.setdefault(member.label, member) is not member:
                    yield "validation", member
        for label, member in first.items():
            yield "validation" if label in kept else "train", member

    def _report(self, skipped: list[dict[str, str]], file: str, problem: str) -> None:
        if self._on_error == "stop":
            raise PrepareError(f"{file}: {problem}, or leave it out with --on_error=skip")
        skipped.append({"file": file, "problem": problem})

    def download_and_prepare(
        self,
        *,
        download_dir: epath.PathLike | None = None,
        download_config: tfds.download.DownloadConfig | None = None,
        file_format: str | None = None,
    ) -> None:
        """Writes the set, or what an interruption left of it; nothing where it is there already.

        `download_config` gives `manual_dir` and, to run on Apache Beam, `beam_runner` and
        `beam_options`. Raises PrepareError (missing or changed files, another set of that name, too
        little space, a full disk) and ImageError (an image that cannot be used).
        """
        if file_format not in (None, "array_record"):
            raise ValueError(f"file_format={file_format}: a prepared set is array_record")
        if self.is_there():
            logging.info("%s is prepared already", self.data_dir)
            return
        config = download_config or tfds.download.DownloadConfig()
        with locked(Path(self.data_path.parent)):
            self._download_and_prepare(config)

    def _download_and_prepare(self, download_config: tfds.download.DownloadConfig) -> None:
        plan = self._plan(download_config.manual_dir)
        self._write_shards(plan, download_config)
        self._finish(plan)

    def _shard_paths(self, plan: Plan, split: str) -> list[Path]:
        template = self._get_filename_template(split).replace(data_dir=epath.Path(plan.folder))
        return [Path(path) for path in template.sharded_filepaths(plan.shards[split])]

    def _write_shards(self, plan: Plan, config: tfds.download.DownloadConfig) -> None:
        for leftover in ("*.part", "incomplete.*", "*.failure"):  # of workers that were killed
            for path in plan.folder.glob(leftover):
                path.unlink()
        tasks, finished, finished_bytes, skipped = [], 0, 0, list(plan.skipped)
        for split in plan.shards:
            for number, path in enumerate(self._shard_paths(plan, split)):
                report = finished_shard(path)
                if report is None:
                    members = plan.folder / "plan" / f"{split}-{number:05d}.jsonl"
                    tasks.append(ShardTask(str(members), str(path)))
                else:
                    finished += report["records"] + len(report["skipped"])
                    finished_bytes += report["bytes"]
                    skipped += report["skipped"]
        if skipped and self._on_error == "stop":
            raise PrepareError(
                f"the interrupted preparation left out {skipped[0]['file']}; go on with "
                f"--on_error=skip, or {start_again(plan.folder)}"
            )
        free = shutil.disk_usage(plan.folder).free
        if tasks and plan.bytes - finished_bytes > free:
            raise PrepareError(
                f"{plan.folder.parent} has {tqdm.format_sizeof(free, 'B')} free, the rest of the "
                f"set takes about {tqdm.format_sizeof(plan.bytes - finished_bytes, 'B')}; "
                "free space or choose another --data_dir"
            )
        write = WriteShard(self.encoding, self._on_error == "skip", self._read())
        if not tasks:
            return
        if config.beam_runner or config.beam_options:
            write_with_beam(write, tasks, config.beam_runner, config.beam_options)
            return
        total = sum(plan.images.values())
        with tqdm(
            desc="Preparing",
            total=total,
            initial=finished,
            unit=" img",
            smoothing=0.05,
            mininterval=0.1 if sys.stderr.isatty() else 60,  # a log takes a line a minute
        ) as bar:
            write_with_processes(write, tasks, bar, min(self._num_workers, len(tasks)))

    def _finish(self, plan: Plan) -> None:
        """The metadata, then the one rename that makes the set appear."""
        splits: list[tfds.core.SplitInfo] = []
        manifest: dict[str, Any] = {}
        skipped = list(plan.skipped)
        trained: Counter[int] = Counter()
        digests: dict[str, np.ndarray] = {}
        for split in plan.shards:
            paths = self._shard_paths(plan, split)
            reports, parts = [], []
            for path in paths:
                reports.append(read_report(path))
                parts.append(np.array(reports[-1].pop("digests"), np.int64))
            digests[split] = np.concatenate(parts)
            left_out = sum(len(report["skipped"]) for report in reports)
            for path, report in zip(paths, reports, strict=True):
                skipped += report.pop("skipped")
                labels = report.pop("labels")
                if odd := labels.keys() - set(map(str, range(-1, len(plan.class_names)))):
                    raise PrepareError(
                        f"{path} has label {min(odd)} and {plan.folder}/plan.json "
                        f"{len(plan.class_names):,} classes; {start_again(plan.folder)}"
                    )
                if split == "train":
                    trained.update({int(label): count for label, count in labels.items()})
                manifest[path.name] = report
            lengths = [report["records"] for report in reports]
            if (seen := sum(lengths) + left_out) != plan.images[split]:
                raise PrepareError(
                    f"{plan.folder}/plan lists {seen:,} images of split {split} and its plan.json "
                    f"{plan.images[split]:,}; {start_again(plan.folder)}"
                )
            if not sum(lengths):
                raise PrepareError(f"every image of split {split} was skipped; check the folder")
            splits.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=lengths,
                    num_bytes=sum(report["bytes"] for report in reports),
                    filename_template=self._get_filename_template(split),
                )
            )
        self.info.set_splits(tfds.core.SplitDict(splits))
        self.info.features["label"].names = plan.class_names
        self.info.metadata.update(
            image_size=IMAGE_SIZE,
            encoding=self.encoding,
            options=self._options(),
            skipped={"count": len(skipped), "files": skipped},
            also_in_training={
                split: int(np.isin(found, digests["train"]).sum())
                for split, found in digests.items()
                if split != "train" and "train" in digests
            },
        )
        if trained:
            names = enumerate(plan.class_names)
            untrained = [name for label, name in names if not trained[label]]
            self.info.metadata.update(classes_without_training_images=untrained)
        self.info.write_to_directory(plan.folder)
        described = {name: manifest_entry(plan.folder / name) for name in DESCRIBING}
        write_json(plan.folder / MANIFEST, manifest | described)
        self._save_default_config()
        plan.folder.rename(self.data_dir)
        folder = Path(self.data_dir)  # only now is nothing of the plan needed any more
        shutil.rmtree(folder / "plan")
        for leftover in [folder / "plan.json", *(report_path(folder / name) for name in manifest)]:
            leftover.unlink()

    def _save_default_config(self) -> None:
        """Opens the set without naming the encoding: raw where it exists, else this one."""
        folder = self.data_path.parent.parent
        raw = folder / "raw" / str(self.version)
        config = "raw" if raw.exists() else self.encoding
        (folder / ".config").mkdir(exist_ok=True)
        write_json(Path(folder / ".config" / "metadata.json"), {"default_config_name": config})


def _changed(before: dict[str, str], now: dict[str, str]) -> tuple[str, str, str] | None:
    """The first option or input that is not as before: its name, what it was and is; or None."""
    for name in before | now:
        was, found = (content.get(name, "not there") for content in (before, now))
        if was != found:
            return name, was, found
    return None
