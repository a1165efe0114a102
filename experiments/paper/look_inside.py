"""Section 6.1 as numbers, of any trained runs: towers' colour, retrieval, off-centre objects.

    python -m experiments.paper.look_inside --workdir=runs/imagenette
    python -m experiments.paper.look_inside --workdir=runs/a --workdir=runs/b

For each run: the share of colour in each tower's first kernels (the paper: one tower is
colour-agnostic, the other colour-specific, in every run); how many of the six nearest training
images are of the query's class, by fc7 and by raw pixels (the paper: alike in meaning, far in
pixels); and the error when the crop is moved off the centre (the paper: off-centre objects are
recognised). Writes results/look_inside_DATASET.json and the kernels of the first run beside it.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from alexnet_jax.data.cache import cached
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.inspect.features import extract_features
from alexnet_jax.inspect.filters import color_shares, filter_picture
from alexnet_jax.inspect.predictions import shift_errors
from alexnet_jax.inspect.retrieval import nearest, retrieval_precision
from alexnet_jax.inspect.samples import sample
from alexnet_jax.inspect.sections import center_crops
from alexnet_jax.runs.workdir import Run, load_run
from experiments import fitting, harness
from experiments.settings import own_fields

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("workdir", ["runs/imagenette"], "folder of a trained run; more by more")
flags.DEFINE_integer("images", 1000, "most test images")
flags.DEFINE_integer("gallery", 10_000, "most training images")
flags.DEFINE_integer("neighbors", 6, "nearest training images that are looked at")


def look_inside(run: Run) -> dict:
    """The figures of one run."""
    config = run.config
    size = run.model.image_size

    def images(split: str, count: int):
        dataset = open_dataset(
            config.dataset, split, data_dir=config.data_dir, stored_size=config.stored_size
        )
        dataset = cached(sample(dataset, count), "host")
        batch = dataset.source.read(np.arange(len(dataset)))
        return dataset, batch["image"], batch["label"]

    test, queries, labels = images(config.test_split, FLAGS.images)
    _, gallery, gallery_labels = images(config.train_split, FLAGS.gallery)

    def precision(describe) -> float:
        found = nearest(describe(queries), describe(gallery), FLAGS.neighbors).indices
        return round(retrieval_precision(gallery_labels[found], labels), 4)

    kernel = np.asarray(run.state.params["conv1"]["kernel"])
    shifts = sorted({round(shift) for shift in np.linspace(0, size / 2, 7)})
    return {
        "test_images": len(queries),
        "gallery": len(gallery),
        "configuration": own_fields(config),
        "step": run.step,
        "color_share_of_towers": [
            round(share, 4) for share in color_shares(kernel, towers=run.model.towers)
        ],
        "precision_of_fc7": precision(lambda x: extract_features(run, x)),
        "precision_of_pixels": precision(lambda x: center_crops(x, size).reshape(len(x), -1)),
        "off_center": [
            {name: round(value, 4) for name, value in row.items()}
            for row in shift_errors(run, test, shifts)
        ],
    }


def main(_) -> None:
    """Looks into every run and writes the results."""
    harness.shorten(images=20, gallery=50)
    if harness.quick():
        with tempfile.TemporaryDirectory() as folder:
            runs = [load_run(fitting.tiny_run(Path(folder)))]
    else:
        runs = [load_run(workdir) for workdir in FLAGS.workdir]
    model, dataset = runs[0].model, runs[0].config.dataset
    result = {
        "dataset": dataset,
        "image_size": model.image_size,
        "conv_features": [row.features for row in model.layers if row.kernel_size],
        "neighbors": FLAGS.neighbors,
        "runs": [look_inside(run) for run in runs],
    }
    print(json.dumps(result, indent=1))
    name = f"look_inside_{dataset.partition('/')[0]}"
    harness.record(name, result)
    kernel = np.asarray(runs[0].state.params["conv1"]["kernel"])
    picture = Image.fromarray(filter_picture(kernel, towers=model.towers, per_filter=True))
    with harness.result_file(f"{name}_filters.png", "wb") as file:
        picture.save(file, "PNG", optimize=True)


if __name__ == "__main__":
    harness.run(main)
