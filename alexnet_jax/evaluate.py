"""Errors of one run, or of several averaged: `python -m alexnet_jax.evaluate --workdir runs/`.

Prints tables 1 and 2 of section 6 for these networks: a row for each and one for their average,
in columns for the validation and the test split. A star marks networks that were pre-trained.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import app, flags
from tqdm import tqdm

from alexnet_jax import command

if TYPE_CHECKING:  # loading them takes seconds, and --help should not
    from alexnet_jax.data.pipeline import Dataset
    from alexnet_jax.evaluation import Predictions, SplitResult
    from alexnet_jax.workdir import Run

_WORKDIR = flags.DEFINE_multi_string(
    "workdir", None, "Folder of a run, or of an ensemble; give several to average them."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the results; else the first --workdir.")
_VIEWS = flags.DEFINE_multi_enum(
    "views", ["center", "ten"], ["center", "ten"], "Centre crop, mean of ten views, or both."
)
_WEIGHTS = flags.DEFINE_list("weights", None, "Weight of each network in the mean; else equal.")
_SEARCH = flags.DEFINE_bool(
    "search_weights", False, "Take the weights of the least top-5 error on the validation split."
)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which one of each run.")
_DATASET = flags.DEFINE_string("dataset", None, "Data set; else the first run's own.")
_VALIDATION = flags.DEFINE_string("validation_split", None, "Else the first run's own.")
_TEST = flags.DEFINE_string("test_split", None, "Else the first run's own.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
_LABELS = flags.DEFINE_string(
    "labels", None, "File of labels for a test split without: one a line, by file name."
)
_DEVKIT = flags.DEFINE_string(
    "devkit", None, "ILSVRC's development kit (.tar.gz): it numbers the classes for the server."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Views a step.", lower_bound=1)
_MESH_DATA = flags.DEFINE_integer("mesh_data", None, "Devices to split batches over; else all.")
_MESH_MODEL = flags.DEFINE_integer("mesh_model", 1, "2 puts each tower on a device.")

TITLES = {"center": "Centre crop", "ten": "Mean of ten views"}
SPLITS = ("validation", "test")


def main(argv: Sequence[str]) -> None:
    """Evaluates what the flags name, prints the tables and writes the results."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if not _WORKDIR.value:
        raise app.UsageError("--workdir is missing: the folder of a trained run")

    import jax  # noqa: PLC0415

    from alexnet_jax import parallel, submission  # noqa: PLC0415
    from alexnet_jax.evaluation import tally  # noqa: PLC0415
    from alexnet_jax.workdir import load_run  # noqa: PLC0415

    mesh = parallel.make_mesh(_MESH_DATA.value, _MESH_MODEL.value)
    folders = [folder for workdir in _WORKDIR.value for folder in members(Path(workdir))]
    weights = _given_weights(len(folders))
    runs = [load_run(folder, which=_CHECKPOINT.value, mesh=mesh) for folder in folders]
    splits = _open_splits(runs)
    first = jax.process_index() == 0
    output = Path(_OUTPUT.value or folders[0])
    if first:
        output.mkdir(parents=True, exist_ok=True)

    unlabelled = "test" in splits and splits["test"][0].source[0]["label"] < 0
    if unlabelled:
        order = submission.file_order(splits["test"][0])
        numbers = submission.class_numbers(runs[0].class_names, _DEVKIT.value)
        labels = (
            submission.read_labels(Path(_LABELS.value), order, numbers) if _LABELS.value else None
        )
    elif _LABELS.value:
        raise ValueError("--labels is for a test split that has none; leave it out")

    names = row_names(runs)
    report: dict[str, Any] = {"networks": [_describe(run) for run in runs], "views": {}}
    for views in dict.fromkeys(_VIEWS.value):
        results = {}
        for split, datasets in splits.items():
            blocks = _predictions(runs, datasets, views, mesh)
            if split == "validation" and _SEARCH.value:
                blocks, weights = _search_weights(blocks, runs, datasets[0])
            if split == "test" and unlabelled and labels is not None:
                blocks = _with_labels(blocks, labels)
            results[split] = tally(blocks, _mixtures(weights), datasets[0].num_classes)
        report["views"][views] = _summary(names, weights, results, runs[0].class_names)
        if not first:
            continue
        print(table(TITLES[views], names, [str(run.workdir) for run in runs], results))
        if unlabelled:
            path = output / f"test_{views}.txt"
            submission.write_top5(path, results["test"].top5, order, numbers)
            print(f"{path}: five labels an image, for the ILSVRC server")
    if first:
        (output / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n")
        print(f"{output / 'evaluation.json'}: the same as numbers, with the errors of each class")


def members(workdir: Path) -> list[Path]:
    """The runs in a folder: itself, or those of an ensemble, `seed_0`, `seed_1`, …"""
    if (workdir / "config.json").exists():
        return [workdir]
    seeds = [path.parent for path in workdir.glob("seed_*/config.json")]
    return sorted(seeds, key=lambda path: int(path.name.removeprefix("seed_"))) or [workdir]


def row_names(runs: Sequence["Run"]) -> list[str]:
    """Each network's row as the paper's tables name it, and the average's: "7 CNNs*"."""
    stars = ["*" if run.config.get("init_from") else "" for run in runs]
    together = [f"{len(runs)} CNNs{max(stars)}"] if len(runs) > 1 else []
    return [f"1 CNN{star}" for star in stars] + together


def table(
    title: str, names: Sequence[str], folders: Sequence[str], results: Mapping[str, "SplitResult"]
) -> str:
    """The rows of table 2, errors in percent; a dash where a split has no labels."""
    columns = [(split, error) for split in SPLITS for error in ("top1_error", "top5_error")]
    wide = max(map(len, folders))
    lines = [
        f"{title:<{wide + 10}}{'validation':>18}{'test':>18}",
        " " * (wide + 10) + f"{'top-1':>9}{'top-5':>9}" * 2,
    ]
    for row, name in enumerate(names):
        line = f"{name:<10}{folders[row] if row < len(folders) else 'their mean':<{wide}}"
        for split, error in columns:
            known = split in results and results[split].tallies[row].images
            line += f"{results[split].tallies[row].means[error]:9.2%}" if known else f"{'—':>9}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _given_weights(count: int) -> np.ndarray:
    """The weights of the networks. Raises ValueError for flags that give none."""
    if _WEIGHTS.value is None:
        return np.full(count, 1 / count)
    try:
        weights = np.array([float(weight) for weight in _WEIGHTS.value])
    except ValueError as error:
        raise ValueError(f"--weights: {error}; give numbers, such as 1,0.5") from None
    if len(weights) != count:
        raise ValueError(f"{len(weights)} --weights for {count} runs; give one for each")
    if not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise ValueError(
            f"--weights={','.join(_WEIGHTS.value)}; they are 0 or more, and one is more"
        )
    if _SEARCH.value:
        raise ValueError(
            "--weights are given and --search_weights would find others; leave one out"
        )
    return weights / weights.sum()


def _mixtures(weights: np.ndarray) -> list[np.ndarray]:
    """The weights of every row: each network alone, then, of several, their mean."""
    return [*np.eye(len(weights)), *([weights] if len(weights) > 1 else [])]


def _open_splits(runs: Sequence["Run"]) -> dict[str, list["Dataset"]]:
    """The validation and test split, as each run reads it. Raises ValueError where one does not."""
    from alexnet_jax.data.pipeline import open_dataset  # noqa: PLC0415

    config = runs[0].config
    given = {"validation": _VALIDATION.value, "test": _TEST.value}
    splits = {split: given[split] or config.get(f"{split}_split") for split in SPLITS}
    if _SEARCH.value and not splits["validation"]:
        raise ValueError("--search_weights needs labels to search by; give --validation_split")
    for run in runs[1:]:
        if run.class_names != runs[0].class_names:
            raise ValueError(
                f"{run.workdir} tells {len(run.class_names)} classes and {runs[0].workdir} "
                f"{len(runs[0].class_names)}, or others; average runs on the same classes"
            )
    opened = {}
    for split, spec in splits.items():
        if spec:
            opened[split] = [
                open_dataset(
                    _DATASET.value or config.dataset,
                    spec,
                    data_dir=_DATA_DIR.value or config.data_dir,
                    stored_size=run.config.stored_size,
                    labels=split != "test",
                )
                for run in runs
            ]
    if not opened:
        raise ValueError("no split to evaluate; give --validation_split or --test_split")
    for datasets in opened.values():
        if datasets[0].num_classes != len(runs[0].class_names):
            raise ValueError(
                f"{datasets[0].name} has {datasets[0].num_classes} classes and {runs[0].workdir} "
                f"was trained on {len(runs[0].class_names)}; give the data set of its classes"
            )
    return opened


def _predictions(runs, datasets, views, mesh) -> Iterable["Predictions"]:
    from alexnet_jax.evaluation import predictions  # noqa: PLC0415

    with tqdm(
        desc=f"{TITLES[views]}, {datasets[0].split}",
        total=len(datasets[0]),
        unit=" img",
        leave=False,
        disable=None,
    ) as bar:
        for block in predictions(
            runs, datasets, views=views, batch_size=_BATCH_SIZE.value, mesh=mesh
        ):
            yield block
            bar.update(len(block.labels))


def _search_weights(blocks, runs, dataset) -> tuple[Iterable["Predictions"], np.ndarray]:
    """The weights for these predictions, which wait in a file meanwhile, and the predictions."""
    from alexnet_jax.evaluation import Predictions, search_weights  # noqa: PLC0415

    with tempfile.TemporaryFile() as file:
        shape = (len(runs), len(dataset), dataset.num_classes)
        stored = np.memmap(file, np.float32, "w+", shape=shape)
        labels, done = np.empty(len(dataset), np.int32), 0
        for block in blocks:
            part = slice(done, done + len(block.labels))
            stored[:, part], labels[part] = block
            done = part.stop
    parts = np.array_split(np.arange(len(labels)), -(-len(labels) // 1000))
    return (Predictions(stored[:, p], labels[p]) for p in parts), search_weights(stored, labels)


def _with_labels(blocks, labels) -> Iterable["Predictions"]:
    """The predictions with labels int32 [N] of the whole split put in."""
    done = 0
    for block in blocks:
        yield block._replace(labels=labels[done : done + len(block.labels)])
        done += len(block.labels)


def _describe(run: "Run") -> dict[str, Any]:
    return {
        "workdir": str(run.workdir),
        "checkpoint": run.step,
        "seed": run.config.seed,
        "init_from": run.config.get("init_from"),
    }


def _summary(names, weights, results, class_names) -> dict[str, Any]:
    """The table and the errors by class of its last row, as JSON."""
    rows = [{"row": name} for name in names]
    for split, result in results.items():
        for row, counts in zip(rows, result.tallies, strict=True):
            if counts.images:
                row[split] = {"images": counts.images, **counts.means}
    classes = {split: result.tallies[-1].by_class(class_names) for split, result in results.items()}
    return {"weights": [float(weight) for weight in weights], "rows": rows, "classes": classes}


if __name__ == "__main__":
    command.run(main)
