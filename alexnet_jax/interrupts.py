"""What ends a command while it imports its libraries: one line at most, and no trace.

Ctrl-C ends it at once. Raised inside an import, KeyboardInterrupt makes a long trace, or an
ImportError where it meets the start of a compiled library. A variable of JAX's that has no value of
its own is named: jax reads all of them as it is imported.
"""

import os
import re
import signal
import sys
import traceback
from itertools import pairwise
from types import TracebackType


def end_at_once(package: str = "alexnet_jax") -> None:
    """From here on, if this process is a command of the package; others are left as they are."""
    words = sys.orig_argv
    module = any(a == "-m" and b.partition(".")[0] == package for a, b in pairwise(words))
    script = any(os.path.basename(word) == "alexnet-jax" for word in words[:2])
    if not (module or script):
        return
    sys.excepthook = _name_variable
    # Not where interrupts are ignored, as in the background of a shell.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_again() -> None:
    """KeyboardInterrupt, as usual; after `end_at_once`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _name_variable(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Tells what jax makes of the environment in one line, and other errors as usual."""
    frames = traceback.extract_tb(trace)
    names = re.findall(r"(?i)\bjax_\w+", str(error))
    name = names[-1].upper() if names else ""  # a value stands before it
    of_jax = bool(frames) and frames[-1].filename.endswith(os.path.join("jax", "_src", "config.py"))
    if of_jax and name in os.environ:
        print(f"error: {name}={os.environ[name]} is no value of it; unset it", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
