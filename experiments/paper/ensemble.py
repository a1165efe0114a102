"""An ensemble of five seeds against its members (section 6's "5 CNNs"), on handwritten digits.

    python experiments/ensemble.py [--full]

By default the digits recipe (half width, 64 pixels), cut to 8 epochs so that five networks fit
into a few minutes of CPU and still err, far from trained; --full trains as long as the recipe.
Five of the ten views are mirrored and digits are trained without: they are worse here. Writes
results/ensemble.json and results/ensemble.png.
"""

import json
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from alexnet_jax.configs import digits
from alexnet_jax.evaluate import evaluate_runs
from alexnet_jax.inspect.drawing import COLORS, new_figure, style
from alexnet_jax.runs.launch import train

SEEDS = 5
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Trains the networks, evaluates them alone and averaged, writes the results."""
    config = digits.get_config()
    config.ensemble = SEEDS
    config.final_views = ()
    if "--full" not in sys.argv:
        config.num_epochs = 8
        config.validate_every_epochs = 4
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder))
        report = evaluate_runs([folder])
    result = {
        "dataset": "digits: 1,352 training, 226 validation and 219 test images",
        "network": "half width, 64 pixels",
        "epochs": config.num_epochs,
        "seeds": list(range(SEEDS)),
        "views": {view: table["rows"] for view, table in report["views"].items()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ensemble.json").write_text(json.dumps(result, indent=1) + "\n")
    with style():
        draw(result).savefig(RESULTS / "ensemble.png", dpi=120)


def draw(result: dict) -> Figure:
    """Error and loss on validation and test images together: members as dots, their mean a line."""
    with style():
        figure = new_figure(6.5, 2.8)
        panels = figure.subplots(1, 2)
    for axes, metric, label in zip(
        panels, ("top1_error", "loss"), ("top-1 error (%)", "loss (nats)"), strict=True
    ):
        factor = 100 if metric == "top1_error" else 1
        for x, rows in enumerate(result["views"].values()):
            values = [factor * pooled(row, metric) for row in rows]
            axes.scatter([x] * SEEDS, values[:-1], color=COLORS["blue"], label="one network")
            axes.plot([x - 0.2, x + 0.2], [values[-1]] * 2, color=COLORS["red"], label="their mean")
        axes.set_xticks(range(len(result["views"])), ["centre crop", "ten views"])
        axes.set(xlim=(-0.5, 1.5), ylim=(0, None), ylabel=label)
    handles, labels = panels[0].get_legend_handles_labels()
    panels[0].legend(handles[:2], labels[:2], loc="lower left")
    return figure


def pooled(row: dict, metric: str) -> float:
    """The metric over the images of both splits."""
    splits = [row["validation"], row["test"]]
    return sum(s[metric] * s["images"] for s in splits) / sum(s["images"] for s in splits)


if __name__ == "__main__":
    main()
