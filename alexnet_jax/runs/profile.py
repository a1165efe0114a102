"""A trace of some updates, whose operations carry the names of their layers."""

from pathlib import Path
from types import TracebackType
from typing import Self

import jax

FIRST, CALLS = 4, 5  # the first calls compile


class Profile:
    """Traces a few calls of the step: to be told of each before it is made.

    Without a folder it does nothing.
    """

    def __init__(self, folder: Path | None):
        """`folder` is where the trace is written."""
        self.folder = folder
        self._traces = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def before(self, call: int) -> str:
        """Begins or ends the trace where call `call` (1 is the first) asks for it.

        Returns:
          What to say of a trace that was written; "" otherwise.
        """
        if self.folder is None:
            return ""
        if call == FIRST:
            self.folder.mkdir(parents=True, exist_ok=True)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every Python call, and nothing else is seen
            jax.profiler.start_trace(
                self.folder, create_perfetto_trace=True, profiler_options=options
            )
            self._traces = True
        return self._stop() if call == FIRST + CALLS else ""

    def _stop(self) -> str:
        if not self._traces:
            return ""
        self._traces = False
        jax.profiler.stop_trace()
        return (
            f"A trace of calls {FIRST} to {FIRST + CALLS - 1} of the step is in {self.folder}: "
            "TensorBoard's profile plugin shows it by layer, ui.perfetto.dev opens its "
            "perfetto_trace.json.gz"
        )
