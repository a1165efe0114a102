"""Makes faults and counts what they cost: `python -m tests.faults` writes docs/faults.md.

    make test-faults               # more than an hour on two cores
    FAULTS=quick make test-faults  # minutes; prints the table and keeps nothing
    python -m tests.faults --only=kills --part=0.7 --keep

What was counted last of each kind is kept in docs/faults.json, from which the page is written.
Ends with status 1 where anything was lost.
"""

import argparse
import importlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments import harness
from tests.faults.base import Row, Scale

KINDS = ("kills", "checkpoints", "disk", "workdirs", "data", "files", "config", "numbers", "hosts")
KINDS += ("determinism", "long")
DOCS = Path(__file__).parents[2] / "docs"
PAGE, COUNTS = DOCS / "faults.md", DOCS / "faults.json"


def page(counts: dict[str, dict[str, Any]]) -> str:
    """The table, from what was counted of each kind."""
    lines = [
        "# Faults, counted",
        "",
        "What a run is put through, how often, and what was lost: a number other than 0 in the "
        "column *lost* is a defect. *Seconds* is the median until work went on after the same "
        "command was given again, or until the other process left. Written by "
        "`make test-faults` (`tests/faults`), kind by kind as the last table says.",
        "",
        "| fault | tried | lost | seconds | what happens |",
        "|---|---:|---:|---:|---|",
    ]
    rows = [row for kind in KINDS if kind in counts for row in counts[kind]["rows"]]
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        cells = (row["fault"], row["tried"], row["lost"], seconds, row["note"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    tried, lost = (sum(row[name] for row in rows) for name in ("tried", "lost"))
    lines += [f"| **all** | **{tried:,}** | **{lost}** | | |", ""]
    lines += [
        "| kind | share of the full counts | minutes | commit | machine |",
        "|---|---:|---:|---|---|",
    ]
    for kind in KINDS:
        if kind in counts:
            found = counts[kind]
            cells = (
                kind,
                f"{found['part']:g}",
                found["minutes"],
                found["commit"],
                found["machine"],
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
        else:
            lines.append(f"| {kind} | not run yet | | | |")
    return "\n".join([*lines, ""])


def counted(rows: list[Row], part: float, minutes: float) -> dict[str, Any]:
    """A kind as it is kept."""
    return {
        "part": part,
        "minutes": round(minutes, 1),
        "commit": harness.environment()["commit"],
        "machine": harness.machine(),
        "rows": [
            {
                "fault": row.fault,
                "tried": row.tried,
                "lost": row.lost,
                "seconds": row.median_seconds,
                "note": row.note,
            }
            for row in rows
        ],
    }


def main() -> None:
    """Runs the kinds asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=KINDS, help="a kind; default all")
    parser.add_argument("--part", type=float, default=1.0, help="share of the full counts")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and places")
    parser.add_argument("--keep", action="store_true", help="keep a part, too, for the page")
    given = parser.parse_args()
    counts: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        scale = Scale(given.part, given.seed, Path(folder))
        for kind in given.only or KINDS:
            began, rows = time.monotonic(), []
            for row in importlib.import_module(f"tests.faults.{kind}").faults(scale):
                rows.append(row)
                seconds = "" if row.median_seconds is None else f", {row.median_seconds:.1f} s"
                print(f"{row.fault}: {row.tried} tried, {row.lost} lost{seconds}", flush=True)
                for failure in row.failures[:5]:
                    print("    " + " ".join(failure.split())[:300], flush=True)
            for left in Path(folder).iterdir():
                shutil.rmtree(left, ignore_errors=True)
            counts[kind] = counted(rows, given.part, (time.monotonic() - began) / 60)
            if given.keep or given.part == 1:
                kept = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
                kept |= {kind: counts[kind]}
                COUNTS.write_text(json.dumps(kept, indent=1) + "\n")
                PAGE.write_text(page(kept))
    print(page(counts))
    sys.exit(any(row["lost"] for found in counts.values() for row in found["rows"]))


if __name__ == "__main__":
    main()
