"""Makes faults and counts what they cost: `python -m tests.faults` writes docs/faults.md.

    make test-faults               # about an hour on two cores
    FAULTS=quick make test-faults  # minutes; prints the table and writes nothing
    python -m tests.faults --only=kills --part=0.1

Ends with status 1 where anything was lost.
"""

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

from experiments import harness
from tests.faults.base import Row, Scale

KINDS = ("kills", "checkpoints", "disk", "workdirs", "data", "files", "config", "numbers", "hosts")
KINDS += ("determinism", "long")
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def page(rows: list[Row], minutes: float) -> str:
    """The table as a page."""
    facts = harness.environment()
    lines = [
        "# Faults, counted",
        "",
        "What a run is put through, how often, and what was lost: a number other than 0 in the "
        "column *lost* is a defect. *Seconds* is the median until work went on after the same "
        "command was given again. Written by `make test-faults`"
        f" ({minutes:.0f} minutes on {harness.machine()}; commit {facts['commit']}).",
        "",
        "| fault | tried | lost | seconds | what happens |",
        "|---|---:|---:|---:|---|",
    ]
    for row in rows:
        seconds = "" if row.median_seconds is None else f"{row.median_seconds:.1f}"
        lines.append(f"| {row.fault} | {row.tried} | {row.lost} | {seconds} | {row.note} |")
    total = sum(row.tried for row in rows)
    return "\n".join(
        [*lines, f"| **all** | **{total}** | **{sum(r.lost for r in rows)}** | | |", ""]
    )


def main() -> None:
    """Runs the kinds asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=KINDS, help="a kind; default all")
    parser.add_argument("--part", type=float, default=1.0, help="share of the full counts")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and places")
    given = parser.parse_args()
    began, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        scale = Scale(given.part, given.seed, Path(folder))
        for kind in given.only or KINDS:
            for row in importlib.import_module(f"tests.faults.{kind}").faults(scale):
                rows.append(row)
                seconds = "" if row.median_seconds is None else f", {row.median_seconds:.1f} s"
                print(f"{row.fault}: {row.tried} tried, {row.lost} lost{seconds}", flush=True)
                for failure in row.failures[:5]:
                    print("    " + " ".join(failure.split())[:300], flush=True)
            for left in Path(folder).iterdir():
                shutil.rmtree(left, ignore_errors=True)
    text = page(rows, (time.monotonic() - began) / 60)
    if given.part == 1 and not given.only:
        PAGE.write_text(text)
    else:
        print(text)
    sys.exit(any(row.lost for row in rows))


if __name__ == "__main__":
    main()
