"""Commands in child processes, what became of them, and the table's rows."""

import dataclasses
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
from PIL import Image

from alexnet_jax.runs.metrics_log import CLOCKED
from alexnet_jax.runs.workdir import load_run

# 63 updates of a narrow net on digits: three validations, a checkpoint every seven updates.
SMALL = (
    "--config=digits",
    "--config.model.conv_features=(4, 8, 8, 8, 4)",
    "--config.model.fc_features=(16, 16)",
    "--config.num_epochs=3",
    "--config.validate_every_epochs=1",
    "--config.checkpoint_every_steps=7",
    "--config.log_every_steps=7",
)


@dataclasses.dataclass
class Row:
    """A fault of the table: how often it was made, what was lost, how long until work went on."""

    fault: str
    tried: int = 0
    lost: int = 0
    seconds: list[float] = dataclasses.field(default_factory=list)
    note: str = ""
    failures: list[str] = dataclasses.field(default_factory=list)

    def fail(self, what: str) -> None:
        """Counts something lost, damaged unseen or said badly."""
        self.lost += 1
        self.failures.append(what)

    def check(self, holds: object, what: str) -> None:
        """Counts a failure unless `holds`."""
        if not holds:
            self.fail(what)

    @property
    def median_seconds(self) -> float | None:
        """Until work went on."""
        return statistics.median(self.seconds) if self.seconds else None


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is tried: `part` of the full number, at least one."""

    part: float
    seed: int
    folder: Path

    def times(self, number: int) -> int:
        """`number` at full scale."""
        return max(1, round(number * self.part))

    def some(self, things: Iterable[Any], name: str) -> list[Any]:
        """As many of them, in order."""
        found = list(things)
        chosen = self.rng(name).sample(range(len(found)), self.times(len(found)))
        return [found[n] for n in sorted(chosen)]

    def rng(self, name: str) -> random.Random:
        """A generator of its own for each fault."""
        return random.Random(f"{self.seed} {name}")

    def new(self, name: str) -> Path:
        """An empty folder's path that is not there yet."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / name


Fault = Callable[[Scale], Iterator[Row]]


def start(module: str, *arguments: object, **environment: str) -> subprocess.Popen:
    """`python -m alexnet_jax.MODULE` on one device, compiled fast, not to be fast."""
    options = {"XLA_FLAGS": "--xla_backend_optimization_level=0", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", f"alexnet_jax.{module}", *map(str, arguments)],
        env=os.environ | options,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def train(workdir: Path, *flags: object, **environment: str) -> subprocess.Popen:
    """The small run."""
    return start("main", f"--workdir={workdir}", *SMALL, *flags, **environment)


def ended(process: subprocess.Popen, seconds: float = 300) -> tuple[int, str, str]:
    """Exit status, output and errors; -1000 where it hung."""
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        return -1000, output, errors
    return process.returncode, output, errors


def last_line(text: str) -> str:
    """The last line that is not empty."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def orphans(word: str) -> list[str]:
    """Processes whose command names `word`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if word in " ".join(process.info["cmdline"] or []):
            found.append(" ".join(process.info["cmdline"]))
    return found


def log_of(workdir: Path) -> list[dict]:
    """The lines of a run's log but for what a clock measured."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for name in CLOCKED:
            row.pop(name, None)
    return rows


def files_of(workdir: Path) -> set[str]:
    """Names of everything in a workdir, but for those with random parts."""
    names = (str(path.relative_to(workdir)) for path in workdir.rglob("*"))
    return {name for name in names if not ("/d/" in name or "tfevents" in name)}


def unlike(workdir: Path, undisturbed: Path) -> str | None:
    """In what a finished run differs from the undisturbed one; None: in nothing."""
    if log_of(workdir) != log_of(undisturbed):
        return "another log"
    for which in ("last", "best"):
        ours, theirs = (load_run(path, which=which) for path in (workdir, undisturbed))
        leaves = zip(jax.tree.leaves(ours.params), jax.tree.leaves(theirs.params), strict=True)
        if ours.step != theirs.step or not all(np.array_equal(*pair) for pair in leaves):
            return f"other parameters of the {which} checkpoint"
    if extra := files_of(workdir) ^ files_of(undisturbed):
        return f"files left over or missing: {sorted(extra)[:3]}"
    return None


def copy(workdir: Path, scale: Scale) -> Path:
    """A copy of a run's folder."""
    return Path(shutil.copytree(workdir, scale.new("run"), symlinks=True))


def make_photographs(folder: Path, *, classes: int, each: int, size: int = 300) -> None:
    """JPEG files of smooth noise, one folder a class."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class_{label}").mkdir(parents=True)
        for number in range(each):
            coarse = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((size, size + number % 50))
            image.save(folder / f"class_{label}" / f"{number}.jpg")


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 120
) -> bool:
    """Waits until `condition`; False where the process ended, or it took too long."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False
