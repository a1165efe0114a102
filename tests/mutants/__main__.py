"""Makes errors one by one and asks the tests: `python -m tests.mutants` ends with 1 if one lives.

    make mutants
    python -m tests.mutants --only="LRN's n is 3" -j 1

Each error of `listed` is made in a copy of the package, where its test must fail; the checkout is
never touched. First all the tests must pass without any.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.mutants.listed import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("alexnet_jax", "experiments", "tests", "docs")
COPIED += ("pyproject.toml", "README.md", "Makefile")
# What fails with one of these was not measured by the test: the error cannot be made so.
CRASHES = ("ImportError", "ModuleNotFoundError", "SyntaxError", "NameError", "AttributeError")
CRASHES += ("TypeError", "Failed: Timeout", "failed on setup", "failed on teardown")


class Outcome(NamedTuple):
    """What pytest ended with: its status, (test, message) of the failures, and its last line."""

    status: int
    failures: list[tuple[str, str]]
    last_line: str


class Verdict(NamedTuple):
    """What became of a mutant."""

    killed: bool
    how: str
    seconds: float


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """The mutant's file with the error. Raises ValueError where the old text is not there once."""
    text = (root / mutant.path).read_text(encoding="utf-8")
    if (count := text.count(mutant.old)) != 1:
        raise ValueError(f"STALE: {mutant.file} has the old text {count} times")
    return text.replace(mutant.old, mutant.new)


def copy(root: Path, folder: Path) -> Path:
    """The package and its tests in a new folder."""
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(
                root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(root / name, folder / name)
    (folder / "tmp").mkdir()
    return folder


def run_tests(folder: Path, tests: Iterable[str], *options: str) -> Outcome:
    """Runs tests of a copy in a process of its own."""
    # Caches are in the copy, so that none is of an error; compiled programs, which are known by
    # what they compute, are where `tests/conftest.py` has them.
    programs = f"{tempfile.gettempdir()}/alexnet_jax_tests_{os.getuid()}"
    environment = {"JAX_COMPILATION_CACHE_DIR": programs, **os.environ}
    environment |= {"PYTHONPATH": str(folder), "TMPDIR": str(folder / "tmp")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take as long as a small test
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_timeout", *options]
    done = subprocess.run(
        [*command, f"--junitxml={report}", *tests],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    return Outcome(done.returncode, failures_in(report), lines[-1] if lines else "")


def failures_in(report: Path) -> list[tuple[str, str]]:
    """Test and message of each failure and error in a report of pytest's."""
    if not report.exists():
        return []
    return [
        (
            f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}",
            found.get("message", ""),
        )
        for case in ElementTree.parse(report).iter("testcase")
        for found in case
        if found.tag in ("failure", "error")
    ]


def judged(outcome: Outcome) -> tuple[bool, str]:
    """Whether the tests noticed the error, and which, or why not."""
    if outcome.status == 0:
        return False, "SURVIVED"
    if outcome.status != 1 or not outcome.failures:
        return False, f"BROKEN: pytest ends with {outcome.status}: {outcome.last_line}"
    test, message = outcome.failures[0]
    if message.startswith(CRASHES):
        return False, f"BROKEN: {test}: {message.partition(chr(10))[0]}"
    return True, test


def tried(mutant: Mutant, root: Path, folder: Path) -> Verdict:
    """Makes the error in a copy in `folder` and runs its test."""
    began = time.monotonic()
    try:
        text = mutated(mutant, root)
    except ValueError as error:
        return Verdict(False, str(error), 0.0)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        changed = copy(root, Path(name))
        (changed / mutant.path).write_text(text, encoding="utf-8")
        killed, how = judged(run_tests(changed, [mutant.test], "-x"))
    return Verdict(killed, how, time.monotonic() - began)


def try_all(mutants: Sequence[Mutant], jobs: int, root: Path = ROOT) -> dict[str, Verdict]:
    """Name -> verdict, each printed as it comes.

    Raises:
      SystemExit: a test fails without any error.
    """
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(jobs) as pool:
        folder = Path(name)
        original = folder / "unmutated"  # so that work can go on in the checkout
        original.mkdir()
        began = time.monotonic()
        tests = sorted({mutant.test for mutant in mutants})
        spread = ("-p", "xdist", "-n", str(jobs), "--dist", "loadscope") if jobs > 1 else ()
        found = run_tests(copy(root, original), tests, *spread)
        if found.status:
            for test, message in found.failures:
                print(f"{test}: {message.partition(chr(10))[0]}")
            sys.exit(f"error: the tests do not pass without a mutant: {found.last_line}")
        seconds = time.monotonic() - began
        print(f"{len(tests)} tests pass without a mutant  ({seconds:.0f} s)", flush=True)

        def one(mutant: Mutant) -> Verdict:
            verdict = tried(mutant, original, folder)
            print(f"{mutant.name}: {_in_words(verdict)}", flush=True)
            return verdict

        return dict(zip([m.name for m in mutants], pool.map(one, mutants), strict=True))


def _in_words(verdict: Verdict) -> str:
    return f"{'killed by ' if verdict.killed else ''}{verdict.how}  ({verdict.seconds:.0f} s)"


def table(verdicts: dict[str, Verdict]) -> str:
    """The verdicts in the order of the list."""
    width = max(map(len, verdicts))
    lines = [
        f"{name:<{width}}  {verdict.seconds:>4.0f} s  {verdict.how}"
        for name, verdict in verdicts.items()
    ]
    killed = sum(verdict.killed for verdict in verdicts.values())
    return "\n".join([*lines, f"{killed} of {len(verdicts)} are killed"])


def main() -> None:
    """Tries the mutants asked for and ends with 1 if one is not killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument("--only", action="append", metavar="NAME", help="a mutant; default all")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many at once")
    given = parser.parse_args()
    for name in given.only or ():
        if name not in names:
            parser.error(f"no mutant {name!r}; they are in {Path(__file__).with_name('listed.py')}")
    began = time.monotonic()
    chosen = [mutant for mutant in MUTANTS if mutant.name in (given.only or names)]
    verdicts = try_all(chosen, given.jobs)
    print(f"\n{table(verdicts)} ({time.monotonic() - began:.0f} s)")
    sys.exit(not all(verdict.killed for verdict in verdicts.values()))


if __name__ == "__main__":
    main()
