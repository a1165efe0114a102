"""Predictions against the evaluation step, and figure 4 (left) as it is drawn."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from alexnet_jax.data.batches import eval_batches, padded_batches
from alexnet_jax.data.images import ImageError
from alexnet_jax.eval_step import make_eval_step
from alexnet_jax.inspect.drawing import COLORS
from alexnet_jax.inspect.predictions import (
    moved,
    predict_files,
    prediction_figure,
    shift_errors,
)
from alexnet_jax.runs import workdir


@pytest.fixture(scope="module")
def everything(digits):
    return digits.source.read(np.arange(60))


@pytest.fixture(scope="module")
def evaluate(run, digits):
    """Images [60, 72, 72, 3] of `digits` to the evaluation step's sums."""
    step = make_eval_step(run.model, run.augmentation)
    (batch,) = eval_batches(digits, batch_size=64)

    def sums(images):
        padding = np.repeat(images[-1:], 4, axis=0)
        return step(run.state, {**batch, "image": np.concatenate([images, padding])})

    return sums


def test_probabilities_give_the_evaluation_steps_loss(run, digits, everything, evaluate):
    probabilities = run.predict(everything["image"], views="center")
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    own = probabilities[np.arange(60), everything["label"]]
    assert -np.log(own).sum() == pytest.approx(float(evaluate(everything["image"])["loss"]), 1e-4)
    few = run.predict(everything["image"], views="center", batch_size=7)
    np.testing.assert_allclose(few, probabilities, atol=1e-6)


def test_padded_batches_hold_every_image_once_in_few_sizes():
    images = np.arange(13, dtype=np.uint8)[:, None]
    for count, sizes in ((13, [4, 4, 4, 4]), (3, [4]), (4, [4]), (1, [1])):
        batches = list(padded_batches(images[:count], 4))
        assert [len(batch["image"]) for batch in batches] == sizes
        kept = np.concatenate([batch["image"][batch["mask"]] for batch in batches])
        np.testing.assert_array_equal(kept, images[:count])


def test_files_get_names_in_order_and_a_bad_one_stops_nobody(run, everything, tmp_path):
    files = [tmp_path / f"{n}.png" for n in range(3)]
    for file, image in zip(files, everything["image"], strict=False):
        Image.fromarray(image).save(file)
    files[1].write_bytes(b"")
    first, bad, last = predict_files(run, files, views="center", top=3)
    assert isinstance(bad, ImageError)
    probabilities = run.predict(everything["image"][[0, 2]], views="center")
    for result, file, row in zip((first, last), (files[0], files[2]), probabilities, strict=True):
        assert result.file == file
        names, values = zip(*result.classes, strict=True)
        assert names == tuple(str(c) for c in np.argsort(-row)[:3])
        np.testing.assert_allclose(values, np.sort(row)[::-1][:3], atol=1e-6)


def test_moving_the_window_moves_the_crop_and_repeats_the_edge():
    image = np.arange(36).reshape(1, 6, 6, 1)
    np.testing.assert_array_equal(moved(image, 1, -2)[0, 1:4, 2:5], image[0, 2:5, 0:3])
    last = np.tile(image[0, 5, :, 0], (6, 1))
    np.testing.assert_array_equal(moved(image, 9, 0)[0, :, :, 0], last)


def test_shift_errors_are_the_means_over_four_directions(run, digits, everything, evaluate):
    images = everything["image"]
    padded = np.pad(images, ((0, 0), (8, 8), (8, 8), (0, 0)), mode="edge")
    aside = [padded[:, y : y + 72, x : x + 72] for y, x in ((0, 8), (16, 8), (8, 0), (8, 16))]
    rows = shift_errors(run, digits, [0, 8])
    assert [row["shift"] for row in rows] == [0, 8]
    for name in ("top1_error", "top5_error"):
        expected = [np.mean([evaluate(x)[name] for x in group]) for group in ([images], aside)]
        np.testing.assert_allclose([row[name] * 60 for row in rows], expected, atol=1e-4)


def test_figure_4_orders_names_and_marks_the_bars():
    names = ["ant", "bee", "cat", "dog", "eel", "fox"]
    probabilities = np.array([[0.1, 0.05, 0.6, 0.2, 0.03, 0.02], [0, 0, 0, 0, 0, 1.0]])
    images = np.zeros((2, 8, 8, 3), np.uint8)
    figure = prediction_figure(images, probabilities, [3, 0], names, columns=2)
    (picture, _), (bars, second) = np.array(figure.axes).reshape(2, 2)
    assert picture.get_title() == "dog"
    assert [text.get_text() for text in bars.texts[::2]] == ["cat", "dog", "ant", "bee", "eel"]
    widths = [bar.get_width() for bar in bars.patches]
    np.testing.assert_allclose(widths, [0.6, 0.2, 0.1, 0.05, 0.03])
    marked = [to_hex(bar.get_facecolor()) == COLORS["true"] for bar in bars.patches]
    assert marked == [False, True, False, False, False]
    assert bars.get_xlim() == (0, 1)
    assert bars.get_ylim()[0] > bars.get_ylim()[1]  # the first bar is on top
    assert [to_hex(bar.get_facecolor()) for bar in second.patches].count(COLORS["true"]) == 1


def test_the_network_is_compiled_once_for_many_calls(run, everything):
    run.predict(everything["image"][:4], views="center")
    step = workdir._predict_step(run.model, run.augmentation, "center", None)
    before = step._cache_size()
    run.predict(everything["image"][:3], views="center")
    assert step._cache_size() == before
