"""What experiments share: how they are started, timing in turns, records.

`record` writes a result with all that is needed to make it again. With --quick every experiment
runs in seconds, on a part of its data, and writes to the system's temporary folder instead of
results/. What trains is in `experiments.fitting`.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import jax
import jax.monitoring
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from alexnet_jax import Hyperparameters, command
from alexnet_jax.files import json_object, text_of, whole_file
from alexnet_jax.machine import COMPILED
from experiments import provenance

RESULTS = Path(__file__).parent / "results"
_QUICK = flags.DEFINE_bool("quick", False, "run in seconds, to see that it runs")
# Fields of a net that is compiled and trained in seconds.
TINY = {"image_size": 64, "conv_features": (4, 8, 8, 8, 4), "fc_features": (16, 16)}
# Packages of some experiments alone -> the extra that brings them.
_EXTRAS = {"optuna": "sweep", "ray": "sweep", "torch": "bench", "tensorflow": "bench"}
_EXTRAS |= dict.fromkeys(("cv2", "skimage", "sklearn"), "baselines")


def run(
    main: Callable[..., Any], *, arguments: bool = False, in_turn: bool = True, **how: Any
) -> None:
    """Runs an experiment's command as the library's own commands are run.

    Args:
      main: takes the arguments that are no flags.
      arguments: whether there may be any.
      how: as `alexnet_jax.command.run`.
    """

    def prepared(argv: list[str]) -> None:
        if not arguments:
            command.flags_alone(argv)
        _check_once()
        if quick():
            jax.config.update("jax_disable_most_optimizations", True)  # compiles sooner
        try:
            main(argv)
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            raise ValueError(f"{error.name} is not installed; pip install '.[{extra}]'") from error

    command.run(prepared, in_turn=in_turn, **how)


def _check_once() -> None:
    """Raises ValueError for a value that a flag is given twice: it would be counted as two."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        values = (flag.value or []) if isinstance(flag, flags.MultiFlag) else []
        if twice := [one for number, one in enumerate(values) if one in values[:number]]:
            raise ValueError(f"--{name}={twice[0]} is given twice; leave one out")


def quick() -> bool:
    """Whether --quick was given."""
    return flags.FLAGS.is_parsed() and _QUICK.value


def defaults(*, cpu: Mapping[str, Any], gpu: Mapping[str, Any]) -> None:
    """Gives the flags that were not given the values that suit the device."""
    for name, value in (cpu if jax.default_backend() == "cpu" else gpu).items():
        flags.FLAGS.set_default(name, value)


def shorten(**values: Any) -> None:
    """With --quick, sets flags, given or not."""
    for name, value in values.items() if quick() else ():
        flags.FLAGS[name].value = value


def results_folder() -> Path:
    """Where results are written."""
    return Path(tempfile.gettempdir()) / "alexnet_jax_quick" if quick() else RESULTS


def result_file(name: str, mode: str = "w") -> AbstractContextManager[IO[Any]]:
    """A file beside the results, to be written whole or not at all."""
    return whole_file(results_folder() / name, mode)


def recorded(name: str) -> dict[str, Any]:
    """What `record` wrote under this name; {} where it is not there.

    Raises:
      ValueError: it is damaged; the message names it.
    """
    path = results_folder() / f"{name}.json"
    return json_object(text_of(path.read_bytes(), path), path) if path.exists() else {}


def record(
    name: str,
    result: Any,
    figure: Figure | None = None,
    folder: Path | None = None,
    *,
    origins: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Writes `name`.json, with the environment, and `name`.png; by default to results/.

    Args:
      name: of the files.
      result: JSON.
      figure: what is drawn.
      folder: another than results/.
      origins: what made runs that are in it, where that is not this environment; written once
        (`experiments.sweep.Sweep.origins`).
    """
    folder = folder or results_folder()
    folder.mkdir(parents=True, exist_ok=True)
    content = {"environment": provenance.environment()}
    once = [one for n, one in enumerate(origins) if one not in origins[:n]]
    content |= {"runs_made_with": once} if once else {}
    content["result"] = result
    with whole_file(folder / f"{name}.json") as file:
        file.write(json.dumps(content, indent=1) + "\n")
    if figure is not None:
        with whole_file(folder / f"{name}.png", "wb") as file:
            figure.savefig(file, format="png", dpi=140)


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], *, turns: int = 10, dropped: int = 1
) -> dict[str, list[float]]:
    """Seconds of every turn of each contender, in turns, the order reversed every other time.

    Args:
      contenders: name -> function that does the work and waits for it; what it returns, if
        it is a float, are its seconds by its own clock.
      turns: counted ones.
      dropped: first turns that are not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + dropped):
        names = list(contenders)
        for name in names if turn % 2 else reversed(names):
            started = time.perf_counter()
            own = contenders[name]()
            if turn >= dropped:
                passed = time.perf_counter() - started
                seconds[name].append(own if isinstance(own, float) else passed)
    return seconds


def turn_of(step: Any, state: Any, batch: Any) -> Callable[[], float]:
    """A turn for `interleaved`: a training step after one that is not counted; its seconds."""

    def turn() -> float:
        nonlocal state
        for _ in range(2):
            started = time.perf_counter()
            state, metrics = step(state, batch, Hyperparameters())
            jax.block_until_ready((state, metrics))
        return time.perf_counter() - started

    return turn


def epochs_to(values: list[float | None], target: float, start: float = 0.9) -> float | None:
    """Epochs until a value is down to the target, between two epochs by a straight line.

    Args:
      values: after each epoch; of top-1 errors of ten classes they begin at `start`.
      target: to reach.
      start: the value before the first epoch.
    """
    before = start
    for epoch, value in enumerate(values):
        if value is not None and value <= target:
            return round(epoch + (before - target) / (before - value), 2)
        before = start if value is None else value
    return None


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the programs that are compiled, or fetched from the cache, meanwhile."""
    names: list[str] = []

    def compiled(event: str, _: float, fun_name: str = "", **__: Any) -> None:
        if event == COMPILED:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(compiled)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(compiled)


def percent(share: float | None) -> float:
    """A share in per cent; of a run that diverged NaN, which no picture draws."""
    return float("nan") if share is None else 100 * share


def rounded(value: Any, digits: int = 5) -> Any:
    """JSON with every number to `digits` places; NaN and infinity as None."""
    if isinstance(value, dict):
        return {key: rounded(entry, digits) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry, digits) for entry in value]
    if isinstance(value, float):
        return round(value, digits) if np.isfinite(value) else None
    return value
