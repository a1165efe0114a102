"""What the loop measures between two lines of the log: sums of the metrics, health, speed."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from alexnet_jax import vitals
from alexnet_jax.scores import METRICS


class NotFinite(FloatingPointError):
    """A loss that is not a number.

    Fields:
      loss: the value.
      step: the update it belongs to, 1 is the first.
    """

    def __init__(self, loss: float, step: int):
        super().__init__(f"the loss is {loss} at step {step}")
        self.loss, self.step = loss, step


def no_sums() -> dict[str, float]:
    """The sums of the training metrics before the first update after a line of the log."""
    return dict.fromkeys((*METRICS, "steps"), 0.0)


class Meter:
    """Adds up the metrics of updates. They are read one call late, while the next update runs."""

    def __init__(self, watch_every: int = 0) -> None:
        """`watch_every` is that of the steps."""
        self.latest = ""  # the last metrics read, in words
        self._watch_every = watch_every
        self._watched: list[tuple[int, vitals.Vitals]] = []
        self._pending: tuple[int, Mapping[str, Any]] | None = None
        self.restart()

    def add(self, step: int, metrics: Mapping[str, Any], images: int) -> None:
        """Takes note of updates just dispatched.

        Args:
          step: number of updates done with these.
          metrics: scalars of one update, or [T] of the last T.
          images: how many they saw; 0 where their time was `paused`.
        """
        self._pending = (step, metrics)
        self._images += images

    def summed(self, sums: Mapping[str, float]) -> dict[str, float]:
        """`sums` with the metrics of the updates last dispatched added.

        Raises:
          NotFinite: a loss is not a number.
        """
        if self._pending is None:
            return dict(sums)
        last, values = self._pending
        self._pending = None
        few = jax.device_get({name: values[name] for name in METRICS})
        metrics = {name: np.atleast_1d(value) for name, value in few.items()}
        for step, loss in enumerate(metrics["loss"], start=last + 1 - len(metrics["loss"])):
            if not math.isfinite(loss):
                raise NotFinite(loss, step)
        total = dict(sums)
        for name in METRICS:
            for value in metrics[name]:
                total[name] += float(value)
        total["steps"] += len(metrics["loss"])
        self._look(range(last + 1 - len(metrics["loss"]), last + 1), values)
        loss, *errors = (metrics[name][-1] for name in METRICS)
        self.latest = f"loss {loss:.3f}, errors {errors[0]:.1%} / {errors[1]:.1%}"
        return total

    def _look(self, steps: range, values: Mapping[str, Any]) -> None:
        """Fetches the vital signs of the updates that were watched."""
        every = self._watch_every
        due = [at for at, step in enumerate(steps) if every and vitals.due(step, every)]
        found = jax.tree.map(np.atleast_1d, jax.device_get(values["vitals"])) if due else {}
        for at in due:
            one = jax.tree.map(lambda leaf, at=at: float(leaf[at]), found)
            self._watched.append((steps[at], one))

    def watched(self) -> list[tuple[int, vitals.Vitals]]:
        """Step and vital signs of the watched updates that were read since the last call."""
        found, self._watched = self._watched, []
        return found

    def restart(self) -> None:
        """Counts images and seconds from now on."""
        self._images, self._waited, self._since = 0, 0.0, time.perf_counter()

    def rate(self) -> float:
        """Images per second of training since `restart`, without what was `paused`."""
        return self._images / self.seconds()

    def seconds(self) -> float:
        """Of training since `restart`."""
        return time.perf_counter() - self._since

    def waited(self) -> float:
        """Share of the time since `restart` that went by waiting for images."""
        return self._waited / self.seconds()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time as waiting for images."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time of what is not training."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """The metrics per update."""
    return {name: sums[name] / sums["steps"] for name in METRICS}


def describe(metrics: Mapping[str, float]) -> str:
    """Loss and errors in words."""
    return (
        f"loss {metrics['loss']:.4f}, top-1 error {metrics['top1_error']:.2%}, "
        f"top-5 error {metrics['top5_error']:.2%}"
    )
