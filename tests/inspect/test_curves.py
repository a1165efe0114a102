"""Training curves of measurements written by hand."""

import pytest

from alexnet_jax.inspect.curves import curves_figure
from alexnet_jax.runs.metrics_log import read_metrics


def test_curves_show_both_splits_in_percent_and_where_the_rate_drops(run):
    (axes,) = curves_figure(read_metrics(run.workdir), "top1_error", "error").axes
    training, validation, rule = axes.lines
    assert training.get_label() == "train"
    assert list(training.get_ydata()) == pytest.approx([57.5, 27.5])
    assert list(validation.get_ydata()) == pytest.approx([55.0, 22.5])
    assert list(rule.get_xdata()) == [1.0, 1.0]
    assert [text.get_text() for text in axes.texts] == ["ε 0.001"]
