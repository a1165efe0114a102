"""The loop (section 5): batches in, steps, measurements, schedule, checkpoints.

Everything the loop remembers beyond the train state is in `Progress`, which a checkpoint holds,
and the batches are a function of (seed, step): a run that was killed and started again is the
same run.
"""

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from alexnet_jax import parallel
from alexnet_jax.augment import AlreadyAugmented
from alexnet_jax.data.batches import batch_indices, train_batches
from alexnet_jax.data.cache import OnDevice
from alexnet_jax.data.host import host_augment
from alexnet_jax.data.records import Batch
from alexnet_jax.eval_step import make_eval_step
from alexnet_jax.runs import health, meter, throughput, transfer
from alexnet_jax.runs.checkpoint import Checkpointer, DamagedCheckpoint
from alexnet_jax.runs.configuration import check_own, load_config, members, noted, save_config
from alexnet_jax.runs.evaluation import evaluate
from alexnet_jax.runs.metrics_log import MetricsLog
from alexnet_jax.runs.profile import Profile
from alexnet_jax.runs.recipe import Recipe, build_augmentation, split_augmentation
from alexnet_jax.runs.stop_signal import StopSignal
from alexnet_jax.state import TrainState
from alexnet_jax.step import create_train_state, make_train_step, make_train_steps, state_template

Say = Callable[[str], None]


class Progress(NamedTuple):
    """What the loop remembers beside the train state; all of it JSON.

    Fields:
      schedule: the state of the learning-rate schedule.
      validated: the last step that was validated.
      sums: sums of the training metrics since the last line of the log, and "steps".
      lines: of the log so far; None in checkpoints of an earlier version.
      checksum: of these lines; None in checkpoints of an earlier version.
    """

    schedule: dict[str, Any]
    validated: int
    sums: dict[str, float]
    lines: int | None = None
    checksum: int | None = None


class Training:
    """One run: what it is made of, where it stands, and what happens at each step."""

    def __init__(
        self,
        recipe: Recipe,
        workdir: Path,
        mesh: Mesh,
        say: Say,
        *,
        strict: bool = False,
        profile: bool = False,
    ):
        """`strict` takes the last checkpoint or none; `profile` traces some updates."""
        self.recipe, self.config, self.workdir = recipe, recipe.config, workdir
        self.mesh, self.say, self.strict = mesh, say, strict
        self.first = jax.process_index() == 0
        self.model, self.schedule = recipe.model, recipe.schedule
        self.num_steps = recipe.num_steps
        self.step = 0
        self.progress = Progress(self.schedule.initial_state(), validated=0, sums=meter.no_sums())
        self.state: TrainState
        self.watch_every = self.config.get("watch_every_steps", 0)  # not in earlier versions
        self.meter = meter.Meter(self.watch_every)
        self.health = health.Health(biases="hidden_bias" in self.config.model)
        self.compiled: set[int] = set()  # numbers of updates in a call there is a program for
        self.last_call: tuple[Any, ...]  # the compiled step, and what it was given beside the state
        folder = workdir / "profile" if profile and self.first else None
        self.profile = Profile(folder, say, self._program, [row.name for row in self.model.layers])

    def run(self, stop: StopSignal, log: MetricsLog) -> None:
        """Trains from where the workdir stands to the end."""
        self.stop, self.log = stop, log
        keep, folder = self.recipe.keep_every, self.workdir / "checkpoints"
        if not os.path.lexists(folder):  # it is there before the first line of a log
            self._check_log(log.last_step)
        with Checkpointer(folder, keep_every=keep) as self.checkpoints:
            self._start()
            most = self.config.steps_per_call
            self.peak = throughput.peak_images_per_second(self.model, self.mesh)
            updates = self._one_by_one() if most == 1 else self._many_at_once(most)
            closing = contextlib.closing
            with self._progress_bar() as bar, closing(self.profile), closing(updates):
                self._validate_if_due()
                for turn in itertools.count(1):
                    if self._finished():
                        break
                    self.profile.before(turn, self.state)
                    before = self.step
                    next(updates)
                    self._log_if_due()
                    self._validate_if_due()
                    self._save_if_due()
                    if stop.agreed(turn):
                        self._stop()
                    # Shown by the update, which writes a few times a second.
                    bar.set_description(f"epoch {self.epoch:.1f}/{self._epochs:.4g}", refresh=False)
                    bar.set_postfix_str(self._in_words(), refresh=False)
                    bar.update((self.step - before) * self.config.batch_size)

    def _in_words(self) -> str:
        """Loss, errors and speed of the last updates, for the progress bar."""
        words = [self.meter.latest] if self.meter.latest else []
        if rate := self.meter.rate():  # none yet after a line of the log
            words += [f"waits {self.meter.waited():.0%}", f"MFU {rate / self.peak:.0%}"]
        return ", ".join(words)

    @property
    def epoch(self) -> float:
        """Passes over the training split done."""
        return self.step / self.recipe.epoch_steps

    @property
    def _epochs(self) -> float:
        """Those that the whole run makes."""
        return self.num_steps / self.recipe.epoch_steps

    def _check_log(self, saved: int | None) -> None:
        """Raises ValueError where the log is of a run that has saved, the last at step `saved`."""
        if self.first and saved:
            raise ValueError(
                f"{self.workdir} holds the log of a run up to step {saved:,} and no checkpoint; "
                "put checkpoints/ back, or give another --workdir"
            )

    def _start(self) -> None:
        """Takes up the last checkpoint, or begins."""
        resumes = self.checkpoints.latest_step is not None
        if self.first and not resumes and members(self.workdir):
            raise ValueError(
                f"{self.workdir} holds an ensemble; give its --config.ensemble to go on, or "
                "another --workdir"
            )
        if not resumes:
            self._check_log(self.log.of_saved_run())
        else:
            self._check_own()
        # Weights to start from that cannot be used leave no configuration that names them.
        constants = None if resumes else self._begin()
        if self.first:
            for change in save_config(self.config, self.workdir, resumes=resumes):
                self.say(change)
        if constants is None:
            constants = self._resume()
        self.augmentation = build_augmentation(self.config.augmentation, constants)
        self.data = self.recipe.cached_training(self.mesh)
        self.eval_step = make_eval_step(self.model, self.augmentation, mesh=self.mesh)
        progress = self.progress
        if warning := self.log.begin(
            self.step, progress.validated, progress.lines, progress.checksum
        ):
            self.say(warning)
        if self.recipe.keep_every and not resumes:
            self._save(None)

    def _check_own(self) -> None:
        """Raises ValueError for a checkpoint of another run, before any of this run's is removed.

        The log and the rest of the checkpoints would be taken for one run with it.
        """
        if not (self.workdir / "config.json").exists():  # which `save_config` tells
            return
        config = load_config(self.workdir)
        for step in self.checkpoints.steps:
            with contextlib.suppress(DamagedCheckpoint):  # told where it is restored
                check_own(self.checkpoints.metadata(step), step, config, self.workdir)

    def _begin(self) -> dict[str, np.ndarray]:
        """Initialises the state; gives the augmentation's constants."""
        self.state = create_train_state(self.model, self.recipe.key, mesh=self.mesh)
        if source := self.config.init_from:
            weights = transfer.load_weights(source, mesh=self.mesh)
            self.state, rows = transfer.start_from(
                self.state, weights, self.recipe.training.class_names, self.model.head
            )
            self.say(f"Starting from {source}:\n{transfer.format_rows(rows)}")
        return self.recipe.constants

    def _resume(self) -> dict[str, np.ndarray]:
        """Restores the last whole checkpoint; gives the augmentation's constants."""
        template = state_template(self.model, self.mesh)
        problems: list[str] = []
        if self.strict:
            restored = self.checkpoints.restore(template)
        else:
            restored, problems = self.checkpoints.restore_newest(template)
        for problem in problems:
            self.say(f"warning: {problem}; going on from checkpoint {restored.step}")
        stored = self.recipe.training
        try:
            class_names = tuple(restored.metadata["class_names"])
            self.progress = self._progress_of(**restored.metadata["progress"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"checkpoint {restored.step} in {self.workdir} does not say how far its run was "
                f"({error}); train in another --workdir, from its weights with --config.init_from"
            ) from error
        if class_names != stored.class_names:
            raise ValueError(
                f"{self.workdir} began with the classes of {restored.metadata['dataset']} and "
                f"{stored.name} in {stored.path} has others, or in another order; give the data "
                "set it began with, or another --workdir"
            )
        digests = self.recipe.digests
        noted = restored.metadata.get("data", digests)  # not in earlier versions
        if others := [split for split in digests if noted.get(split) != digests[split]]:
            raise ValueError(
                f"{self.workdir} began with other images than those of {stored.name} in "
                f"{stored.path} now ({' and '.join(others)} differ); give the --data_dir it began "
                "with, or another --workdir, from its weights with --config.init_from"
            )
        self.state, self.step = restored.state, restored.step
        self.say(f"Resuming at step {self.step:,} of {self.num_steps:,} from {self.workdir}")
        return restored.arrays

    def _progress_of(self, **noted: Any) -> Progress:
        """What a checkpoint notes; an imported one may have no sums and no state of a schedule."""
        found = Progress(**noted)
        return found._replace(
            schedule=self.schedule.initial_state() | found.schedule,
            sums=meter.no_sums() | found.sums,
        )

    def _train_stream(self) -> grain.DatasetIterator[Batch]:
        """The batches from this step on, placed; those cached on the device lie there already."""
        config, placed = self.config, self.config.cache == "device"
        rows = None if placed else parallel.local_rows(self.mesh, config.batch_size)
        transform = None
        if config.augment == "host":
            transform = host_augment(
                self.augmentation,
                self.state.key,
                image_size=self.model.image_size,
                color_strength=self.recipe.color_strength,
                rows=rows,
            )
        return train_batches(
            self.data,
            batch_size=config.batch_size,
            seed=config.seed,
            step=self.step,
            rows=rows,
            workers=config.read_workers,
            transform=transform,
            place=None if placed else partial(parallel.place_batch, mesh=self.mesh),
        )

    def _finished(self) -> bool:
        return self.step >= self.num_steps or self.schedule.finished(self.progress.schedule)

    def _one_by_one(self) -> Generator[None]:
        """Makes an update from the next batch each time it is asked for one."""
        chex.clear_trace_counter()  # counts by name: an ensemble's networks would add up
        on_host = self.config.augment == "host"
        augmentation = AlreadyAugmented(self.augmentation) if on_host else self.augmentation
        train_step = make_train_step(
            self.model, augmentation, mesh=self.mesh, max_traces=1, watch_every=self.watch_every
        )
        with contextlib.closing(self._train_stream()) as batches:
            while True:
                with self.meter.waiting():
                    batch = next(batches)
                hparams = self.recipe.hyperparameters(self.step, self.progress.schedule)
                self._update(train_step, batch, hparams)
                yield

    def _many_at_once(self, most: int) -> Generator[None]:
        """Makes updates in one compiled call: `most`, or fewer where something is due before.

        Fewer are a power of two, since each number of updates is another program to compile.
        """
        train_steps = make_train_steps(
            self.model, self.augmentation, mesh=self.mesh, watch_every=self.watch_every
        )
        size, config = len(self.data), self.config
        order = batch_indices(size, batch_size=config.batch_size, seed=config.seed)
        assert isinstance(self.data.source, OnDevice)  # the configuration's check has seen to it
        data = self.data.source.read_all()
        while True:
            due = min(every - self.step % every for every in self._due_every())
            fit = min(due, most, self.num_steps - self.step)
            updates = most if fit == most else 1 << (fit.bit_length() - 1)
            steps = range(self.step, self.step + updates)
            hparams = [self.recipe.hyperparameters(step, self.progress.schedule) for step in steps]
            indices = np.stack([order[step] for step in steps]).astype(np.int32)
            stacked = jax.tree.map(lambda *values: jnp.stack(values), *hparams)
            self._update(train_steps, data, indices, stacked, updates=updates)
            yield

    def _program(self) -> str:
        """The compiled step as text; nothing is compiled again."""
        step, *given = self.last_call
        return step.lower(self.state, *given).compile().as_text()

    def _due_every(self) -> list[int]:
        """Steps between logs, between validations, and between checkpoints."""
        every = [self.config.log_every_steps, self.recipe.validate_every]
        return every + self._saved_every()

    def _update(self, step: Callable[..., Any], *given: Any, updates: int = 1) -> None:
        """Dispatches updates. Their metrics are read while the next ones run."""
        self.last_call = step, *given
        compiles = updates not in self.compiled
        with self.meter.paused() if compiles else contextlib.nullcontext():
            self.state, metrics = step(self.state, *given)
            if compiles:
                jax.block_until_ready(metrics)
        if not self.compiled:  # to start reading is no training either
            self.meter.restart()
        self.compiled.add(updates)
        self.step += updates
        self._read_metrics()
        self.meter.add(self.step, metrics, 0 if compiles else updates * self.config.batch_size)

    def _read_metrics(self) -> None:
        """Adds the metrics of the updates last dispatched to the sums."""
        try:
            self.progress = self.progress._replace(sums=self.meter.summed(self.progress.sums))
        except meter.NotFinite as error:
            self._fail_as_not_finite(f"the loss is {error.loss}", error.step)
        for step, signs in self.meter.watched():
            self.log.write_vitals(step, step / self.recipe.epoch_steps, signs)
            self._note_log()
            for warning in self.health.of_vitals(step, signs):
                self.say(warning)

    def _log_if_due(self) -> None:
        if self.step % self.config.log_every_steps and self.step != self.num_steps:
            return
        self._read_metrics()
        waited, rate = self.meter.waited(), self.meter.rate()
        self._write(
            "train",
            meter.means(self.progress.sums),
            images_per_second=rate,
            input_wait=waited,
            mfu=rate / self.peak,
        )
        if warning := self.health.of_input(waited, self.meter.seconds(), rate):
            self.say(warning)
        self.progress = self.progress._replace(sums=meter.no_sums())
        self.meter.restart()

    def _validate_if_due(self) -> None:
        due = self.step % self.recipe.validate_every == 0 or self.step == self.num_steps
        nothing_new = self.progress.validated == self.step and self.num_steps > 0
        if not due or nothing_new:
            return
        self._read_metrics()
        with self.meter.paused():
            measured = evaluate(
                self.eval_step,
                self.state,
                self.recipe.validation,
                self.config.eval_batch_size,
                self.mesh,
                self.stop.agreed,
            )
            if measured is None:
                self._stop()
            self._take_validation(measured.means, measured.images_per_second)

    def _take_validation(self, means: Mapping[str, float], images_per_second: float) -> None:
        """Logs a validation, lets the schedule see it, and saves."""
        if not math.isfinite(means["loss"]):
            self._fail_as_not_finite(f"the validation loss is {means['loss']}", self.step)
        self._write("validation", means, images_per_second=images_per_second)
        self.say(
            f"epoch {self.epoch:6.1f}  step {self.step:>8,}  validation: {meter.describe(means)}"
            f"  rate {self._last_rate:g}"
        )
        if warning := self.health.of_loss(self.step, means["loss"], self.model):
            self.say(warning)
        schedule = self.schedule.update(self.progress.schedule, means["top1_error"])
        self.progress = self.progress._replace(schedule=schedule, validated=self.step)
        self._save(means[self.config.best_metric])

    def _saved_every(self) -> list[int]:
        """Steps between the checkpoints besides those after a validation."""
        return [n for n in (self.config.checkpoint_every_steps, self.recipe.keep_every) if n]

    def _save_if_due(self) -> None:
        due = any(self.step % every == 0 for every in self._saved_every())
        if due and self.progress.validated != self.step:
            self._read_metrics()
            self._save(None)

    @property
    def _last_rate(self) -> float:
        """The learning rate of the last update."""
        return self.recipe.learning_rate(max(self.step - 1, 0), self.progress.schedule)

    def _write(self, split: str, means: Mapping[str, float], **clocked: float) -> None:
        self.log.write(self.step, self.epoch, split, means, self._last_rate, **clocked)
        self._note_log()

    def _note_log(self) -> None:
        self.progress = self.progress._replace(lines=self.log.lines, checksum=self.log.checksum)

    def _save(self, best_metric: float | None) -> None:
        if not health.all_finite(self.state):
            self._fail_as_not_finite("a parameter is not a number", self.step)
        settings, arrays = split_augmentation(self.augmentation)
        self.checkpoints.save(
            self.step,
            self.state,
            arrays=arrays,
            metadata={
                "progress": self.progress._asdict(),
                "class_names": list(self.data.class_names),
                "config": noted(self.config),
                "dataset": self.data.name,
                "data": self.recipe.digests,
                "augmentation": settings,
            },
            best_metric=best_metric,
        )

    def _stop(self) -> NoReturn:
        self._read_metrics()
        self._save(None)
        self.checkpoints.wait()
        self.say(f"Stopped at step {self.step:,}, saved; the same command goes on from there.")
        raise SystemExit(self.stop.exit_status)

    def _fail_as_not_finite(self, fact: str, step: int) -> NoReturn:
        kept = self.checkpoints.latest_step
        raise health.not_finite(fact, step, kept, self.workdir) from None

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=self.num_steps * self.config.batch_size,
            initial=self.step * self.config.batch_size,
            unit=" img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None if self.first else True,  # None: where stderr is no terminal
        )
