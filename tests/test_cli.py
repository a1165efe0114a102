"""`alexnet-jax`: every command under one name, and what is said to who mistypes one."""

import os
import signal
import subprocess
import sys
from importlib import metadata

import grain
import pytest

from alexnet_jax import command
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
    command = [sys.executable, "-m", "alexnet_jax", "summary"]
    alone = subprocess.run(command, capture_output=True, text=True).stdout
    forked = [run_command("alexnet_jax", "summary"), run_command("alexnet_jax.summary")]
    assert {alone} == {done.stdout for done in forked} and "60,965,224" in alone


@pytest.mark.parametrize(
    ("output", "status", "told"),
    [
        ("open('/dev/full', 'w')", 1, "error: standard output: No space left on device\n"),
        # Whose reader has gone, as that of `| head` does.
        ("os.fdopen(gone, 'w')", 128 + signal.SIGPIPE, ""),
    ],
)
@pytest.mark.parametrize("flush", [True, False])  # met where it is written, or at the end
def test_output_that_cannot_be_written_is_told_or_left(output, status, told, flush):
    program = (
        "import os, sys\n"
        "from alexnet_jax.command import run\n"
        "reader, gone = os.pipe()\n"
        "os.close(reader)\n"
        f"sys.stdout = {output}\n"
        f"run(lambda _: print(1, flush={flush}), ['command'])\n"
    )
    done = run_command("-c", program)
    assert (done.returncode, done.stderr) == (status, told)


def test_closed_streams_and_others_settings_are_nothing_to_a_command(tmp_path):
    """A daemon's start closes them; a notebook's backend need not be there for its commands."""
    program = (
        "import sys\n"
        "sys.stdout = sys.stderr = None\n"
        "from alexnet_jax import evaluate\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from alexnet_jax.command import run\n"
        "def main(_):\n"
        "    import jax\n"
        "    assert jax.config.jax_threefry_partitionable\n"
        "    from matplotlib.figure import Figure\n"
        "    print(1, file=sys.stderr)\n"
        "    Figure().savefig('picture.png')\n"
        "run(main, ['command'])\n"
    )
    backend = "module://matplotlib_inline.backend_inline"
    environment = {**os.environ, "MPLBACKEND": backend, "JAX_THREEFRY_PARTITIONABLE": "0"}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment)
    assert done.returncode == 0 and (tmp_path / "picture.png").exists()


@pytest.mark.parametrize(("in_turn", "dispatches"), [(True, False), (False, True)])
def test_steps_are_computed_in_turn_where_a_command_says_so(in_turn, dispatches):
    program = (
        "import jax\n"
        "from alexnet_jax.command import run\n"
        "told = lambda _: print(jax.config.values['jax_cpu_enable_async_dispatch'])\n"
        f"run(told, ['command'], in_turn={in_turn})\n"
    )
    done = run_command("-c", program)
    assert done.stdout == f"{dispatches}\n", done.stderr


def test_of_an_error_in_a_reader_one_line_is_told_and_what_we_add_to_it(capsys):
    def damaged(_):
        raise ValueError("shard x is damaged; copy it again")

    with pytest.raises(ValueError) as raised:
        list(grain.MapDataset.range(2).map(damaged).to_iter_dataset())
    assert "Grain has removed" in raised.value.__notes__[-1]
    raised.value.add_note("checkpoint 3 could not be written")
    with pytest.raises(SystemExit):
        command._fail(raised.value)
    told = "error: shard x is damaged; copy it again\ncheckpoint 3 could not be written\n"
    assert capsys.readouterr().err == told
