"""The loop (section 5): batches in, steps, measurements, schedule, checkpoints.

Everything the loop remembers beyond the train state is in `Progress`, which a checkpoint holds,
and the batches are a function of (seed, step): a run that was killed and started again is the
same run.
"""

import contextlib
import itertools
import math
import signal
import sys
import time
from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from alexnet_jax import parallel, schedules
from alexnet_jax.augment import AlreadyAugmented, Augmentation
from alexnet_jax.data.batches import batch_indices, steps_per_epoch, train_batches
from alexnet_jax.data.cache import OnDevice, cached
from alexnet_jax.data.host import host_augment
from alexnet_jax.data.records import Batch
from alexnet_jax.data.sets import Dataset, open_dataset
from alexnet_jax.data.statistics import load_statistics
from alexnet_jax.runs import transfer
from alexnet_jax.runs.checkpoint import Checkpointer
from alexnet_jax.runs.evaluation import evaluate
from alexnet_jax.runs.metrics_log import TEST_SPLITS, MetricsLog
from alexnet_jax.runs.stop_signal import StopSignal
from alexnet_jax.runs.workdir import (
    CONSTANTS,
    build_augmentation,
    build_model,
    load_run,
    save_config,
    split_augmentation,
    state_template,
)
from alexnet_jax.step import (
    METRICS,
    Hyperparameters,
    TrainState,
    create_train_state,
    make_eval_step,
    make_train_step,
    make_train_steps,
)

# A validation loss within 2% of ln K after so many steps is no slow start but the plateau.
PLATEAU_STEPS = 300


class Progress(NamedTuple):
    """What the loop remembers beside the train state; all of it JSON.

    Fields:
      schedule: the state of the learning-rate schedule.
      validated: the last step that was validated.
      sums: sums of the training metrics since the last line of the log, and "steps".
    """

    schedule: dict[str, Any]
    validated: int
    sums: dict[str, float]


class Training:
    """One run: what it is made of, where it stands, and what happens at each step."""

    def __init__(self, config: ConfigDict, workdir: Path):
        self.config, self.workdir = config, workdir
        self.mesh = parallel.make_mesh(config.mesh.data, config.mesh.model)
        self.first = jax.process_index() == 0
        self.say(_describe_devices(self.mesh))
        _check_choices(config)
        self.stored = _open(config, "train")
        self.validation = cached(
            _open(config, "validation"), "none" if config.cache == "none" else "host"
        )
        if config.test_split:
            _open(config, "test")  # now rather than after days, if it is not there
        self.model = build_model(config, self.stored.num_classes)
        self.epoch_steps = steps_per_epoch(self.stored, config.batch_size)
        self.num_steps = round(config.num_epochs * self.epoch_steps)
        self.schedule = schedules.make_schedule(
            **config.schedule,
            learning_rate=config.learning_rate,
            num_epochs=config.num_epochs,
            steps_per_epoch=self.epoch_steps,
        )
        self.step = 0
        self.progress = Progress(self.schedule.initial_state(), validated=0, sums=_no_sums())
        self.state: TrainState
        self._pending: tuple[int, dict[str, jax.Array]] | None = None  # the steps just dispatched
        self._clock = _Clock()

    def say(self, message: str) -> None:
        """Prints a line above the progress bar, on the first process."""
        if self.first:
            tqdm.write(message, file=sys.stdout)

    def run(self) -> None:
        """Trains from where the workdir stands to the end."""
        if self.first:
            self.workdir.mkdir(parents=True, exist_ok=True)
        with (
            StopSignal() as self.stop,
            Checkpointer(self.workdir / "checkpoints") as self.checkpoints,
            MetricsLog(self.workdir, writes=self.first) as self.log,
        ):
            if self.first:
                resumes = self.checkpoints.latest_step is not None
                save_config(self.config, self.workdir, resumes=resumes)
            self._start()
            most = self.config.steps_per_call
            updates = self._one_by_one() if most == 1 else self._many_at_once(most)
            with self._progress_bar() as bar, contextlib.closing(updates):
                self._validate_if_due()
                for turn in itertools.count(1):
                    if self._finished():
                        break
                    before = self.step
                    next(updates)
                    self._log_if_due()
                    self._validate_if_due()
                    self._save_if_due()
                    if self.stop.agreed(turn):
                        self._stop()
                    bar.update((self.step - before) * self.config.batch_size)
                    bar.set_description(f"epoch {self.epoch:.1f}/{self.config.num_epochs:g}")
                    bar.set_postfix_str(self._latest, refresh=False)

    @property
    def epoch(self) -> float:
        """Passes over the training split done."""
        return self.step / self.epoch_steps

    def _start(self) -> None:
        """Takes up the last checkpoint, or begins."""
        self._latest = ""
        class_names = self.stored.class_names
        if self.checkpoints.latest_step is None:
            key = jax.random.key(self.config.seed)
            self.state = create_train_state(self.model, key, mesh=self.mesh)
            if self.config.init_from:
                weights = transfer.load_weights(self.config.init_from, mesh=self.mesh)
                self.state, rows = transfer.start_from(self.state, weights, class_names)
                self.say(f"Starting from {self.config.init_from}:\n{transfer.format_rows(rows)}")
            means_and_axes = constants(self.config, self.stored)
        else:
            restored = self.checkpoints.restore(state_template(self.model, self.mesh))
            began_with = tuple(restored.metadata["class_names"])
            if began_with != class_names:
                raise ValueError(
                    f"{self.workdir} began with the classes of {restored.metadata['dataset']} and "
                    f"{self.stored.name} in {self.stored.path} has others; give the data set it "
                    "began with, or another --workdir"
                )
            self.state, self.step = restored.state, restored.step
            self.progress = Progress(**restored.metadata["progress"])
            means_and_axes = restored.arrays
            self.say(f"Resuming at step {self.step:,} of {self.num_steps:,} from {self.workdir}")
        self.augmentation = build_augmentation(self.config.augmentation, means_and_axes)
        self.data = cached(self.stored, self.config.cache, mesh=self.mesh)
        self.eval_step = make_eval_step(self.model, self.augmentation, mesh=self.mesh)
        self.log.cut(self.step, self.progress.validated)

    def _train_stream(self) -> grain.DatasetIterator[Batch]:
        """The batches from this step on, placed; those cached on the device lie there already."""
        config, placed = self.config, self.config.cache == "device"
        rows = None if placed else parallel.local_rows(self.mesh, config.batch_size)
        transform = None
        if config.augment == "host":

            def color_strength(step: int) -> float:
                changes = schedules.hyperparameters_at(step / self.epoch_steps, config.hand_changes)
                return changes.get("color_strength", config.color_strength)

            transform = host_augment(
                self.augmentation,
                self.state.key,
                image_size=self.model.image_size,
                color_strength=color_strength,
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
        train_step = make_train_step(self.model, augmentation, mesh=self.mesh, max_traces=1)
        with contextlib.closing(self._train_stream()) as batches:
            for batch in batches:
                hparams = self._hyperparameters(self.step)
                self.state, metrics = train_step(self.state, batch, hparams)
                self._count(1, metrics)
                yield

    def _many_at_once(self, most: int) -> Generator[None]:
        """Makes updates in one compiled call: `most`, or fewer where something is due before."""
        train_steps = make_train_steps(self.model, self.augmentation, mesh=self.mesh)
        size, config = len(self.data), self.config
        order = batch_indices(size, batch_size=config.batch_size, seed=config.seed)
        assert isinstance(self.data.source, OnDevice)  # `_check_choices` has seen to it
        data = self.data.source.read_all()
        while True:
            due = min(every - self.step % every for every in self._due_every())
            stop = min(self.step + min(due, most), self.num_steps)
            steps = range(self.step, stop)
            hparams = [self._hyperparameters(step) for step in steps]
            self.state, metrics = train_steps(
                self.state,
                data,
                np.stack([order[step] for step in steps]).astype(np.int32),
                jax.tree.map(lambda *values: jnp.stack(values), *hparams),
            )
            self._count(len(steps), metrics)
            yield

    def _due_every(self) -> list[int]:
        """Steps between logs, between validations, and between checkpoints."""
        every = [self.config.log_every_steps, self._validate_every]
        return every + [n for n in [self.config.checkpoint_every_steps] if n]

    def _count(self, steps: int, metrics: dict[str, jax.Array]) -> None:
        """Takes note of updates just dispatched. Their metrics are read while the next run."""
        self.step += steps
        self._count_pending()
        self._pending = (self.step, metrics)
        self._clock.add(steps * self.config.batch_size)

    def _learning_rate(self, step: int) -> float:
        return self.schedule.learning_rate(step, self.progress.schedule)

    def _hyperparameters(self, step: int) -> Hyperparameters:
        config, rate = self.config, self._learning_rate(step)
        base = {"rate_multipliers": _given(config.rate_multipliers)}
        changes = schedules.hyperparameters_at(
            step / self.epoch_steps,
            ((0, base), *config.hand_changes),
            layers=[layer.name for layer in self.model.layers],
            learning_rate=rate,
            bias_learning_rate=config.bias_learning_rate,
        )
        fields = {
            "momentum": config.momentum,
            "weight_decay": config.weight_decay,
            "color_strength": config.color_strength,
            "decay_multipliers": _given(config.decay_multipliers) or None,
        }
        return Hyperparameters(learning_rate=rate, **{**fields, **changes})

    def _count_pending(self) -> None:
        """Adds the metrics of the last updates dispatched to the sums."""
        if self._pending is None:
            return
        last, values = self._pending
        self._pending = None
        metrics = {name: np.atleast_1d(value) for name, value in jax.device_get(values).items()}
        for step, loss in enumerate(metrics["loss"], start=last + 1 - len(metrics["loss"])):
            if not math.isfinite(loss):
                self._fail_as_not_finite(f"the loss is {loss}", step)
        sums = dict(self.progress.sums)
        for name in METRICS:
            for value in metrics[name]:
                sums[name] += float(value)
        sums["steps"] += len(metrics["loss"])
        self.progress = self.progress._replace(sums=sums)
        loss, *errors = (metrics[name][-1] for name in METRICS)
        self._latest = f"loss {loss:.3f}, errors {errors[0]:.1%} / {errors[1]:.1%}"

    @property
    def _validate_every(self) -> int:
        return max(1, round(self.config.validate_every_epochs * self.epoch_steps))

    def _log_if_due(self) -> None:
        if self.step % self.config.log_every_steps and self.step != self.num_steps:
            return
        self._count_pending()
        steps = self.progress.sums["steps"]
        means = {name: self.progress.sums[name] / steps for name in METRICS}
        self._write("train", means, self._clock.rate())
        self.progress = self.progress._replace(sums=_no_sums())
        self._clock.restart()

    def _validate_if_due(self) -> None:
        due = self.step % self._validate_every == 0 or self.step == self.num_steps
        if not due or self.progress.validated == self.step:
            return
        self._count_pending()
        with self._clock.paused():
            started = time.perf_counter()
            batch_size = self.config.eval_batch_size
            means = evaluate(
                self.eval_step, self.state, self.validation, batch_size, self.mesh, self.stop.agreed
            )
            if means is None:
                self._stop()
            rate = len(self.validation) / (time.perf_counter() - started)
            self._take_validation(means, rate)

    def _take_validation(self, means: Mapping[str, float], images_per_second: float) -> None:
        """Logs a validation, lets the schedule see it, and saves."""
        if not math.isfinite(means["loss"]):
            self._fail_as_not_finite(f"the validation loss is {means['loss']}", self.step)
        self._write("validation", means, images_per_second)
        self.say(
            f"epoch {self.epoch:6.1f}  step {self.step:>8,}  validation: {_describe(means)}"
            f"  rate {self._learning_rate(self.step - 1):g}"
        )
        if warning := plateau_warning(
            self.step, means["loss"], self.stored.num_classes, self.model.initialization
        ):
            self.say(warning)
        schedule = self.schedule.update(self.progress.schedule, means["top1_error"])
        self.progress = self.progress._replace(schedule=schedule, validated=self.step)
        self._save(means[self.config.best_metric])

    def _save_if_due(self) -> None:
        every = self.config.checkpoint_every_steps
        if every and self.step % every == 0 and self.progress.validated != self.step:
            self._count_pending()
            self._save(None)

    def _write(self, split: str, means: Mapping[str, float], images_per_second: float) -> None:
        rate = self._learning_rate(self.step - 1)
        self.log.write(self.step, self.epoch, split, means, rate, images_per_second)

    def _save(self, best_metric: float | None) -> None:
        if not _all_finite(self.state):
            self._fail_as_not_finite("a parameter is not a number", self.step)
        settings, arrays = split_augmentation(self.augmentation)
        self.checkpoints.save(
            self.step,
            self.state,
            arrays=arrays,
            metadata={
                "progress": self.progress._asdict(),
                "class_names": list(self.data.class_names),
                "dataset": self.data.name,
                "augmentation": settings,
            },
            best_metric=best_metric,
        )

    def _stop(self) -> NoReturn:
        self._count_pending()
        self._save(None)
        self.checkpoints.wait()
        self.say(f"Stopped at step {self.step:,}, saved; the same command goes on from there.")
        raise SystemExit(128 + (self.stop.number or signal.SIGTERM))

    def _fail_as_not_finite(self, fact: str, step: int) -> NoReturn:
        kept = self.checkpoints.latest_step
        mend = "lower --config.learning_rate, or add --config.schedule.warmup_epochs"
        if kept is None:
            raise FloatingPointError(f"{fact} at step {step}, before any checkpoint; {mend}")
        raise FloatingPointError(
            f"{fact} at step {step}; checkpoint {kept} is kept; start another --workdir and {mend} "
            f"(--config.init_from={self.workdir} starts from the best weights here)"
        )

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=self.num_steps * self.config.batch_size,
            initial=self.step * self.config.batch_size,
            unit=" img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None if self.first else True,  # None: where stderr is no terminal
        )


def plateau_warning(step: int, loss: float, num_classes: int, initialization: str) -> str | None:
    """What to say of a validation loss (nats) that sits at chance; None where it does not."""
    chance = math.log(num_classes)
    if step < PLATEAU_STEPS or abs(loss - chance) >= 0.02 * chance:
        return None
    mends = ["a larger --config.learning_rate"]
    if initialization != "original":
        mends.insert(0, "--config.model.initialization=original")
    return (
        f"warning: the validation loss sits at ln {num_classes} = {chance:.3f}, chance level: the "
        f"known plateau of small initial weights. If it stays, start another --workdir with "
        f"{' or '.join(mends)}; check that pixels are 0-255 with the mean subtracted."
    )


def train(config: ConfigDict, workdir: Path) -> dict[str, dict[str, float]]:
    """Trains the run that `config` describes, or resumes it, and evaluates its best checkpoint.

    Args:
      config: see `configs/default.py`.
      workdir: where the logs and checkpoints of this run are or will be.

    Returns:
      split -> metrics of the best checkpoint on the test split: "test" (centre crop) and
      "test_ten_views"; empty where the configuration names no test split. Of an ensemble, those
      of the network of each seed, as "seed_0/test".

    Raises:
      ValueError: the configuration or the data cannot be used.
      CheckpointError: a checkpoint cannot be written, or the one that is there does not fit.
      FloatingPointError: the loss is not a number; the last good checkpoint is kept.
      SystemExit: stopped by a signal, after saving.
    """
    if config.ensemble > 1:
        return _train_ensemble(config, workdir)
    training = Training(config, workdir)
    training.run()
    return test(config, workdir, training.mesh, training.say) if config.test_split else {}


def _train_ensemble(config: ConfigDict, workdir: Path) -> dict[str, dict[str, float]]:
    """Trains the networks of an ensemble one after the other, each a run of its own.

    The vmapped step trains them at once but is slower on CPU: five of the digits recipe's nets on
    one batch of 64 took 1.33 s an update against 0.99 s one by one; at a sixth of the paper's
    width 0.21 s against 0.11 s (medians, interleaved, two busy cores).
    """
    results: dict[str, dict[str, float]] = {}
    for seed in range(config.seed, config.seed + config.ensemble):
        member = config.copy_and_resolve_references()
        member.seed, member.ensemble = seed, 1
        folder = f"seed_{seed}"
        results |= {f"{folder}/{k}": v for k, v in train(member, workdir / folder).items()}
    return results


def test(config: ConfigDict, workdir: Path, mesh: Mesh, say) -> dict[str, dict[str, float]]:
    """Evaluates the best checkpoint of `workdir` on the test split and logs it."""
    run = load_run(workdir, mesh=mesh)
    dataset = _open(config, "test")
    epoch = run.step / steps_per_epoch(_open(config, "train"), config.batch_size)
    results: dict[str, dict[str, float]] = {}
    with StopSignal() as stop, MetricsLog(workdir, writes=jax.process_index() == 0) as log:
        for views in config.final_views:
            eval_step = make_eval_step(run.model, run.augmentation, views=views, mesh=mesh)
            started = time.perf_counter()
            batch_size = config.eval_batch_size // (10 if views == "ten" else 1)
            means = evaluate(eval_step, run.state, dataset, batch_size, mesh, stop.agreed)
            if means is None:
                say("Stopped during the final test; all training is saved, the same command tests.")
                raise SystemExit(128 + (stop.number or signal.SIGTERM))
            rate = len(dataset) / (time.perf_counter() - started)
            split = TEST_SPLITS[views]
            log.write(run.step, epoch, split, means, None, rate)
            say(f"{split.replace('_', ' ')}, checkpoint {run.step:,}: {_describe(means)}")
            results[split] = means
    return results


def constants(config: ConfigDict, training: Dataset) -> dict[str, np.ndarray]:
    """Mean image, deviations and eigenvectors: the training split's own, or ImageNet's."""
    if config.augmentation.statistics == "imagenet":
        default = Augmentation()
        return {name: getattr(default, name) for name in CONSTANTS}
    if config.augmentation.statistics != "dataset":
        raise ValueError(
            f"augmentation.statistics={config.augmentation.statistics!r}; use 'dataset' or "
            "'imagenet'"
        )
    return load_statistics(training)._asdict()


def _check_choices(config: ConfigDict) -> None:
    """Raises ValueError for a value that would be met only after hours of training."""
    choices = {
        "augment": ("device", "host"),
        "best_metric": METRICS,
        "final_views": tuple(TEST_SPLITS),
    }
    for field, allowed in choices.items():
        values = config[field] if field == "final_views" else (config[field],)
        for value in values:
            if value not in allowed:
                raise ValueError(f"{field} has {value!r}; use {' or '.join(map(repr, allowed))}")
    if (config.augment, config.cache) == ("host", "device"):
        raise ValueError(
            "augment='host' cannot work on images that cache='device' keeps on the device; use "
            "cache='host'"
        )
    if config.steps_per_call < 1 or (config.steps_per_call > 1 and config.cache != "device"):
        raise ValueError(
            f"steps_per_call={config.steps_per_call} with cache={config.cache!r}; it is 1, or more "
            "with cache='device'"
        )


def _given(multipliers: ConfigDict) -> dict[str, Any]:
    """Those that are not None."""
    return {layer: factor for layer, factor in multipliers.to_dict().items() if factor is not None}


def _open(config: ConfigDict, split: str) -> Dataset:
    return open_dataset(
        config.dataset,
        config[f"{split}_split"],
        data_dir=config.data_dir,
        stored_size=config.stored_size,
        verify=config.verify_data,
    )


class _Clock:
    """Images per second of training, without what is not training."""

    def __init__(self):
        self.restart()
        self._compiling = True

    def restart(self) -> None:
        self._images, self._since = 0, time.perf_counter()

    def add(self, images: int) -> None:
        if self._compiling:  # the first step compiles
            self._compiling = False
            self.restart()
        else:
            self._images += images

    def rate(self) -> float:
        return self._images / (time.perf_counter() - self._since)

    @contextlib.contextmanager
    def paused(self):
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started


def _no_sums() -> dict[str, float]:
    return dict.fromkeys((*METRICS, "steps"), 0.0)


def _describe(means: Mapping[str, float]) -> str:
    return (
        f"loss {means['loss']:.4f}, top-1 error {means['top1_error']:.2%}, "
        f"top-5 error {means['top5_error']:.2%}"
    )


def _describe_devices(mesh: Mesh) -> str:
    devices = mesh.devices.flatten()
    kind = f"{devices[0].platform} ({devices[0].device_kind})"
    hosts = f" of {jax.process_count()} hosts" if jax.process_count() > 1 else ""
    return (
        f"Training on {len(devices)} device(s){hosts}: {kind}; mesh data={mesh.shape['data']} x "
        f"model={mesh.shape['model']}"
    )


@jax.jit
def _all_finite(tree) -> jax.Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()
