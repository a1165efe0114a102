"""Makes faults and counts what they cost: `python -m tests.faults` writes docs/faults.md.

    make test-faults               # an hour on two cores
    FAULTS=quick make test-faults  # some of each, in minutes; prints the table and keeps nothing
    python -m tests.faults --only=kills --part=0.7 --keep

What was counted last of each kind is kept in docs/faults.json, from which the page is written.
Ends with status 1 where anything was lost.
"""

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.faults.counting import count

# The long ones first, that none is left alone at the end.
KINDS = ("hosts", "kills", "config", "disk", "determinism", "long", "workdirs", "files")
KINDS += ("checkpoints", "numbers", "data")
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
    if "long" in counts:
        lines += ["", "![20,000 updates: memory, open files, threads](faults_long.png)"]
    return "\n".join([*lines, ""])


def main() -> None:
    """Counts the kinds asked for, each in a process of its own, two at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=KINDS, help="a kind; default all")
    parser.add_argument("--part", type=float, default=1.0, help="share of the full counts")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and places")
    parser.add_argument("--jobs", type=int, default=2, help="kinds that are counted at once")
    parser.add_argument("--keep", action="store_true", help="keep a part, too, for the page")
    given = parser.parse_args()
    kinds = given.only or KINDS
    counts: dict[str, dict[str, Any]] = {}
    # A process for each, as one changes how JAX compiles and another how much memory it may take.
    with ProcessPoolExecutor(
        given.jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        work = {pool.submit(count, kind, given.part, given.seed): kind for kind in kinds}
        for done in as_completed(work):
            counts[work[done]] = done.result()
            if given.keep or given.part == 1:
                kept = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
                kept |= {work[done]: counts[work[done]]}
                COUNTS.write_text(json.dumps(kept, indent=1) + "\n")
                PAGE.write_text(page(kept))
    print(page(counts))
    sys.exit(any(row["lost"] for found in counts.values() for row in found["rows"]))


if __name__ == "__main__":
    main()
