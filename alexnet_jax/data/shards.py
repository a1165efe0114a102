"""Are the shards of a prepared data set whole, each in its own place and of the right length?"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from array_record.python.array_record_module import ArrayRecordReader
from tqdm import tqdm

from alexnet_jax.data.descriptions import DESCRIPTION, FEATURES, NAMES, again
from alexnet_jax.data.names import printable
from alexnet_jax.files import file_digest
from alexnet_jax.wording import first_line

MANIFEST = "manifest.json"  # {file: {"sha256", "bytes", "records"}}, written by prepare
# What it has beside the shards, as files of 0 records; sets of earlier versions have shards alone.
DESCRIBING = (NAMES, FEATURES, DESCRIPTION)


class Entry(NamedTuple):
    """What the manifest says of a file."""

    sha256: str
    bytes: int
    records: int


def check_shards(files: Sequence[Path], *, verify: bool = False) -> None:
    """Checks that all `files` are there and as they were prepared.

    With a manifest beside them their sizes are compared, and with `verify` their digests (all is
    read: ArrayRecord notices damage within a shard by itself, but not a shard that was swapped).
    The class names beside them, a small file, are always compared; with `verify` what else
    describes the set is, too.

    Raises:
      ValueError: one is not, or the manifest is damaged; the message names it.
    """
    folder = files[0].parent
    manifest = read_manifest(folder)
    if verify and manifest is None:
        raise ValueError(
            f"{folder} has no {MANIFEST} to verify the shards with; "
            "sets written by alexnet_jax.prepare have one"
        )
    for name in DESCRIBING if verify else (NAMES,):
        if manifest is not None and name in manifest:
            _check_digest(folder / name, manifest[name])
    for file in tqdm(files, desc="Verifying shards", disable=None if verify else True):
        try:
            size = os.stat(file).st_size
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest() if verify else None
        except FileNotFoundError:
            raise ValueError(f"shard {file} is missing; {again(folder)}") from None
        except OSError as error:
            raise ValueError(
                f"shard {file} cannot be read ({error.strerror}); give permission to read it, or "
                f"{again(folder)}"
            ) from error
        if manifest is None:
            continue
        if file.name not in manifest:
            raise ValueError(f"shard {file} is not in {MANIFEST}; {again(folder)}")
        expected = manifest[file.name]
        if size != expected.bytes:
            raise ValueError(
                f"shard {file} has {size:,} bytes where {expected.bytes:,} were written; "
                f"{again(folder)}"
            )
        if digest is not None and digest != expected.sha256:
            owner = [name for name, entry in manifest.items() if entry.sha256 == digest]
            what = f"holds the data of {owner[0]}" if owner else "is not what was written"
            raise ValueError(f"shard {file} {what} (sha256 {digest[:12]}…); {again(folder)}")


def _check_digest(file: Path, entry: Entry) -> None:
    try:
        digest = file_digest(file)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}; {again(file.parent)}") from error
    if digest != entry.sha256:
        raise ValueError(
            f"{file} is not what was written (sha256 {digest[:12]}…); {again(file.parent)}"
        )


def check_counts(lengths: Mapping[Path, int]) -> None:
    """Checks that the shards hold as many records as the set's description says.

    Args:
      lengths: shard -> records, all in one folder.

    Raises:
      ValueError: one holds more or fewer, or is damaged; the message names it.
    """
    folder = next(iter(lengths)).parent
    manifest = read_manifest(folder)
    for file, length in lengths.items():
        if manifest is None:
            try:
                reader = ArrayRecordReader(str(file))
                records = reader.num_records()
                reader.close()
            except Exception as error:  # ArrayRecord raises many kinds
                raise ValueError(
                    f"shard {file} is damaged ({first_line(error)}); {again(folder)}"
                ) from error
        else:
            records = manifest[file.name].records
        if records != length:
            raise ValueError(
                f"{folder / DESCRIPTION} counts {length:,} records in {file.name}, which has "
                f"{records:,}; {again(folder)}"
            )


def read_manifest(folder: Path) -> dict[str, Entry] | None:
    """What the manifest in `folder` says of each file; None where there is none.

    Raises:
      ValueError: it is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        entries = {name: Entry(**entry) for name, entry in content.items()}
        for name, entry in entries.items():
            if [type(value) for value in entry] != [str, int, int]:
                raise TypeError(f"the entry of {name} is not a digest and two numbers")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({printable(error)}); {again(folder)}, or delete this file alone "
            "and train without its checks"
        ) from error
    return entries
