"""Writing a prepared data set: which images each shard holds, and its records (section 2)."""

import contextlib
import dataclasses
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from alexnet_jax.data.archives import Member, PrepareError
from alexnet_jax.data.images import ImageError, decode_image
from alexnet_jax.data.names import name_bytes, printable
from alexnet_jax.files import file_digest, json_object, whole_file

IMAGE_SIZE = 256  # Source: AlexNet §2
ENCODINGS = ("raw", "jpeg")
JPEG_QUALITY = 95
JPEG_BYTES = 33_000  # a 256x256 ImageNet photograph at that quality, on average
RECORD_BYTES = 150  # label, file name and framing of one record
# One record per chunk, so that reads are random. No Brotli: reading is 2x, writing 4-8x as fast.
ARRAY_RECORD_OPTIONS = "group_size:1,uncompressed"
IMAGES_PER_SHARD = 1024  # about: they are dealt by a hash
# ArrayRecord keeps every shard of a split open, and the usual limit is 1,024 files per process.
MAX_SHARDS = 512
SMALL_SET_SHARDS = 16  # a small set is cut finer, so that every core has work
LINES_IN_MEMORY = 20_000  # of the plan, while it is made
DISK_FULL = ("No space left on device", "Disk quota exceeded")  # ArrayRecord passes on text alone
_REASON = re.compile(r"\(\) failed: ([^;]+)")  # what the system said, in its text
_KEPT = "start the same command again: the shards already written are kept"


class ShardTask(NamedTuple):
    """One shard to write."""

    plan: str  # the file that lists its members
    path: str  # where the shard goes


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
    feature["file_name"].bytes_list.value.append(name_bytes(file_name))
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
        used, PrepareError where the shard cannot be written or the images are gone.
        """
        path = Path(task.path)
        skipped = []
        labels: Counter[int] = Counter()
        digests: list[int] = []
        with whole_file(path, "wb") as file:
            try:
                writer = ArrayRecordWriter(file.name, ARRAY_RECORD_OPTIONS)  # by its name
                for member in read_plan(task.plan):
                    try:
                        content = self.read(member)
                        image = decode_image(content, IMAGE_SIZE, name=str(member))
                    except ImageError as error:
                        if not self.skip:
                            raise
                        skipped.append({"file": printable(member.name), "problem": str(error)})
                    else:
                        data = encode_image(image, self.encoding)
                        writer.write(serialize(data, member.label, member.name))
                        labels[member.label] += 1
                        digests.append(_hash(content, 7))  # 56 bits fit into int64
                    advance(1)
                writer.close()
                report = _describe_shard(Path(file.name))
                report |= {"skipped": skipped, "labels": labels, "digests": digests}
                write_json(report_path(path), report)
            except (RuntimeError, OSError) as error:  # ArrayRecord knows only RuntimeError
                if any(text in str(error) for text in DISK_FULL):
                    raise PrepareError(
                        f"the disk or quota of {path.parent} is full; free space and {_KEPT}"
                    ) from error
                reason = _REASON.search(str(error))
                if isinstance(error, OSError) or not reason:
                    raise
                raise PrepareError(
                    f"{path} cannot be written ({reason[1]}); put that right and {_KEPT}"
                ) from error


def report_path(shard: Path) -> Path:
    """Where the report on a shard (sizes, labels, digests, …) lies while the set grows."""
    return shard.with_name(shard.name + ".json")


def _describe_shard(path: Path) -> dict[str, Any]:
    reader = ArrayRecordReader(str(path))
    records = reader.num_records()
    reader.close()
    return manifest_entry(path, records)


def manifest_entry(path: Path, records: int = 0) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"sha256": file_digest(path), "bytes": path.stat().st_size, "records": records}


def write_json(path: Path, content: Any) -> None:
    """Writes `content` to `path`, which appears at once whole."""
    with whole_file(path) as file:
        json.dump(content, file, indent=1)


def read_json(path: Path, kinds: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The object in `path`.

    Args:
      path: a file of the unfinished set.
      kinds: what it has and nothing else: `{name: (kind,)}`, `(kind, kind of its values)`.

    Raises:
      PrepareError: it has not.
    """
    try:
        content = json_object(path.read_bytes(), path)
    except ValueError as error:
        raise PrepareError(f"{error}; {start_again(path.parent)}") from error
    for name in kinds.keys() | content.keys():
        if not _is_of(content.get(name), *kinds.get(name, ((),))):
            raise PrepareError(
                f"{path} is damaged (its {printable(name)}); {start_again(path.parent)}"
            )
    return content


def _is_of(value: Any, kind: Any, of: type | None = None) -> bool:
    values = value.values() if isinstance(value, dict) else value
    return isinstance(value, kind) and (of is None or all(isinstance(part, of) for part in values))


def start_again(folder: Path) -> str:
    """What to do about an unfinished set in `folder` that is damaged."""
    return f"delete {folder} and start again"


_REPORT: dict[str, tuple[type, ...]] = {
    "sha256": (str,),
    "bytes": (int,),
    "records": (int,),
    "skipped": (list, dict),
    "labels": (dict, int),
    "digests": (list, int),  # of the images' files
}


def read_report(path: Path) -> dict[str, Any]:
    """What `WriteShard` reported on the shard `path`. Raises PrepareError where it is damaged."""
    return read_json(report_path(path), _REPORT)


def finished_shard(path: Path) -> dict[str, Any] | None:
    """The report on a shard that is whole, else None."""
    try:
        report = read_report(path)
        return report if path.stat().st_size == report["bytes"] else None
    except (FileNotFoundError, PrepareError):  # it is written again
        return None


def read_plan(path: str) -> list[Member]:
    """The members of a shard, in the order in which they are stored.

    Raises PrepareError where the list is gone. That it is whole, `check_lists` has seen.
    """
    try:
        with open(path) as file:
            members = [Member(*json.loads(line)) for line in file]
    except FileNotFoundError as error:
        raise PrepareError(f"{path} is gone; {start_again(Path(path).parents[1])}") from error
    return sorted(members, key=lambda member: _shuffle_key(member.name))


def list_digests(folder: Path) -> dict[str, str]:
    """The digest of each shard's list in `folder`."""
    return {path.name: file_digest(path) for path in sorted(folder.glob("*.jsonl"))}


def check_lists(folder: Path, digests: Mapping[str, str]) -> None:
    """Raises PrepareError unless the lists in `folder` are those that had these `digests`."""
    found = list_digests(folder)
    for name in sorted(digests.keys() | found.keys()):
        if digests.get(name) != found.get(name):
            raise PrepareError(f"{folder / name} is damaged; {start_again(folder.parent)}")


def _shuffle_key(name: str) -> int:
    """64 random bits that depend on the name alone, so on no order of tars or folders."""
    return _hash(name_bytes(name), 8)


def _hash(content: bytes, size: int, person: bytes = b"") -> int:
    """`size` bytes of BLAKE2b as a number; `person` makes another one of it."""
    digest = hashlib.blake2b(content, digest_size=size, person=person).digest()
    return int.from_bytes(digest, "big")


def in_validation(name: str, share: float) -> bool:
    """Whether image `name` is in the `share` (0-1) kept for validation, by its name alone."""
    return _hash(name_bytes(name), 8, person=b"validation") < share * 2**64


def write_plan(folder: Path, images: Iterable[tuple[str, Member]]) -> dict[str, tuple[int, int]]:
    """Deals `images` (split, member) to shards at random, listed in `<split>-00000.jsonl`, ...

    Returns the number of images and of shards of each split. Memory does not grow with the images:
    they pass through files.
    """
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        spools: dict[str, Any] = {}
        for split, member in tqdm(images, "Indexing", unit=" images", leave=False, disable=None):
            if split not in spools:
                spools[split] = stack.enter_context(open(folder / f"{split}.jsonl", "w"))
            spools[split].write(json.dumps(member) + "\n")
            counts[split] += 1
    sizes = {split: (count, _number_of_shards(count)) for split, count in counts.items()}
    for split, (_, shards) in sizes.items():
        _deal(folder, split, shards)
    return sizes


def _number_of_shards(images: int) -> int:
    small = min(SMALL_SET_SHARDS, -(-images // 64))
    return min(MAX_SHARDS, max(small, -(-images // IMAGES_PER_SHARD)))


def _deal(folder: Path, split: str, shards: int) -> None:
    spool = folder / f"{split}.jsonl"
    waiting: dict[int, list[str]] = defaultdict(list)

    def flush() -> None:
        for shard, lines in waiting.items():
            with open(folder / f"{split}-{shard:05d}.jsonl", "a") as file:
                file.writelines(lines)
        waiting.clear()

    with open(spool) as file:
        for number, line in enumerate(file, start=1):
            waiting[_shuffle_key(json.loads(line)[0]) * shards >> 64].append(line)
            if number % LINES_IN_MEMORY == 0:
                flush()
    flush()
    spool.unlink()
