"""What messages share: "did you mean", and tables of text."""

import difflib


def suggestion(name: str, known) -> str:
    """What to write instead of an unknown name: 'did you mean …' or the list."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(known)}"


def align(lines: list[tuple[str, ...]]) -> str:
    """Columns of text under a head: numbers to the right, words to the left."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numbers = [all(not x or x.replace(",", "").isdigit() for x in column[1:]) for column in columns]

    def text(line):
        cells = zip(line, widths, numbers, strict=True)
        return "  ".join(x.rjust(w) if n else x.ljust(w) for x, w, n in cells).rstrip()

    head, *rest = map(text, lines)
    return "\n".join([head, "-" * (sum(widths) + 2 * len(widths) - 2), *rest])
