"""The tables of section 6: errors of one run, or of several averaged.

Prints tables 1 and 2 of section 6 for these networks: a row for each and one for their mean, in
columns for the validation and the test split. A star marks networks that were pre-trained.
"""

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from alexnet_jax.augment import VIEWS
from alexnet_jax.data.sets import Dataset, match_classes, open_dataset
from alexnet_jax.files import local_path, output_file, output_folder, reserve, whole_file
from alexnet_jax.runs import submission
from alexnet_jax.runs.configuration import load_config, members
from alexnet_jax.runs.evaluation import (
    Predictions,
    SplitResult,
    Tally,
    predictions,
    search_weights,
    tally,
)
from alexnet_jax.runs.workdir import Run, load_run
from alexnet_jax.wording import printable

# Draws what was taken for what: (counts, class names, title, file).
Draw = Callable[[Tally, Sequence[str], str, Path], None]


def evaluate_runs(
    workdirs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    views: Sequence[str] = ("center", "ten"),
    weights: Sequence[float | str] | None = None,
    search: bool = False,
    checkpoint: str = "best",
    dataset: str | None = None,
    splits: Mapping[str, str | None] | None = None,
    data_dir: str | None = None,
    labels: str | Path | None = None,
    devkit: str | Path | None = None,
    classes_by_position: bool = False,
    batch_size: int = 256,
    mesh: Mesh | None = None,
    draw: Draw | None = None,
) -> dict[str, Any]:
    """Evaluates runs alone and averaged, prints the tables and writes the results.

    Args:
      workdirs: folders of runs, or of ensembles.
      output: folder for `evaluation.json`, the pictures of confusion and the lists for the server;
        else the first of `workdirs`.
      views: "center", "ten" (the mean of ten views' probabilities) or both.
      weights: of the networks in the mean; else equal.
      search: find the weights of the least top-5 error on the validation split instead.
      checkpoint: "best" by the validation, or "last".
      dataset: a tfds name; else the first run's, as are the `splits` "validation" and "test".
      data_dir: as for `open_dataset`.
      labels: file of the labels of a test split that has none.
      devkit: ILSVRC's development kit; see `submission.class_numbers`.
      classes_by_position: class n of the data is class n of the runs, whatever their names;
        otherwise classes are matched by name.
      batch_size: views per step.
      mesh: where to compute.
      draw: draws the pictures of confusion; None draws none.

    Returns:
      What is written to `evaluation.json`.

    Raises:
      ValueError, CheckpointError: a run, a split or a file cannot be used.
    """
    folders = [folder for workdir in map(local_path, workdirs) for folder in _networks(workdir)]
    shares = _shares(weights, len(folders), search)
    loaded = [load_run(folder, which=checkpoint, mesh=mesh) for folder in folders]
    _check_distinct(loaded)
    runs = [run.with_classes(loaded[0].class_names) for run in loaded]
    output = local_path(output or workdirs[0])  # told now, not after the work
    if not output.exists():
        output_folder(output, "--output")
    output_file(output / "evaluation.json")
    config = runs[0].config
    wanted = {split: config.get(f"{split}_split") for split in ("validation", "test")}
    wanted |= {split: name for split, name in (splits or {}).items() if name is not None}
    opened = _open(
        runs, dataset or config.dataset, wanted, data_dir or config.data_dir, classes_by_position
    )
    if search and "validation" not in opened:
        raise ValueError("weights are searched on the validation split; give --validation_split")

    unlabelled = "test" in opened and opened["test"][0].source[0]["label"] < 0
    if unlabelled:
        order = submission.file_order(opened["test"][0])
        class_names = runs[0].class_names
        if classes_by_position:  # the data set's own, which the runs may call otherwise
            class_names = open_dataset(
                dataset or config.dataset,
                wanted["test"],
                data_dir=data_dir or config.data_dir,
                stored_size=config.stored_size,
                labels=False,
            ).class_names
        numbers = submission.class_numbers(class_names, devkit)
        truth = submission.read_labels(local_path(labels), order, numbers) if labels else None
    elif labels or devkit:
        fact = "the test split has labels already" if "test" in opened else "no test split is named"
        flag = "--labels" if labels else "--devkit"
        raise ValueError(f"{labels or devkit}: {fact}; leave {flag} out")

    first = jax.process_index() == 0
    names = row_names(runs)
    pictures: dict[Path, str] = {}
    read = {split: f"{datasets[0].name} {datasets[0].split}" for split, datasets in opened.items()}
    report: dict[str, Any] = {
        "networks": [_describe(run) for run in runs],
        "which": checkpoint,
        "splits": read,
        "views": {},
    }
    for split, found in read.items():
        if first and (dataset or wanted[split] != config.get(f"{split}_split")):
            print(printable(f"{split}: {found}"))
    for view in dict.fromkeys(views):
        results = {}
        for split, datasets in opened.items():
            blocks = _predictions(runs, datasets, view, batch_size, mesh)
            if split == "validation" and search:
                blocks, shares = _search_weights(blocks, len(runs), datasets[0])
            if split == "test" and unlabelled and truth is not None:
                blocks = _with_labels(blocks, truth)
            results[split] = tally(blocks, _mixtures(shares), datasets[0].num_classes)
        report["views"][view] = _summary(names, shares, results, runs[0].class_names)
        if not first:
            continue
        mean = _describe_mean(weights, search, shares)
        print(printable(table(view, names, [str(folder) for folder in folders], results, mean)))
        if unlabelled:
            path = output / f"test_{view}.txt"
            submission.write_top5(path, results["test"].top5, order, numbers)
            print(f"{path}: five labels an image, for the ILSVRC server")
        for split, result in results.items():  # the last view's stays
            counts, path = result.tallies[-1], output / f"confusion_{split}.png"
            if draw is not None and counts.images and counts.confusion is not None:
                title = (
                    f"{opened[split][0].split}, {VIEWS[view].title}: {counts.images:,} images, "
                    f"{counts.means['top1_error']:.2%} error"
                )
                draw(counts, runs[0].class_names, title, path)
                pictures[path] = f"{path}: {title}"
    if first:
        for line in pictures.values():
            print(printable(line))
        _write(report, output / "evaluation.json")
    return report


def _networks(workdir: Path) -> list[Path]:
    """The run in a folder, or those of the ensemble there; says which of these are not there."""
    if not (found := members(workdir)):
        return [workdir]
    if (workdir / "config.json").exists():
        config = load_config(workdir)
        seeds = range(config.seed, config.seed + config.ensemble)
        absent = [f"seed_{s}" for s in seeds if workdir / f"seed_{s}" not in found]
        if absent and jax.process_index() == 0:
            print(
                f"{printable(str(workdir))} holds {len(found)} of {len(seeds)} networks: "
                f"{', '.join(absent)} not; the training command makes them"
            )
    return found


def _check_distinct(runs: Sequence[Run]) -> None:
    """Raises ValueError for one network given twice, in one folder or as a copy."""
    seen: dict[str, Path] = {}
    for run in runs if len(runs) > 1 else ():
        other = seen.setdefault(run.weights_digest, run.workdir)
        if other is not run.workdir:
            raise ValueError(f"{run.workdir} holds the same network as {other}; give it once")


def row_names(runs: Sequence[Run]) -> list[str]:
    """Each network's row as the paper's tables name it, and the mean's: "7 CNNs*"."""
    stars = ["*" if run.config.get("init_from") else "" for run in runs]
    together = [f"{len(runs)} CNNs{max(stars)}"] if len(runs) > 1 else []
    return [f"1 CNN{star}" for star in stars] + together


def table(
    view: str,
    names: Sequence[str],
    folders: Sequence[str],
    results: Mapping[str, SplitResult],
    mean: str = "their mean",
) -> str:
    """The rows of table 2, errors in percent; a dash where there are no labels."""
    title = VIEWS[view].title.capitalize()
    wide = max(map(len, [*folders, mean])) + 11
    lines = [
        f"{title:<{wide}}{'validation':>18}{'test':>18}",
        " " * wide + f"{'top-1':>9}{'top-5':>9}" * 2,
    ]
    for row, name in enumerate(names):
        line = f"{name:<10}{folders[row] if row < len(folders) else mean}".ljust(wide)
        for split in ("validation", "test"):
            counts = results[split].tallies[row] if split in results else None
            for error in ("top1_error", "top5_error"):
                line += f"{counts.means[error]:9.2%}" if counts and counts.images else f"{'—':>9}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _shares(weights: Sequence[float | str] | None, count: int, search: bool) -> np.ndarray:
    """The weights [M] of the networks, of sum 1. Raises ValueError for what makes none."""
    if weights is None:
        return np.full(count, 1 / count)
    if search:
        raise ValueError("weights are given, and to be searched; leave out one of the two")
    try:
        shares = np.array([float(weight) for weight in weights])
    except ValueError as error:
        raise ValueError(f"weights: {error}; give numbers, such as 1,0.5") from None
    if len(shares) != count:
        raise ValueError(f"{len(shares)} weights for {count} runs; give one for each")
    if not (shares >= 0).all() or not 0 < shares.sum() < np.inf:
        raise ValueError(f"weights {', '.join(map(str, weights))}: give 0 or more, one above 0")
    return shares / shares.sum()


def _mixtures(shares: np.ndarray) -> list[np.ndarray]:
    """The weights of every row: each network alone, then, of several, their mean."""
    return [*np.eye(len(shares)), *([shares] if len(shares) > 1 else [])]


def _open(
    runs: Sequence[Run],
    name: str,
    splits: Mapping[str, str | None],
    data_dir: str | None,
    by_position: bool,
) -> dict[str, list[Dataset]]:
    """The splits as each run reads them. Raises ValueError where they or the runs do not fit."""
    first = runs[0]
    opened = {
        split: [
            open_dataset(
                name,
                wanted,
                data_dir=data_dir,
                stored_size=run.config.stored_size,
                labels=split != "test",
                flag=f"--{split}_split",
            )
            for run in runs
        ]
        for split, wanted in splits.items()
        if wanted
    }
    if not opened:
        raise ValueError("no split to evaluate; give --validation_split or --test_split")
    for split, datasets in opened.items():
        matched = [
            match_classes(
                dataset, first.class_names, owner=str(first.workdir), by_position=by_position
            )
            for dataset in datasets
        ]
        opened[split] = [dataset for dataset, _ in matched]
        if note := matched[0][1]:
            print(printable(note))
    return opened


def _predictions(
    runs: Sequence[Run],
    datasets: Sequence[Dataset],
    view: str,
    batch_size: int,
    mesh: Mesh | None,
) -> Iterator[Predictions]:
    """`evaluation.predictions` with a progress bar."""
    label = f"{datasets[0].split}, {view}"
    total = len(datasets[0])
    with tqdm(total=total, desc=label, unit=" img", leave=False, disable=None) as bar:
        for block in predictions(runs, datasets, views=view, batch_size=batch_size, mesh=mesh):
            yield block
            bar.update(len(block.labels))


def _search_weights(
    blocks: Iterable[Predictions], networks: int, dataset: Dataset
) -> tuple[Iterator[Predictions], np.ndarray]:
    """The predictions again, which wait in a file meanwhile, and the weights found on them."""
    shape = (networks, len(dataset), dataset.num_classes)
    size = 4 * math.prod(shape)
    with tempfile.TemporaryFile() as file:
        try:
            reserve(file.fileno(), 0, size)
        except OSError as error:
            told = f"{error.strerror}, and the predictions take {size / 1e6:,.2f} MB there"
            folder = tempfile.gettempdir()
            raise OSError(error.errno, f"{told}; set TMPDIR to another folder", folder) from error
        stored = np.memmap(file, np.float32, "w+", shape=shape)
    labels = np.empty(len(dataset), np.int32)
    done = 0
    for block in blocks:
        part = slice(done, done + len(block.labels))
        stored[:, part], labels[part] = block
        done = part.stop
    parts = (slice(start, start + 1000) for start in range(0, len(labels), 1000))
    return (Predictions(stored[:, p], labels[p]) for p in parts), search_weights(stored, labels)


def _with_labels(blocks: Iterable[Predictions], labels: np.ndarray) -> Iterator[Predictions]:
    """The predictions with the labels int32 [N] of the whole split put in."""
    done = 0
    for block in blocks:
        yield block._replace(labels=labels[done : done + len(block.labels)])
        done += len(block.labels)


def _describe(run: Run) -> dict[str, Any]:
    return {
        "workdir": str(run.workdir),
        "checkpoint": run.step,
        "seed": run.config.seed,
        "init_from": run.config.get("init_from"),
    }


def _summary(
    names: Sequence[str],
    shares: np.ndarray,
    results: Mapping[str, SplitResult],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """The table, and the errors by class of its last row, as JSON."""
    rows: list[dict[str, Any]] = [{"row": name} for name in names]
    for split, result in results.items():
        for row, counts in zip(rows, result.tallies, strict=True):
            if counts.images:
                row[split] = {"images": counts.images, **counts.means}
    classes = {split: result.tallies[-1].by_class(class_names) for split, result in results.items()}
    return {"weights": shares.tolist(), "rows": rows, "classes": classes}


def _describe_mean(weights: Any, search: bool, shares: np.ndarray) -> str:
    """What the last row is: the mean, or a weighted one with its weights."""
    if weights is None and not search:
        return "their mean"
    return f"mean weighted {', '.join(f'{share:.3g}' for share in shares)}"


def _write(report: Mapping[str, Any], path: Path) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(report, indent=2) + "\n")
    print(printable(f"{path}: the same as numbers, with the errors of each class"))
