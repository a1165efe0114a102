"""Why is the digits recipe what it is? Initial weights and length against the test error.

    python -m experiments.paper.digits_recipes

First every recipe, as a sweep: errors after the last epoch. Then, alone on the machine, the shipped
command with each seed: test and validation error of its best checkpoint, and the seconds of the
whole command, compilation and final test included. Writes results/digits_recipes.json.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import flags

from alexnet_jax.configs import digits
from alexnet_jax.files import local_path
from alexnet_jax.runs.metrics_log import read_metrics
from experiments import harness
from experiments.sweep import Sweep

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "runs/digits_recipes", "folder of the runs; finished ones are kept")
flags.DEFINE_multi_integer("seed", [0, 1, 2], "one run each")
RECIPES = {  # name -> fields, most seeds
    "original, 30 epochs (shipped)": ({}, 3),
    "original, 60 epochs": ({"num_epochs": 60.0}, 3),
    "paper, 60 epochs": ({"num_epochs": 60.0, "model.initialization": "paper"}, 1),
}


def main(_) -> None:
    """Trains what is not there yet, times the command and writes the results."""
    sweep = Sweep(digits.get_config(), local_path(FLAGS.workdir))
    settings = {}
    for name, (fields, most) in RECIPES.items():
        if harness.quick():
            fields = {field: value for field, value in fields.items() if field != "num_epochs"}
        settings[name] = [{**fields, "seed": seed} for seed in FLAGS.seed[:most]]
    every = [*itertools.chain(*settings.values())]
    sweep.train(every)
    sweep.results(every)  # or it says which are missing
    recipes = []
    for name, of_name in settings.items():
        runs = [described(result) for result in sweep.results(of_name)]
        tests = [one["test"] for one in runs]
        mean = statistics.mean(tests) if None not in tests else None
        recipes.append({"recipe": name, "mean_test_error": mean, "runs": runs})
        print(json.dumps(recipes[-1]), flush=True)
    commands = []
    for seed in FLAGS.seed[: 1 if harness.quick() else None]:
        commands.append(command(seed))
        print(json.dumps(commands[-1]), flush=True)
    result = {"recipes": recipes, "shipped_command": commands}
    harness.record("digits_recipes", result, origins=sweep.origins(every))


def described(result: dict) -> dict:
    """A run of the sweep as the result file has it."""
    test = {view: errors["top1_error"] for view, errors in result["test"].items()}
    return {
        "seed": result["seed"],
        "validation": result["epochs"][-1]["validation"]["top1_error"],
        "test": test["center"],
        "test_ten_views": test["ten"],
        "seconds": result["seconds"],
    }


def command(seed: int) -> dict:
    """The shipped command's errors (shares) and seconds."""
    with tempfile.TemporaryDirectory() as workdir:
        words = [sys.executable, "-m", "alexnet_jax.main", f"--workdir={workdir}"]
        words += [f"--config.seed={seed}"] + ["--config.num_epochs=0.05"] * harness.quick()
        started = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        rows = read_metrics(Path(workdir))
    test = {row["split"]: row["top1_error"] for row in rows if row["split"].startswith("test")}
    best = min((row for row in rows if row["split"] == "validation"), key=lambda row: row["loss"])
    return {"seed": seed, "validation": best["top1_error"], **test, "seconds": round(seconds, 1)}


if __name__ == "__main__":
    harness.run(main)
