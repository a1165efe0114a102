"""One page about a run: `python -m alexnet_jax.report --workdir runs/` writes runs/report.html."""

from collections.abc import Sequence
from functools import partial

from absl import flags

from alexnet_jax import command

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_OUTPUT = flags.DEFINE_string("output", None, "File to write; else WORKDIR/report.html.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, command.DATA_DIR)
_EXAMPLES = flags.DEFINE_integer("examples", 1000, "Most test images to look at.", lower_bound=8)
flags.DEFINE_alias("images", "examples")  # its name in earlier versions
_BY_POSITION = flags.DEFINE_bool(
    "classes_by_position", False, "Class n of the data is the run's class n, whatever its name."
)
_GALLERY = flags.DEFINE_integer(
    "gallery", 10_000, "Most training images to search for neighbours.", lower_bound=8
)


def main(argv: Sequence[str]) -> None:
    """Writes the page about the run that the flags name."""
    command.flags_alone(argv)
    from alexnet_jax.inspect.page import write_report  # noqa: PLC0415

    write = partial(
        write_report,
        data_dir=_DATA_DIR.value,
        images=_EXAMPLES.value,
        gallery=_GALLERY.value,
        classes_by_position=_BY_POSITION.value,
    )
    command.write_page(_WORKDIR.value, _OUTPUT.value, "report.html", write)


if __name__ == "__main__":
    command.run(main)
