"""Classes of images: `python -m alexnet_jax.predict --workdir runs/ cat.jpg dog.png photos/`."""

import sys
from collections.abc import Sequence

from absl import app, flags

from alexnet_jax import command
from alexnet_jax.data.names import printable as in_one_line
from alexnet_jax.wording import printable

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.")
_VIEWS = flags.DEFINE_enum(
    "views", None, ["ten", "center"], "Default: ten, or center if trained without flips."
)
_TOP = flags.DEFINE_integer("top", 5, "Classes to print an image.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Prints the most probable classes of the images and folders named."""
    if not _WORKDIR.value:
        raise app.UsageError("--workdir is missing: the folder of a trained run")
    # Only now: loading jax takes seconds, and --help should not.
    from alexnet_jax.data.images import ImageError  # noqa: PLC0415
    from alexnet_jax.inspect.files import image_files  # noqa: PLC0415
    from alexnet_jax.inspect.predictions import predict_files  # noqa: PLC0415
    from alexnet_jax.runs.workdir import load_run  # noqa: PLC0415

    files = image_files(argv[1:])
    run = load_run(_WORKDIR.value)
    problems = 0
    for result in predict_files(run, files, views=_VIEWS.value, top=_TOP.value):
        if isinstance(result, ImageError):
            problems += 1
            print(f"warning: {in_one_line(result)}", file=sys.stderr, flush=True)
            continue
        print(in_one_line(result.file))
        for name, probability in result.classes:
            bar = "█" * round(30 * probability)
            line = f"  {probability:6.1%}  {name:<28.28s}  {bar}".rstrip()
            print(printable(line), flush=True)
    if problems:
        raise ValueError(f"{problems} of {len(files)} images could not be read")


if __name__ == "__main__":
    command.run(main)
