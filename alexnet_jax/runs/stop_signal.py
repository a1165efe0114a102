"""Ctrl-C and SIGTERM as requests that the loops poll, agreed on by all hosts."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import jax
import numpy as np
from jax.experimental import multihost_utils


class StopSignal:
    """Turns the first Ctrl-C or SIGTERM into a request; a second one acts as usual.

    Python handles signals in its main thread alone: in any other, none is ever requested.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def agreed(self, turn: int) -> bool:
        """Whether any process was asked to stop; all of them call this at the same turns."""
        if jax.process_count() == 1:
            return self.number is not None
        if turn % 10:  # asking the others costs a collective
            return False
        return bool(multihost_utils.process_allgather(np.array(self.number is not None)).any())

    @property
    def exit_status(self) -> int:
        """What the process ends with: 128 and the signal's number."""
        return 128 + (self.number or signal.SIGTERM)

    def _request(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
