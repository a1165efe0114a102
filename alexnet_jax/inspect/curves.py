"""Training curves: loss, errors and learning rate from a run's `metrics.jsonl`."""

import itertools
from typing import Any

from matplotlib.figure import Figure

from alexnet_jax.inspect.drawing import COLORS, new_figure, style

_LINES = {"train": COLORS["blue"], "validation": COLORS["orange"]}


def curves_figure(metrics: list[dict[str, Any]], quantity: str, label: str) -> Figure:
    """One quantity against the epoch, training and validation; rules where the rate changes.

    Args:
      metrics: from `read_metrics`.
      quantity: "loss" (drawn on a logarithmic scale), "top1_error" or "top5_error" (in percent).
      label: of the vertical axis.
    """
    factor = 100 if quantity.endswith("error") else 1
    with style():
        figure = new_figure(5, 3)
        axes = figure.subplots()
        for split, color in _LINES.items():
            rows = [row for row in metrics if row["split"] == split]
            marker = "o" if split != "train" and len(rows) < 40 else None
            axes.plot(
                [row["epoch"] for row in rows],
                [factor * row[quantity] for row in rows],
                color=color,
                marker=marker,
                ms=3,
                label=split,
            )
        training = [row for row in metrics if row["split"] == "train"]
        for before, after in itertools.pairwise(training):
            if after["learning_rate"] != before["learning_rate"]:
                axes.axvline(before["epoch"], color=COLORS["muted"], linewidth=0.8, linestyle=":")
                axes.annotate(
                    f"ε {after['learning_rate']:.2g}",
                    (before["epoch"], 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(3, -2),
                    textcoords="offset points",
                    va="top",
                    fontsize=7.5,
                    color=COLORS["muted"],
                )
        axes.set(xlabel="epoch", ylabel=label, xlim=(0, None))
        if quantity == "loss":
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else "")
        else:
            axes.set_ylim(0, None)
        axes.legend()
    return figure
