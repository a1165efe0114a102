"""The loop (section 5): batches in, steps, measurements, schedule, checkpoints.

Everything the loop remembers beyond the train state is in `Progress`, which a checkpoint holds,
and the batches are a function of (seed, step): a run that was killed and started again is the
same run.
"""

import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter
from tqdm import tqdm

from alexnet_jax import parallel, schedules, transfer
from alexnet_jax.augment import Augmentation
from alexnet_jax.checkpoint import Checkpointer
from alexnet_jax.data.cache import cached
from alexnet_jax.data.host import host_augment
from alexnet_jax.data.pipeline import (
    Batch,
    Dataset,
    open_dataset,
    steps_per_epoch,
    train_batches,
)
from alexnet_jax.data.statistics import load_statistics
from alexnet_jax.evaluation import METRICS, evaluate
from alexnet_jax.step import (
    Hyperparameters,
    TrainState,
    create_train_state,
    make_eval_step,
    make_train_step,
)
from alexnet_jax.workdir import (
    CONSTANTS,
    build_augmentation,
    build_model,
    load_run,
    save_config,
    state_template,
)

TEST_SPLITS = {"center": "test", "ten": "test_ten_views"}

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


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events; a line is written whole or not at all."""

    def __init__(self, workdir: Path, writes: bool):
        self._path = workdir / "metrics.jsonl"
        self._board = SummaryWriter(str(workdir)) if writes else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._board is not None:
            self._board.close()

    def cut(self, step: int, validated: int) -> None:
        """Drops what was measured after `step`, the tests, and a line that was cut off.

        A validation after `validated` is dropped too: it was logged and its checkpoint not saved.
        """
        if self._board is None or not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines(keepends=True):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            last = validated if row["split"] == "validation" else step
            if row["step"] <= last and row["split"] not in TEST_SPLITS.values():
                kept.append(line)
        whole = self._path.with_suffix(".tmp")
        whole.write_text("".join(kept))
        os.replace(whole, self._path)

    def write(
        self,
        step: int,
        epoch: float,
        split: str,
        means: Mapping[str, float],
        learning_rate: float,
        images_per_second: float,
    ) -> None:
        """Appends one measurement: the means over `split` after `step` updates."""
        if self._board is None:
            return
        row = {"step": step, "epoch": round(epoch, 4), "split": split}
        row |= {name: means[name] for name in METRICS}
        row |= {"learning_rate": learning_rate, "images_per_second": round(images_per_second, 1)}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name in (*METRICS, "learning_rate", "images_per_second"):
            self._board.add_scalar(f"{split}/{name}", row[name], step)
        self._board.flush()


class StopSignal:
    """Turns the first Ctrl-C or SIGTERM into a request; a second one acts as usual."""

    def __init__(self):
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


class Training:
    """One run: what it is made of, where it stands, and what happens at each step."""

    def __init__(self, config: ConfigDict, workdir: Path):
        self.config, self.workdir = config, workdir
        self.mesh = parallel.make_mesh(config.mesh.data, config.mesh.model)
        self.first = jax.process_index() == 0
        self.say(_describe_devices(self.mesh))
        stored = _open(config, "train")
        self.validation = _open(config, "validation")
        self.model = build_model(config, stored.num_classes)
        self.epoch_steps = steps_per_epoch(stored, config.batch_size)
        self.num_steps = round(config.num_epochs * self.epoch_steps)
        self.schedule = schedules.make_schedule(
            **config.schedule,
            learning_rate=config.learning_rate,
            num_epochs=config.num_epochs,
            steps_per_epoch=self.epoch_steps,
        )
        self.augmentation = build_augmentation(config, constants(config, stored))
        if config.augment not in ("device", "host"):
            raise ValueError(f"augment={config.augment!r}; use 'device' or 'host'")
        if (config.augment, config.cache) == ("host", "device"):
            raise ValueError(
                "augment='host' cannot work on images that cache='device' keeps on the device; "
                "use cache='host'"
            )
        self.data = cached(stored, config.cache, mesh=self.mesh)
        chex.clear_trace_counter()  # counts by name: an ensemble's networks would add up
        self.train_step = make_train_step(
            self.model, self.augmentation, mesh=self.mesh, max_traces=1
        )
        self.eval_step = make_eval_step(self.model, self.augmentation, mesh=self.mesh)
        self.step = 0
        self.progress = Progress(self.schedule.initial_state(), validated=0, sums=_no_sums())
        self.state: TrainState
        self._pending: tuple[int, dict[str, jax.Array]] | None = None  # the step just dispatched
        self._clock = _Clock()

    def say(self, message: str) -> None:
        """Prints a line above the progress bar, on the first process."""
        if self.first:
            tqdm.write(message, file=sys.stdout)

    def run(self) -> None:
        """Trains from where the workdir stands to the end."""
        if self.first:
            self.workdir.mkdir(parents=True, exist_ok=True)
            save_config(self.config, self.workdir)
        with (
            StopSignal() as self.stop,
            Checkpointer(self.workdir / "checkpoints") as self.checkpoints,
            MetricsLog(self.workdir, writes=self.first) as self.log,
        ):
            self._start()
            batches = self._train_stream()
            with self._progress_bar() as bar:
                self._validate_if_due()
                while not self._finished():
                    self._advance(next(batches))
                    self._log_if_due()
                    self._validate_if_due()
                    self._save_if_due()
                    if self.stop.agreed(self.step):
                        self._stop()
                    bar.update(self.config.batch_size)
                    bar.set_description(f"epoch {self.epoch:.1f}/{self.config.num_epochs:g}")
                    bar.set_postfix_str(self._latest, refresh=False)

    @property
    def epoch(self) -> float:
        """Passes over the training split done."""
        return self.step / self.epoch_steps

    def _start(self) -> None:
        """Takes up the last checkpoint, or begins."""
        self._latest = ""
        if self.checkpoints.latest_step is None:
            key = jax.random.key(self.config.seed)
            self.state = create_train_state(self.model, key, mesh=self.mesh)
            if self.config.init_from:
                weights = transfer.load_weights(self.config.init_from, mesh=self.mesh)
                self.state, rows = transfer.start_from(self.state, weights, self.data.class_names)
                self.say(f"Starting from {self.config.init_from}:\n{transfer.format_rows(rows)}")
        else:
            restored = self.checkpoints.restore(state_template(self.model, self.mesh))
            self.state, self.step = restored.state, restored.step
            self.progress = Progress(**restored.metadata["progress"])
            self.say(f"Resuming at step {self.step:,} of {self.num_steps:,} from {self.workdir}")
        self.log.cut(self.step, self.progress.validated)

    def _train_stream(self) -> Iterator[Batch]:
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
            transform=transform,
            place=None if placed else partial(parallel.place_batch, mesh=self.mesh),
        )

    def _finished(self) -> bool:
        return self.step >= self.num_steps or self.schedule.finished(self.progress.schedule)

    def _advance(self, batch: Mapping[str, Any]) -> None:
        """One update. Its metrics are read while the next one runs."""
        hparams = self._hyperparameters()
        self.state, metrics = self.train_step(self.state, batch, hparams)
        self.step += 1
        self._count_pending()
        self._pending = (self.step, metrics)
        self._clock.add(self.config.batch_size)

    def _learning_rate(self, step: int) -> float:
        return self.schedule.learning_rate(step, self.progress.schedule)

    def _hyperparameters(self) -> Hyperparameters:
        config, rate = self.config, self._learning_rate(self.step)
        changes = schedules.hyperparameters_at(
            self.epoch,
            config.hand_changes,
            layers=[layer.name for layer in self.model.layers],
            learning_rate=rate,
            bias_learning_rate=config.bias_learning_rate,
        )
        multipliers = {**config.rate_multipliers, **changes.pop("rate_multipliers", {})}
        fields = {
            "momentum": config.momentum,
            "weight_decay": config.weight_decay,
            "color_strength": config.color_strength,
            "rate_multipliers": multipliers or None,
        }
        return Hyperparameters(learning_rate=rate, **{**fields, **changes})

    def _count_pending(self) -> None:
        """Adds the metrics of the last step dispatched to the sums."""
        if self._pending is None:
            return
        step, values = self._pending
        metrics = {name: float(value) for name, value in jax.device_get(values).items()}
        self._pending = None
        if not math.isfinite(metrics["loss"]):
            self._fail_as_not_finite(f"the loss is {metrics['loss']}", step)
        sums = self.progress.sums
        sums = {name: sums[name] + metrics[name] for name in METRICS} | {"steps": sums["steps"] + 1}
        self.progress = self.progress._replace(sums=sums)
        self._latest = f"loss {metrics['loss']:.3f}, top-1 error {metrics['top1_error']:.1%}"

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
        every = max(1, round(self.config.validate_every_epochs * self.epoch_steps))
        due = self.step % every == 0 or self.step == self.num_steps
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
        self._warn_of_plateau(means["loss"])
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
        self.checkpoints.save(
            self.step,
            self.state,
            arrays={name: np.asarray(getattr(self.augmentation, name)) for name in CONSTANTS},
            metadata={
                "progress": self.progress._asdict(),
                "class_names": list(self.data.class_names),
                "dataset": self.data.name,
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
        where = "there is no checkpoint yet" if kept is None else f"checkpoint {kept} is kept"
        raise FloatingPointError(
            f"{fact} at step {step}; {where}; lower --config.learning_rate (or add "
            "--config.schedule.warmup_epochs) and run again"
        )

    def _warn_of_plateau(self, loss: float) -> None:
        chance = math.log(self.data.num_classes)
        if self.step >= PLATEAU_STEPS and abs(loss - chance) < 0.02 * chance:
            self.say(
                f"warning: the validation loss sits at ln {self.data.num_classes} = {chance:.3f}, "
                "chance level: the known plateau of small initial weights. If it stays, start "
                "again with --config.model.initialization=original, or a larger "
                "--config.learning_rate; check that pixels are 0-255 with the mean subtracted."
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
    results = {}
    with MetricsLog(workdir, writes=jax.process_index() == 0) as log:
        for views in config.final_views:
            eval_step = make_eval_step(run.model, run.augmentation, views=views, mesh=mesh)
            started = time.perf_counter()
            batch_size = config.eval_batch_size // (10 if views == "ten" else 1)
            means = evaluate(eval_step, run.state, dataset, batch_size, mesh) or {}
            rate = len(dataset) / (time.perf_counter() - started)
            split = TEST_SPLITS[views]
            log.write(run.step, epoch, split, means, 0.0, rate)
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


def _open(config: ConfigDict, split: str) -> Dataset:
    return open_dataset(
        config.dataset,
        config[f"{split}_split"],
        data_dir=config.data_dir,
        stored_size=config.stored_size,
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
