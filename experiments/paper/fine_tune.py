"""Table 2: pre-training on more classes helps ("1 CNN*", 40.7 to 39.0%); here where images are few.

    python -m experiments.paper.fine_tune
    python -m experiments.paper.fine_tune --full

Pre-trains on five Imagenette classes and fine-tunes on a hundred images of each of the other five,
against starting from scratch, until both have learned their images. By default half the network's
width and 64 pixels, a quarter of an hour of CPU; --full takes the paper's size. One net is
pre-trained, for all seeds; so how much another would help is not in their spread. As the authors
did, fine-tuning runs at a tenth of the rate, its new last layer at ten times that. Writes
results/fine_tune.json and .png.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from alexnet_jax import (
    Augmentation,
    Hyperparameters,
    alexnet,
    create_train_state,
    make_eval_step,
    make_train_step,
)
from alexnet_jax.data.batches import steps_per_epoch, train_batches
from alexnet_jax.data.cache import InMemory
from alexnet_jax.data.sets import Dataset, open_dataset
from alexnet_jax.inspect.drawing import COLORS, new_figure, style
from alexnet_jax.runs import transfer
from alexnet_jax.runs.evaluation import evaluate
from experiments import harness

FLAGS = flags.FLAGS
flags.DEFINE_bool("full", False, "the paper's size, pre-trained for twice as long")
flags.DEFINE_multi_integer("seed", [0, 1, 2, 3, 4], "one pair of runs each")
flags.DEFINE_integer("images", 100, "training images of each new class")
BATCH = 50
SMALL = {"image_size": 64, "conv_features": (48, 128, 192, 192, 128), "fc_features": (2048, 2048)}


def main(_) -> None:
    """Trains all runs and writes the results."""
    harness.shorten(full=False, images=10, seed=[0])
    name, splits = "imagenette/160px-v2", ("train", "validation")
    # 15 epochs were too few: a net from scratch was at chance for five, and far from its end.
    size, epochs, fields = (256, (60, 100), {}) if FLAGS.full else (72, (30, 100), SMALL)
    if harness.quick():  # ten classes that need no download
        name, splits, fields, epochs = "digits", ("train[:400]", "test"), harness.TINY, (3, 3)
    old, new = range(0, 10, 2), range(1, 10, 2)
    train, test = (open_dataset(name, split, stored_size=size) for split in splits)
    old_train, old_test = part(train, old), part(test, old)
    new_train, new_test = part(train, new, FLAGS.images), part(test, new)
    model = alexnet("paper", num_classes=5, initialization="original", **fields)
    fit = trainer(model)

    start = create_train_state(model, jax.random.key(100))
    pretrained, old_errors, _ = fit(start, old_train, old_test, 0.01, 1.0, epochs[0], 100)
    weights = transfer.Weights(jax.device_get(pretrained.params), old_train.class_names)
    runs: dict[str, list] = {"from scratch": [], "fine-tuned": []}
    trained: dict[str, list] = {way: [] for way in runs}
    for seed in FLAGS.seed:
        scratch = create_train_state(model, jax.random.key(seed))
        tuned, rows = transfer.start_from(scratch, weights, new_train.class_names)
        if seed == FLAGS.seed[0]:
            print(transfer.format_rows(rows))
        tuned = jax.tree.map(jax.numpy.copy, tuned)  # the step is given its state to destroy
        for way, state, rate, head in (
            ("fine-tuned", tuned, 0.001, 10.0),
            ("from scratch", scratch, 0.01, 1.0),
        ):
            _, errors, error = fit(state, new_train, new_test, rate, head, epochs[1], seed)
            runs[way].append(errors)
            trained[way].append(error)
    result = {
        "dataset": f"{name} (224x224, squeezed to squares)",
        "network": "paper" if FLAGS.full else "half width, 64 pixels",
        "pre-training": {
            "classes": old_train.class_names,
            "images": len(old_train),
            "epochs": epochs[0],
            "test_top1_error": old_errors[-1],
        },
        "classes": new_train.class_names,
        "images": len(new_train),
        "test_images": len(new_test),
        "epochs": epochs[1],
        "seeds": FLAGS.seed,
        "test_top1_error_after_each_third": runs,
        "training_top1_error": trained,
    }
    with style():
        harness.record("fine_tune", result, draw(result))


def trainer(model: Any) -> Any:
    """A function that trains; one program serves all runs."""
    augmentation = Augmentation()  # ImageNet's constants, of which these classes are a part
    step = make_train_step(model, augmentation, max_traces=1)
    eval_step = make_eval_step(model, augmentation)

    def fit(state, data, heldout, rate, head, epochs, seed):
        """The state after `epochs`, the held-out error after each third, and the training error."""

        def error(images):
            return evaluate(eval_step, state, images, 200).means["top1_error"]

        errors, steps = [], epochs * steps_per_epoch(data, BATCH)
        batches = train_batches(data, batch_size=BATCH, seed=seed)
        for number in range(steps):
            late = number >= 2 * steps // 3
            hparams = Hyperparameters(
                learning_rate=rate / 10 if late else rate, rate_multipliers={"fc8": head}
            )
            state, _ = step(state, next(batches), hparams)
            if (number + 1) % (steps // 3) == 0:
                errors.append(error(heldout))
        print(f"rate {rate}, seed {seed}: {errors}", flush=True)
        return state, errors, error(data)

    return fit


def part(dataset: Dataset, classes: range, images: int | None = None) -> Dataset:
    """The first `images` (all) images of each of `classes`, in memory, labelled from 0."""
    decoded = dataset.source.read(np.arange(len(dataset)))
    chosen = [np.flatnonzero(decoded["label"] == k)[:images] for k in classes]
    labels = np.repeat(np.arange(len(classes)), [len(c) for c in chosen]).astype(np.int32)
    return dataclasses.replace(
        dataset,
        source=InMemory(decoded["image"][np.concatenate(chosen)], labels),
        num_classes=len(classes),
        class_names=tuple(dataset.class_names[k] for k in classes),
    )


def draw(result: dict) -> Figure:
    """Test error over epochs: a line a seed."""
    figure = new_figure(5, 3)
    axes = figure.subplots()
    epochs = result["epochs"] * np.arange(1, 4) / 3
    for (name, runs), color in zip(
        result["test_top1_error_after_each_third"].items(), ("blue", "red"), strict=True
    ):
        for number, errors in enumerate(runs):
            label = None if number else name
            axes.plot(epochs, 100 * np.array(errors), "o-", color=COLORS[color], label=label)
    axes.axhline(80, color=COLORS["muted"], linewidth=1, linestyle=":", label="chance")
    axes.set(xlabel="epoch", ylabel="top-1 test error (%)", ylim=(0, 85))
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(main)
