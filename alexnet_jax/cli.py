"""`alexnet-jax COMMAND …`, the same as `python -m alexnet_jax COMMAND …`."""

import runpy
import sys
from collections.abc import Sequence

from alexnet_jax.wording import suggestion, write_on_any_terminal

# Command -> its module, and what it does.
COMMANDS = {
    "train": ("main", "train or resume a run"),
    "evaluate": ("evaluate", "errors of one run, or of several averaged"),
    "predict": ("predict", "class names and probabilities of your images"),
    "features": ("features", "a layer's output for your images, or for a split"),
    "report": ("report", "one HTML page about a run"),
    "explore": ("explore", "one HTML page to walk through a network"),
    "prepare": ("prepare", "store a data set at 256x256, once"),
    "convert": ("convert", "weights of Caffe, PyTorch or the authors in, ours out"),
    "summary": ("summary", "the layer table, and what the towers exchange"),
}

USAGE = "\n".join(
    [
        "usage: alexnet-jax COMMAND [--flag=value …]",
        "",
        *(f"  {name:<10}{what}" for name, (_, what) in COMMANDS.items()),
        "",
        "alexnet-jax train --workdir runs/    trains on handwritten digits, offline",
        "alexnet-jax COMMAND --help           lists a command's flags",
    ]
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names; by default those of the process."""
    write_on_any_terminal()
    arguments = list(sys.argv if argv is None else argv)
    name = arguments[1] if len(arguments) > 1 else "help"
    if name in ("help", "--help", "-h", "--helpshort"):
        print(USAGE)
        return
    if name == "--version":
        from alexnet_jax import __version__  # noqa: PLC0415

        print(f"alexnet_jax {__version__}")
        return
    if name not in COMMANDS:
        print(
            f"error: no command {name!r}; {suggestion(name, COMMANDS)}\n\n{USAGE}", file=sys.stderr
        )
        sys.exit(2)
    sys.argv = [f"alexnet-jax {name}", *arguments[2:]]
    runpy.run_module(f"alexnet_jax.{COMMANDS[name][0]}", run_name="__main__")
