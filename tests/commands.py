"""Commands as a user starts them, without every one importing JAX again.

A process in which the libraries are imported, and no device is open, is forked for each command:
seconds less than a start from nothing. What depends on the start itself is for `subprocess`.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

_LIBRARIES = (
    "jax",
    "flax.linen",
    "optax",
    "orbax.checkpoint",
    "tensorflow_datasets",
    "grain",
    "ml_collections.config_flags",
    "alexnet_jax.command",
)
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(list(_LIBRARIES))


def on_devices(count):
    """The environment for a process of so many simulated devices."""
    others = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    flags = [*others, f"--xla_force_host_platform_device_count={count}"]
    return dict(os.environ, XLA_FLAGS=" ".join(flags))


def run_command(module, *arguments, timeout=300):
    """`python -m module arguments…` on one device: `subprocess.CompletedProcess`, its text read."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "out"), Path(folder, "err")
        arguments = [str(argument) for argument in arguments]
        process = _FORKS.Process(
            target=_run, args=(module, arguments, on_devices(1), os.getcwd(), output, errors)
        )
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired([module, *arguments], timeout)
        texts = (path.read_text(encoding="utf-8") for path in (output, errors))
        return subprocess.CompletedProcess([module, *arguments], process.exitcode, *texts)


def _run(module, arguments, environment, folder, output, errors):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8") for number in (1, 2))
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
