"""What messages share: "did you mean", tables of text, and what a terminal can write."""

import codecs
import difflib
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import TextIO

# What stands for a character that a terminal's encoding lacks.
_ASCII = {"█": "#", "–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "’": "'", "·": "."}

_NUMBER = re.compile(r"-?[\d,]+(\.\d+)?%?")


def suggestion(name: object, known: Iterable[str]) -> str:
    """What to write instead of an unknown name: 'did you mean …' or the list."""
    folded = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    return f"use one of {', '.join(folded.values())}"


def by_commas(given: Iterable[str]) -> list[str]:
    """The names in a flag that may be repeated, each time with several between commas."""
    return [name for text in given for name in map(str.strip, text.split(",")) if name]


def first_line(error: BaseException) -> str:
    """What an error says, without what libraries add on further lines."""
    return (str(error).strip() or repr(error)).partition("\n")[0].rstrip(":")


# What a configuration's field is to be, by the name of its type.
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "str": "text",
    "tuple": "a tuple, such as (1, 2)",
    "ConfigDict": "a group of fields",
}


def of_values(message: str) -> str:
    """A message with Python's and libraries' words for a value that is none in plain English."""
    quoted = r"((['\"]).*?\2)"  # as repr writes text
    message = re.sub(
        rf"invalid literal for int\(\) with base \d+: {quoted}", r"\1 is no whole number", message
    )
    message = re.sub(rf"could not convert string to float: {quoted}", r"\1 is no number", message)
    message = re.sub(
        rf"\('Non-boolean argument to boolean flag', {quoted}\)",
        r"\1 is not true or false",
        message,
    )
    return re.sub(
        r"Could not override field '(.+?)' \(reference\)\. (.*) is of original type <class '.*'> "
        r"and cannot be casted to type <class '(?:.*\.)?(\w+)'>",
        lambda found: f"{found[1]}={found[2]:.80}; it is {_KINDS.get(found[3], found[3])}",
        message,
        flags=re.DOTALL,
    )


def align(lines: list[tuple[str, ...]]) -> str:
    """Columns of text under a head: numbers to the right, words to the left."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numbers = [all(not x or _NUMBER.fullmatch(x) for x in column[1:]) for column in columns]

    def text(line: tuple[str, ...]) -> str:
        cells = zip(line, widths, numbers, strict=True)
        return "  ".join(x.rjust(w) if n else x.ljust(w) for x, w, n in cells).rstrip()

    head, *rest = map(text, lines)
    return "\n".join([head, "-" * (sum(widths) + 2 * len(widths) - 2), *rest])


def write_on_any_terminal() -> None:
    """Lets standard output and error write what their encoding lacks as `printable` does.

    One that was closed before the start, as a daemon's may be, takes what is written and drops it.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    codecs.register_error("alexnet_jax", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where a test or a notebook has its own
            stream.reconfigure(errors="alexnet_jax")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(map(_ascii, lacking)), error.end


def _ascii(character: str) -> str:
    return _ASCII.get(character) or character.encode("ascii", "backslashreplace").decode()


def printable(text: str, stream: TextIO | None = None) -> str:
    """`text` as `stream` (default: standard output) can write it, in one piece and to the end.

    What its encoding lacks becomes plain ASCII (a bar of #) or a Python escape, and so do control
    characters other than line ends and tabs, which would move a terminal's cursor.
    """
    stream = sys.stdout if stream is None else stream
    encoding = getattr(stream, "encoding", None) or "utf-8"

    def shown(character: str) -> str:
        if unicodedata.category(character) == "Cc" and character not in "\n\t":
            return repr(character)[1:-1]
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            return _ascii(character)
        return character

    return "".join(map(shown, text))
