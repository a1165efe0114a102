"""What a run measured: `metrics.jsonl`, one object per line, and the same for TensorBoard."""

import contextlib
import json
import math
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flax.traverse_util import flatten_dict, unflatten_dict
from tensorboardX import SummaryWriter

from alexnet_jax.augment import VIEWS
from alexnet_jax.files import json_object, whole_file
from alexnet_jax.scores import METRICS
from alexnet_jax.vitals import Vitals

TEST_SPLITS = {views.log_name for views in VIEWS.values()}
FILE = "metrics.jsonl"
# Fields of a line that depend on the machine and the moment; all else is resumed exactly.
CLOCKED = ("images_per_second", "input_wait", "mfu")
LARGEST = 2**63  # of whole numbers, as far as they can be drawn
# The split of the lines that hold vital signs instead of metrics.
VITALS = "vitals"


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The measurements of a run in order; none if it has written none.

    Raises:
      ValueError: a line is not JSON (a last line cut off is left out).
    """
    path = Path(workdir) / FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        row = _parse(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise ValueError(f"line {number} of {path} is damaged; take it out or train again")
    return rows


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line's measurement, None where it holds none."""
    try:
        row = json_object(line, FILE)
        split, numbers = row["split"], [row["step"], row["epoch"]]
        if split == VITALS:  # null is what was no number
            others = [x for signs in row["layers"].values() for x in signs.values()]
        else:  # null is the rate of a test
            numbers += [row[name] for name in METRICS]
            others = [row["learning_rate"], *(row.get(name) for name in CLOCKED)]
        if split == "train":
            numbers.append(row["images_per_second"])
    except (ValueError, KeyError, AttributeError):
        return None
    numbers += [x for x in others if x is not None]
    placed = isinstance(split, str) and type(row["step"]) is int
    return row if placed and all(map(_is_number, numbers)) else None


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= LARGEST)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _checksum(rows: Iterable[Mapping[str, Any]], before: int = 0) -> int:
    """The CRC-32 of lines, or of these after those whose checksum is `before`."""
    for row in rows:
        before = zlib.crc32(_line(row).encode(), before)
    return before


def _up_to(rows: Iterable[dict[str, Any]], step: int, validated: int) -> list[dict[str, Any]]:
    """Those that a checkpoint of `step` counts: no test, and no validation after `validated`."""
    return [
        row
        for row in rows
        if row["step"] <= (validated if row["split"] == "validation" else step)
        and row["split"] not in TEST_SPLITS
    ]


def _problem(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    step: int,
    lines: int | None,
    checksum: int | None,
) -> str:
    """What is wrong with the lines up to `step`, of which a checkpoint noted number and checksum.

    In one line; "" where nothing is, or nothing was noted.
    """
    if lines is not None and len(rows) < lines:
        return (
            f"{path} holds {len(rows)} of the {lines} lines written up to step {step}: it was "
            "damaged or removed, and what is missing is lost"
        )
    if lines is not None and checksum not in (None, _checksum(rows[:lines])):
        return (
            f"{path} holds other lines than those written up to step {step}: it was changed, or is "
            "another run's; put this run's own back"
        )
    return ""


def problem_with_log(workdir: str | Path, step: int, progress: Mapping[str, Any]) -> str:
    """What is wrong with the log of a run, in one line; "" where nothing is, or nothing is known.

    Args:
      workdir: its folder.
      step: of its last checkpoint.
      progress: what that notes of the log: "validated" and, if not of an earlier version, "lines"
        and "checksum".
    """
    rows = _up_to(read_metrics(workdir), step, progress["validated"])
    lines, checksum = progress.get("lines"), progress.get("checksum")
    return _problem(Path(workdir) / FILE, rows, step, lines, checksum)


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events; a line is written whole or not at all."""

    def __init__(self, workdir: Path, writes: bool):
        """Opens the log of `workdir`; nothing is written where `writes` is False."""
        self._path = workdir / FILE
        self._workdir = workdir
        self._writes = writes
        self._board: SummaryWriter | None = None
        self.lines = 0  # written or kept, the tests not counted
        self.checksum = 0  # of these lines
        self._tests: list[dict[str, Any]] = []  # of an earlier end of this run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._board is not None:
            with contextlib.suppress(OSError):  # of a full disk, which writing has told already
                self._board.close()

    def of_saved_run(self) -> int | None:
        """The last step of a log that only a run that has saved writes; None of any other.

        A validation is logged before its checkpoint is written, which the next one's waits for.
        """
        rows = self._rows()
        validated = sorted(row["step"] for row in rows if row["split"] == "validation")
        tested = any(row["split"] in TEST_SPLITS for row in rows)
        last = self.last_step
        return last if tested or (len(validated) > 1 and last > validated[1]) else None

    @property
    def last_step(self) -> int:
        """That of the log so far; 0 where it holds nothing."""
        return max((row["step"] for row in self._rows()), default=0)

    def _rows(self) -> list[dict[str, Any]]:
        """What the log holds, without lines that are damaged."""
        written = self._path.read_bytes().splitlines() if self._path.exists() else []
        return [row for row in map(_parse, written) if row is not None]

    def begin(
        self, step: int, validated: int, lines: int | None = None, checksum: int | None = None
    ) -> str:
        """Makes ready to go on after `step`: drops what was measured later, and the tests.

        A validation after `validated` is dropped too: it was logged and its checkpoint not saved.

        Args:
          step: updates done.
          validated: the last step whose validation counts.
          lines: how many lines were written up to then, where that is known.
          checksum: of these lines, where that is known.

        Returns:
          What is wrong with the log, in one line; "" where nothing is.
        """
        if not self._writes:
            return ""
        # TensorBoard forgets what an interrupted run has told it of steps to come.
        # Its files are named by the second: two of one second would be one, and the first lost.
        suffix = f".{time.time_ns() % 10**9:09d}"
        self._board = SummaryWriter(str(self._workdir), purge_step=step + 1, filename_suffix=suffix)
        rows = self._rows()
        self._tests = [row for row in rows if row["split"] in TEST_SPLITS]
        kept = _up_to(rows, step, validated)
        if self._path.exists():
            with whole_file(self._path) as file:
                file.writelines(map(_line, kept))
        self.lines, self.checksum = len(kept), _checksum(kept)
        problem = _problem(self._path, kept, step, lines, checksum)
        return f"warning: {problem}" if problem else ""

    def write(
        self,
        step: int,
        epoch: float,
        split: str,
        means: Mapping[str, float],
        learning_rate: float | None,
        **clocked: float,
    ) -> None:
        """Appends one measurement: the means over `split` after `step` updates.

        `learning_rate` is that of the last update, None where there was none; `clocked` are of
        `CLOCKED`.
        """
        row: dict[str, Any] = {"step": step, "epoch": round(epoch, 4), "split": split}
        row |= {name: means[name] for name in METRICS}
        row |= {"learning_rate": learning_rate}
        row |= {name: float(f"{value:.4g}") for name, value in clocked.items()}
        self._append(row, {name: row[name] for name in (*METRICS, "learning_rate", *clocked)})

    def write_vitals(self, step: int, epoch: float, signs: Vitals) -> None:
        """Appends the vital signs of update `step`; null, in JSON, is no number."""
        found = {
            name: float(f"{value:.6g}") if math.isfinite(value) else None
            for name, value in flatten_dict(signs, sep="/").items()
        }
        row = {"step": step, "epoch": round(epoch, 4), "split": VITALS}
        self._append(row | unflatten_dict(found, sep="/"), found)

    def _append(self, row: dict[str, Any], scalars: Mapping[str, float | None]) -> None:
        if self._board is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(row))
            if row["split"] not in TEST_SPLITS:
                self.lines, self.checksum = self.lines + 1, _checksum([row], self.checksum)
            if any(_same(row, test) for test in self._tests):  # the board has it already
                return
            for name, value in scalars.items():
                if value is not None:
                    self._board.add_scalar(f"{row['split']}/{name}", value, row["step"])
            self._board.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def _same(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(row.get(name) == other[name] for name in ("step", "split", *METRICS))
