"""What came out of a sweep's runs: a line a run, means and spreads over seeds, the picture."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from experiments import harness
from experiments.settings import Setting, name_of

COLUMNS = ("train_error", "validation_error", "test_error", "loss")


def row(setting: Setting, result: dict) -> dict[str, Any]:
    """A run in one line: the setting, the errors after the last epoch, the cost."""
    last = result["epochs"][-1]
    return {
        **setting,
        "seed": result["seed"],
        "epochs": len(result["epochs"]),
        "train_error": result["train"]["top1_error"],
        "validation_error": last["validation"]["top1_error"],
        "test_error": next((one["top1_error"] for one in result["test"].values()), None),
        "loss": last["train"]["loss"],
        "seconds": result["seconds"],
        "compiled": result["compiled"],
    }


def summary(settings: Sequence[Setting], rows: Sequence[dict]) -> list[dict[str, Any]]:
    """Values, mean, deviation and 95% interval over the seeds of each setting, as ordered."""
    groups: dict[str, dict[Any, dict]] = {}  # the setting but for its seed -> seed -> its run
    names: dict[str, str] = {}
    for setting, one in zip(settings, rows, strict=True):
        fields = {field: value for field, value in setting.items() if field != "seed"}
        group = json.dumps(fields, sort_keys=True, default=str)
        groups.setdefault(group, {})[one["seed"]] = one  # once, however often it was asked for
        names.setdefault(group, name_of(setting))
    words = list(names.values())
    return [
        {
            "name": names[group] if words.count(names[group]) == 1 else group,
            "seeds": list(ones),
            **{column: spread([one[column] for one in ones.values()]) for column in COLUMNS},
        }
        for group, ones in groups.items()
    ]


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, deviation and half the width of the mean's 95% interval (Student's t).

    All None where a value is (its run diverged, or was not tested), the last two with a single
    value.
    """
    found: dict[str, Any] = {"values": values, "mean": None, "deviation": None, "interval": None}
    if None in values or not values:
        return found
    found["mean"] = float(np.mean(values))
    if len(values) > 1:
        found["deviation"] = float(np.std(values, ddof=1))
        quantile = float(stats.t.ppf(0.975, len(values) - 1))
        found["interval"] = quantile * found["deviation"] / len(values) ** 0.5
    return harness.rounded(found)


def draw(groups: Sequence[dict], title: str) -> Figure:
    """Errors of each setting: a dot a seed, a bar for the mean."""
    figure = Figure(figsize=(6.4, 0.3 * len(groups) + 1.3), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    for column, color in (("train_error", "#999999"), ("validation_error", "#225588")):
        for place, group in enumerate(groups):
            dots = [100 * value for value in group[column]["values"] if value is not None]
            axes.plot(dots, [-place] * len(dots), "o", color=color, ms=3.5, alpha=0.6)
            if group[column]["mean"] is not None:
                axes.plot(100 * group[column]["mean"], -place, "|", color=color, ms=12, mew=2)
        axes.plot([], [], "o", color=color, ms=3.5, label=column.replace("_", " "))
    axes.set_yticks([-place for place in range(len(groups))], [group["name"] for group in groups])
    axes.set_xlabel("top-1 error (%), a dot a seed, a bar their mean")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def shown(entry: Mapping[str, float | None]) -> str:
    """Mean and deviation in per cent."""
    if entry["mean"] is None:
        return f"{'diverged':11}"
    deviation = "" if entry["deviation"] is None else f"± {100 * entry['deviation']:.2f}"
    return f"{100 * entry['mean']:5.2f} {deviation:6}"
