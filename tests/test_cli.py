"""`alexnet-jax`: every command under one name, and what is said to who mistypes one."""

import subprocess
import sys
from importlib import metadata

import pytest

from alexnet_jax.cli import COMMANDS, main
from tests.commands import run_command


@pytest.mark.parametrize("argument", [None, "help", "--help", "-h"])
def test_alone_it_lists_the_commands(capsys, argument):
    main(["alexnet-jax", *([argument] if argument else [])])
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert "alexnet-jax train --workdir runs/" in out


def test_a_mistyped_command_is_told_what_was_meant(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["alexnet-jax", "trian"])
    assert stopped.value.code == 2
    assert "no command 'trian'; did you mean 'train'?" in capsys.readouterr().err


def test_the_version(capsys):
    main(["alexnet-jax", "--version"])
    assert capsys.readouterr().out == f"alexnet_jax {metadata.version('alexnet-jax')}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    done = run_command("alexnet_jax", name, "--help")
    flag = {"summary": "--preset", "prepare": "--dataset"}.get(name, "workdir")
    assert flag in done.stdout, done.stderr


def test_a_command_runs_as_its_module_does():
    runs = [
        subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        for command in (["alexnet_jax", "summary"], ["alexnet_jax.summary"])
    ]
    assert runs[0].stdout == runs[1].stdout == run_command("alexnet_jax", "summary").stdout
    assert "60,965,224" in runs[0].stdout
