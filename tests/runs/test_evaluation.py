"""Scores, averages and the search of weights, against plain NumPy."""

import itertools
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.data.sets import open_dataset
from alexnet_jax.runs import evaluation
from alexnet_jax.runs.evaluation import (
    MOST_CONFUSED,
    Predictions,
    Tally,
    average,
    evaluate,
    search_weights,
    tally,
)
from alexnet_jax.scores import image_scores


def random_log_probs(*shape, seed=0):
    logits = np.random.default_rng(seed).normal(size=shape) * 3
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_ties_share_the_places_that_are_left(array):
    log_probs = array(
        np.array(
            [[0.0] * 10, [3, 2, 2, 2, 1, 1, 1, 0, 0, 0], [5, 4, 3, 2, 1, 0, 0, 0, 0, 0]], float
        )
    )
    scores = image_scores(log_probs, array(np.array([4, 5, 1])))
    np.testing.assert_allclose(scores["top1_error"], [1 - 1 / 10, 1, 1], atol=1e-6)
    np.testing.assert_allclose(scores["top5_error"], [1 - 5 / 10, 1 - 1 / 3, 0], atol=1e-6)


@pytest.mark.parametrize(("dtype", "classes"), [("uint8", 256), ("int8", 200), ("int16", 10)])
def test_labels_of_few_bits_are_classes_too(dtype, classes):
    log_probs, labels = random_log_probs(4, classes), np.array([0, 1, 9, 100 % classes], dtype)
    expected = image_scores(log_probs, labels.astype(np.int32))
    for array in (np.asarray, jnp.asarray):
        found = image_scores(array(log_probs), array(labels))
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-6)


@pytest.mark.parametrize(("images", "rate"), [(8, 20), (2, 2 / 0.3)])
def test_speed_is_that_after_the_first_batch(images, rate, monkeypatch):
    """The first batch takes 0.3 s, as if it was compiled for; the others 0.1 s, two images each."""
    clock = [0.0]
    monkeypatch.setattr(evaluation, "time", SimpleNamespace(perf_counter=lambda: sum(clock)))

    def eval_step(state, batch):
        clock.append(0.1 if len(clock) > 1 else 0.3)
        return {"count": 2.0, "loss": 1.0, "top1_error": 1.0, "top5_error": 0.0}

    digits = open_dataset("digits", f"test[:{images}]", stored_size=8)
    measured = evaluate(eval_step, None, digits, 2)
    assert measured.means["top1_error"] == 0.5
    assert measured.images_per_second == pytest.approx(rate)


def test_an_average_of_identical_networks_is_the_network():
    one = random_log_probs(1, 200, 10)
    labels = np.random.default_rng(1).integers(0, 10, 200)
    five = average(np.repeat(one, 5, axis=0), np.full(5, 0.2))
    np.testing.assert_allclose(five, one[0].astype(float), rtol=0, atol=1e-14)
    for error in ("top1_error", "top5_error"):
        np.testing.assert_array_equal(
            image_scores(five, labels)[error], image_scores(one[0], labels)[error]
        )


def test_an_average_is_the_weighted_mean_of_probabilities_and_keeps_tiny_ones():
    log_probs, weights = random_log_probs(3, 7, 4), np.array([0.5, 0.0, 1.5])
    expected = np.average(np.exp(log_probs.astype(float)), axis=0, weights=weights)
    np.testing.assert_allclose(np.exp(average(log_probs, weights)), expected, rtol=1e-12)
    tiny = np.array([[[0.0, -900.0, -901.0]]] * 2, np.float32)
    np.testing.assert_allclose(average(tiny, np.ones(2)), tiny[0])


def test_counts_by_class_add_up_to_the_whole_and_leave_out_what_has_no_label():
    log_probs = random_log_probs(2, 90, 5)
    labels = np.random.default_rng(2).integers(-1, 5, 90)
    blocks = [Predictions(log_probs[:, p], labels[p]) for p in np.array_split(np.arange(90), 4)]
    mixtures = [np.eye(2)[0], np.eye(2)[1], np.full(2, 0.5)]
    result = tally(blocks, mixtures, num_classes=5)
    mean = np.exp(log_probs).mean(0)
    best, known = mean.argmax(-1), labels >= 0
    counts = result.tallies[-1]
    assert counts.images == known.sum()
    assert counts.means["top1_error"] == pytest.approx((best != labels)[known].mean())
    assert counts.means["top5_error"] == 0
    own = mean[known, labels[known]]
    assert counts.means["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)
    for k, (name, row) in enumerate(counts.by_class("abcde").items()):
        assert name == "abcde"[k]
        assert row["images"] == (labels == k).sum()
        assert row["top1_error"] == pytest.approx((best != k)[labels == k].mean())
    for i, j in itertools.product(range(5), repeat=2):
        assert counts.confusion[i, j] == ((labels == i) & (best == j)).sum()
    np.testing.assert_array_equal(result.top5[:, 0], best)
    np.testing.assert_array_equal(np.sort(result.top5), np.tile(np.arange(5), (90, 1)))


def test_a_class_without_images_is_left_out():
    counts = Tally(3)
    counts.add(random_log_probs(4, 3), np.array([0, 0, 2, 2]))
    assert list(counts.by_class("abc")) == ["a", "c"]


def test_the_search_finds_the_best_weights_of_two_networks():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 20, 400)
    logits = rng.normal(size=(2, 400, 20))
    logits[0, np.arange(400), labels] += 1.5
    logits[1, np.arange(400), labels] += 0.5
    log_probs = (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)

    def top5(weights):
        mixed = np.tensordot(weights, np.exp(log_probs.astype(float)), 1)
        return image_scores(mixed, labels)["top5_error"].mean()

    found = search_weights(log_probs, labels)
    assert found.sum() == pytest.approx(1)
    assert top5(found) <= min(top5([1, 0]), top5([0, 1]), top5([0.5, 0.5]))
    # Coordinate by coordinate from (1/2, 1/2), as the authors do, written out.
    weights, grid = [0.5, 0.5], np.arange(21) * 0.05
    for _, network in itertools.product(range(5), range(2)):
        errors = [top5([*weights[:network], w, *weights[network + 1 :]]) for w in grid]
        if min(errors) < top5(weights):
            weights[network] = grid[int(np.argmin(errors))]
    np.testing.assert_allclose(found, np.array(weights) / sum(weights))


@pytest.mark.parametrize("networks", [1, 2])
def test_networks_that_are_worse_than_ties_have_weights_all_the_same(networks):
    """Of ten classes five are among the best five of a tie; these have the right one never."""
    labels = np.arange(40) % 10
    log_probs = np.full((networks, 40, 10), np.log(0.1), np.float32)
    log_probs[:, np.arange(40), labels] = np.log(0.01)
    weights = search_weights(log_probs, labels)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()


def test_of_very_many_classes_no_matrix_is_kept():
    classes = 2 * MOST_CONFUSED
    counts = Tally(classes)
    log_probs = np.zeros((1, classes), np.float32)
    log_probs[0, classes - 1] = 1
    counts.add(log_probs, np.array([classes - 1]))
    assert counts.confusion is None
    assert counts.images == 1 and counts.means["top1_error"] == 0
    assert Tally(10).confusion.shape == (10, 10)
