"""Ctrl-C while a command imports its libraries: it ends at once and says nothing.

Raised inside an import, KeyboardInterrupt makes a long trace, or an ImportError where it meets the
start of a compiled library.
"""

import os
import signal
import sys
from itertools import pairwise


def end_at_once(package: str = "alexnet_jax") -> None:
    """From here on, if this process is a command of the package; others are left as they are."""
    words = sys.orig_argv
    module = any(a == "-m" and b.partition(".")[0] == package for a, b in pairwise(words))
    script = any(os.path.basename(word) == "alexnet-jax" for word in words[:2])
    # Not where interrupts are ignored, as in the background of a shell.
    if (module or script) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_again() -> None:
    """KeyboardInterrupt, as usual; after `end_at_once`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
