"""20,000 updates: memory, open files and threads stay as they are."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from matplotlib.figure import Figure

from tests.faults.base import Row, Scale, ended, train

UPDATES = 20_000
PICTURE = Path(__file__).parents[2] / "docs" / "faults_long.png"


def faults(scale: Scale) -> Iterator[Row]:
    """Samples the process every half second; the picture is docs/faults_long.png."""
    row, workdir = Row(f"{UPDATES:,} updates"), scale.new("run")
    updates = max(400, round(UPDATES * scale.part))
    process = train(
        workdir,
        "--config.batch_size=8",
        "--config.train_split=train[:160]",
        f"--config.num_epochs={updates // 20}",
        "--config.cache=device",
        f"--config.validate_every_epochs={max(1, updates // 20 // 40)}",
        f"--config.checkpoint_every_steps={max(10, updates // 20)}",
    )
    watched, samples = psutil.Process(process.pid), []
    began = time.monotonic()
    while process.poll() is None:
        try:
            facts = (watched.memory_info().rss / 2**20, watched.num_fds(), watched.num_threads())
            samples.append((time.monotonic() - began, *facts))
        except psutil.Error:
            break
        time.sleep(0.5)
    status, _, errors = ended(process)
    row.tried = 1
    row.check(status == 0, errors[-300:])
    values = np.array(samples)
    late = values[len(values) // 3 :]  # after all is compiled
    first, last = np.array_split(late[:, 1:], 2)
    for name, before, after, most in zip(
        ("MiB", "open files", "threads"),
        np.median(first, 0),
        np.median(last, 0),
        (30, 5, 3),
        strict=True,
    ):
        row.check(after - before <= most, f"{name}: {before:.0f}, then {after:.0f}")
    row.note = (
        f"{updates:,} updates in {values[-1, 0]:.0f} s; "
        f"{np.median(last[:, 0]):.0f} MiB, {np.median(last[:, 1]):.0f} open files, "
        f"{np.median(last[:, 2]):.0f} threads, as in the first half"
    )
    if scale.part == 1:
        _draw(values).savefig(PICTURE, dpi=120)
    yield row


def _draw(values: np.ndarray) -> Figure:
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    names = ("memory (MiB)", "open files", "threads")
    for axes, name, column in zip(figure.subplots(1, 3), names, values[:, 1:].T, strict=True):
        axes.plot(values[:, 0], column, color="#225588", lw=1)
        axes.set(title=name, xlabel="seconds", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    return figure
