"""What experiments share: trainings on data that lies on the device, timing in turns, records.

`fit` trains what a configuration says, with the library's own step; one program serves all runs of
one architecture. `record` writes a result with all that is needed to make it again. With --quick
every experiment runs in seconds, on a part of its data, and writes to the system's temporary folder
instead of results/.
"""

import contextlib
import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from alexnet_jax import (
    Hyperparameters,
    command,
    create_train_state,
    make_eval_step,
    make_train_step,
    make_train_steps,
)
from alexnet_jax.compilation import compiled
from alexnet_jax.configs import digits
from alexnet_jax.data.batches import batch_indices
from alexnet_jax.data.cache import cached
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.files import whole_file
from alexnet_jax.inspect.filters import color_shares
from alexnet_jax.machine import cores
from alexnet_jax.runs import launch
from alexnet_jax.runs.recipe import Recipe
from alexnet_jax.step import METRICS, make_predict_step

RESULTS = Path(__file__).parent / "results"
_QUICK = flags.DEFINE_bool("quick", False, "run in seconds, to see that it runs")
# Fields of a net that is compiled and trained in seconds.
TINY = {"image_size": 64, "conv_features": (4, 8, 8, 8, 4), "fc_features": (16, 16)}
_STARTED = time.perf_counter()
# Packages of some experiments alone -> the extra that brings them.
_EXTRAS = {"optuna": "sweep", "ray": "sweep", "torch": "bench", "tensorflow": "bench"}
# Features of the processor that decide how fast products are.
_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")


def run(main: Callable[..., Any], *, arguments: bool = False, **how: Any) -> None:
    """Runs an experiment's command as the library's own commands are run.

    Args:
      main: takes the arguments that are no flags.
      arguments: whether there may be any.
      how: as `alexnet_jax.command.run`.
    """
    # On CPU a step dispatched while another runs holds its temporary arrays and runs no sooner.
    jax.config.update("jax_cpu_enable_async_dispatch", False)

    def prepared(argv: list[str]) -> None:
        if not arguments:
            command.flags_alone(argv)
        if quick():
            jax.config.update("jax_disable_most_optimizations", True)  # compiles sooner
        try:
            main(argv)
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            raise ValueError(f"{error.name} is not installed; pip install '.[{extra}]'") from error

    command.run(prepared, **how)


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


def environment() -> dict[str, Any]:
    """The machine, the versions, the commit, the command line and the experiment's flags."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "cores": cores(),
        "cpu": _cpu(),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
        "python": platform.python_version(),
        "commit": _commit(),
        "command": shlex.join(["python", *_short(sys.argv)]),
        "flags": _settings(),
        "seconds": round(time.perf_counter() - _STARTED, 1),
    }


def machine() -> str:
    """The device in one line: name, cores and what decides how fast it multiplies."""
    facts = environment()
    if jax.default_backend() != "cpu":
        return str(facts["device"])
    words = [facts["cpu"]["name"] or "a CPU", f"{facts['cores']} cores"]
    return ", ".join([*words, *facts["cpu"].get("flags", ())])


def results_folder() -> Path:
    """Where results are written."""
    return Path(tempfile.gettempdir()) / "alexnet_jax_quick" if quick() else RESULTS


def record(
    name: str, result: Any, figure: Figure | None = None, folder: Path | None = None
) -> None:
    """Writes `name`.json, with the environment, and `name`.png; by default to results/."""
    folder = folder or results_folder()
    folder.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "result": result}
    with whole_file(folder / f"{name}.json") as file:
        file.write(json.dumps(content, indent=1) + "\n")
    if figure is not None:
        figure.savefig(folder / f"{name}.png", dpi=140)


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


def epochs_to(errors: list[float | None], target: float) -> float | None:
    """Epochs until the error is down to the target, between two epochs by a straight line."""
    before = 0.9
    for epoch, error in enumerate(errors):
        if error is not None and error <= target:
            return round(epoch + (before - target) / (before - error), 2)
        before = 0.9 if error is None else error
    return None


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the programs that are compiled, or fetched from the cache, meanwhile."""
    names: list[str] = []

    def compiled(event: str, _: float, fun_name: str = "", **__: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(compiled)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(compiled)


# --- training -------------------------------------------------------------------------------------


class Programs:
    """The compiled programs of one network with one augmentation."""

    def __init__(self, recipe: Recipe):
        self.model, self.augmentation = recipe.model, recipe.augmentation
        # Inside a loop XLA:CPU does not take its fast convolutions, so there it is a step a call.
        self.whole_epochs = jax.default_backend() != "cpu"
        make = make_train_steps if self.whole_epochs else make_train_step
        self.create = compiled(partial(create_train_state, self.model), runs="once")
        self._train = make(self.model, self.augmentation)
        self._evaluate = _whole_split(make_eval_step(self.model, self.augmentation))
        self._predict: dict[str, Any] = {}

    def train(self, state: Any, data: Any, indices: np.ndarray, hparams: list[Any]) -> Any:
        """The state after the updates `indices` [T, B], and their metrics [T]."""
        if self.whole_epochs:
            stacked = jax.tree.map(lambda *values: np.stack(values), *hparams)
            return self._train(state, data, indices, stacked)
        every = []
        for chosen, given in zip(indices, hparams, strict=True):
            batch = {name: jnp.take(array, chosen, axis=0) for name, array in data.items()}
            state, metrics = self._train(state, batch, given)
            every.append(metrics)
        return state, jax.tree.map(lambda *values: jnp.stack(values), *every)

    def evaluate(self, state: Any, data: Any) -> dict[str, float]:
        """Means over a split, centre crop."""
        sums = jax.device_get(self._evaluate(state, data))
        return {name: float(sums[name] / sums["count"]) for name in METRICS}

    def log_probs(self, state: Any, data: Any, views: str) -> np.ndarray:
        """Float32 [N, K] of a split."""
        if views not in self._predict:
            self._predict[views] = make_predict_step(self.model, self.augmentation, views=views)
        size = len(data["label"])
        parts = [
            self._predict[views](state, {"image": data["image"][rows]})
            for rows in _blocks(size, 250)
        ]
        return np.concatenate([np.asarray(part) for part in parts])[:size]


def fit(
    config: ConfigDict,
    *,
    programs: Programs | None = None,
    views: tuple[str, ...] = ("center",),
    until: Callable[[dict[str, Any]], bool] = lambda line: False,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Trains one run on the device and tests its last state.

    Args:
      config: a recipe.
      programs: of the same network and augmentation; None compiles.
      views: how the test images are looked at.
      until: asked after each epoch, with its line, whether to stop.
      say: told one line at the end.

    Returns:
      JSON: "epochs" (loss and errors by epoch, training as augmented and validation), "train" (the
      training split without augmentation), "test" by views, "color_shares" of conv1 by epoch; and
      arrays: conv1's kernels and the test log-probabilities.
    """
    started = time.perf_counter()
    recipe = Recipe(config)
    programs = programs or Programs(recipe)
    train, validation = (_on_device(config, name) for name in ("train", "validation"))
    state = programs.create(recipe.key)
    order = batch_indices(len(train["label"]), batch_size=config.batch_size, seed=config.seed)
    steps, lines, shares = recipe.epoch_steps, [], []
    first = recipe.model.layers[0].name
    schedule = recipe.schedule.initial_state()
    for epoch in range(round(config.num_epochs)):
        numbers = range(epoch * steps, (epoch + 1) * steps)
        indices = np.stack([order[number] for number in numbers]).astype(np.int32)
        with jax.default_device(jax.local_devices(backend="cpu")[0]):  # many small arrays
            hparams = [recipe.hyperparameters(number, schedule) for number in numbers]
        state, metrics = programs.train(state, train, indices, hparams)
        validated = programs.evaluate(state, validation)
        means = {name: float(np.mean(jax.device_get(metrics[name]))) for name in METRICS}
        schedule = recipe.schedule.update(schedule, validated["top1_error"])
        shares.append(color_shares(np.asarray(state.params[first]["kernel"]), towers=2))
        lines.append({"epoch": epoch + 1, "train": means, "validation": validated})
        if until(lines[-1]) or not np.isfinite(means["loss"]):
            break
    test = _on_device(config, "test")
    predicted = {name: programs.log_probs(state, test, name) for name in views}
    result = {
        "seed": config.seed,
        "epochs": lines,
        "color_shares": shares,
        "train": programs.evaluate(state, train),
        "test": {name: _errors(found, test["label"]) for name, found in predicted.items()},
        "images": {"train": len(train["label"]), "test": len(test["label"])},
        "seconds": round(time.perf_counter() - started, 1),
    }
    say(
        f"seed {config.seed}: test {100 * result['test'][views[0]]['top1_error']:.2f}%, "
        f"{len(lines)} epochs, {result['seconds']} s"
    )
    arrays = {f"log_probs_{name}": found.astype(np.float16) for name, found in predicted.items()}
    arrays["conv1"] = np.asarray(state.params[first]["kernel"]).astype(np.float16)
    return rounded(result), arrays


def shortened(config: ConfigDict) -> ConfigDict:
    """A copy that trains in seconds: one epoch of few images, AlexNet narrow and on 64 pixels."""
    config = config.copy_and_resolve_references()
    config.num_epochs = 1.0
    config.train_split, config.validation_split = "train[:256]", "train[256:320]"
    config.test_split = config.test_split.partition("[")[0] + "[:100]"
    if "image_size" in config.model and config.stored_size > 32:
        config.stored_size = 72
        config.model.update(TINY)
    return config


def tiny_run(folder: Path) -> Path:
    """A run on digits that took seconds: for --quick of what looks into finished runs."""
    config = shortened(digits.get_config())
    config.final_views = ()
    launch.train(config, folder)
    return folder


def rounded(value: Any, digits: int = 5) -> Any:
    """JSON with every number to `digits` places; NaN and infinity as None."""
    if isinstance(value, dict):
        return {key: rounded(entry, digits) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry, digits) for entry in value]
    if isinstance(value, float):
        return round(value, digits) if np.isfinite(value) else None
    return value


def _on_device(config: ConfigDict, name: str) -> dict[str, jax.Array]:
    """A split of the recipe, decoded and on the device; kept for the next run."""
    return _split(config.dataset, config[f"{name}_split"], config.data_dir, config.stored_size)


@lru_cache(maxsize=6)
def _split(dataset: str, split: str, data_dir: str | None, stored_size: int) -> Any:
    stored = open_dataset(dataset, split, data_dir=data_dir, stored_size=stored_size)
    return cached(stored, "device").source.read_all()


def _blocks(size: int, length: int) -> list[np.ndarray]:
    """Rows 0 to size - 1 in blocks of one length, the last filled up with the last row."""
    starts = range(0, size, length)
    return [np.minimum(np.arange(start, start + length), size - 1) for start in starts]


def _whole_split(eval_step: Any, length: int = 250) -> Callable[[Any, Any], Any]:
    """The sums over a split; on a GPU in one call."""

    def batch_of(data: Any, rows: Any, mask: Any) -> dict[str, Any]:
        return {
            **{name: jnp.take(array, rows, axis=0) for name, array in data.items()},
            "mask": mask,
        }

    def masks(data: Any) -> tuple[np.ndarray, np.ndarray]:
        size = len(data["label"])
        rows = np.stack(_blocks(size, length))
        counted = (np.arange(rows.size) < size).reshape(rows.shape)
        return rows.astype(np.int32), counted.astype(np.float32)

    def looped(state: Any, data: Any) -> Any:
        sums = [
            eval_step(state, batch_of(data, *block)) for block in zip(*masks(data), strict=True)
        ]
        return jax.tree.map(lambda *values: sum(values), *sums)

    @jax.jit
    def scanned(state: Any, data: Any) -> Any:
        def one(_: None, block: Any) -> Any:
            return None, eval_step(state, batch_of(data, *block))

        _, sums = jax.lax.scan(one, None, masks(data))
        return jax.tree.map(lambda values: values.sum(0), sums)

    return looped if jax.default_backend() == "cpu" else scanned


def _errors(log_probs: np.ndarray, labels: Any) -> dict[str, float]:
    labels = np.asarray(labels)
    wrong = log_probs.argmax(-1) != labels
    rank = (log_probs > np.take_along_axis(log_probs, labels[:, None], -1)).sum(-1)
    return {
        "top1_error": float(wrong.mean()),
        "top5_error": float((rank >= 5).mean()),
        "wrong": int(wrong.sum()),
        "of": len(labels),
    }


# --- the machine ----------------------------------------------------------------------------------


def _cpu() -> dict[str, Any]:
    """Name and flags of the processor, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {"name": platform.processor()}
    facts = dict(map(str.strip, line.split(":", 1)) for line in reversed(lines) if ":" in line)
    flags = facts.get("flags", "").split()
    return {"name": facts.get("model name"), "flags": [flag for flag in _FLAGS if flag in flags]}


def _commit() -> str | None:
    """The commit checked out, "+" where files other than results differ; None outside git."""
    here = Path(__file__).parent
    files = [":(top)", ":(top,exclude)docs", ":(top,exclude)experiments/results"]

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True)
        return found.stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        differs = git("status", "-s", "-uno", "--", *files)
        return commit + ("+" if differs else "") if commit else None
    except OSError:
        return None


def _short(argv: list[str]) -> list[str]:
    """The command line: the module by its name, a script by its path from the repository."""
    argv = [argv[0], *map(_without_folders, argv[1:])]
    if spec := getattr(sys.modules["__main__"], "__spec__", None):
        return ["-m", spec.name, *argv[1:]]
    script = Path(argv[0]).resolve()
    root = Path(__file__).resolve().parent.parent
    return [
        str(script.relative_to(root)) if script.is_relative_to(root) else script.name,
        *argv[1:],
    ]


def _without_folders(argument: Any) -> Any:
    """A path from the root, or `--flag=` with one, by its last part: the rest is this machine's."""
    if not isinstance(argument, str):
        return argument
    name, is_flag, value = argument.rpartition("=")
    return name + is_flag + Path(value).name if Path(value).is_absolute() else argument


def _settings() -> dict[str, Any]:
    """The values of the flags that the experiment's modules define."""
    plain = (str, int, float, list, type(None))
    return {
        flag.name: _without_folders(flag.value)
        for module, ones in flags.FLAGS.flags_by_module_dict().items()
        if module == sys.argv[0] or module.startswith("experiments.")
        for flag in ones
        if isinstance(flag.value, plain) and flag is not flags.FLAGS["quick"]
    }
