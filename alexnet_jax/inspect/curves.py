"""Training curves from a run's `metrics.jsonl`: loss, errors, learning rate, vital signs."""

import itertools
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.inspect.drawing import COLORS, new_figure, style
from alexnet_jax.runs.metrics_log import VITALS

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


# Sign -> title, and whether its axis is logarithmic.
_SIGNS = {
    "deviation": ("deviation of the products", True),
    "dead": ("dead units (%)", False),
    "suppression": ("suppressed by neighbours (%)", False),
    "gradient": ("length of the gradient", True),
    "update": ("update / weights", True),
}


def vitals_figure(metrics: list[dict[str, Any]]) -> Figure:
    """Small multiples: each vital sign of each layer against the epoch, from the image upwards.

    Args:
      metrics: from `read_metrics`, with lines of vital signs.
    """
    rows = [row for row in metrics if row["split"] == VITALS]
    epochs = [row["epoch"] for row in rows]
    layers = list(rows[0]["layers"])
    colors = matplotlib.colormaps["turbo"](np.linspace(0.08, 0.92, len(layers)))
    marker = "o" if len(rows) < 20 else None
    with style():
        figure = new_figure(10, 4.6)
        panels = figure.subplots(2, 3, sharex=True).ravel()
        for axes, (sign, (title, logarithmic)) in zip(panels, _SIGNS.items(), strict=False):
            factor = 1 if logarithmic else 100
            for layer, color in zip(layers, colors, strict=True):
                if sign in rows[0]["layers"][layer]:
                    values = np.array([row["layers"][layer][sign] for row in rows], float)
                    axes.plot(epochs, factor * values, color=color, lw=1.2, marker=marker, ms=2.5)
            axes.set_title(title)
            if logarithmic:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
            else:
                axes.set_ylim(0, max(5, axes.get_ylim()[1]))
        panels[-1].set_axis_off()
        lines = [matplotlib.lines.Line2D([], [], color=color) for color in colors]
        panels[-1].legend(lines, layers, loc="center", ncols=2, title="layer")
        for axes in panels[2:5]:
            axes.set_xlabel("epoch")
            axes.tick_params(labelbottom=True)
    return figure
