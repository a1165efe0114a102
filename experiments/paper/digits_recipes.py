"""Why the digits recipe is what it is: initial weights and length, three seeds each.

    python experiments/digits_recipes.py

Each run is the shipped command with a few fields changed, alone on the machine. Writes
results/digits_recipes.json: test and validation error of the best checkpoint, and seconds of the
whole command, compilation and final test included.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
RECIPES = {  # name -> fields, seeds
    "original, 30 epochs (shipped)": ({}, (0, 1, 2)),
    "original, 60 epochs": ({"num_epochs": 60}, (0, 1, 2)),
    "paper, 60 epochs": ({"num_epochs": 60, "model.initialization": "paper"}, (0,)),
}


def run(fields: dict, seed: int) -> dict:
    """Trains one network; its errors (shares) and seconds."""
    with tempfile.TemporaryDirectory() as workdir:
        flags = [f"--config.{name}={value}" for name, value in (fields | {"seed": seed}).items()]
        command = [sys.executable, "-m", "alexnet_jax.main", f"--workdir={workdir}", *flags]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        rows = [json.loads(x) for x in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    test = {row["split"]: row["top1_error"] for row in rows if row["split"].startswith("test")}
    validated = [row for row in rows if row["split"] == "validation"]
    best = min(validated, key=lambda row: row["loss"])
    return {"seed": seed, "validation": best["top1_error"], **test, "seconds": round(seconds, 1)}


def main() -> None:
    """Runs all and writes the results."""
    results = []
    for name, (fields, seeds) in RECIPES.items():
        runs = [run(fields, seed) for seed in seeds]
        results.append(
            {
                "recipe": name,
                "mean_test_error": statistics.mean(one["test"] for one in runs),
                "runs": runs,
                "cores": len(os.sched_getaffinity(0)),
            }
        )
        print(json.dumps(results[-1]), flush=True)
        (RESULTS / "digits_recipes.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
