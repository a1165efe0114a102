"""Are the shards of a prepared data set whole, and each in its own place?"""

import contextlib
import hashlib
import json
import os
import resource
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

MANIFEST = "manifest.json"  # {shard file: {"sha256", "bytes", "records"}}, written by prepare
MEND = "copy it again or prepare the data set again"


def allow_open_shards() -> None:
    """Lets this process open as many files as it may.

    ArrayRecord keeps every shard open, and tfds writes up to 1,024 of a split, the usual limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS has no limit to raise it to
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_shards(files: Sequence[Path], *, verify: bool = False) -> None:
    """Raise `ValueError`, naming the shard, unless all `files` are there and as they were prepared.

    With a manifest beside them their sizes are compared, and with `verify` their digests (all is
    read: ArrayRecord notices damage within a shard by itself, but not a shard that was swapped).
    """
    manifest_path = files[0].parent / MANIFEST
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else None
    if verify and manifest is None:
        raise ValueError(
            f"{files[0].parent} has no {MANIFEST} to verify the shards with; "
            "sets written by alexnet_jax.prepare have one"
        )
    for file in tqdm(files, desc="Verifying shards", disable=not verify):
        try:
            size = os.stat(file).st_size
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest() if verify else None
        except FileNotFoundError:
            raise ValueError(f"shard {file} is missing; {MEND}") from None
        except OSError as error:
            raise ValueError(
                f"shard {file} cannot be read ({error.strerror}); mend its permissions or {MEND}"
            ) from error
        if manifest is None:
            continue
        if file.name not in manifest:
            raise ValueError(f"shard {file} is not in {MANIFEST}; prepare the data set again")
        expected = manifest[file.name]
        if size != expected["bytes"]:
            raise ValueError(
                f"shard {file} has {size:,} bytes where {expected['bytes']:,} were written; {MEND}"
            )
        if digest is not None and digest != expected["sha256"]:
            owner = [name for name, entry in manifest.items() if entry["sha256"] == digest]
            what = f"holds the data of {owner[0]}" if owner else "is not what was written"
            raise ValueError(f"shard {file} {what} (sha256 {digest[:12]}…); {MEND}")
