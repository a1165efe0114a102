"""Commands as a user starts them, without every one importing JAX again.

A process in which the libraries and ours are imported, and no device is open, is forked for each
command: seconds less than a start from nothing. What depends on the start itself is for
`subprocess`.
"""

import atexit
import gc
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
    "matplotlib.figure",
    "scipy.stats",
    "alexnet_jax.command",
    "alexnet_jax.runs.launch",
)
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(list(_LIBRARIES))


def seldom_collect():
    """Spares Python going through the libraries' million objects, 9% of a test's time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def on_devices(count):
    """The environment for a process of so many simulated devices."""
    others = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    flags = [*others, f"--xla_force_host_platform_device_count={count}"]
    return dict(os.environ, XLA_FLAGS=" ".join(flags))


class Command:
    """`python -m module arguments…` that has begun, with the methods of `subprocess.Popen`.

    With "-c" for the module, the first argument is the program.
    """

    def __init__(self, module, *arguments, devices=1):
        arguments = [str(argument) for argument in arguments]
        self.args = [module, *arguments]
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name, name) for name in ("out", "err")]
        task = (module, arguments, on_devices(devices), os.getcwd(), *self._files)
        self._process = _FORKS.Process(target=_run, args=task)
        self._process.start()

    def poll(self):
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def kill(self):
        self._process.kill()

    def communicate(self, timeout=300):
        """Waits for the end; the texts of its output and its errors."""
        self._process.join(timeout)
        if self._process.is_alive():
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        self.returncode = self._process.exitcode
        with self._folder:
            return tuple(path.read_text(encoding="utf-8") for path in self._files)


def run_command(module, *arguments, timeout=300):
    """`python -m module arguments…` on one device: `subprocess.CompletedProcess`, its text read."""
    command = Command(module, *arguments)
    texts = command.communicate(timeout)
    return subprocess.CompletedProcess(command.args, command.returncode, *texts)


def _run(module, arguments, environment, folder, output, errors):
    seldom_collect()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8") for number in (1, 2))
    sys.argv = [module, *arguments]
    try:
        if module == "-c":
            exec(sys.argv.pop(1), {"__name__": "__main__"})
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
