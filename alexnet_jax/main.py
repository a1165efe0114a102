"""Trains: `python -m alexnet_jax.main --workdir runs/ --config=digits --config.seed=1`."""

import itertools
import re
from collections.abc import Sequence
from importlib import resources

import jax
from absl import app, flags
from ml_collections import config_flags

from alexnet_jax.command import flags_alone, run
from alexnet_jax.files import local_path
from alexnet_jax.machine import keep_freed_memory
from alexnet_jax.wording import suggestion

_CONFIGS = resources.files("alexnet_jax.configs")

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for logs and checkpoints; a run that is there is resumed."
)
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,  # digits: `with_config_paths` fills it in, a default here would be parsed on import
    "Name of a shipped config (digits, imagenette, …) or path to a file with get_config(). "
    "Any field is overridden by --config.FIELD=VALUE.",
)
_STRICT = flags.DEFINE_bool(
    "strict", False, "Stop where the last checkpoint is damaged; else an older whole one is used."
)
_PROFILE = flags.DEFINE_bool(
    "profile", False, "Time each layer in some updates, and write their trace to WORKDIR/profile."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared tfds data sets; then ALEXNET_DATA_DIR, then tfds's own."
)
_MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "Train with the other hosts of this Slurm, Open MPI, GKE or TPU job."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "host:port of process 0; for several hosts without a cluster."
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes, one a host.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")


def with_config_paths(argv: Sequence[str]) -> list[str]:
    """The arguments with the name of a shipped config replaced by its path.

    Without --config it is the one saved in the workdir, or digits in a new one. Flag files are
    expanded. Of a field given twice the last stays: ml_collections would join two tuples. Raises
    ValueError for a name that is neither shipped nor a file.
    """
    argv = [argv[0], *_last_of_each(flags.FLAGS.read_flags_from_files(list(argv[1:])))]
    known = sorted(
        path.name.removesuffix(".py")
        for path in _CONFIGS.iterdir()
        if path.name.endswith(".py") and path.name not in ("__init__.py", "default.py")
    )

    def resolve(value: str) -> str:
        if value in known:
            return str(_CONFIGS / f"{value}.py")
        path, colon, argument = value.partition(":")
        if not (path and local_path(path).is_file()):
            raise ValueError(f"no config {value!r} and no such file; {suggestion(value, known)}")
        return f"{local_path(path)}{colon}{argument}"

    resolved = [argv[0]]
    if not any(argument.partition("=")[0] in ("--config", "-config") for argument in argv):
        # Here and not as a default: two would define each override twice.
        resolved.append(f"--config={_saved_config(argv) or resolve('digits')}")
    for previous, argument in itertools.pairwise(argv):
        flag, equals, value = argument.partition("=")
        if previous in ("--config", "-config"):
            argument = resolve(argument)
        elif equals and flag in ("--config", "-config"):
            argument = f"{flag}={resolve(value)}"
        resolved.append(argument)
    return resolved


def _last_of_each(arguments: Sequence[str]) -> list[str]:
    """The arguments without --config, or fields of it, that are given again further on.

    --config comes first: a field before it would not be known yet.
    """
    given: dict[str, list[str]] = {}
    name = ""
    for number, argument in enumerate(arguments):
        flag, equals, _ = argument.partition("=")
        value = name and not re.match(r"--?[a-z]", argument)  # of the flag before it
        if not value:
            field = re.fullmatch(r"--?(config(\..*)?)", flag)
            name = field[1] if field else str(number)
            given.pop(name, None)
        given.setdefault(name, []).append(argument)
        if equals or value:
            name = ""
    first = given.pop("config", [])
    return first + [argument for parts in given.values() for argument in parts]


def _saved_config(argv: Sequence[str]) -> str | None:
    """What names the configuration of the run in the workdir; None where there is no run."""
    given = None
    for argument, following in itertools.pairwise([*argv, ""]):
        flag, equals, value = argument.partition("=")
        if flag in ("--workdir", "-workdir"):
            given = value if equals else following
    if not given or not (local_path(given) / "config.json").is_file():
        return None
    return f"{resources.files('alexnet_jax.runs') / 'saved_config.py'}:{local_path(given)}"


def main(argv: Sequence[str]) -> None:
    """Runs the training that the flags describe."""
    together = _MULTIHOST.value or _COORDINATOR.value
    if together:  # with steps computed in turn a host that is lost crashes the others
        jax.config.update("jax_cpu_enable_async_dispatch", True)
        keep_freed_memory()
    # Only now: loading tfds and Orbax takes seconds, and --help should not.
    from alexnet_jax import hosts  # noqa: PLC0415
    from alexnet_jax.runs.launch import train  # noqa: PLC0415

    flags_alone(argv)
    if not _WORKDIR.value:
        raise app.UsageError("--workdir is missing: the folder for logs and checkpoints")
    config = _CONFIG.value
    if _DATA_DIR.value:
        config.data_dir = _DATA_DIR.value
    if not together and (_PROCESSES.value, _PROCESS.value) != (None, None):
        raise app.UsageError(
            "--num_processes and --process_id are of several hosts: give --coordinator_address, or "
            "--multihost"
        )
    if together:
        hosts.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    with hosts.leaving_lost_hosts():
        workdir = local_path(_WORKDIR.value)
        train(config, workdir, strict=_STRICT.value, profile=_PROFILE.value)


if __name__ == "__main__":
    run(main, rewrite=with_config_paths, in_turn=True)
