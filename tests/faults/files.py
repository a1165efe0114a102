"""Images, archives and weights that are not what they say: one line each, in time and memory."""

import io
import json
import random
import resource
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax import interop
from alexnet_jax.data.images import ImageError, decode_image
from alexnet_jax.runs.transfer import load_weights
from tests.faults.base import Row, Scale, ended, make_photographs, start

SECONDS, TIMES_THE_FILE = 5, 10
FORMATS = {"jpeg": {}, "png": {}, "gif": {}, "bmp": {}, "webp": {}, "tiff": {}, "ppm": {}}


def faults(scale: Scale) -> Iterator[Row]:
    """Mutated images by format, mutated weights, and archives that are traps."""
    for name in FORMATS:
        yield _in_a_process(scale, "images", name)
    for name in WEIGHTS:
        yield _in_a_process(scale, "weights", name)
    yield _archives(scale)


def _in_a_process(scale: Scale, kind: str, name: str) -> Row:
    """Counts in a process of its own, that a crash or a bomb does not end this one."""
    number, what = (20_000 // len(FORMATS), "image") if kind == "images" else (2_000, "weights")
    row = Row(f"a mutated {name}, as {what}")
    given = [kind, name, str(scale.times(number)), str(scale.seed), str(scale.folder)]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.files", *given], capture_output=True, text=True
    )
    if ended.returncode:
        row.fail(f"the process ended with {ended.returncode}: {ended.stderr[-300:]}")
        return row
    found = json.loads(ended.stdout.splitlines()[-1])
    row.tried, row.lost, row.failures = found["tried"], len(found["failures"]), found["failures"]
    row.note = f"{found['refused']} refused in one line, {found['read']} read"
    return row


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, or the end lost."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 200))
        match rng.randrange(5):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
            case 3:
                del data[at : at + rng.randrange(1, 40)]
            case 4:
                data[at:at] = data[at : at + rng.randrange(1, 40)]
        data = data or bytearray(b"\0")
    return bytes(data[: rng.randrange(1, len(data) + 1)] if rng.random() < 0.15 else data)


def _image(name: str) -> bytes:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((120, 90)).save(file, name)
    return file.getvalue()


def _write_npz(path: Path) -> None:
    np.savez_compressed(path, **{"conv1/kernel": np.ones((11, 11, 3, 4)), "conv1/bias": np.ones(4)})


def _write_caffe(path: Path) -> None:
    from tests.interop import test_caffe

    if path.suffix == ".npy":
        test_caffe.write_dictionary(path, test_caffe.random_blobs())
    else:
        test_caffe.write(path, test_caffe.random_blobs(), name="AlexNet")


def _write_authors(path: Path) -> None:
    from tests.interop import test_authors

    saved = test_authors.save(path.parent / "ConvNet__x", test_authors.trained())
    next(entry for entry in saved.iterdir()).rename(path)


def _write_ours(path: Path) -> None:
    from tests.interop.test_exported import a_run

    interop.write_weights(a_run(), path)


def _write_pytorch(path: Path) -> None:
    from tests.interop.test_exported import a_run

    interop.write_pytorch(a_run(), path)


# Name of the file -> what writes a good one, what reads it.
WEIGHTS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "weights.npz": (_write_npz, load_weights),
    "net.caffemodel": (_write_caffe, interop.read_caffe),
    "net.npy": (_write_caffe, partial(interop.read_caffe, preset="caffe")),
    "90.1000": (_write_authors, interop.read_authors),
    "ours.safetensors": (_write_ours, interop.read_state_dict),
    "pytorch.safetensors": (_write_pytorch, interop.read_state_dict),
}


def _count(kind: str, name: str, number: int, seed: int, folder: Path) -> dict[str, Any]:
    """Reads mutated files; what took too long, or raised anything but its own error, failed."""
    rng = random.Random(f"{seed} {kind} {name}")

    def read(data: bytes) -> None:
        if kind == "images":
            decode_image(data, 64, upright=True)
            return
        path.write_bytes(data)
        read_weights(path)

    told: type[Exception] = ImageError if kind == "images" else ValueError
    if kind == "images":
        content = _image(name)
    else:
        write, read_weights = WEIGHTS[name]
        path = folder / name
        write(path)
        content = path.read_bytes()
    read(content)
    # What is mapped now, and as much again as the largest picture that is allowed may take.
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2 * 2**30,) * 2)

    def too_long(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_long)
    counts: dict[str, Any] = {"tried": 0, "refused": 0, "read": 0, "failures": []}
    for _ in range(number):
        data = mutated(content, rng)
        counts["tried"] += 1
        signal.alarm(SECONDS)
        try:
            read(data)
            counts["read"] += 1
        except told as error:
            counts["refused"] += 1
            if "\n" in str(error) or not str(error):
                counts["failures"].append(repr(str(error)))
        except BaseException as error:
            counts["failures"].append(f"{type(error).__name__}: {error}")
        finally:
            signal.alarm(0)
    return counts


# --- archives -------------------------------------------------------------------------------------


def _archives(scale: Scale) -> Row:
    """The tar files of a class, each with a trap inside, through the prepare command."""
    row, folder = Row("an archive that is a trap"), scale.new("photographs")
    make_photographs(folder, classes=1, each=3, size=260)
    good = sorted(folder.rglob("*.jpg"))
    for name, trap in TRAPS.items():
        tars, data = scale.new("tars"), scale.new("data")
        tars.mkdir()
        _write_2012(tars, good, trap)
        flags = ("--dataset=imagenet2012_256", f"--manual_dir={tars}", f"--data_dir={data}")
        outside = set(tars.parent.parent.rglob("*evil*"))
        status, _, errors = ended(start("prepare", *flags, "--num_workers=0"), 120)
        row.tried += 1
        one_line = status == 1 and "Traceback" not in errors
        row.check(status == 0 or one_line, f"{name} {status}: {errors[-300:]}")
        row.check(set(tars.parent.parent.rglob("*evil*")) == outside, f"{name}: a file outside")
    row.note = "refused in one line, or the member is left alone; nothing is written outside"
    return row


def _write_2012(folder: Path, good: list[Path], trap: Callable[[tarfile.TarFile], None]) -> None:
    """The smallest set of ILSVRC-2012's files, the trap in the training tar of the class."""
    from tests.fake_imagenet import make_2012

    make_2012(folder, ["n01440764"], validation=[1, 1], test=1)
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        for number, path in enumerate(good):
            _add(tar, f"n01440764_{number}.JPEG", path.read_bytes())
        trap(tar)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        _add(outer, "n01440764.tar", inner.getvalue())


def _add(tar: tarfile.TarFile, name: str, content: bytes, **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def _zip_in_disguise(tar: tarfile.TarFile) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(10**7))
    _add(tar, "n01440764_7.JPEG", file.getvalue())


def _bomb(tar: tarfile.TarFile) -> None:
    file = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, "png")
    _add(tar, "n01440764_7.JPEG", file.getvalue())


TRAPS: dict[str, Callable[[tarfile.TarFile], None]] = {
    "a path upwards": lambda tar: _add(tar, "../../evil.JPEG", _image("jpeg")),
    "an absolute path": lambda tar: _add(tar, "/tmp/evil.JPEG", _image("jpeg")),
    "a link": lambda tar: _add(
        tar, "n01440764_8.JPEG", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"
    ),
    "a hard link": lambda tar: _add(
        tar, "n01440764_8.JPEG", b"", type=tarfile.LNKTYPE, linkname="../../../etc/passwd"
    ),
    "a device": lambda tar: _add(tar, "n01440764_8.JPEG", b"", type=tarfile.CHRTYPE),
    "a pipe": lambda tar: _add(tar, "n01440764_8.JPEG", b"", type=tarfile.FIFOTYPE),
    "a folder of the name": lambda tar: _add(tar, "n01440764_8.JPEG", b"", type=tarfile.DIRTYPE),
    "a name twice": lambda tar: _add(tar, "n01440764_0.JPEG", _image("jpeg")),
    "a zip file in disguise": _zip_in_disguise,
    "a picture of 900 million pixels": _bomb,
    "a name that is not unicode": lambda tar: _add(tar, "n01440764_\udcff.JPEG", _image("jpeg")),
    "an empty member": lambda tar: _add(tar, "n01440764_9.JPEG", b""),
}

if __name__ == "__main__":
    kind, name, number, seed, folder = sys.argv[1:]
    print(json.dumps(_count(kind, name, int(number), int(seed), Path(folder))))
