"""Errors over whole splits, of one network or of several averaged (sections 4.1, 6).

Every image counts once, whatever the mesh and the batch size, and a split of any size streams
through: what stays in memory are sums.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from scipy.special import logsumexp

from alexnet_jax import parallel
from alexnet_jax.augment import VIEWS
from alexnet_jax.data.batches import eval_batches
from alexnet_jax.data.sets import Dataset
from alexnet_jax.eval_step import EvalStep, PredictStep, make_predict_step
from alexnet_jax.runs.workdir import Run
from alexnet_jax.scores import METRICS, image_scores
from alexnet_jax.state import TrainState


class Measured(NamedTuple):
    """What `evaluate` found.

    Fields:
      means: "loss" (nats), "top1_error" and "top5_error" (shares).
      images_per_second: after the first batch, which may be compiled for; of one batch, with that.
    """

    means: dict[str, float]
    images_per_second: float


def evaluate(
    eval_step: EvalStep,
    state: TrainState,
    dataset: Dataset,
    batch_size: int,
    mesh: Mesh | None = None,
    stopped: Callable[[int], bool] = lambda turn: False,
) -> Measured | None:
    """Mean loss and errors over every image of a split, once each.

    Args:
      eval_step: from `make_eval_step`.
      state: on `mesh`.
      dataset: the split.
      batch_size: images a step, rounded up to what divides over the mesh.
      mesh: as given to `make_eval_step`.
      stopped: asked after each batch, with its number, whether to give up.

    Returns:
      The means over the split; None where it gave up.
    """
    sums: list[Any] = []
    started, seen = time.perf_counter(), 0
    for turn, batch in enumerate(_batches(dataset, batch_size, mesh)):
        sums.append(eval_step(state, batch))
        if not turn and len(batch["label"]) < len(dataset):  # the first may be compiled for
            jax.block_until_ready(sums)
            started, seen = time.perf_counter(), len(batch["label"])
        if stopped(turn):
            return None
    sums = jax.device_get(sums)
    count = sum(float(part["count"]) for part in sums)
    means = {name: sum(float(part[name]) for part in sums) / count for name in METRICS}
    return Measured(means, (len(dataset) - seen) / (time.perf_counter() - started))


class Predictions(NamedTuple):
    """What several networks say of some images of a split.

    Fields:
      log_probs: float32 [M, B, K], one network after the other.
      labels: int32 [B]; -1 where the split has none.
    """

    log_probs: np.ndarray
    labels: np.ndarray


def predictions(
    runs: Sequence[Run],
    datasets: Sequence[Dataset],
    *,
    views: str,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Iterator[Predictions]:
    """The networks' probabilities of every image of a split, once each, in stored order.

    Args:
      runs: the networks, on `mesh`.
      datasets: the split as each of them reads it, at its own stored size.
      views: "center" crop, or "ten" views whose probabilities are averaged.
      batch_size: views a step, so a tenth as many images of ten views.
      mesh: where to compute.
    """
    step_of = _predict_steps(runs, views, mesh)
    states = [run.state.replace(opt_state=()) for run in runs]
    batch_size //= VIEWS[views].count
    by_size = {dataset.image_size: dataset for dataset in datasets}
    streams = [_batches(dataset, batch_size, mesh) for dataset in by_size.values()]
    waiting = None
    for batches in zip(*streams, strict=True):
        batch_of = dict(zip(by_size, batches, strict=True))
        log_probs = [
            step(state, batch_of[dataset.image_size])
            for step, state, dataset in zip(step_of, states, datasets, strict=True)
        ]
        if waiting is not None:  # fetched while the devices compute the next
            yield _fetch(*waiting)
        waiting = log_probs, batches[0]
    if waiting is not None:
        yield _fetch(*waiting)


def average(log_probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log of the weighted mean of the probabilities: float64 [B, K] of [M, B, K] and [M].

    Exact where all networks say the same: no order changes and no tie appears.

    Source: AlexNet §6; the authors average what the softmax gives.
    """
    used = np.flatnonzero(weights)
    share = (weights[used] / weights.sum())[:, None, None]
    return np.asarray(logsumexp(log_probs[used].astype(np.float64), axis=0, b=share))


MOST_CONFUSED = 4000  # classes: what is taken for what of more is a matrix of over 128 MB


class Tally:
    """Loss and errors of each class, and what was taken for what, summed over batches.

    `confusion` is int64 [K, K]; None of more than `MOST_CONFUSED` classes.
    """

    def __init__(self, num_classes: int):
        self.sums = {name: np.zeros(num_classes) for name in (*METRICS, "count")}
        few = num_classes <= MOST_CONFUSED
        self.confusion = np.zeros((num_classes, num_classes), np.int64) if few else None

    def add(self, log_probs: np.ndarray, labels: np.ndarray) -> None:
        """Counts images with log-probabilities [B, K] and labels int [B]."""
        scores = image_scores(log_probs, labels) | {"count": np.ones(len(labels))}
        for name, sums in self.sums.items():
            np.add.at(sums, labels, scores[name])
        if self.confusion is not None:
            np.add.at(self.confusion, (labels, log_probs.argmax(-1)), 1)

    @property
    def images(self) -> int:
        """How many were counted."""
        return int(self.sums["count"].sum())

    @property
    def means(self) -> dict[str, float]:
        """ "loss" (nats), "top1_error" and "top5_error" (shares) over all images."""
        return {name: float(self.sums[name].sum() / self.images) for name in METRICS}

    def by_class(self, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Class name -> its "images", "top1_error" and "top5_error"; without absent classes."""
        return {
            name: {
                "images": int(self.sums["count"][k]),
                **{e: self.sums[e][k] / self.sums["count"][k] for e in METRICS if e != "loss"},
            }
            for k, name in enumerate(class_names)
            if self.sums["count"][k]
        }


class SplitResult(NamedTuple):
    """What `tally` counted.

    Fields:
      tallies: one for each mixture.
      top5: int32 [N, 5], the last mixture's five most probable classes of every image, the most
        probable first.
    """

    tallies: list[Tally]
    top5: np.ndarray


def tally(
    blocks: Iterable[Predictions], mixtures: Sequence[np.ndarray], num_classes: int
) -> SplitResult:
    """Scores mixtures of networks over a split; images without a label (-1) are not scored.

    Args:
      blocks: from `predictions`.
      mixtures: weights [M] of the networks, one vector for each row of the table.
      num_classes: K.
    """
    tallies = [Tally(num_classes) for _ in mixtures]
    top5 = []
    for log_probs, labels in blocks:
        known = labels >= 0
        for counts, weights in zip(tallies, mixtures, strict=True):
            mixed = average(log_probs, weights)
            counts.add(mixed[known], labels[known])
        top5.append(np.argsort(-mixed, axis=-1, kind="stable")[:, :5].astype(np.int32))
    return SplitResult(tallies, np.concatenate(top5))


def search_weights(
    log_probs: np.ndarray, labels: np.ndarray, *, step: float = 0.05, passes: int = 5
) -> np.ndarray:
    """Weights [M] of the networks that minimise the top-5 error, found one network at a time.

    All start at 1/2. In turn each network's weight becomes the first of 0, `step`, …, 1 that
    lowers the error most; after a turn without a gain, or `passes` turns, it ends.

    Args:
      log_probs: float32 [M, N, K], in memory or mapped from a file.
      labels: int [N].

    Source: the authors' 2012 code, `avg-valid.py`.
    """
    grid = np.arange(round(1 / step) + 1) * step
    weights = np.full(len(log_probs), 0.5)
    best = _top5_errors(log_probs, labels, weights, 0, weights[:1])[0]
    for _ in range(passes):
        before = best
        for network in range(len(weights)):
            # With a weight of 0 for all, none would have a say, and ties score as half right.
            usable = grid if np.delete(weights, network).any() else grid[1:]
            errors = _top5_errors(log_probs, labels, weights, network, usable)
            if errors.min() < best:
                best, weights[network] = errors.min(), usable[errors.argmin()]
        if best == before:
            break
    return weights / weights.sum()


def _top5_errors(
    log_probs: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    network: int,
    candidates: np.ndarray,
    block: int = 1000,
) -> np.ndarray:
    """The top-5 error for each candidate weight [C] of one network, the others' being fixed."""
    errors = np.zeros(len(candidates))
    others = np.where(np.arange(len(weights)) == network, 0, weights)
    for start in range(0, len(labels), block):
        part = slice(start, start + block)
        probabilities = np.exp(log_probs[:, part].astype(np.float64))
        rest = np.tensordot(others, probabilities, 1)
        for i, weight in enumerate(candidates):
            mixed = rest + weight * probabilities[network]
            errors[i] += image_scores(mixed, labels[part])["top5_error"].sum()
    return errors / len(labels)


def _batches(dataset: Dataset, batch_size: int, mesh: Mesh | None) -> Iterable[Mapping[str, Any]]:
    """The split's batches on the mesh, their size rounded up to what divides over it."""
    shards = 1 if mesh is None else mesh.shape["data"]
    batch_size = -(-max(1, min(batch_size, len(dataset))) // shards) * shards
    return eval_batches(
        dataset,
        batch_size=batch_size,
        rows=parallel.local_rows(mesh, batch_size),
        place=partial(parallel.place_batch, mesh=mesh),
    )


def _predict_steps(runs: Sequence[Run], views: str, mesh: Mesh | None) -> list[PredictStep]:
    """A step for each run; equal networks share one, so that it is compiled once."""
    steps: dict[Any, PredictStep] = {}
    for run in runs:
        if _program(run) not in steps:
            steps[_program(run)] = make_predict_step(
                run.model, run.augmentation, views=views, mesh=mesh
            )
    return [steps[_program(run)] for run in runs]


def _program(run: Run) -> tuple[Any, ...]:
    """What two runs share if their compiled predictions are the same."""
    settings = dataclasses.asdict(run.augmentation).values()
    constants = [x.tobytes() if isinstance(x, np.ndarray) else x for x in settings]
    return (run.model, *constants)


def _fetch(log_probs: Sequence[jax.Array], batch: Mapping[str, jax.Array]) -> Predictions:
    """The real images of a batch, from all processes."""
    gather = partial(multihost_utils.process_allgather, tiled=True)
    kept = gather(batch["mask"]) > 0
    stacked = np.stack([gather(part)[kept] for part in log_probs])
    return Predictions(stacked, gather(batch["label"])[kept])
