"""A trace of some updates, and how long each layer took in them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from alexnet_jax.runs.layer_times import format_layer_times, layer_times

FIRST, CALLS = 4, 5  # the first calls compile
TABLE = "layers.txt"


class Profile:
    """Traces a few calls of the step: to be told of each before it is made.

    Without a folder it does nothing.
    """

    def __init__(
        self,
        folder: Path | None,
        say: Callable[[str], None],
        program: Callable[[], str],
        layers: Sequence[str],
    ):
        """What is traced, and where to.

        Args:
          folder: where the trace and the table of the layers are written.
          say: told where they are.
          program: gives the compiled step as text.
          layers: their names.
        """
        self.folder, self.say, self.program, self.layers = folder, say, program, layers
        self._calls = 0
        self._traces = False

    def before(self, call: int, state: Any) -> None:
        """Begins or ends the trace where call `call` (1 is the first) on `state` asks for it."""
        if self.folder is None or not FIRST <= call <= FIRST + CALLS:
            return
        jax.block_until_ready(state)  # whole calls alone are in the trace
        if call == FIRST:
            self.folder.mkdir(parents=True, exist_ok=True)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every Python call, and nothing else is seen
            jax.profiler.start_trace(
                self.folder, create_perfetto_trace=True, profiler_options=options
            )
            self._traces = True
        if call == FIRST + CALLS:
            self.close()
        else:
            self._calls += 1

    def close(self) -> None:
        """Ends the trace if one goes on, and says what it shows, or that there was none."""
        if self.folder is not None and not self._calls:
            self.say(
                f"No trace: it begins at call {FIRST} of the step, and there were fewer; another "
                "--workdir, or more --config.num_epochs, makes them"
            )
        if not self._traces:
            return
        self._traces = False
        jax.profiler.stop_trace()
        assert self.folder is not None
        times = layer_times(self.folder, self.program(), self.layers)
        if not any(any(row.values()) for row in times.values()):
            self.say(f"The trace in {self.folder} shows no operation of the step")
            return
        table = format_layer_times(times, self._calls)
        (self.folder / TABLE).write_text(table + "\n")
        self.say(
            f"{table}\n"
            f"Of one call of the step, all threads together, after a trace of {self._calls} calls, "
            f"from number {FIRST} on, in {self.folder}: TensorBoard's profile plugin shows it by "
            "layer, ui.perfetto.dev opens its perfetto_trace.json.gz"
        )
