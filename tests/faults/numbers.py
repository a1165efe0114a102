"""Values that are not finite: noticed within the log's interval, the last finite state kept."""

import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from alexnet_jax.runs.workdir import load_run
from tests.faults.base import Row, Scale, ended, last_line, train

LOGGED = 7  # updates, as in `base.SMALL`


def faults(scale: Scale) -> Iterator[Row]:
    """A rate that explodes at a step, and weights that overflow."""
    row, rng = Row("the rate becomes 1e6 at a random update"), scale.rng("rate")
    for _ in range(scale.times(10)):
        at = rng.uniform(0.2, 2.8)
        change = f"--config.hand_changes=(({at:.3f}, {{'learning_rate': 1e6}}),)"
        _told(row, scale.new("run"), at * 21, change)
    row.note = "names the quantity and the step; the last finite checkpoint is kept"
    yield row
    row = Row("initial weights that overflow")
    arrays = {
        "conv1/kernel": np.full((11, 11, 3, 4), 1e30, np.float32),
        "conv1/bias": np.zeros(4, np.float32),
    }
    for _ in range(scale.times(2)):
        path = scale.new("weights.npz")
        np.savez(
            path, **{"fc8/kernel": np.full((16, 10), 3e38, np.float32), "fc8/bias": np.zeros(10)}
        )
        _told(row, scale.new("run"), 0, f"--config.init_from={path}")
    row.note = "the same"
    yield row
    row = Row("weights to start from that are not finite")
    for value in (np.nan, np.inf):
        path = scale.new("weights.npz")
        np.savez(path, **(arrays | {"conv1/bias": np.full(4, value, np.float32)}))
        status, _, errors = ended(train(scale.new("run"), f"--config.init_from={path}"))
        row.tried += 1
        named = status == 1 and errors.count("\n") == 1 and "conv1/bias" in errors
        row.check(named, errors[-300:])
    row.note = "refused, naming the array"
    yield row


def _told(row: Row, workdir: Path, begins: float, flag: str) -> None:
    """The run ends in one line not long after update `begins`, and goes on in its right mind."""
    status, _, errors = ended(train(workdir, flag))
    row.tried += 1
    line = last_line(errors)
    found = re.search(r"step (\d+)", line)
    good = status == 1 and errors.count("\n") == 1 and found and "error: " in line
    row.check(good, f"{status}: {errors[-300:]}")
    if found:
        late = int(found[1]) - begins
        row.check(late <= 2 * LOGGED, f"told {late:.0f} updates late: {line}")
    kept = [p for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal()]
    if kept:
        leaves = jax.tree.leaves(load_run(workdir, which="last").params)
        row.check(
            all(np.isfinite(leaf).all() for leaf in leaves), "a checkpoint that is not finite"
        )
