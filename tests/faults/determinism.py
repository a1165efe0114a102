"""What a run's numbers do not depend on, and by how much they differ where they do."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from alexnet_jax.runs.workdir import load_run
from tests.faults.base import Row, Scale, ended, train, unlike

# What may be otherwise -> flags and environment of the small run.
EQUAL = {
    "the same command twice": ((), {}),
    "no compiled programs kept": (("--nokeep_programs",), {"JAX_ENABLE_COMPILATION_CACHE": "0"}),
    "images read from the disk": (("--config.cache=none",), {}),
    "images kept on the device": (("--config.cache=device",), {}),
    "two processes that read": (("--config.cache=none", "--config.read_workers=2"), {}),
    "asynchronous dispatch": ((), {"JAX_CPU_ENABLE_ASYNC_DISPATCH": "1"}),
}
NEAR = {
    "one core instead of all": ((), {"AFFINITY": "0"}),
    "two devices instead of one": (
        ("--config.mesh.data=2",),
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    ),
    "each tower on a device of its own": (
        ("--config.mesh.data=1", "--config.mesh.model=2"),
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    ),
    "code compiled with other optimisations": (
        (),
        {"XLA_FLAGS": "--xla_backend_optimization_level=2"},
    ),
}


def faults(scale: Scale) -> Iterator[Row]:
    """Rows of runs that are equal to the last bit, then of those that are near."""
    usual = scale.new("run")
    status, _, errors = ended(train(usual))
    assert status == 0, errors
    equal, names = Row("determinism: equal to the last bit"), []
    for name, (flags, environment) in scale.some(EQUAL.items(), "equal"):
        workdir = scale.new("run")
        status, _, errors = ended(_start(workdir, flags, environment))
        equal.tried += 1
        names.append(name)
        difference = errors[-200:] if status else unlike(workdir, usual)
        equal.check(difference is None, f"{name}: {difference}")
    equal.note = "; ".join(names)
    yield equal
    near, largest = Row("determinism: equal to rounding"), {}
    for name, (flags, environment) in scale.some(NEAR.items(), "near"):
        workdir = scale.new("run")
        status, _, errors = ended(_start(workdir, flags, environment))
        near.tried += 1
        near.check(status == 0, f"{name}: {errors[-200:]}")
        if status == 0:
            largest[name] = _distance(workdir, usual)
            near.check(largest[name] < 1e-3, f"{name}: {largest[name]:.1e}")
    near.note = "relative distance of the parameters after 63 updates: " + "; ".join(
        f"{name} {distance:.0e}" for name, distance in largest.items()
    )
    yield near


def _start(workdir: Path, flags: tuple[str, ...], environment: dict[str, str]):
    """The small run, on some of the cores where `AFFINITY` names them."""
    chosen = dict(environment)
    cores = chosen.pop("AFFINITY", None)
    before = os.sched_getaffinity(0)
    if cores is not None:
        os.sched_setaffinity(0, {sorted(before)[int(cores)]})  # children have it too
    try:
        return train(workdir, *flags, **chosen)
    finally:
        os.sched_setaffinity(0, before)


def _distance(workdir: Path, other: Path) -> float:
    """Of the last parameters, relative to their size."""
    ours, theirs = (
        np.concatenate(
            [np.ravel(leaf) for leaf in jax.tree.leaves(load_run(path, which="last").params)]
        )
        for path in (workdir, other)
    )
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
