"""Ctrl-C and SIGTERM as requests that the loops poll, agreed on by all hosts."""

import signal
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


class StopSignal:
    """Turns the first Ctrl-C or SIGTERM into a request; a second one acts as usual."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_):
        self._restore()

    def agreed(self, turn: int) -> bool:
        """Whether any process was asked to stop; all of them call this at the same turns."""
        if jax.process_count() == 1:
            return self.number is not None
        if turn % 10:  # asking the others costs a collective
            return False
        return bool(multihost_utils.process_allgather(np.array(self.number is not None)).any())

    def _request(self, number, _frame):
        self.number = number
        self._restore()

    def _restore(self):
        while self._previous:
            signal.signal(*self._previous.popitem())
