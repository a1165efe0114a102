"""Errors of one run, or of several averaged: `python -m alexnet_jax.evaluate --workdir runs/`.

Prints tables 1 and 2 of section 6 for these networks: a row for each and one for their mean, in
columns for the validation and the test split. A star marks networks that were pre-trained.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from absl import app, flags

from alexnet_jax import command
from alexnet_jax.augment import VIEWS
from alexnet_jax.parallel import make_mesh
from alexnet_jax.runs import tables
from alexnet_jax.wording import by_commas


def _draw(*what: Any) -> None:
    # Only now: matplotlib is imported after `command.run` has chosen for it where to draw.
    from alexnet_jax.inspect.confusion import draw_confusion  # noqa: PLC0415

    draw_confusion(*what)


evaluate_runs = partial(tables.evaluate_runs, draw=_draw)

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Called by the command alone, so that importing this module defines nothing."""
    flags.DEFINE_multi_string(
        "workdir", None, "Folder of a run, or of an ensemble; give several to average them."
    )
    flags.DEFINE_string("output", None, "Folder for the results; else the first --workdir.")
    flags.DEFINE_multi_enum(
        "views", list(VIEWS), list(VIEWS), "Centre crop, mean of ten views, or both."
    )
    flags.DEFINE_multi_string("weights", None, "Weight of each network in the mean; else equal.")
    flags.DEFINE_bool(
        "search_weights", False, "Take the weights of the least top-5 error on validation."
    )
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which one of each run.")
    flags.DEFINE_string("dataset", None, "Data set; else the first run's own.")
    flags.DEFINE_string("validation_split", None, "Else the first run's own.")
    flags.DEFINE_string("test_split", None, "Else the first run's own.")
    flags.DEFINE_string("data_dir", None, command.DATA_DIR)
    flags.DEFINE_string(
        "labels", None, "File of labels for a test split without: one per line, by file name."
    )
    flags.DEFINE_string(
        "devkit", None, "ILSVRC's development kit (.tar.gz): its numbers of the classes."
    )
    flags.DEFINE_bool(
        "classes_by_position", False, "Class n of the data is the runs' class n, whatever its name."
    )
    flags.DEFINE_integer("batch_size", 256, "Views per step.", lower_bound=1)
    flags.DEFINE_integer("mesh_data", None, "Devices to split batches over; else all.")
    flags.DEFINE_integer("mesh_model", 1, "2 puts each tower on a device.")


def main(argv: Sequence[str]) -> None:
    """Evaluates what the flags name."""
    command.flags_alone(argv)
    if not FLAGS.workdir:
        raise app.UsageError("--workdir is missing: the folder of a trained run")
    evaluate_runs(
        FLAGS.workdir,
        FLAGS.output,
        views=FLAGS.views,
        weights=None if FLAGS.weights is None else by_commas(FLAGS.weights),
        search=FLAGS.search_weights,
        checkpoint=FLAGS.checkpoint,
        dataset=FLAGS.dataset,
        splits={"validation": FLAGS.validation_split, "test": FLAGS.test_split},
        data_dir=FLAGS.data_dir,
        labels=FLAGS.labels,
        devkit=FLAGS.devkit,
        classes_by_position=FLAGS.classes_by_position,
        batch_size=FLAGS.batch_size,
        mesh=make_mesh(FLAGS.mesh_data, FLAGS.mesh_model),
    )


if __name__ == "__main__":
    define_flags()
    command.run(main)
