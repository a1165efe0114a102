"""Prepare a data set once: every image at 256x256, in shards that are read at random (section 2).

A `PreparedBuilder` is a tfds builder that says where its images lie. From that index a plan is made
(which shard holds which images), and each shard is then written on its own, by a local process or
an Apache Beam worker. Everything stays in `<version>.partial` until the last shard is whole.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import threading
import traceback
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath
from PIL import Image
from tensorflow_datasets.core import utils
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder
from tensorflow_datasets.core.utils.lazy_imports_utils import apache_beam as beam
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from alexnet_jax.data.archives import Member, PrepareError, Report, read_member
from alexnet_jax.data.images import ImageError, decode_image

IMAGE_SIZE = 256  # Source: AlexNet §2
JPEG_QUALITY = 95
JPEG_BYTES = 33_000  # a 256x256 ImageNet photograph at that quality, on average
RECORD_BYTES = 150  # label, file name and framing of one record
# One record a chunk, so that reads are random, and no Brotli: it reads 2x and writes 4-8x as fast.
ARRAY_RECORD_OPTIONS = "group_size:1,uncompressed"
IMAGES_PER_SHARD = 1024
SMALL_SET_SHARDS = 16  # a small set is cut finer, so that every core has work
LINES_IN_MEMORY = 20_000  # of the plan, while it is made


class ShardTask(NamedTuple):
    """One shard to write."""

    plan: str  # the file that lists its members
    path: str  # where the shard goes


class Plan(NamedTuple):
    """What will be written."""

    folder: Path  # where it grows
    images: dict[str, int]  # of each split
    shards: dict[str, int]
    class_names: list[str]
    skipped: list[dict[str, str]]  # members that could not even be indexed
    bytes: int  # estimate, all shards


def make_features(encoding: str) -> tfds.features.FeaturesDict:
    """The features of a prepared set; `encoding` is "raw" or "jpeg"."""
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    image = (
        # Without encoding="bytes" tfds stores a list of int64 and reads 40 images/s.
        tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes")
        if encoding == "raw"
        else tfds.features.Image(shape=shape, encoding_format="jpeg")
    )
    return tfds.features.FeaturesDict(
        {
            "image": image,
            "label": tfds.features.ClassLabel(),
            "file_name": tfds.features.Text(),
        }
    )


def encode_image(image: np.ndarray, encoding: str) -> bytes:
    """The stored bytes of `uint8[S, S, 3]`: its pixels, or a JPEG file."""
    if encoding == "raw":
        return image.tobytes()
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def serialize(image: bytes, label: int, file_name: str) -> bytes:
    """One record, as tfds would write it for `make_features`, in a third of the time."""
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(image)
    feature["label"].int64_list.value.append(label)
    feature["file_name"].bytes_list.value.append(file_name.encode())
    # The same bytes, so the same digests, from every process.
    return example.SerializeToString(deterministic=True)


@dataclasses.dataclass(frozen=True)
class WriteShard:
    """Writes one shard; picklable, so that any process of any machine can call it."""

    encoding: str
    skip: bool  # bad images; else they raise
    read: Callable[[Member], bytes]

    def __call__(self, task: ShardTask, advance: Callable[[int], object] = lambda images: None):
        """Writes `task`, with its report beside it; both appear at once whole, or not at all.

        `advance(n)` is called after every n images. Raises ImageError for an image that cannot be
        used, PrepareError where the disk is full.
        """
        path = Path(task.path)
        skipped = []
        with utils.incomplete_file(epath.Path(task.path)) as temporary:
            try:
                writer = ArrayRecordWriter(str(temporary), ARRAY_RECORD_OPTIONS)
                for member in _read_plan(task.plan):
                    try:
                        image = decode_image(self.read(member), IMAGE_SIZE, name=member.name)
                    except (ImageError, PrepareError) as error:
                        if not self.skip:
                            raise type(error)(f"{error} ({member.path})") from error
                        skipped.append({"file": member.name, "problem": str(error)})
                    else:
                        data = encode_image(image, self.encoding)
                        writer.write(serialize(data, member.label, member.name))
                    advance(1)
                writer.close()
                report = _describe_shard(Path(temporary)) | {"skipped": skipped}
                _write_json(report_path(path), report)
            except (RuntimeError, OSError) as error:  # ArrayRecord knows only RuntimeError
                if "No space left" not in str(error):
                    raise
                raise PrepareError(
                    f"the disk of {path.parent} is full; free space and start the same command "
                    "again: the shards already written are kept"
                ) from error


def report_path(shard: Path) -> Path:
    """Where the report on a shard (digest, bytes, records, skipped) lies while the set grows."""
    return shard.with_name(shard.name + ".json")


def _describe_shard(path: Path) -> dict[str, Any]:
    reader = ArrayRecordReader(str(path))
    records = reader.num_records()
    reader.close()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size, "records": records}


def _write_json(path: Path, content: Any) -> None:
    with utils.incomplete_file(epath.Path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def _read_plan(path: str) -> list[Member]:
    with open(path) as file:
        members = [Member(*json.loads(line)) for line in file]
    return sorted(members, key=lambda member: _shuffle_key(member.name))


def _shuffle_key(name: str) -> int:
    """64 random bits that depend on the name alone, so on no order of tars or folders."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def in_validation(name: str, share: float) -> bool:
    """Whether image `name` is in the `share` (0-1) kept for validation, by its name alone."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"validation").digest()
    return int.from_bytes(digest, "big") < share * 2**64


def write_split_plan(folder: Path, split: str, members: Iterable[Member]) -> tuple[int, int]:
    """Deals `members` to shards at random, listed in `folder/<split>-00000.jsonl`, ...

    Returns the number of images and of shards. Memory does not grow with the images: they pass
    through a file on their way.
    """
    spool = folder / f"{split}.jsonl"
    images = 0
    with open(spool, "w") as file:
        for member in tqdm(members, f"Indexing {split}", unit=" images", leave=False):
            file.write(json.dumps(member) + "\n")
            images += 1
    shards = max(-(-images // IMAGES_PER_SHARD), min(SMALL_SET_SHARDS, -(-images // 64)))
    waiting: dict[int, list[str]] = defaultdict(list)

    def deal() -> None:
        for shard, lines in waiting.items():
            with open(folder / f"{split}-{shard:05d}.jsonl", "a") as file:
                file.writelines(lines)
        waiting.clear()

    with open(spool) as file:
        for number, line in enumerate(file, start=1):
            waiting[_shuffle_key(json.loads(line)[0]) * shards >> 64].append(line)
            if number % LINES_IN_MEMORY == 0:
                deal()
    deal()
    spool.unlink()
    return images, shards


class _Shared(NamedTuple):
    """What the processes on one machine share."""

    next_task: Any  # Value: the first task that nobody took
    written: Any  # RawArray: images that each worker wrote
    stop: Any  # Event
    errors: Any  # SimpleQueue


def write_with_processes(
    write: WriteShard, tasks: list[ShardTask], bar: tqdm, workers: int
) -> None:
    """Writes `tasks` with `workers` processes of this machine, one shard at a time each.

    Raises the first error, once the other workers have dropped the shards under way.
    """
    if not workers:
        for task in tasks:
            write(task, bar.update)
        return
    context = multiprocessing.get_context("spawn")
    shared = _Shared(
        context.Value("q", 0),
        context.RawArray("q", workers),
        context.Event(),
        context.SimpleQueue(),
    )
    already = bar.n
    processes = [
        context.Process(target=_work, args=(worker, write, tasks, shared), daemon=True)
        for worker in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        while running := [process for process in processes if process.exitcode is None]:
            connection.wait([process.sentinel for process in running], 0.5)
            bar.update(already + sum(shared.written) - bar.n)
            if not shared.errors.empty():
                raise shared.errors.get()
            if any(process.exitcode for process in processes):
                raise PrepareError(
                    "a worker process was killed (out of memory?); start the same command again "
                    "with a smaller --num_workers: the shards already written are kept"
                )
    finally:
        shared.stop.set()
        for process in processes:
            if process.pid:
                process.join()


def _work(worker: int, write: WriteShard, tasks: list[ShardTask], shared: _Shared) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    def advance(images: int) -> None:
        shared.written[worker] += images
        if shared.stop.is_set():
            raise InterruptedError("stopped")

    while not shared.stop.is_set():
        with shared.next_task.get_lock():
            number = shared.next_task.value
            shared.next_task.value += 1
        if number >= len(tasks):
            break
        try:
            write(tasks[number], advance)
        except (ImageError, PrepareError) as error:
            shared.errors.put(error)
        except InterruptedError:
            break
        except Exception:
            shared.errors.put(RuntimeError(f"{tasks[number].path}: {traceback.format_exc()}"))


def _exit_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def write_with_beam(write: WriteShard, tasks: list[ShardTask], runner: Any, options: Any) -> None:
    """Writes `tasks` on Apache Beam; every worker must see the folders of the images and the set.

    Raises PrepareError with the first failure once every other shard is written.
    """
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        shards = pipeline | beam.Create(tasks) | beam.Reshuffle()
        shards | beam.Map(functools.partial(_attempt, write))
    failures = [Path(f"{task.path}.failure") for task in tasks]
    failures = [path for path in failures if path.exists()]
    messages = [path.read_text() for path in failures]
    for path in failures:
        path.unlink()
    if messages:
        raise PrepareError(messages[0])


def _attempt(write: WriteShard, task: ShardTask) -> None:
    """Beam would bury the message under its own, and try again: leave it in a file."""
    try:
        write(task)
    except (ImageError, PrepareError) as error:
        Path(f"{task.path}.failure").write_text(str(error))


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

    def __init__(self, *, on_error: str = "stop", num_workers: int | None = None, **kwargs: Any):
        """`on_error`: "stop" at an image that cannot be used, or "skip", count and list it.

        `num_workers`: processes, default one a core, 0 for this one alone. The
        rest as for any tfds builder.
        """
        if on_error not in ("stop", "skip"):
            raise ValueError(f'on_error="{on_error}" is neither "stop" nor "skip"')
        self._on_error = on_error
        self._num_workers = len(os.sched_getaffinity(0)) if num_workers is None else num_workers
        super().__init__(file_format="array_record", **kwargs)
        self._original_state = {"on_error": on_error, "num_workers": num_workers, **kwargs}

    @abstractmethod
    def _class_names(self, manual_dir: Path) -> list[str]:
        """The class names; the position is the label. Raises PrepareError where files lack."""

    @abstractmethod
    def _index(
        self, manual_dir: Path, class_names: list[str], report: Report
    ) -> dict[str, Iterator[Member]]:
        """The images of each split. `report(file, problem)` tells of one that cannot be used."""

    def _inputs(self, manual_dir: Path) -> list[Path]:
        """The archives that must not change between an interruption and its continuation."""
        return []

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

    def plan(self, manual_dir: epath.PathLike | None = None) -> Plan:
        """What `download_and_prepare` will write; made once, then read back.

        Raises PrepareError where files lack, or are not those of the interrupted preparation.
        """
        with _locked(self.data_path.parent):
            return self._plan(manual_dir)

    def _plan(self, manual_dir: epath.PathLike | None) -> Plan:
        manual_dir = Path(manual_dir or ".").expanduser().absolute()
        folder = Path(f"{self.data_dir}.partial")
        path = folder / "plan.json"
        inputs = {str(file): list(_fingerprint(file)) for file in self._inputs(manual_dir)}
        if not path.exists():
            class_names = self._class_names(manual_dir)
            shutil.rmtree(folder, ignore_errors=True)  # a plan that was cut off
            (folder / "plan").mkdir(parents=True)
            skipped: list[dict[str, str]] = []
            index = self._index(manual_dir, class_names, functools.partial(self._report, skipped))
            sizes = {
                split: write_split_plan(folder / "plan", split, members)
                for split, members in index.items()
            }
            plan = {
                "inputs": inputs,
                "class_names": class_names,
                "images": {split: images for split, (images, _) in sizes.items()},
                "shards": {split: shards for split, (_, shards) in sizes.items()},
                "skipped": skipped,
            }
            _write_json(path, plan)
        plan = json.loads(path.read_text())
        if changed := [file for file in inputs if inputs[file] != plan["inputs"].get(file)]:
            raise PrepareError(
                f"{changed[0]} is not the file of the interrupted preparation; "
                f"delete {folder} and start again"
            )
        if empty := [split for split, images in plan["images"].items() if not images]:
            shutil.rmtree(folder)
            raise PrepareError(f"split {empty[0]} of {manual_dir} has no images; check the folder")
        del plan["inputs"]
        image_bytes = IMAGE_SIZE**2 * 3 if self.encoding == "raw" else JPEG_BYTES
        total = sum(plan["images"].values()) * (image_bytes + RECORD_BYTES)
        return Plan(folder=folder, bytes=total, **plan)

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
        `beam_options`. Raises PrepareError (missing or changed files, too little space, a full
        disk) and ImageError (an image that cannot be used).
        """
        if file_format not in (None, "array_record"):
            raise ValueError(f"file_format={file_format}: a prepared set is array_record")
        if self.data_path.exists():
            logging.info("%s is prepared already", self.data_dir)
            return
        config = download_config or tfds.download.DownloadConfig()
        with _locked(self.data_path.parent):
            self._download_and_prepare(config)

    def _download_and_prepare(self, download_config: tfds.download.DownloadConfig) -> None:
        plan = self._plan(download_config.manual_dir)
        self._write_shards(plan, download_config)
        self._finish(plan)

    def _shard_paths(self, plan: Plan, split: str) -> list[Path]:
        template = self._get_filename_template(split).replace(data_dir=epath.Path(plan.folder))
        return [Path(path) for path in template.sharded_filepaths(plan.shards[split])]

    def _write_shards(self, plan: Plan, config: tfds.download.DownloadConfig) -> None:
        for leftover in plan.folder.glob("incomplete.*"):  # of workers that were killed
            leftover.unlink()
        tasks, finished, finished_bytes = [], 0, 0
        for split in plan.shards:
            for number, path in enumerate(self._shard_paths(plan, split)):
                report = _finished_shard(path)
                if report is None:
                    members = plan.folder / "plan" / f"{split}-{number:05d}.jsonl"
                    tasks.append(ShardTask(str(members), str(path)))
                else:
                    finished += report["records"] + len(report["skipped"])
                    finished_bytes += report["bytes"]
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
            desc="Preparing", total=total, initial=finished, unit=" img", smoothing=0.05
        ) as bar:
            write_with_processes(write, tasks, bar, min(self._num_workers, len(tasks)))

    def _finish(self, plan: Plan) -> None:
        """The metadata, then the one rename that makes the set appear."""
        splits, manifest = [], {}
        skipped = list(plan.skipped)
        for split in plan.shards:
            paths = self._shard_paths(plan, split)
            reports = [_read_report(path) for path in paths]
            for path, report in zip(paths, reports, strict=True):
                skipped += report.pop("skipped")
                manifest[path.name] = report
            lengths = [report["records"] for report in reports]
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
            skipped={"count": len(skipped), "files": skipped},
        )
        _write_json(plan.folder / "manifest.json", manifest)
        self.info.write_to_directory(plan.folder)
        self._save_default_config()
        plan.folder.rename(self.data_dir)
        folder = Path(self.data_dir)  # only now is nothing of the plan needed any more
        shutil.rmtree(folder / "plan")
        for leftover in [folder / "plan.json", *(report_path(folder / name) for name in manifest)]:
            leftover.unlink()

    def _save_default_config(self) -> None:
        """Opens the set without naming the encoding: raw where it exists, else this one."""
        folder = self.data_path.parent.parent
        config = "raw" if (folder / "raw").exists() else self.encoding
        (folder / ".config").mkdir(exist_ok=True)
        _write_json(folder / ".config" / "metadata.json", {"default_config_name": config})


def _fingerprint(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _read_report(path: Path) -> dict[str, Any]:
    return json.loads(report_path(path).read_text())


def _finished_shard(path: Path) -> dict[str, Any] | None:
    """The report on a shard that is whole, else None."""
    if not path.exists() or not report_path(path).exists():
        return None
    report = _read_report(path)
    return report if path.stat().st_size == report["bytes"] else None


@contextlib.contextmanager
def _locked(folder: epath.Path) -> Iterator[None]:
    """Keeps a second process from preparing the same set."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise PrepareError(
            f"another process is preparing {folder}; wait for it, or stop it first"
        ) from error
    finally:
        os.close(handle)
