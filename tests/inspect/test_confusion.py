"""The confusion matrix counted by hand, and its picture."""

import numpy as np

from alexnet_jax.inspect.confusion import confusion_figure, confusion_matrix, worst_confusions


def test_rows_are_true_and_columns_predicted_labels():
    matrix = confusion_matrix(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 0, 2]), 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [2, 0, 1]])
    assert worst_confusions(matrix, 5) == [(2, 0, 2), (0, 1, 1)]
    assert worst_confusions(matrix, 1) == [(2, 0, 2)]


def test_picture_names_few_classes_and_leaves_out_many():
    (axes,) = confusion_figure(np.eye(3, dtype=int) * 7, ["ant", "bee", "cat"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee", "cat"]
    assert [text.get_text() for text in axes.texts] == ["7"] * 3
    np.testing.assert_array_equal(axes.images[0].get_array()[..., 3], np.eye(3))
    (axes,) = confusion_figure(np.eye(1000, dtype=int), ["x"] * 1000).axes
    assert not axes.texts
