"""Trains every setting of a sweep once, on data that lies on the device.

    python -m experiments.sweep --workdir=runs/rates --config=experiments/quick_rates.py
    python -m experiments.sweep --workdir=runs/mine --config=digits \
        --grid=learning_rate=0.005,0.01,0.02 --grid=seed=0,1,2

The settings are those that the configuration's file yields, `def sweep(): yield {"learning_rate":
0.01, "model.lrn": False}`, or all combinations of the --grid flags. What a setting leaves open is
as --config and --config.FIELD=VALUE have it. Settings that differ in fields of `Hyperparameters`,
seed or length share one compiled program.

Runs that are finished are not repeated, and several processes may work on one folder at once.
--sweep_index=N runs one setting, for a Slurm array (--list counts them):

    #SBATCH --array=0-23
    python -m experiments.sweep --workdir=… --config=… --sweep_index=$SLURM_ARRAY_TASK_ID

--trials=N searches with Optuna instead (pip install 'alexnet-jax[sweep]'): the file's `def
space(trial): return {"learning_rate": trial.suggest_float(…)}` is asked for a setting until N are
finished. Start the command as often as there are machines: they work on one study, kept in
WORKDIR/study.log.

Writes table.jsonl (a line a run), and sweep.json and .png (mean and spread over seeds) to the
workdir; the whole curves are in runs/.
"""

import functools
import importlib.util
import json
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from alexnet_jax.files import json_object, local_path, output_folder, whole_file
from alexnet_jax.runs.lock import Locked, locked
from alexnet_jax.runs.recipe import Recipe
from alexnet_jax.scores import image_scores
from alexnet_jax.wording import first_line
from experiments import fitting, harness, provenance
from experiments.search import search
from experiments.settings import (
    UNASKED,
    Setting,
    architecture,
    configure,
    flat,
    grid,
    identity,
    name_of,
    plain,
)
from experiments.tables import COLUMNS, draw, row, shown, summary

FLAGS = flags.FLAGS


class Sweep:
    """Runs of a folder: each setting is trained once, by whoever comes first."""

    def __init__(
        self,
        base: ConfigDict,
        folder: Path,
        *,
        target: float | None = None,
        quick: bool | None = None,
    ):
        """Runs in `folder`/runs, or /quick.

        Args:
          base: what a setting leaves open.
          folder: the workdir.
          target: the validation error (top-1, a share) at which a run ends before its time.
          quick: runs of seconds, kept apart; None: as the flag says.
        """
        quick = harness.quick() if quick is None else quick
        self.base = fitting.shortened(base) if quick else base
        self.reports = folder / "quick" if quick else folder
        self.runs = output_folder(folder / ("quick" if quick else "runs"))
        self._target = target
        self._programs: dict[str, fitting.Programs] = {}

    def train(self, settings: Sequence[Setting]) -> list[dict | None]:
        """Trains what is not there yet; the results, None for what others are at.

        Raises:
          ValueError: a setting cannot be one, or the file of a result is damaged, or of other
            images; nothing was trained.
          AssertionError: a second run of one architecture compiled something.
        """
        configs = [configure(self.base, setting) for setting in settings]
        pending = []
        for setting, config in zip(settings, configs, strict=True):
            if found := self._read(config):
                self._check_data(config, found)
            else:
                pending.append((setting, config))
        epochs = sum(round(config.num_epochs) for _, config in pending)
        with tqdm(total=epochs, unit="epoch", mininterval=1 if sys.stderr.isatty() else 60) as bar:
            for setting, config in pending:
                try:
                    with locked(self.runs, f".{self._path(config).stem}.lock"):
                        if not self._path(config).exists():
                            self._train_one(setting, config, bar)
                except Locked:
                    bar.total -= round(config.num_epochs)
        return [self.result(setting) for setting in settings]

    def result(self, setting: Setting) -> dict | None:
        """What `fitting.fit` gave for a setting; None: it is not finished.

        Raises:
          ValueError: its file is damaged.
        """
        found = self._read(configure(self.base, setting))
        return found and {key: value for key, value in found.items() if key not in _MADE_WITH}

    def results(self, settings: Sequence[Setting], *, partly: bool = False) -> list[dict | None]:
        """What is finished of these by now, whichever process trained it; None for the others.

        Raises:
          ValueError: some are not finished, and only all will do; `partly`: that is printed.
        """
        found = [self.result(setting) for setting in settings]
        pairs = zip(settings, found, strict=True)
        missing = [json.dumps(setting) for setting, result in pairs if result is None]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            told = (
                f"{len(missing)} of {len(settings)} runs are not finished in {self.runs}: "
                f"{', '.join(missing[:3])}{more}; where other processes train them, come again"
            )
            if not partly:
                raise ValueError(told)
            print(told)
        return found

    def origins(self, settings: Sequence[Setting]) -> list[dict[str, Any]]:
        """What finished runs were made with, where it is not what this process has.

        Of runs of earlier versions the commit is not known: None.
        """
        mine = origin({"environment": provenance.environment(), "device": provenance.machine()})
        runs = [self._read(configure(self.base, setting)) for setting in settings]
        return [one for run in runs if run and (one := origin(run)) != mine]

    def _read(self, config: ConfigDict) -> dict | None:
        path = self._path(config)
        if not path.exists():
            return None
        try:
            found = json_object(path.read_bytes(), path)
            row({}, found)
            then, now = found.get("configuration", {}), flat(config, UNASKED)
            if other := [field for field, value in now.items() if then.get(field, value) != value]:
                # One name for both: the default of a field has changed since.
                raise ValueError(f"{path} is a run of another {other[0]}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            fact = error if isinstance(error, ValueError) else f"{path} is no result of a run"
            raise ValueError(f"{fact}; delete it to train that run again") from error
        return found

    def _check_data(self, config: ConfigDict, found: Mapping[str, Any]) -> None:
        """Raises ValueError where a run was of other images under the same name, if these are here.

        Runs of earlier versions do not say which images they were of.
        """
        try:
            now = fitting.digests(config)
        except ValueError:  # to read finished runs no data are wanted
            return
        if found.get("data", now) != now:
            raise ValueError(
                f"{self._path(config)} is a run of other images than {config.dataset} has now; "
                "give another --workdir, or delete it to train that run again"
            )

    def arrays(self, setting: Setting) -> Mapping[str, np.ndarray]:
        """The first layer's kernels and the test log-probabilities of a finished run."""
        path = self._path(configure(self.base, setting)).with_suffix(".npz")
        try:
            with np.load(path) as file:
                return dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            run = path.with_suffix(".json").name
            raise ValueError(
                f"{path} is missing or damaged; delete {run} beside it to train that run again"
            ) from error

    def pairs(self, theirs: Setting, ours: Setting, view: str) -> list[int]:
        """Test images that only the first of two finished runs got wrong, and only the second.

        Raises:
          ValueError: a file is missing or damaged.
        """
        labels = np.asarray(fitting.on_device(configure(self.base, ours), "test")["label"])
        first, second = (
            image_scores(self.arrays(setting)[f"log_probs_{view}"].astype(np.float32), labels)[
                "top1_error"
            ]
            > 0.5
            for setting in (theirs, ours)
        )
        return [int((first & ~second).sum()), int((second & ~first).sum())]

    def _path(self, config: ConfigDict) -> Path:
        return self.runs / f"{identity(config, self._target)}.json"

    def _train_one(self, setting: Setting, config: ConfigDict, bar: tqdm) -> None:
        recipe = Recipe(config)
        shape = architecture(recipe)
        known = shape in self._programs
        programs = self._programs.setdefault(shape, fitting.Programs(recipe))

        def after(line: dict) -> bool:
            bar.update()
            error = line["validation"]["top1_error"]
            bar.set_postfix_str(f"{100 * error:.1f}% error")
            return self._target is not None and error <= self._target

        def say(line: str) -> None:
            bar.write(f"{name_of(setting)}: {line}")

        with harness.compilations() as names:
            result, arrays = fitting.fit(
                config, programs=programs, views=config.final_views, until=after, say=say
            )
        bar.update(round(config.num_epochs) - len(result["epochs"]))
        result |= {"compiled": len(names), "device": provenance.machine()}
        result |= {"configuration": flat(config), "environment": provenance.environment()}
        result["data"] = fitting.digests(config)
        with whole_file(self._path(config).with_suffix(".npz"), "wb") as file:
            np.savez_compressed(file, **arrays)
        with whole_file(self._path(config)) as file:
            json.dump(result, file)
        assert not (known and names), f"compiled again for {name_of(setting)}: {names}"


_MADE_WITH = ("configuration", "environment", "data")  # in a run's file, and no result


def origin(run: Mapping[str, Any]) -> dict[str, Any]:
    """The commit, the versions and the device that made a run."""
    environment = run.get("environment", {})
    return {
        "commit": environment.get("commit"),
        "versions": environment.get("versions"),
        "device": run.get("device"),
    }


def untouched_runs(
    before: Sequence[dict], now: Sequence[dict], fields: Sequence[str]
) -> list[dict]:
    """The runs of an earlier result that are not made anew, told apart by these fields."""

    def choice(run: dict) -> tuple:
        return tuple(run[field] for field in fields)

    again = {choice(run) for run in now}
    return [run for run in before if choice(run) not in again]


def earlier_origins(before: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those of the runs in an earlier result, of which a new one keeps some.

    Whoever wrote it may have trained none of them: then others are named there, and no run says
    that it was trained on this device.
    """
    device, others = provenance.machine(before["environment"]), before.get("runs_made_with", [])
    trained = any(run.get("device") == device for run in before["result"]["runs"])
    return [*others, *[origin(before | {"device": device})] * (trained or not others)]


# --- what came out --------------------------------------------------------------------------------


def report(folder: Path, settings: Sequence[Setting], sweep: Sweep) -> None:
    """Writes the table, the means and the picture of the runs that are finished."""
    finished = [(setting, sweep.result(setting)) for setting in settings]
    finished = [(setting, result) for setting, result in finished if result]
    rows = [row(setting, result) for setting, result in finished]
    if not rows:
        print(f"0 of {len(settings)} runs are finished; other processes train them, come again")
        return
    with whole_file(folder / "table.jsonl") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)
    groups = summary([setting for setting, _ in finished], rows)
    title = f"{sweep.base.dataset}, {len(rows)} of {len(settings)} runs"
    result = {"configuration": flat(sweep.base), "finished": len(rows), "of": len(settings)}
    origins = sweep.origins(settings)
    harness.record(
        "sweep", result | {"settings": groups}, draw(groups, title), folder, origins=origins
    )
    width = max(len(group["name"]) for group in groups)
    tested = any(result["test"] for _, result in finished)
    columns = COLUMNS[: 3 if tested else 2]
    print(f"{'':{width}}  seeds  training     validation  {' test' * tested} (error, %)")
    for group in groups:
        print(
            f"{group['name']:{width}}  {len(group['seeds']):5}  "
            + "  ".join(shown(group[column]) for column in columns)
        )
    print(f"{len(rows)} of {len(settings)} runs are finished: {folder / 'table.jsonl'}, sweep.png")


# --- the command ----------------------------------------------------------------------------------


def module_of(path: str) -> Any:
    """A configuration's file as a module."""
    spec = importlib.util.spec_from_file_location("recipe", path.partition(":")[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked() -> tuple[ConfigDict, Path]:
    """The configuration and the folder that the flags name.

    Raises:
      ValueError: a flag is missing, or is one that the training command alone obeys.
    """
    if not FLAGS.workdir:
        raise ValueError("--workdir is missing; give the folder of the runs")
    if others := _given(*_OF_TRAINING):
        raise ValueError(f"--{others[0]} is for alexnet_jax.main and not for sweeps; leave it out")
    if FLAGS.data_dir:
        FLAGS.config.data_dir = FLAGS.data_dir
    return FLAGS.config, local_path(FLAGS.workdir)


# Flags that come with --config and that nothing here obeys.
_OF_TRAINING = ("strict", "profile", "multihost", "coordinator_address", "num_processes")
_OF_TRAINING += ("process_id",)


def _given(*names: str) -> list[str]:
    """Those of the flags that were given another value than they have by themselves."""
    return [name for name in names if FLAGS[name].value != FLAGS[name].default]


def from_file(function: str, otherwise: str) -> Callable[..., Any]:
    """A function of the configuration's file; ValueError: it has none, with what to do then.

    A ValueError of its call says in which line of the file it fails.
    """
    path = config_flags.get_config_filename(FLAGS["config"])
    found = getattr(module_of(path), function.partition("(")[0], None)
    if not callable(found):
        raise ValueError(f"{path} has no `def {function}`; {otherwise}")

    @functools.wraps(found)
    def called(*given: Any) -> Any:
        try:
            result = found(*given)
            return list(result) if isinstance(result, Iterator) else result
        except Exception as error:
            file, frames = path.partition(":")[0], traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == file]
            if not lines and hasattr(found, "__code__"):  # it takes other arguments
                lines = [found.__code__.co_firstlineno]
            where = "".join(f" line {line}" for line in lines[-1:])
            told = f"{file}{where}: {type(error).__name__}: {first_line(error)}"
            raise ValueError(told) from error

    return called


_YIELD = "let its `def sweep()` yield dictionaries {field: value}"


def checked(settings: Iterable[Setting], base: ConfigDict) -> list[Setting]:
    """The settings; ValueError: there is none, one cannot be one, or two are the same run."""
    if not isinstance(settings, Iterable):
        raise ValueError(f"the sweep is {settings!r}; {_YIELD}")
    settings = list(settings)
    if not settings:
        raise ValueError("the sweep has no setting; let its `def sweep()` yield one")
    if others := [setting for setting in settings if not isinstance(setting, Mapping)]:
        raise ValueError(f"{others[0]!r} is no setting of the sweep; {_YIELD}")
    settings = [{field: plain(value) for field, value in one.items()} for one in settings]
    numbers: dict[str, int] = {}
    for number, setting in enumerate(settings):
        run = identity(configure(base, setting))
        if run in numbers:
            raise ValueError(
                f"settings {numbers[run]} and {number} are the same run, {dict(setting)}; leave "
                "one out"
            )
        numbers[run] = number
    return settings


def main(_) -> None:
    """Runs the sweep that the flags describe."""
    base, folder = asked()
    if FLAGS.trials:
        if others := _given("grid", "sweep_index", "list"):
            raise ValueError(f"--{others[0]} with --trials, where Optuna chooses; leave one out")
        space = from_file("space(trial)", "give one for --trials to search")
        sweep = Sweep(base, folder)
        settings = search(sweep, space, FLAGS.trials, sweep.reports / "study.log")
    else:
        if FLAGS.list and FLAGS.sweep_index is not None:
            raise ValueError("--sweep_index with --list, which trains nothing; leave one out")
        offered = (
            grid(FLAGS.grid)
            if FLAGS.grid
            else from_file("sweep()", "give one, or --grid=field=value,value")()
        )
        settings = checked(offered, base)
        if FLAGS.list:
            print(*(f"{n} {json.dumps(setting)}" for n, setting in enumerate(settings)), sep="\n")
            return
        chosen = settings
        if FLAGS.sweep_index is not None:
            if not 0 <= FLAGS.sweep_index < len(settings):
                raise ValueError(
                    f"--sweep_index={FLAGS.sweep_index}; it is 0 to {len(settings) - 1}"
                )
            chosen = [settings[FLAGS.sweep_index]]
        sweep = Sweep(base, folder)
        sweep.train(chosen)
    report(sweep.reports, settings, sweep)


if __name__ == "__main__":
    from alexnet_jax import main as training  # defines --config, --workdir and --data_dir

    flags.DEFINE_multi_string("grid", [], "field=value,value: one axis of a grid.")
    flags.DEFINE_integer("sweep_index", None, "Run only the setting of this number.")
    flags.DEFINE_integer(
        "trials", None, "Search with Optuna until so many trials are finished.", lower_bound=1
    )
    flags.DEFINE_bool("list", False, "Print the settings with their numbers and stop.")
    harness.run(main, rewrite=training.with_config_paths)
