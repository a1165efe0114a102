"""What a record needs to be made again: the machine, the versions, the commit, the command."""

import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from absl import flags

from alexnet_jax.machine import cores, processor

_STARTED = time.perf_counter()
# Features of the processor that decide how fast products are.
_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")


def environment() -> dict[str, Any]:
    """The machine, the versions, the commit, the command line and the experiment's flags."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "cores": cores(),
        "cpu": _cpu(),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
        "python": platform.python_version(),
        "commit": commit(),
        "command": shlex.join(["python", *_short(sys.argv)]),
        "flags": _settings(),
        "seconds": round(time.perf_counter() - _STARTED, 1),
    }


def machine(facts: Mapping[str, Any] | None = None) -> str:
    """The device in one line: name, cores and what decides how fast it multiplies.

    Args:
      facts: what `environment` gave, then; None: now.
    """
    facts = facts or environment()
    if facts["device"] != "cpu":
        return str(facts["device"])
    words = [facts["cpu"]["name"] or "a CPU", f"{facts['cores']} cores"]
    return ", ".join([*words, *facts["cpu"].get("flags", ())])


def _cpu() -> dict[str, Any]:
    """Name and flags of the processor, where the system tells."""
    facts = processor()
    if not facts:
        return {"name": platform.processor()}
    flags = facts.get("flags", "").split()
    return {"name": facts.get("model name"), "flags": [flag for flag in _FLAGS if flag in flags]}


@cache
def commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit checked out, "+" where files other than results differ; None outside git.

    When it is first asked for: a later one is not what a long sweep runs.
    """
    files = [":(top)", ":(top,exclude)docs", ":(top,exclude)experiments/results"]

    def git(*words: str) -> str:
        ended = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
        return ended.stdout.strip()

    try:
        found = git("rev-parse", "--short=12", "HEAD")
        differs = git("status", "-s", "-uno", "--", *files)
        return found + ("+" if differs else "") if found else None
    except OSError:
        return None


def _short(argv: list[str]) -> list[str]:
    """The command line: the module by its name, a script by its path from the repository."""
    argv = [argv[0], *map(_without_folders, argv[1:])]
    if spec := getattr(sys.modules["__main__"], "__spec__", None):
        return ["-m", spec.name, *argv[1:]]
    script = Path(argv[0]).resolve()
    root = Path(__file__).resolve().parent.parent
    return [
        str(script.relative_to(root)) if script.is_relative_to(root) else script.name,
        *argv[1:],
    ]


def _without_folders(argument: Any) -> Any:
    """A path from the root, or `--flag=` with one, by its last part: the rest is this machine's."""
    if not isinstance(argument, str):
        return argument
    name, is_flag, value = argument.rpartition("=")
    return name + is_flag + Path(value).name if Path(value).is_absolute() else argument


def _settings() -> dict[str, Any]:
    """The values of the flags that the experiment's modules define."""
    plain = (str, int, float, list, type(None))
    return {
        flag.name: _without_folders(flag.value)
        for module, ones in flags.FLAGS.flags_by_module_dict().items()
        if module == sys.argv[0] or module.startswith("experiments.")
        for flag in ones
        if isinstance(flag.value, plain) and flag.name != "quick"
    }
