"""Trainings on data that lies on the device: `fit` trains what a configuration says.

With the library's own step; one program serves all runs of one architecture.
"""

import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax import create_train_state, make_eval_step, make_train_step, make_train_steps
from alexnet_jax.compilation import compiled
from alexnet_jax.configs import digits
from alexnet_jax.data.batches import batch_indices
from alexnet_jax.data.cache import cached
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.eval_step import make_predict_step
from alexnet_jax.inspect.filters import color_shares
from alexnet_jax.runs import launch
from alexnet_jax.runs.recipe import Recipe
from alexnet_jax.scores import METRICS, image_scores
from experiments.harness import TINY, rounded


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
        """Means over a split, centre crop; NaN where the loss is no number."""
        sums = jax.device_get(self._evaluate(state, data))
        means = {name: float(sums[name] / sums["count"]) for name in METRICS}
        return means if np.isfinite(means["loss"]) else dict.fromkeys(METRICS, float("nan"))

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
      training split without augmentation), "test" by views (none without a test split),
      "color_shares" of the halves of conv1 by epoch; and arrays: conv1's kernels and the test
      log-probabilities. Losses and errors of a network that diverged are None.
    """
    started = time.perf_counter()
    recipe = Recipe(config)
    programs = programs or Programs(recipe)
    train, validation = (on_device(config, name) for name in ("train", "validation"))
    views = views if config.test_split else ()
    test = on_device(config, "test") if views else {"label": ()}
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
        kernel = np.asarray(state.params[first]["kernel"])
        shares.append(color_shares(kernel, towers=1 if kernel.shape[-1] % 2 else 2))
        lines.append({"epoch": epoch + 1, "train": means, "validation": validated})
        diverged = not np.isfinite([means["loss"], validated["loss"]]).all()
        if until(lines[-1]) or diverged or recipe.schedule.finished(schedule):
            break
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
    outcome = "no test"
    if diverged or any(errors["wrong"] is None for errors in result["test"].values()):
        outcome = "diverged"
    elif views:
        outcome = f"test {100 * result['test'][views[0]]['top1_error']:.2f}%"
    say(f"seed {config.seed}: {outcome}, {len(lines)} epochs, {result['seconds']} s")
    arrays = {f"log_probs_{name}": np.asarray(found) for name, found in predicted.items()}
    arrays["conv1"] = np.asarray(state.params[first]["kernel"]).astype(np.float16)
    return rounded(result), arrays


def shortened(config: ConfigDict) -> ConfigDict:
    """A copy that trains in seconds: one epoch of few images, AlexNet narrow and on 64 pixels."""
    config = config.copy_and_resolve_references()
    config.num_epochs = 1.0
    config.train_split, config.validation_split = "train[:256]", "train[256:320]"
    if config.test_split:
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


def digests(config: ConfigDict) -> dict[str, str]:
    """By which the images of each split of a recipe are told from others of their name."""
    return {
        name: _digest(config.dataset, split, config.data_dir, config.stored_size)
        for name in ("train", "validation", "test")
        if (split := config[f"{name}_split"])
    }


@lru_cache
def _digest(dataset: str, split: str, data_dir: str | None, stored_size: int) -> str:
    return open_dataset(dataset, split, data_dir=data_dir, stored_size=stored_size).digest()


def on_device(config: ConfigDict, name: str) -> dict[str, jax.Array]:
    """A split of the recipe, decoded and on the device; kept for the next run."""
    return _split(
        config.dataset,
        config[f"{name}_split"],
        data_dir=config.data_dir,
        stored_size=config.stored_size,
        verify=config.verify_data,
    )


@lru_cache(maxsize=6)
def _split(dataset: str, split: str, **how: Any) -> Any:
    return cached(open_dataset(dataset, split, **how), "device").source.read_all()


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


def _errors(log_probs: np.ndarray, labels: Any) -> dict[str, float | None]:
    labels = np.asarray(labels)
    if not np.isfinite(log_probs).all():  # it diverged: what is largest means nothing
        return {**dict.fromkeys(("top1_error", "top5_error", "wrong")), "of": len(labels)}
    scores = image_scores(log_probs, labels)
    wrong = float(scores["top1_error"].sum())
    return {
        "top1_error": float(scores["top1_error"].mean()),
        "top5_error": float(scores["top5_error"].mean()),
        "wrong": int(wrong) if wrong.is_integer() else wrong,  # of a tie a part is right
        "of": len(labels),
    }
