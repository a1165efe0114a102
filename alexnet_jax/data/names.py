"""Names of files and classes, as they are stored and as a message shows them."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

# What systems and archivers leave behind, in small letters; names that begin with a dot besides.
_LITTER = frozenset(
    [
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    ]
)
# Control characters, halves of characters (bytes that are not UTF-8), ends of lines.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
# For a set without a split for validation: parts of the one it has.
PARTS = "--config.train_split='train[:90%]' --config.validation_split='train[90%:]'"

NO_TEST = "--config.test_split="  # with nothing behind it


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or one that nobody put there: never part of the data."""
    return (name.startswith(".") and name not in (".", "..")) or name.casefold() in _LITTER


def printable(name: object) -> str:
    r"""A name or path as one line of any terminal: `a\nb` for a new line, `\udcff` for byte ff."""
    return "".join(
        letter.encode("unicode_escape").decode() if _odd(letter) else letter for letter in str(name)
    )


def name_bytes(name: str) -> bytes:
    """A file name as the file system or the archive has it, UTF-8 or not."""
    return name.encode(errors="surrogateescape")


def prepared_name(source: str) -> str:
    """What the tfds set `source` is called at 256x256: `imagenette_160px_v2_256`."""
    return re.sub(r"\W", "_", source).lower() + "_256"


def unstorable_class(names: Iterable[str]) -> str | None:
    """What is wrong with the first class name that a list of one name a line cannot hold, or None.

    Data sets store class names so: a new line in one would change the number of classes.
    """
    seen = set()
    for name in names:
        if any(map(_odd, name)):
            return f"class name '{printable(name)}' has a control character or is not UTF-8"
        if not name or name != name.strip():
            return f"class name {name!r} is empty or has a space at its end"
        if name in seen:
            return f"class name {name!r} stands twice"
        seen.add(name)
    return None


def classes_without(names: Sequence[str]) -> str:
    """What to say of the classes `names`, at least one, that have no training images."""
    have = f"and {len(names) - 1:,} more have" if len(names) > 1 else "has"
    return f"class {names[0]!r} {have} no training images"


def _odd(letter: str) -> bool:
    return unicodedata.category(letter) in _UNPRINTABLE
