"""The confusion matrix counted by hand, and its picture."""

import warnings

import matplotlib
import numpy as np

from alexnet_jax.inspect import confusion
from alexnet_jax.inspect.confusion import (
    confusion_figure,
    confusion_matrix,
    draw_confusion,
    worst_confusions,
)
from alexnet_jax.inspect.drawing import fonts, svg
from alexnet_jax.runs.evaluation import Tally


def test_rows_are_true_and_columns_predicted_labels():
    matrix = confusion_matrix(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 0, 2]), 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [2, 0, 1]])
    assert worst_confusions(matrix, 5) == [(2, 0, 2), (0, 1, 1)]
    assert worst_confusions(matrix, 1) == [(2, 0, 2)]


def test_pictures_are_the_same_whatever_the_user_draws_with():
    figure = svg(confusion_figure(np.eye(2, dtype=int), ["ant", "bee"]), "a")
    with matplotlib.rc_context({"text.usetex": True, "xtick.major.size": 20}):
        assert svg(confusion_figure(np.eye(2, dtype=int), ["ant", "bee"]), "a") == figure


def test_picture_names_few_classes_and_leaves_out_many():
    (axes,) = confusion_figure(np.eye(3, dtype=int) * 7, ["ant", "bee", "cat"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee", "cat"]
    assert [text.get_text() for text in axes.texts] == ["7"] * 3
    np.testing.assert_array_equal(axes.images[0].get_array()[..., 3], np.eye(3))
    (axes,) = confusion_figure(np.eye(1000, dtype=int), ["x"] * 1000).axes
    assert not axes.texts


def test_class_names_without_a_font_are_told_once_and_in_our_words(tmp_path, capsys):
    confusion._tell.cache_clear()
    names = ["ant", "\U000f1234"]  # of no font but the last resort's, which has boxes alone
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(2):
            draw_confusion(Tally(2), names, "", tmp_path / f"{number}.png")
        assert names[1] in svg(confusion_figure(np.eye(2), names), "")
    out, error = capsys.readouterr()
    assert not out and error.count("\n") == 1
    assert error.startswith("warning: no font here has ") and "; install one" in error


def test_class_names_are_written_in_any_installed_font_that_has_them():
    assert fonts("ant") == (["DejaVu Sans"], "")
    found, lacking = fonts("ant \u210b \U0001d504")  # mathematicians' letters
    assert found[0] == "DejaVu Sans" and len(found) > 1 and not lacking
    (axes,) = confusion_figure(np.eye(2), ["ant", "\U0001d504"]).axes
    assert axes.get_xticklabels()[0].get_fontfamily() == fonts("ant\U0001d504")[0]
