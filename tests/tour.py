"""Runs the snippets of docs/tour.md from top to bottom and compares what they print and draw.

    python -m tests.tour                     # minutes
    python -m tests.tour --sections 3.3 4.2  # those alone, after the first
    python -m tests.tour --update            # writes outputs and pictures into the page

Ends with status 1 where the page does not say what came out. Of pictures the size is compared: some
show a training, whose last digits depend on the CPU. Sybil and mktestdocs run snippets too, but
compare no output block and write none.
"""

import argparse
import contextlib
import difflib
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image

PAGE = Path(__file__).parents[1] / "docs" / "tour.md"
PICTURES = PAGE.with_suffix("")
SNIPPET = re.compile(
    r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<prints>.*?)```\n)?", re.DOTALL
)
COLORS = 256  # of a stored picture: a third of the bytes


class Snippet(NamedTuple):
    """A block of the page."""

    section: str  # the first word of its heading
    start: int  # where it stands in the text
    end: int
    line: int  # of its first line of code
    code: str
    prints: str


def snippets(text: str) -> list[Snippet]:
    """Those of a page, in order."""
    found = []
    for match in SNIPPET.finditer(text):
        heading = re.findall(r"^## (\S+)", text[: match.start()], re.MULTILINE)[-1]
        line = text.count("\n", 0, match.start("code")) + 1
        code, prints = match["code"], match["prints"] or ""
        found.append(Snippet(heading, match.start(), match.end(), line, code, prints))
    return found


def pictures(text: str) -> list[str]:
    """The names of the pictures that the page shows from its own folder."""
    return re.findall(rf"!\[[^]]+\]\({PICTURES.name}/([^)]+)\)", text)


def run_snippets(chosen: list[Snippet], folder: Path) -> list[str]:
    """What each prints; all share their names, and write to `folder`."""
    names: dict[str, object] = {"__name__": "tour"}
    printed = []
    with contextlib.chdir(folder):
        for snippet in chosen:
            started = time.perf_counter()
            # So many empty lines that a traceback names the line of the page.
            code = compile("\n" * (snippet.line - 1) + snippet.code, str(PAGE), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, names)
            printed.append(re.sub(r"[ \t]+$", "", out.getvalue(), flags=re.MULTILINE))
            seconds = time.perf_counter() - started
            print(f"{PAGE.name}:{snippet.line} ({snippet.section}): {seconds:.1f} s", flush=True)
    return printed


def compare(chosen: list[Snippet], printed: list[str], folder: Path) -> list[str]:
    """What is other than on the page, as text."""
    problems = []
    for snippet, out in zip(chosen, printed, strict=True):
        lines = (snippet.prints.splitlines(), out.splitlines())
        place = f"{PAGE.name}:{snippet.line}"
        problems += difflib.unified_diff(*lines, f"{place}, the page", "what came", lineterm="")
    for path in sorted(folder.glob("*.png")):
        stored = PICTURES / path.name
        if not stored.exists() or Image.open(stored).size != Image.open(path).size:
            problems.append(f"{stored.name} is not in {PICTURES.name}/, or of another size")
    return problems


def with_outputs(text: str, chosen: list[Snippet], printed: list[str]) -> str:
    """The page with what came out."""
    for snippet, out in reversed(list(zip(chosen, printed, strict=True))):
        block = f"```python\n{snippet.code}```\n" + (f"\n```text\n{out}```\n" if out else "")
        text = text[: snippet.start] + block + text[snippet.end :]
    return text


def store_pictures(folder: Path) -> None:
    """Those drawn in `folder` become the page's."""
    PICTURES.mkdir(exist_ok=True)
    for path in folder.glob("*.png"):
        few = Image.open(path).convert("RGB").quantize(COLORS)
        few.save(PICTURES / path.name, optimize=True)


def main() -> int:
    """0 where the page says what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="write the page anew")
    parser.add_argument("--sections", nargs="+", metavar="N", help="run these alone: 3.3 4.2")
    parser.add_argument("--folder", help="where the snippets write; kept (default: none)")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    text = PAGE.read_text()
    found = snippets(text)
    known = list(dict.fromkeys(snippet.section for snippet in found))
    wanted = {known[0], *(arguments.sections or known)}
    if unknown := wanted - set(known):
        parser.error(f"no section {min(unknown)}; there are {' '.join(known)}")
    chosen = [snippet for snippet in found if snippet.section in wanted]
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or stack.enter_context(tempfile.TemporaryDirectory())
        printed = run_snippets(chosen, Path(folder))
        if arguments.update:
            PAGE.write_text(with_outputs(text, chosen, printed))
            store_pictures(Path(folder))
            return 0
        problems = compare(chosen, printed, Path(folder))
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
