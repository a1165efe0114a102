"""A disk that is full, and folders of awkward names and rights."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.base import Row, Scale, ended, last_line, make_photographs, start, train, unlike

MIB = 2**20


def faults(scale: Scale) -> Iterator[Row]:
    """Full disks while training, preparing and reporting; then odd folders."""
    undisturbed = scale.new("undisturbed")
    status, _, errors = ended(train(undisturbed))
    assert status == 0, errors
    with contextlib.suppress(PermissionError):
        yield _full_while_training(scale, undisturbed)
        yield _full_while_preparing(scale)
        yield _full_while_reporting(scale, undisturbed)
        yield _read_only(scale, undisturbed)
    yield _odd_folders(scale, undisturbed)
    yield _clock_back(scale, undisturbed)


@contextlib.contextmanager
def mounted(folder: Path, size: int, *, options: str = "") -> Iterator[None]:
    """A file system in memory of `size` bytes. Raises PermissionError where that needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", folder])
    if made.returncode:
        raise PermissionError("only root can mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def resize(folder: Path, size: int) -> None:
    """Gives a mounted one another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def size_of(folder: Path) -> int:
    """Bytes below a folder, in whole pages."""
    files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // 4096) * 4096 for size in files)


def told(status: int, errors: str, path: Path) -> bool:
    """Whether a full disk ended in one line with the path and the reason."""
    line = last_line(errors)
    full = "No space left" in line or "Disk quota" in line or "free" in line
    return status == 1 and "Traceback" not in errors and full and str(path) in line


def _full_while_training(scale: Scale, undisturbed: Path) -> Row:
    row, whole = Row("disk full while training"), size_of(undisturbed)
    rng = scale.rng("full")
    for _ in range(scale.times(12)):
        folder = scale.new("disk")
        with mounted(folder, max(8 * 4096, round(whole * rng.uniform(0.02, 1.0)))):
            workdir = folder / "run"
            status, _, errors = ended(train(workdir))
            row.tried += 1
            if status:
                row.check(told(status, errors, workdir), f"{status}: {errors[-400:]}")
            resize(folder, 4 * whole + 50 * MIB)
            began = time.monotonic()
            status, _, errors = ended(train(workdir))
            row.seconds.append(time.monotonic() - began)
            row.check(status == 0, f"did not go on: {errors[-300:]}")
            if status == 0 and (difference := unlike(workdir, undisturbed)):
                row.fail(difference)
    row.note = "one line with the path; with room again the run ends as if undisturbed"
    return row


def _full_while_preparing(scale: Scale) -> Row:
    row, rng = Row("disk full while preparing"), scale.rng("prepare")
    images = scale.new("images")
    make_photographs(images, classes=2, each=40)
    flags = ("--dataset=folder", "--name=mine", "--validation_share=0.2", f"--folder={images}")
    for _ in range(scale.times(6)):
        folder = scale.new("disk")
        with mounted(folder, round(rng.uniform(0.1, 14) * MIB)):
            status, _, errors = ended(start("prepare", *flags, f"--data_dir={folder}/data"))
            row.tried += 1
            if status:
                row.check(told(status, errors, folder), f"{status}: {errors[-400:]}")
            resize(folder, 100 * MIB)
            status, _, errors = ended(start("prepare", *flags, f"--data_dir={folder}/data"))
            row.check(status == 0, f"did not go on: {errors[-300:]}")
    row.note = "one line with the path; the same command goes on"
    return row


def _full_while_reporting(scale: Scale, run: Path) -> Row:
    row, rng = Row("disk full while writing a report, features or an export"), scale.rng("report")
    names = ("page.html", "features.npz", "features.h5", "net.safetensors")
    for turn in range(scale.times(9)):
        folder = scale.new("disk")
        with mounted(folder, round(rng.uniform(1, 8_000))):  # less than either takes
            name = names[turn % len(names)]
            command = {"page": "report", "net": "convert"}.get(name.partition(".")[0], "features")
            flags = (f"--workdir={run}", f"--output={folder / name}")
            flags += () if command == "report" else ("--split=test",)
            status, _, errors = ended(start(command, *flags))
            row.tried += 1
            row.check(told(status, errors, folder), f"{command} {status}: {errors[-400:]}")
            row.check(not list(folder.iterdir()), f"left: {list(folder.iterdir())}")
    row.note = "one line with the path; nothing half-written"
    return row


def _read_only(scale: Scale, undisturbed: Path) -> Row:
    row, folder = Row("a disk that is read-only"), scale.new("disk")
    with mounted(folder, 100 * MIB):
        shutil.copytree(undisturbed, folder / "run")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        for arguments in (
            ("main", f"--workdir={folder}/new", "--config=digits"),
            ("main", f"--workdir={folder}/run", "--config.num_epochs=9"),
            ("report", f"--workdir={folder}/run"),
            ("features", f"--workdir={folder}/run", f"--output={folder}/f.npz", "--split=test"),
        ):
            status, _, errors = ended(start(*arguments))
            row.tried += 1
            good = status == 1 and errors.count("\n") == 1 and str(folder) in errors
            row.check(good, f"{arguments[0]} {status}: {errors[-300:]}")
        status, _, errors = ended(
            start("evaluate", f"--workdir={folder}/run", f"--output={scale.new('tables')}")
        )
        row.tried += 1
        row.check(status == 0, f"evaluate {status}: {errors[-300:]}")
    row.note = "writing is refused in one line, reading works"
    return row


def _odd_folders(scale: Scale, undisturbed: Path) -> Row:
    """Each holds a run that is stopped half-way, moved or not, and goes on."""
    row = Row("spaces, unicode, %, links; moved, copied; a file in the way; no home")
    for name in scale.some(("with spaces", "ünïcødé 網", "100%s%d{x}", "-dash"), "odd"):
        workdir = scale.new(name)
        for flags in (("--config.num_epochs=1",), ()):
            status, _, errors = ended(train(workdir, *flags))
            row.check(status == 0, f"{name}: {errors[-300:]}")
        row.tried += 1
        row.check(len(list((workdir / "checkpoints").iterdir())) == 2, f"{name}: checkpoints")
    for name in scale.some(("[a]", "a*", "b?"), "patterns"):
        status, _, errors = ended(train(scale.new(name)))
        row.tried += 1
        row.check(status == 1 and errors.count("\n") == 1 and name in errors, errors[-300:])
    half = scale.new("half")
    ended(train(half, "--config.num_epochs=1"))
    moved, link = scale.new("moved"), scale.new("link")
    shutil.copytree(half, moved)
    shutil.move(moved, moved.with_name("again"))
    link.symlink_to(half)
    for workdir in (moved.with_name("again"), link):
        status, output, errors = ended(train(workdir))
        row.tried += 1
        row.check(status == 0 and "Resuming" in output, f"{workdir.name}: {errors[-300:]}")
    file = scale.new("file")
    file.touch()
    status, _, errors = ended(train(file))
    row.tried += 1
    row.check(status == 1 and errors.count("\n") == 1 and str(file) in errors, errors[-300:])
    home = scale.new("home")
    home.touch()  # not even a folder
    data = Path(os.environ.get("HOME", "~")).expanduser() / "tensorflow_datasets"
    given = (f"--data_dir={data}",) if data.is_dir() else ()
    status, _, errors = ended(train(scale.new("run"), *given, HOME=str(home), XDG_CACHE_HOME=""))
    row.tried += 1
    row.check(status == 0 or errors.count("\n") == 1, f"no home: {errors[-300:]}")
    row.note = "work as any folder; patterns are refused, the file is named"
    return row


def _clock_back(scale: Scale, undisturbed: Path) -> Row:
    """All that a run wrote is an hour in the future."""
    row, workdir = Row("the clock one hour back"), scale.new("run")
    ended(train(workdir, "--config.num_epochs=1"))
    future = time.time() + 3600
    for path in (workdir, *workdir.rglob("*")):
        os.utime(path, (future, future))
    status, output, errors = ended(train(workdir))
    row.tried += 1
    row.check(status == 0 and "Resuming" in output, errors[-300:])
    row.note = "goes on"
    return row
