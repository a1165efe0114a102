"""Systems that are not Linux, simulated: what they lack is taken away (tests/elsewhere)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import on_devices
from tests.fake_imagenet import make_folder
from tests.small import SMALL

ROOT = Path(__file__).parents[1]
UNSET = ("HOME", "XDG_CACHE_HOME", "TFDS_DATA_DIR", "ALEXNET_DATA_DIR")


def elsewhere(*arguments, folder, **variables):
    """`python arguments…` in a folder on such a system, without a home; its process, ended."""
    environment = {name: value for name, value in on_devices(1).items() if name not in UNSET}
    environment["PYTHONPATH"] = f"{ROOT / 'tests' / 'elsewhere'}{os.pathsep}{ROOT}"
    environment |= variables
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment
    )


def test_the_simulation_takes_away_what_it_says(tmp_path):
    code = """
import os, signal
for name in ("fcntl", "grp", "pwd", "resource"):
    try:
        __import__(name)
    except ImportError:
        continue
    print(name, "is there")
print([name for name in ("fork", "sched_getaffinity") if hasattr(os, name)])
print([name for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)])
print(os.path.expanduser("~"))
try:
    open("/proc/self/status")
except FileNotFoundError as error:
    print(error.filename)
"""
    done = elsewhere("-c", code, folder=tmp_path)
    assert done.stdout == "[]\n[]\n~\n/proc/self/status\n", done.stderr


def test_a_set_is_prepared_and_read(tmp_path):
    make_folder(tmp_path / "photos", ["ant", "bee"], 2)
    code = """
from alexnet_jax.data.builders import make_builder
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.data.statistics import load_statistics
options = {"data_dir": "out", "validation_share": 0, "num_workers": 0}
make_builder("folder", folder="photos", name="photos", **options).download_and_prepare()
load_statistics(open_dataset("photos", "train", data_dir="out"))
try:
    open_dataset("digits", "train")
except ValueError as error:
    print(error)
"""
    done = elsewhere("-c", code, folder=tmp_path)
    assert "there is no home folder to write the data set digits to; set TFDS_" in done.stdout
    assert "set XDG_CACHE_HOME to a folder that can be written to" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


@pytest.mark.slow
def test_digits_are_trained_evaluated_and_reported(tmp_path):
    few = ("--config.num_epochs=1", "--config.validation_split=train[320:352]")
    for command in (
        ("train", *SMALL, *few, "--config.test_split=test[:32]"),
        ("evaluate",),
        ("report",),
    ):
        arguments = ("-m", "alexnet_jax", command[0], "--workdir=run", *command[1:])
        done = elsewhere(*arguments, folder=tmp_path, TFDS_DATA_DIR="data")
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "run"]
