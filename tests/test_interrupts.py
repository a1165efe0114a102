"""Ctrl-C while libraries are imported: commands end at once, other programs are left alone."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_jax import interrupts

ROOT = Path(interrupts.__file__).parents[1]


@pytest.fixture(autouse=True)
def handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        (["python", "-m", "alexnet_jax.main", "--workdir=runs"], True),
        (["python", "-u", "-m", "alexnet_jax", "train"], True),
        (["/usr/bin/python", "/usr/bin/alexnet-jax", "train"], True),
        (["python", "-m", "pytest", "alexnet_jax"], False),
        (["python", "-m", "alexnet_jax_tools"], False),
        (["python", "mine.py", "alexnet-jax"], False),
    ],
)
def test_commands_end_and_others_are_left_alone(monkeypatch, words, ends):
    monkeypatch.setattr(sys, "orig_argv", words)
    interrupts.end_at_once()
    expected = signal.SIG_DFL if ends else signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is expected
    interrupts.raise_again()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_interrupts_are_ignored_they_stay_so(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "alexnet_jax.main"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.end_at_once()
    interrupts.raise_again()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_packages_that_are_called_as_the_experiments_are_left_alone(monkeypatch):
    """Those of this repository say themselves that they are its commands."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "experiments.sweep"])
    interrupts.end_at_once()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    interrupts.end_at_once("experiments")
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


@pytest.mark.parametrize(
    "module", ["alexnet_jax.main", "experiments.sweep", "experiments.paper.figure1"]
)
def test_a_command_is_interrupted_inside_an_import_without_a_word(module, tmp_path):
    """The first library that it imports raises the signal."""
    for library in ("absl", "jax", "numpy"):
        (tmp_path / library).mkdir()
        (tmp_path / library / "__init__.py").write_text(
            "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
        )
    done = subprocess.run(
        [sys.executable, "-m", module],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
