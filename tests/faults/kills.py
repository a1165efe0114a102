"""Killed and stopped at any moment, the same command ends as if nothing had been."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

from alexnet_jax.runs.workdir import load_run
from tests.faults.base import (
    Row,
    Scale,
    ended,
    files_of,
    make_photographs,
    orphans,
    start,
    train,
    unlike,
)


def faults(scale: Scale) -> Iterator[Row]:
    """SIGKILL, SIGTERM, SIGINT and double SIGINT of training; SIGKILL of the other commands."""
    undisturbed = scale.new("undisturbed")
    began = time.monotonic()
    status, _, errors = ended(train(undisturbed))
    assert status == 0, errors
    whole = time.monotonic() - began
    yield _disturbed(scale, "SIGKILL while training", [signal.SIGKILL], 60, undisturbed, whole)
    yield _disturbed(scale, "SIGTERM while training", [signal.SIGTERM], 20, undisturbed, whole)
    yield _disturbed(scale, "SIGINT while training", [signal.SIGINT], 20, undisturbed, whole)
    twice = [signal.SIGINT, signal.SIGINT]
    yield _disturbed(scale, "SIGINT twice while training", twice, 20, undisturbed, whole)
    yield _killed_preparing(scale)
    yield _killed_report(scale, undisturbed)
    yield _killed_converting(scale, undisturbed)


def _disturbed(
    scale: Scale, fault: str, signals: list[int], number: int, undisturbed: Path, whole: float
) -> Row:
    """Stops runs at uniformly random moments until they were hit often enough."""
    rng, row, statuses = scale.rng(fault), Row(fault), set()
    while row.tried < scale.times(number):
        workdir = scale.new("run")
        while True:
            process = train(workdir)
            _let_run(process, rng.uniform(0, whole), workdir, row)
            if process.poll() is not None or row.tried >= scale.times(number):
                break
            for turn, number_of_signal in enumerate(signals):
                time.sleep(0.05 * turn)
                os.killpg(process.pid, number_of_signal)
            row.tried += 1
            status, _, errors = ended(process, 60)
            statuses.add(status)
            allowed = {-signals[0], 128 + signals[0], 0}
            row.check(status in allowed, f"exit status {status}: {errors[-300:]}")
        status, _, errors = ended(process)
        if status:
            row.fail(f"did not go on: {errors[-300:]}")
            continue
        if difference := unlike(workdir, undisturbed):
            row.fail(difference)
        row.check(not orphans(str(workdir)), "a process was left")
    row.note = f"exit status {', '.join(str(status) for status in sorted(statuses))}"
    return row


def _let_run(process: Popen, seconds: float, workdir: Path, row: Row) -> None:
    """Lets a run go on for so long; notes when it first logs, if it is a resumed one."""
    log = workdir / "metrics.jsonl"
    before = log.stat().st_size if log.exists() else 0
    began, resumed = time.monotonic(), before > 0
    while process.poll() is None and time.monotonic() - began < seconds:
        time.sleep(0.005)
        if resumed and log.stat().st_size > before:
            row.seconds.append(time.monotonic() - began)
            resumed = False


def _killed_preparing(scale: Scale) -> Row:
    """Preparing a folder of photographs, killed and begun again."""
    row, rng = Row("SIGKILL while preparing"), scale.rng("prepare")
    images = scale.new("images")
    make_photographs(images, classes=4, each=60)

    def prepare(folder: Path) -> Popen:
        flags = ("--dataset=folder", "--name=mine", "--validation_share=0.2")
        return start("prepare", *flags, f"--folder={images}", f"--data_dir={folder}")

    whole_folder = scale.new("whole")
    began = time.monotonic()
    status, _, errors = ended(prepare(whole_folder))
    assert status == 0, errors
    whole = time.monotonic() - began
    expected = _records(whole_folder)
    while row.tried < scale.times(20):
        folder = scale.new("data")
        while True:
            process = prepare(folder)
            began, wait = time.monotonic(), rng.uniform(0, whole)
            while process.poll() is None and time.monotonic() - began < wait:
                time.sleep(0.005)
            if process.poll() is not None or row.tried >= scale.times(20):
                break
            os.killpg(process.pid, signal.SIGKILL)
            row.tried += 1
            process.communicate()
        status, _, errors = ended(process)
        row.seconds.append(time.monotonic() - began)
        row.check(status == 0, f"did not go on: {errors[-300:]}")
        row.check(_records(folder) == expected, "other records")
        row.check(files_of(folder) == files_of(whole_folder), "files left over or missing")
    return row


def _records(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*array_record*")
        if path.is_file()
    }


def _killed_report(scale: Scale, run: Path) -> Row:
    """Writing the report: the page that was there stays until the new one is whole."""
    row, rng = Row("SIGKILL while writing the report"), scale.rng("report")
    began = time.monotonic()
    status, _, errors = ended(start("report", f"--workdir={run}"))
    assert status == 0, errors
    whole = time.monotonic() - began
    page = run / "report.html"
    before = page.read_bytes()
    for _ in range(scale.times(10)):
        process = start("report", f"--workdir={run}")
        time.sleep(rng.uniform(0, whole))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            row.tried += 1
        process.communicate()
        row.check(len(page.read_bytes()) > len(before) // 2, "half a page")
    began = time.monotonic()
    status, _, errors = ended(start("report", f"--workdir={run}"))
    row.seconds.append(time.monotonic() - began)
    row.check(status == 0, f"did not go on: {errors[-300:]}")
    row.check(not list(run.glob("*.tmp")) and not list(run.glob(".*report*")), "leftovers")
    page.unlink()
    return row


def _killed_converting(scale: Scale, run: Path) -> Row:
    """Out into a file and in again as a run: each is there whole, or not at all."""
    row, rng = Row("SIGKILL while converting"), scale.rng("convert")

    def out(path: Path) -> Popen:
        return start("convert", f"--workdir={run}", f"--output={path}", "--split=test")

    def back(path: Path, workdir: Path) -> Popen:
        return start("convert", f"--weights={path}", f"--workdir={workdir}")

    whole = scale.new("net.safetensors")
    began = time.monotonic()
    status, _, errors = ended(out(whole))
    assert status == 0, errors
    status, _, errors = ended(back(whole, whole.with_name("run")))
    assert status == 0, errors
    seconds = time.monotonic() - began
    expected = {path.name for path in whole.parent.iterdir()}
    for turn in range(scale.times(10)):
        path = scale.new(whole.name)
        workdir = path.with_name("run")
        if turn % 2:  # the way in, from a file that is whole
            for part in whole.parent.glob(f"{whole.name}*"):
                shutil.copy(part, path.parent)
        process = back(path, workdir) if turn % 2 else out(path)
        time.sleep(rng.uniform(0, seconds / 2))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            row.tried += 1
        process.communicate()
        if turn % 2:
            row.check(not workdir.exists() or load_run(workdir).step, "half a run")
        elif path.exists():
            row.check(path.read_bytes() == whole.read_bytes(), "half a file")
        began = time.monotonic()
        if not path.exists():
            status, _, errors = ended(out(path))
            row.check(status == 0, f"did not go on: {errors[-300:]}")
        if not workdir.exists():
            status, _, errors = ended(back(path, workdir))
            row.check(status == 0, f"did not go on: {errors[-300:]}")
        row.seconds.append(time.monotonic() - began)
        left = {entry.name for entry in path.parent.iterdir()}
        row.check(expected <= left, f"missing: {expected - left}")
    row.note = "a file or a run is there whole, or not at all; the same command makes it"
    return row
