"""What ends commands while libraries are imported; other programs are left alone."""

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
    hook = sys.excepthook
    yield
    sys.excepthook = hook
    signal.signal(signal.SIGINT, before)


def run_with(module, **variables):
    """`python -m module` in an environment of these variables alone; its process, ended."""
    return subprocess.run(
        [sys.executable, "-m", module],
        env={"PYTHONPATH": str(ROOT), "PATH": "", **variables},
        capture_output=True,
        text=True,
    )


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
    hook = sys.excepthook
    interrupts.end_at_once()
    expected = signal.SIG_DFL if ends else signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is expected
    assert (sys.excepthook is not hook) == ends
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
    done = run_with(module, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_NUM_CPU_DEVICES", "abc"),
        ("JAX_ENABLE_X64", "jax_maybe"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "bogus"),
        ("JAX_DEFAULT_PRNG_IMPL", "bogus"),
    ],
)
def test_a_variable_that_jax_cannot_read_is_named_in_one_line(name, value):
    done = run_with("alexnet_jax.predict", **{name: value})
    told = f"error: {name}={value} is no value of it; unset it\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_other_errors_of_an_import_keep_their_trace(tmp_path):
    (tmp_path / "jax.py").write_text("raise ValueError('JAX_ENABLE_X64')\n")
    done = run_with("alexnet_jax.main", JAX_ENABLE_X64="0", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.stderr.startswith("Traceback") and done.returncode == 1
