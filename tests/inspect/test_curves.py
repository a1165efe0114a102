"""Training curves of measurements written by hand."""

import numpy as np
import pytest

from alexnet_jax.inspect.curves import curves_figure, vitals_figure
from alexnet_jax.runs.metrics_log import read_metrics


def test_curves_show_both_splits_in_percent_and_where_the_rate_drops(run):
    (axes,) = curves_figure(read_metrics(run.workdir), "top1_error", "error").axes
    training, validation, rule = axes.lines
    assert training.get_label() == "train"
    assert list(training.get_ydata()) == pytest.approx([57.5, 27.5])
    assert list(validation.get_ydata()) == pytest.approx([55.0, 22.5])
    assert list(rule.get_xdata()) == [1.0, 1.0]
    assert [text.get_text() for text in axes.texts] == ["ε 0.001"]


def test_vital_signs_have_a_panel_each_and_a_line_for_each_layer_that_has_one():
    def line(step):
        conv = {"mean": 0.0, "deviation": 2.0 * step, "dead": 0.25, "gradient": 1.0, "update": 0.1}
        head = {name: value for name, value in conv.items() if name != "dead"}
        layers = {"conv1": conv | {"suppression": 0.5}, "fc8": head}
        return {"step": step, "epoch": step / 10, "split": "vitals", "layers": layers}

    burst = line(20)
    burst["layers"]["conv1"]["gradient"] = None  # as the log has what is no number
    assert np.isnan(vitals_figure([line(1), burst]).axes[3].lines[0].get_ydata()[1])
    figure = vitals_figure([line(1), line(10), {"step": 10, "epoch": 1.0, "split": "train"}])
    deviation, dead, suppression, *_, legend = figure.axes
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 1, 2, 2, 0]
    assert list(deviation.lines[0].get_xdata()) == [0.1, 1.0]
    assert list(deviation.lines[0].get_ydata()) == [2.0, 20.0]
    assert list(dead.lines[0].get_ydata()) == [25.0, 25.0]
    assert [axes.get_yscale() for axes in (deviation, dead, suppression)] == [
        "log",
        "linear",
        "linear",
    ]
    assert [text.get_text() for text in legend.get_legend().get_texts()] == ["conv1", "fc8"]
