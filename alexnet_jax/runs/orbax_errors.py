"""What Orbax says of a failure, told in a few words, and told once."""

import logging as python_logging
import os
import re
import sys
import traceback
from functools import cache
from typing import Any

from absl import logging


def error_number(error: Exception) -> int | None:
    """The number of the system's error, such as `errno.ENOSPC`; None where it was another."""
    if isinstance(error, OSError):
        return error.errno
    code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore, writing
    return int(code[1]) if code else None


def reason(error: Exception) -> str:
    """The cause in a few words: the system's error if there is one, else the first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if number := error_number(error):
        return os.strerror(number)
    text = str(error) or type(error).__name__
    if leaf := re.search(r"'path': '([^/']+)/'", text):  # TensorStore, reading
        return f"{leaf[1].replace('.', '/')} cannot be read"
    return text.splitlines()[0]


def without_orbax(record: python_logging.LogRecord) -> bool:
    """Drops Orbax's own log, many tracebacks for one error, unless --verbosity=1 asks for it."""
    source = record.getMessage() if record.name == "asyncio" else record.pathname
    if record.name == "asyncio" and record.exc_info:  # of a task that nobody asked
        source += "".join(traceback.format_exception(*record.exc_info))
    # TensorStore's errors say OCDBT, its format.
    of_orbax = f"{os.sep}orbax{os.sep}" in source or "in OCDBT database" in source
    return logging.level_debug() or not of_orbax


@cache
def hush_orbax() -> None:
    """Hides what its threads still say of a save or restore that failed and was told."""

    usual = sys.unraisablehook

    def quiet(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        of_orbax = f"{os.sep}orbax{os.sep}" in getattr(code, "co_filename", "")
        if not of_orbax and str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    if not logging.level_debug():
        sys.unraisablehook = quiet
