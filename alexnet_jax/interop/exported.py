"""What leaves: facts that go with the weights, and errors measured again before a file is kept."""

import contextlib
import hashlib
import json
import math
import operator
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import alexnet_jax
from alexnet_jax.augment import VIEWS
from alexnet_jax.data.batches import eval_batches
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.files import file_digest, json_object, naming, output_file, part_folder, whole_file
from alexnet_jax.interop.imported import check_params
from alexnet_jax.runs.configuration import config_of
from alexnet_jax.runs.evaluation import Tally
from alexnet_jax.runs.recipe import build_model, split_augmentation
from alexnet_jax.runs.workdir import Run, augmentation_in, names_in
from alexnet_jax.state import TrainState, run_key

Facts = dict[str, Any]
# uint8 [B, S, S, 3] as stored -> probabilities [B, K]
Predict = Callable[[np.ndarray], np.ndarray]
_BATCH = 32
DAMAGED = ": its header is damaged"
# Images, of so many, that another machine's rounding may decide otherwise.
_ONE_IN = 1000


def measure(
    predict: Predict, facts: Mapping[str, Any], split: str, data_dir: str | None = None
) -> Facts:
    """Errors over a split of the data set that a run was trained for.

    Args:
      predict: the network as it is to be kept.
      facts: of the run.
      split: such as "test".
      data_dir: folder of prepared data sets.

    Raises:
      ValueError: there is no such split, or its classes are others.
    """
    config, names = facts["config"], tuple(facts["class_names"])
    dataset = open_dataset(
        config["dataset"], split, data_dir=data_dir, stored_size=config["stored_size"]
    )
    if tuple(dataset.class_names) != names:
        raise ValueError(
            f"{config['dataset']} has other classes than the network; its error cannot be measured"
        )
    counts = Tally(len(names))
    for batch in eval_batches(dataset, batch_size=_BATCH):
        real = int(batch["mask"].sum())
        probabilities = np.asarray(predict(batch["image"]), np.float64)[:real]
        log_probs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
        counts.add(log_probs, batch["label"][:real])
    means = counts.means
    return {
        "dataset": config["dataset"],
        "split": split,
        "images": counts.images,
        "views": facts["views"],
        "top1_wrong": round(means["top1_error"] * counts.images),
        "top5_wrong": round(means["top5_error"] * counts.images),
        "loss": round(means["loss"], 6),
    }


def facts_of(run: Run) -> Facts:
    """What there is to know of a run without its weights, as JSON; "errors" are not known yet."""
    settings, constants = split_augmentation(run.augmentation)
    here = {"data_dir": None, "init_from": None}  # paths of this machine
    config = json.loads(run.config.to_json()) | here
    return {
        "format": "alexnet_jax",
        "version": alexnet_jax.__version__,
        "config": config,
        "class_names": list(run.class_names),
        "step": run.step,
        "seed": run.config.seed,
        "views": run.views,
        "augmentation": settings,
        "constants": {name: x.tolist() for name, x in constants.items() if x.size < 100},
        "weights": run.weights_digest,
        "mean": _digest(constants["mean"]),
        "errors": None,
    }


def _digest(mean: np.ndarray) -> str:
    """SHA-256 of a mean: its shape and bits."""
    mean = np.ascontiguousarray(mean, np.float32)
    return hashlib.sha256(f"{mean.shape}\n".encode() + mean.tobytes()).hexdigest()


def run_of(facts: Facts, params: Mapping[str, Any], mean: np.ndarray | None, path: Path) -> Run:
    """The run that a file holds.

    Args:
      facts: those in the file.
      params: layer -> {"kernel", "bias"}.
      mean: the mean image, where it is too large for the facts.
      path: the file, which errors name.

    Raises:
      ValueError: the facts are damaged, or the weights are not those that were written.
    """
    with naming(path, DAMAGED):
        config, names = config_of(facts["config"]), names_in(facts)
        constants = {name: np.array(x, np.float32) for name, x in facts["constants"].items()}
        if mean is not None:
            constants["mean"] = np.asarray(mean)
        step = np.int32(operator.index(facts["step"]))
        if step < 0:
            raise ValueError(f"step is {step}")
        model = build_model(config, len(names))
        augmentation = augmentation_in(facts, constants)
        check_params(model, params, path, f"the net {config.preset!r}")
        arrays = jax.tree.map(jnp.asarray, {name: dict(leaves) for name, leaves in params.items()})
        state = TrainState(jnp.asarray(step), arrays, (), run_key(config.seed))
        run = Run(path, config, model, augmentation, state, names, int(step))
        if run.weights_digest != facts["weights"]:
            raise ValueError(f"{path}: its weights are not those that were written; fetch it again")
        digest = _digest(constants["mean"])
        if facts.get("mean", digest) != digest:  # files of earlier versions do not say it
            raise ValueError(f"{path}: its mean is not the one that was written; fetch it again")
    return run


def keep(
    path: str | Path,
    write: Callable[[Path, Facts], None],
    facts: Facts,
    *,
    data_dir: str | None = None,
) -> None:
    """Writes an export and its card; keeps them if a fresh process measures what `compare` allows.

    Args:
      path: the file; its card is `NAME.md`.
      write: writes the file, and what lies beside it, to the path it is given.
      facts: with "errors", or without where they were not measured; then the file is read only.
      data_dir: folder of prepared data sets.

    Raises:
      ValueError: what was read back is not what was written; nothing is kept.
    """
    path = output_file(path)
    with part_folder(path) as folder:
        new = folder / path.name
        with _named_beside(path, folder):
            write(new, facts)
            facts = facts | {"file": file_digest(new)}
            with whole_file(card_of(new)) as text:
                text.write(card(path.name, facts))
        command = [sys.executable, "-m", "alexnet_jax.convert", f"--verify={new}"]
        command += [f"--data_dir={data_dir}"] if data_dir else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise ValueError(
                f"{path} is not kept: read back, it is not what was written "
                f"({reason.removeprefix('error: ')})"
            )
        files = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
        for file in files:
            if (old := path.with_name(file.name)).is_dir():
                raise ValueError(f"{old} is a folder and belongs to {path.name}; change --output")
        # The file itself last: where it is, its card, its mean and its parameters are.
        for file in files:
            os.replace(file, path.with_name(file.name))
        if len(files) == 2 and path.suffix == ".stablehlo":  # no parameters beside it any more
            path.with_name(f"{path.name}.safetensors").unlink(missing_ok=True)


@contextlib.contextmanager
def _named_beside(path: Path, folder: Path) -> Iterator[None]:
    """An OSError names the file that one in `folder` was to become, which lies beside `path`."""
    try:
        yield
    except OSError as error:
        if not error.filename or Path(error.filename).parent != folder:
            raise
        file = path.with_name(Path(error.filename).name)
        raise type(error)(error.errno, error.strerror, str(file)) from error


def compare(errors: Facts, measured: Facts, path: Path) -> None:
    """Raises ValueError where errors differ by more than another machine's rounding may make of it.

    Of each 1,000 images one may be right or wrong otherwise, and the loss differ by 1e-4 + 1e-3
    times its amount.
    """
    least = errors["images"] // _ONE_IN
    for name in ("images", "top1_wrong", "top5_wrong"):
        allowed = 0 if name == "images" else least
        if abs(errors[name] - measured[name]) > allowed:
            raise ValueError(
                f"{path}: {name} is {measured[name]} of {measured['images']} here and its card "
                f"says {errors[name]} of {errors['images']}"
            )
    if not abs(errors["loss"] - measured["loss"]) <= 1e-4 + 1e-3 * abs(errors["loss"]):  # nor NaN
        raise ValueError(
            f"{path}: the loss is {measured['loss']} here and its card says {errors['loss']}"
        )


def in_words(errors: Facts | None) -> str:
    """Errors, to print."""
    if not errors:
        return "its errors were not measured"
    views = {"ten": "ten views", "center": "centre crop"}[errors["views"]]
    return (
        f"{errors['top1_wrong']:,} of {errors['images']:,} wrong "
        f"({errors['top1_wrong'] / errors['images']:.2%}), {errors['top5_wrong']:,} not among the "
        f"five most probable; {errors['dataset']}, {errors['split']}, {views}"
    )


# --- the card -------------------------------------------------------------------------------------


def card_of(path: Path) -> Path:
    """Where an export's card lies."""
    return path.with_name(f"{path.name}.md")


def card(name: str, facts: Facts) -> str:
    """What a stranger should know of the file, and the facts as JSON."""
    config, names = facts["config"], facts["class_names"]
    changed = [f"{name} {value}" for name, value in config["model"].items() if value is not None]
    rows = [
        ("network", f"preset `{config['preset']}`{', ' * bool(changed)}{', '.join(changed)}"),
        ("layout", facts.get("layout", "alexnet_jax")),
        ("classes", f"{len(names)}: {', '.join(names[:5])}{', …' * (len(names) > 5)}"),
        ("trained on", f"{config['dataset']}, split {config['train_split']}"),
        ("updates", f"{facts['step']:,}; seed {facts['seed']}"),
        ("error", in_words(facts["errors"])),
        ("SHA-256 of the weights", f"`{facts['weights']}`"),
        ("SHA-256 of the file", f"`{facts['file']}`"),
        ("written by", f"alexnet_jax {facts['version']}"),
    ]
    measured = (
        "The error was measured, and again from this file in a fresh process before it was kept: "
        "of each 1,000 images one may fall otherwise, and the loss differ by 0.1% and 0.0001."
        if facts["errors"]
        else "The file was read back in a fresh process before it was kept."
    )
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return (
        f"# {name}\n\n| | |\n|---|---|\n{table}\n\n"
        f"{measured} Do it again with\n\n    python -m alexnet_jax.convert --verify={name}\n\n"
        f"```json\n{json.dumps(facts, indent=1)}\n```\n"
    )


def facts_on_card(path: Path) -> Facts:
    """The facts on the card of a file.

    Raises:
      ValueError: there are none, its table says others, or the file is not the one it is of.
    """
    where = card_of(path)
    try:
        text = where.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{where} cannot be read ({error}); it belongs to {path.name}") from error
    found = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)
    facts = json_object(found[1], where) if found else {}
    if facts.get("format") != "alexnet_jax":
        raise ValueError(f"{where} is no card of this library's")
    with naming(where):
        _check_card(facts)
        whole = card(text.partition("\n")[0].removeprefix("# "), facts)
    if text.split() != whole.split():  # ends of lines aside
        raise ValueError(f"{where} says other things in words than in its JSON; fetch it again")
    if file_digest(path) != facts["file"]:
        raise ValueError(f"{path} is not the file that its card is of; fetch it again")
    return facts


def _check_card(facts: Facts) -> None:
    """Raises KeyError, TypeError or ValueError where what is read from a card is not there."""
    config_of(facts["config"], unknown=True)
    names_in(facts)
    _check_kinds(facts, {"weights": str, "views": str, "file": str})
    if (errors := facts["errors"]) is not None:
        _check_kinds(errors, _ERRORS)
        if not errors["images"]:
            raise ValueError("its errors are of 0 images")


def _check_kinds(facts: Facts, kinds: Mapping[str, Any]) -> None:
    for name, kind in kinds.items():
        value = facts[name]
        sound = isinstance(value, kind) and (kind is str or 0 <= value < math.inf)
        if not sound or (name == "views" and value not in VIEWS):
            raise ValueError(f"{name} is {value!r:.40}")


_ERRORS: dict[str, Any] = {
    **dict.fromkeys(("split", "dataset", "views"), str),
    **dict.fromkeys(("images", "top1_wrong", "top5_wrong"), int),
    "loss": float | int,
}
