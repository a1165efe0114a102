"""The development kits of ILSVRC: small tars, gzipped, with the classes in a MATLAB file."""

import gzip
import io
import struct
import tarfile
import zlib
from pathlib import Path

import scipy.io

from alexnet_jax.data.archives import BAD_TAR, PrepareError
from alexnet_jax.wording import first_line

KIT_BYTES = 2**28  # of a kit, unpacked; the real ones have a few million
_COMPRESSED = 15  # the type of an element that is another one, compressed
_HEADER_BYTES = 128


def kit_file(kit: Path, name: str) -> bytes:
    """The file `name` in a kit.

    Raises:
      PrepareError: the kit is damaged, too large to be one, or lacks the file.
      OSError: it cannot be read.
    """
    try:
        with open(kit, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"  # some browsers unpack it
        with gzip.open(kit) if zipped else open(kit, "rb") as file:
            content = file.read(KIT_BYTES + 1)
        if len(content) > KIT_BYTES:
            raise tarfile.ReadError(f"more than {KIT_BYTES:,} bytes, unpacked")
        with tarfile.TarFile(fileobj=io.BytesIO(content)) as tar:
            for entry in tar:
                if Path(entry.name).name != name or not entry.isfile():
                    continue
                if found := tar.extractfile(entry):
                    return found.read(KIT_BYTES)
    except BAD_TAR as error:
        raise PrepareError(f"{kit} is damaged ({first_line(error)}); download it again") from error
    raise PrepareError(f"{kit} has no {name}; download the development kit of that year again")


def synset_numbers(kit: Path, year: int) -> dict[str, int]:
    """WordNet synset -> ILSVRC`year`_ID, from 1, of the classes in a kit's `meta.mat`.

    Raises:
      PrepareError: as `kit_file`, or the file is damaged, too large to be one or another year's.
      OSError: it cannot be read.
    """
    content = kit_file(kit, "meta.mat")
    try:
        _check_size(content)
        file = io.BytesIO(content)
        rows = scipy.io.loadmat(file, squeeze_me=True, struct_as_record=False)["synsets"]
        # The inner nodes of the hierarchy are listed too, behind the classes.
        leaves = [row for row in rows if getattr(row, "num_children", 0) == 0]
        return {str(leaf.WNID): int(getattr(leaf, f"ILSVRC{year}_ID")) for leaf in leaves}
    except Exception as error:  # what a damaged file raises depends on where
        raise PrepareError(
            f"{kit}: its meta.mat is damaged or another year's ({first_line(error)}); give the "
            f"development kit of ILSVRC {year}"
        ) from error


def _check_size(content: bytes) -> None:
    """Raises ValueError where the elements of a MATLAB file unpack to more than a kit has."""
    order = "<" if content[_HEADER_BYTES - 2 : _HEADER_BYTES] == b"IM" else ">"
    place, total = _HEADER_BYTES, 0
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}2I", content, place)
        if kind == _COMPRESSED:
            packed = content[place + 8 : place + 8 + size]
            total += len(zlib.decompressobj().decompress(packed, KIT_BYTES))
        if total >= KIT_BYTES:
            raise ValueError(f"more than {KIT_BYTES:,} bytes, unpacked")
        place += 8 + size
