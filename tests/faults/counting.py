"""Counts the faults of a kind, in whatever process it is called."""

import importlib
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments import provenance
from tests.faults.base import Row, Scale


def counted(rows: list[Row], part: float, minutes: float) -> dict[str, Any]:
    """A kind as it is kept."""
    return {
        "part": part,
        "minutes": round(minutes, 1),
        "commit": provenance.environment()["commit"],
        "machine": provenance.machine(),
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


def count(kind: str, part: float, seed: int) -> dict[str, Any]:
    """Makes the faults of a kind, and prints what became of each."""
    began, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="faults_", ignore_cleanup_errors=True) as folder:
        scale = Scale(part, seed, Path(folder))
        for row in importlib.import_module(f"tests.faults.{kind}").faults(scale):
            rows.append(row)
            seconds = "" if row.median_seconds is None else f", {row.median_seconds:.1f} s"
            print(f"{kind}: {row.fault}: {row.tried} tried, {row.lost} lost{seconds}", flush=True)
            for failure in row.failures[:5]:
                print("    " + " ".join(failure.split())[:300], flush=True)
    return counted(rows, part, (time.monotonic() - began) / 60)
