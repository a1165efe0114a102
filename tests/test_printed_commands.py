"""Every printed command of an experiment: its flags are there, and with --quick it runs."""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(
    r"python\)? (-m experiments\.[\w.]+|experiments/[\w/]+\.py)((?:(?!&&)[^`#\n])*)", re.I
)
PLACEHOLDER = re.compile(r"…|\$|\b(?:DIR|FILE|FOLDER|RUN)\b")
CHECKS = {"DEFINE_integer": int, "DEFINE_multi_integer": int}
CHECKS |= {"DEFINE_float": float, "DEFINE_multi_float": float}

# What a command needs that may not be here: a word that starts so -> data sets, modules.
DATA = {
    "experiments.paper.ablations": "imagenette",
    "experiments.paper.ensemble": "imagenette",
    "experiments.paper.figure1": "cifar10",
    "experiments.paper.lrn_cifar": "cifar10",
    "experiments.paper.specialisation": "imagenette",
    "experiments.speed.sweep": "cifar10",
    "experiments.baselines": "imagenette",
    "--config=experiments/quick_rates.py": "cifar10",
}
MODULES = {
    "experiments.baselines.sift_fisher": "skimage",
    "experiments.baselines": "cv2",
    "experiments.ray_tune": "ray",
    "--trials": "optuna",
}
ELSEWHERE = {
    "experiments.check_run": "it compares finished runs: tests/test_check_run.py",
    "experiments.ledger": "it writes pages of the repository: tests/test_ledger.py",
}


def texts() -> list[str]:
    """The documents, and what stands at the head of the experiments."""
    found = [(ROOT / name).read_text() for name in ("README.md", "Makefile")]
    found += [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        found.append(ast.get_docstring(ast.parse(path.read_text())) or "")
    return found


def printed(texts: list[str]) -> list[str]:
    """The commands of experiments in texts, each once."""
    found = (
        f"{program} {' '.join(rest.split())}".strip()
        for text in texts
        for program, rest in COMMAND.findall(re.sub(r"\\\n\s*", "", text))
    )
    return sorted(set(found))


LEDGER = printed([(ROOT / "experiments" / "README.md").read_text()])
IN_TEXTS = printed(texts())
COMMANDS = sorted({*IN_TEXTS, *LEDGER})


def source(module: str) -> Path | None:
    """The file of a module of this repository."""
    path = ROOT / module.replace(".", "/")
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


def split(command: str) -> tuple[str, list[str]]:
    """The module, and what follows."""
    first, *rest = (word for word in shlex.split(command) if word != "-m")
    return first.removesuffix(".py").replace("/", "."), rest


def executed(body: list[ast.stmt], program: bool) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, or is the program."""
    for statement in body:
        if isinstance(statement, ast.If):
            if program or "__main__" not in ast.unparse(statement.test):
                yield from executed(statement.body, program)
        elif not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement


@cache
def flags_of(module: str, program: bool = True) -> dict[str, str]:
    """Flag -> how it is defined, by the module, its packages and what it imports."""
    path, found = source(module), {}
    if path is None:
        return found
    if package := module.rpartition(".")[0]:
        found |= flags_of(package, program=False)
    for statement in executed(ast.parse(path.read_text()).body, program):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            for name in (
                statement.module,
                *(f"{statement.module}.{a.name}" for a in statement.names),
            ):
                if name.startswith(("experiments", "alexnet_jax.main", "alexnet_jax.command")):
                    found |= flags_of(name, program=False)
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                if called.startswith("DEFINE_") and isinstance(node.args[0], ast.Constant):
                    found[node.args[0].value] = called
    return found


def test_the_commands_are_found():
    modules = {split(command)[0] for command in COMMANDS}
    assert {"experiments.speed.step", "experiments.paper.ensemble", "experiments.sweep"} <= modules
    assert any("--grid=seed" in command for command in COMMANDS)  # behind the end of a line
    nets = [command for command in LEDGER if "--activation=" in command]  # two, joined by &&
    assert len(nets) == 2 and not any("&&" in command for command in LEDGER)


def test_all_experiments_are_run_by_the_harness():
    """So that a stray argument or a missing package ends each in one line."""
    programs = {path.stem: path.read_text() for path in (ROOT / "experiments").rglob("*.py")}
    programs = {name: text for name, text in programs.items() if '__name__ == "__main__"' in text}
    assert len(programs) > 25
    others = {name for name, text in programs.items() if "    harness.run(" not in text}
    assert others == {"contenders"}  # of the library's settings, PyTorch's process takes none


@pytest.mark.parametrize("command", COMMANDS)
def test_modules_and_flags_are_there(command):
    module, words = split(command)
    assert source(module), f"there is no {module}"
    known = flags_of(module)
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            continue
        if name.startswith("config."):
            assert known["config"] == "DEFINE_config_file"
            continue
        kind = known.get(name) or known[name.removeprefix("no")]
        assert value or kind == "DEFINE_bool", f"--{name} wants a value"
        if not PLACEHOLDER.search(value):
            CHECKS.get(kind, str)(value)
        if kind == "DEFINE_config_file" and not PLACEHOLDER.search(value):
            assert (ROOT / value).exists() or source(f"alexnet_jax.configs.{value}")


def missing(command: str) -> str | None:
    """Why it cannot be run here."""
    words = [word for word in shlex.split(command) if word != "-m"]
    if PLACEHOLDER.search(command):
        return "it is to be filled in"
    for word in words:
        for start, reason in ELSEWHERE.items():
            if word.startswith(start):
                return reason
        for start, module in MODULES.items():
            if word.startswith(start) and find_spec(module) is None:
                return f"{module} is not installed"
        for start, dataset in DATA.items():
            if word.startswith(start):
                folder = os.environ.get("ALEXNET_DATA_DIR")
                if not folder or not (Path(folder) / dataset).exists():
                    return f"{dataset} is not in ALEXNET_DATA_DIR"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_printed_experiments_run(command, tmp_path):
    if reason := missing(command):
        pytest.skip(reason)
    module, words = split(command)
    if "workdir" in flags_of(module):
        words.append(f"--workdir={tmp_path / 'run'}")
    results = sorted((ROOT / "experiments" / "results").iterdir())
    before = [path.stat().st_mtime_ns for path in results]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("XLA_FLAGS", None)  # one device, as a user has it
    ended = subprocess.run(
        [sys.executable, "-m", module, *words, "--quick"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert [path.stat().st_mtime_ns for path in results] == before
