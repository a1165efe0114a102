"""The report page: what a run is, what it learned and where it errs, in one HTML file."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from tqdm import tqdm

from alexnet_jax.data.cache import cached
from alexnet_jax.data.sets import Dataset
from alexnet_jax.files import naming, whole_file
from alexnet_jax.inspect import html, sections
from alexnet_jax.inspect.names import readable_names
from alexnet_jax.inspect.samples import sample, split_of
from alexnet_jax.models.layer_table import layer_table
from alexnet_jax.runs.checkpoint import Checkpointer, DamagedCheckpoint
from alexnet_jax.runs.metrics_log import problem_with_log, read_metrics
from alexnet_jax.runs.workdir import Run
from alexnet_jax.wording import printable


def write_report(
    run: Run,
    output: Path,
    *,
    data_dir: str | None = None,
    images: int = 1000,
    gallery: int = 10_000,
    classes_by_position: bool = False,
) -> None:
    """Writes the page about `run` to `output`, whole or not at all.

    Args:
      run: from `load_run`.
      output: the HTML file.
      data_dir: tfds data_dir that holds the run's data set; None: where the run found it.
      images: most test images to look at.
      gallery: most training images to search for neighbours.
      classes_by_position: class n of the data is the run's class n, whatever its name.

    Raises:
      ValueError: the data set is not there, or has other classes.
    """
    config = run.config

    def open_split(split: str) -> Dataset:
        return split_of(run, split, data_dir=data_dir, classes_by_position=classes_by_position)

    test = open_split(config.test_split or config.validation_split)
    if problem := _problem_with_log(run):
        print(printable(f"warning: {problem}"))
    page = build_page(
        run,
        cached(sample(test, images), "host"),
        sample(open_split(config.train_split), gallery),
        problem,
    )
    with whole_file(output) as file:
        file.write(page)


def _problem_with_log(run: Run) -> str:
    """What is wrong with a run's log by its last checkpoint, in one line; "" where nothing is."""
    folder = run.workdir / "checkpoints"
    with (
        contextlib.suppress(DamagedCheckpoint),  # or replaced meanwhile: then nothing is known
        Checkpointer(folder, read_only=True) as checkpoints,
    ):
        step = checkpoints.latest_step
        if step is not None and (progress := checkpoints.metadata(step).get("progress")):
            with naming(folder / str(step), ": its metadata is damaged"):
                return problem_with_log(run.workdir, step, progress)
    return ""


def build_page(run: Run, test: Dataset, gallery: Dataset, problem: str = "") -> str:
    """The page as HTML that needs no other file and no network.

    Args:
      run: from `load_run`.
      test: labelled images, held in memory, that the pictures are made of.
      gallery: training images, searched for neighbours.
      problem: what is wrong with the run's log, in one line.
    """
    metrics = read_metrics(run.workdir)
    names = readable_names(run.class_names)
    batch = test.source.read(np.arange(len(test)))
    images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
    probabilities = run.predict(images, views="center", batch_size=sections.BATCH_SIZE)
    crops = sections.center_crops(images, run.model.image_size)
    chosen = np.random.default_rng(0).permutation(len(labels))

    kind = "test" if test.split == run.config.test_split else "validation"
    parts = {
        "curves": lambda: sections.curves(metrics, problem),
        "errors": lambda: sections.errors(run, metrics),
        "filters": lambda: sections.filters(run),
        "predictions": lambda: sections.predictions(
            crops, labels, probabilities, chosen, names, kind
        ),
        "retrieval": lambda: sections.retrieval(
            run, images, crops, labels, chosen, gallery, names, kind
        ),
        "mistakes": lambda: sections.mistakes(run, test, labels, probabilities, names),
        "occlusion": lambda: sections.occlusion(run, images, crops, labels, chosen, names),
        "layers": lambda: sections.layers(run),
        "configuration": lambda: sections.configuration(run),
        "machine": lambda: sections.machine(run, metrics),
    }
    built = [build() for build in tqdm(parts.values(), desc="report", disable=None)]
    return html.page(
        title=f"AlexNet on {run.config.dataset}",
        subtitle=_subtitle(run, test),
        tiles=_tiles(run, metrics),
        sections=built,
    )


def _subtitle(run: Run, test: Dataset) -> Markup:
    return html.text(
        "{network}. Pictures and counts below are of {images:,} images of the {split} split, "
        "centre crop, unless they say otherwise.",
        network=sections.network_in_words(run),
        images=len(test),
        split=html.code(test.split),
    )


def _tiles(run: Run, metrics: Sequence[dict[str, Any]]) -> Markup:
    measured = sections.last_of_each_split(metrics)
    tiles = []
    preferred = ["test_ten_views", "test", "validation"]
    if run.views == "center":
        preferred.remove("test_ten_views")
    split = next((split for split in preferred if split in measured), None)
    if split:
        row, kind = measured[split], sections.KINDS[split]
        tiles += [
            (f"{100 * row['top1_error']:.1f}", "%", f"top-1 error ({kind})"),
            (f"{100 * row['top5_error']:.1f}", "%", f"top-5 error ({kind})"),
        ]
    table = layer_table(run.model)
    parameters = sum(row.parameters for row in table)
    few = parameters < 1e5
    tiles.append((_short(parameters / (1e3 if few else 1e6)), "k" if few else "M", "parameters"))
    if speed := sections.speed_of(metrics):
        tiles.append((f"{speed:,.0f}", "images/s", "training, median"))
    if metrics:
        tiles.append((_short(max(row["epoch"] for row in metrics)), "", "epochs"))
    return html.tiles(tiles)


def _short(number: float) -> str:
    """With a tenth below a hundred, unless it is whole."""
    return f"{number:,.0f}" if number >= 99.5 or number == round(number) else f"{number:.1f}"
