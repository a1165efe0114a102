"""How every command starts and ends: flags in, one line an error out."""

import logging as python_logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import jax
from absl import app, flags, logging

from alexnet_jax import interrupts
from alexnet_jax.compilation import keep_programs
from alexnet_jax.files import output_file
from alexnet_jax.machine import keep_freed_memory
from alexnet_jax.wording import of_values, write_on_any_terminal

if TYPE_CHECKING:
    from alexnet_jax.runs.workdir import Run

_KEEP_PROGRAMS = flags.DEFINE_bool(
    "keep_programs", True, "Keep compiled programs in the user's cache folder for later starts."
)
# The help of the flag --data_dir.
DATA_DIR = "Folder of prepared tfds data sets; then the run's own, ALEXNET_DATA_DIR, tfds's."
Arguments = Callable[[Sequence[str]], Sequence[str]]


def run(
    main: Callable[[Sequence[str]], Any],
    argv: Sequence[str] | None = None,
    *,
    rewrite: Arguments = list,
    in_turn: bool = False,
) -> None:
    """Runs a command: what its user can put right ends in one line and exit status 1.

    Args:
      main: takes the arguments that are no flags, after the program's name.
      argv: program and arguments; the process's own by default.
      rewrite: applied to them before the flags are read.
      in_turn: on CPU a step is computed before its call returns. One that is dispatched while
        another runs already holds its temporary arrays and runs no sooner: memory twice.
    """
    write_on_any_terminal()
    keep_freed_memory(one_heap=not in_turn)
    if in_turn:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Pictures go to files. A notebook names a backend of its own to its commands, too, and
    # matplotlib refuses to be imported where that is not installed.
    os.environ["MPLBACKEND"] = "agg"
    python_logging.getLogger("matplotlib").setLevel(python_logging.ERROR)  # of its cache
    warnings.filterwarnings("ignore", module="PIL")  # of damaged tags of images that it can read
    jax.config.update("jax_threefry_partitionable", True)  # else the same seed draws otherwise
    logging.set_verbosity(logging.WARNING)
    logging.use_absl_handler()
    arguments = list(sys.argv if argv is None else argv)
    app.run(guarded(main), arguments, flags_parser=partial(_parse, rewrite=rewrite))


def _parse(argv: Sequence[str], rewrite: Arguments) -> list[str]:
    try:
        return flags.FLAGS(rewrite(argv))
    except Exception as raised:
        error: BaseException = raised
        while error.args and isinstance(error.args[0], Exception):  # ml_collections wraps them
            error = error.args[0]
        while "Traceback (most recent call last)" in str(error) and error.__context__:
            error = error.__context__  # it writes what a configuration raises into another's text
        if isinstance(error, OSError):
            _fail(error)
        if isinstance(error, flags.Error | ValueError):
            _fail(" ".join(str(error).split()))
        frames = traceback.extract_tb(error.__traceback__)
        where = frames[-1]
        if isinstance(error, IndexError) and _of_flags(where.filename):
            _fail(f"{error}; give the whole tuple, as --config.FIELD='(1, 2)'")
        if isinstance(error, KeyError | AttributeError | TypeError) and _of_flags(where.filename):
            from alexnet_jax.runs.checks import unknown_field  # noqa: PLC0415

            text = " ".join(str(error.args[0]).split())
            if isinstance(error, KeyError):  # it begins with the field, quoted
                text = unknown_field(text.partition(" ")[0].strip("'\""))
            own = [f"{f.filename} line {f.lineno}: " for f in frames if _of_users(f.filename)]
            _fail("".join(own[-1:]) + text)
        if isinstance(error, SyntaxError):
            _fail(f"{error.filename} line {error.lineno}: {error.msg}")
        if _of_package(where.filename):
            raise
        _fail(f"{where.filename} line {where.lineno}: {type(error).__name__}: {error}")


def _of_flags(file: str) -> bool:
    """Whether a file is of the packages that read flags, not a configuration of the user's."""
    return not {"absl", "ml_collections"}.isdisjoint(Path(file).parts)


def _of_package(file: str) -> bool:
    return Path(__file__).parent in Path(file).parents


def _of_users(file: str) -> bool:
    return not (_of_flags(file) or _of_package(file) or file.startswith("<"))


def guarded(main: Callable[[Sequence[str]], Any]) -> Callable[[Sequence[str]], None]:
    """`main` with its expected errors turned into one line each."""

    def guarded_main(argv: Sequence[str]) -> None:
        from alexnet_jax.runs.checkpoint import CheckpointError  # noqa: PLC0415

        jax.config.update("jax_traceback_filtering", "off")  # else it adds a note to errors
        if _KEEP_PROGRAMS.value:
            keep_programs()
        interrupts.raise_again()
        try:
            main(argv)
            _check_output()
        except (ValueError, CheckpointError, OSError, FloatingPointError) as error:
            if logging.vlog_is_on(1):
                raise
            if isinstance(error, OSError) and not error.filename:
                _check_output("\n")  # of what failed nothing is left to write again
            _fail(error)
        except (RuntimeError, AssertionError) as error:
            if problem := _platform_problem():
                _fail(problem)
            raise error
        except KeyboardInterrupt as stopped:
            print("Stopped.", *stopped.args, file=sys.stderr)
            sys.stdout.flush()
            os._exit(128 + signal.SIGINT)  # a library's thread may keep the usual way out waiting

    return guarded_main


def _check_output(more: str = "") -> None:
    """Ends the command where standard output takes no more: quietly if it is a closed pipe."""
    try:
        print(more, end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python has left
        if isinstance(error, BrokenPipeError):
            sys.exit(128 + signal.SIGPIPE)
        _fail(f"standard output: {error.strerror}")


def flags_alone(argv: Sequence[str]) -> None:
    """Of a command that takes nothing else.

    Raises:
      UsageError: there is an argument that is no flag.
    """
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are written --name=value")


def write_page(
    workdir: str | None, output: str | None, name: str, write: "Callable[[Run, Path], None]"
) -> None:
    """Loads a run, has a page about it written, and says how large it is.

    Args:
      workdir: the run's folder, as the user gave it.
      output: the HTML file, as the user gave it; None: in the run's folder.
      name: of the file there.
      write: takes the run and the file.

    Raises:
      UsageError: no folder is given.
      ValueError: the file cannot be written; told before the work.
    """
    from alexnet_jax.runs.workdir import load_run  # noqa: PLC0415

    if not workdir:
        raise app.UsageError("--workdir is missing: the folder of a trained run")
    run = load_run(workdir)
    file = output_file(output or run.workdir / name)
    write(run, file)
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB; open it in a browser")


def _platform_problem() -> str | None:
    """What is wrong with the devices asked for; None if they are there."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        count = os.environ.get("JAX_NUM_CPU_DEVICES")
        if count is not None and int(count) < 1:
            return f"JAX_NUM_CPU_DEVICES={count}; give 1 or more, or unset it"
        asked = os.environ.get("JAX_PLATFORMS") or "the default platform"
        reason = (str(error) or "jax has no such devices").splitlines()[0]
        return (
            f"JAX_PLATFORMS asks for {asked}, which is not to be had here ({reason}); unset it, or "
            "set JAX_PLATFORMS=cpu"
        )
    return None


def _fail(error: Exception | str) -> NoReturn:
    told = of_values(str(error))
    if isinstance(error, OSError) and error.filename and told.startswith("[Errno"):
        told = f"{error.filename}: {error.strerror}"
    # Grain's note is of a traceback, which is not shown here.
    notes = [note for note in getattr(error, "__notes__", ()) if "Grain has removed" not in note]
    print(f"error: {told}", *notes, sep="\n", file=sys.stderr)
    sys.exit(1)
