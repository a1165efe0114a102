"""What a run measured: `metrics.jsonl`, one object a line, and the same for TensorBoard."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from alexnet_jax.augment import VIEWS
from alexnet_jax.step import METRICS

# Views of the final test -> how the log names their split.
TEST_SPLITS = {name: views.log_name for name, views in VIEWS.items()}


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events; a line is written whole or not at all."""

    def __init__(self, workdir: Path, writes: bool):
        self._path = workdir / "metrics.jsonl"
        self._board = SummaryWriter(str(workdir)) if writes else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._board is not None:
            self._board.close()

    def cut(self, step: int, validated: int) -> None:
        """Drops what was measured after `step`, the tests, and a line that was cut off.

        A validation after `validated` is dropped too: it was logged and its checkpoint not saved.
        """
        if self._board is None or not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines(keepends=True):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            last = validated if row["split"] == "validation" else step
            if row["step"] <= last and row["split"] not in TEST_SPLITS.values():
                kept.append(line)
        whole = self._path.with_suffix(".tmp")
        whole.write_text("".join(kept))
        os.replace(whole, self._path)

    def write(
        self,
        step: int,
        epoch: float,
        split: str,
        means: Mapping[str, float],
        learning_rate: float | None,
        images_per_second: float,
    ) -> None:
        """Appends one measurement: the means over `split` after `step` updates.

        `learning_rate` is that of the last update, None where there was none.
        """
        if self._board is None:
            return
        row = {"step": step, "epoch": round(epoch, 4), "split": split}
        row |= {name: means[name] for name in METRICS}
        row |= {"learning_rate": learning_rate, "images_per_second": round(images_per_second, 1)}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name in (*METRICS, "learning_rate", "images_per_second"):
            if row[name] is not None:
                self._board.add_scalar(f"{split}/{name}", row[name], step)
        self._board.flush()
