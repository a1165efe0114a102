"""A network to walk through: `python -m alexnet_jax.explore --workdir runs/` writes one page."""

from collections.abc import Sequence
from functools import partial

from absl import flags

from alexnet_jax import command

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_OUTPUT = flags.DEFINE_string("output", None, "File to write; else WORKDIR/explorer.html.")
_IMAGES = flags.DEFINE_multi_string(
    "images", [], "Your own images, or a folder of them, to look at; else some test images."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, command.DATA_DIR)
_EXAMPLES = flags.DEFINE_integer(
    "examples", 1000, "Most test images to search for what a unit answers to.", lower_bound=8
)
_UNITS = flags.DEFINE_integer("units", 48, "Most units to show of a layer.", lower_bound=2)
_VISUALISED = flags.DEFINE_integer(
    "visualised",
    4,
    "Units of a layer for which an image is made that activates them most; 0: none.",
    lower_bound=0,
)
_BY_POSITION = flags.DEFINE_bool(
    "classes_by_position", False, "Class n of the data is the run's class n, whatever its name."
)


def main(argv: Sequence[str]) -> None:
    """Writes the page about the run that the flags name."""
    command.flags_alone(argv)
    from alexnet_jax.inspect.explorer import write_explorer  # noqa: PLC0415

    write = partial(
        write_explorer,
        photos=_IMAGES.value,
        data_dir=_DATA_DIR.value,
        examples=_EXAMPLES.value,
        units=_UNITS.value,
        visualised=_VISUALISED.value,
        classes_by_position=_BY_POSITION.value,
    )
    command.write_page(_WORKDIR.value, _OUTPUT.value, "explorer.html", write)


if __name__ == "__main__":
    command.run(main)
