"""A small sweep over learning rates and seeds on digits: one compiled step, many runs.

    python experiments/learning_rates.py

The rate is an argument of the step, so all runs share one program. Each is a short run (15 epochs,
constant rate) of the digits recipe. Writes results/learning_rates.jsonl, a line a run, and
results/learning_rates.png.
"""

import json
import time
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from alexnet_jax import Hyperparameters, create_train_state, make_eval_step, make_train_step
from alexnet_jax.configs import digits
from alexnet_jax.data.batches import train_batches
from alexnet_jax.runs.evaluation import evaluate
from alexnet_jax.runs.recipe import Recipe

RATES = (0.002, 0.005, 0.01, 0.02, 0.05)
SEEDS = (0, 1, 2)
EPOCHS = 15
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Runs the sweep and writes its results."""
    config = digits.get_config()
    recipe = Recipe(config)
    training, validation = recipe.cached_training(), recipe.validation
    model, augmentation = recipe.model, recipe.augmentation
    train_step = make_train_step(model, augmentation, max_traces=1)
    eval_step = make_eval_step(model, augmentation)
    num_steps = EPOCHS * recipe.epoch_steps

    lines = []
    for seed in SEEDS:
        for rate in RATES:
            started = time.perf_counter()
            state = create_train_state(model, jax.random.key(seed))
            batches = train_batches(training, batch_size=config.batch_size, seed=seed)
            losses = []
            for _, batch in zip(range(num_steps), batches, strict=False):
                state, metrics = train_step(state, batch, Hyperparameters(learning_rate=rate))
                losses.append(metrics["loss"])
            line = {
                "learning_rate": rate,
                "seed": seed,
                "epochs": EPOCHS,
                "train_loss_last_epoch": _number(np.mean(jax.device_get(losses[-21:]))),
                "validation": {
                    name: _number(value)
                    for name, value in evaluate(
                        eval_step, state, validation, config.eval_batch_size
                    ).means.items()
                },
                "seconds": round(time.perf_counter() - started, 1),
            }
            lines.append(line)
            print(json.dumps(line), flush=True)
            path = RESULTS / "learning_rates.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            draw(lines).savefig(RESULTS / "learning_rates.png", dpi=120)


def _number(value: float) -> float | None:
    """For JSON: None where a run diverged."""
    return float(value) if np.isfinite(value) else None


def draw(lines: list[dict]) -> Figure:
    """Validation error over rate: a dot a seed, a line through the medians."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    rates = [line["learning_rate"] for line in lines]
    errors = [100 * line["validation"]["top1_error"] for line in lines]
    tried = sorted(set(rates))
    medians = [np.median([e for r, e in zip(rates, errors, strict=True) if r == x]) for x in tried]
    axes.plot(tried, medians, color="#222222", label="median")
    axes.scatter(rates, errors, color="#4477aa", alpha=0.7, label="one seed", zorder=3)
    axes.set(xscale="log", ylim=(0, 100), xlabel="learning rate", ylabel="validation error (%)")
    axes.set_xticks(tried, [f"{rate:g}" for rate in tried])
    axes.set_xticks([], minor=True)
    axes.set_title(f"Digits, {EPOCHS} epochs at a constant rate", fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
