"""A trace of some updates, whose operations carry the names of their layers."""

from collections.abc import Callable
from pathlib import Path

import jax

FIRST, CALLS = 4, 5  # the first calls compile


class Profile:
    """Traces a few calls of the step: to be told of each before it is made.

    Without a folder it does nothing.
    """

    def __init__(self, folder: Path | None, say: Callable[[str], None]):
        """`folder` is where the trace is written; `say` is told where it is."""
        self.folder, self.say = folder, say
        self._traces = self._traced = False

    def before(self, call: int) -> None:
        """Begins or ends the trace where call `call` (1 is the first) asks for it."""
        if self.folder is None:
            return
        if call == FIRST:
            self.folder.mkdir(parents=True, exist_ok=True)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every Python call, and nothing else is seen
            jax.profiler.start_trace(
                self.folder, create_perfetto_trace=True, profiler_options=options
            )
            self._traces = self._traced = True
        if call == FIRST + CALLS:
            self.close()

    def close(self) -> None:
        """Writes the trace if one goes on, and says so, or that there was nothing to trace."""
        if self.folder is not None and not self._traced:
            self.say(
                f"No trace: it begins at call {FIRST} of the step, and there were fewer; another "
                "--workdir, or more --config.num_epochs, makes them"
            )
        if not self._traces:
            return
        self._traces = False
        jax.profiler.stop_trace()
        self.say(
            f"A trace of some calls of the step, from number {FIRST} on, is in {self.folder}: "
            "TensorBoard's profile plugin shows it by layer, ui.perfetto.dev opens its "
            "perfetto_trace.json.gz"
        )
