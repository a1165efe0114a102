"""Two processes that train together: one is killed or frozen, the other leaves and says why."""

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

from alexnet_jax.hosts import HEARTBEAT_SECONDS
from tests.faults.base import Row, Scale, ended, last_line, train, unlike


def faults(scale: Scale) -> Iterator[Row]:
    """Either process, killed or frozen, at random moments."""
    undisturbed = scale.new("undisturbed")
    began = time.monotonic()
    for process in _two(undisturbed):
        status, _, errors = ended(process)
        assert status == 0, errors
    whole = time.monotonic() - began
    for name, number in (("killed", signal.SIGKILL), ("frozen", signal.SIGSTOP)):
        yield _lost(scale, name, number, undisturbed, whole)


def _two(workdir: Path) -> list[Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = (f"--coordinator_address={address}", "--num_processes=2", "--config.mesh.data=2")
    return [train(workdir, *flags, f"--process_id={number}") for number in (0, 1)]


def _lost(scale: Scale, name: str, number: int, undisturbed: Path, whole: float) -> Row:
    row, rng = Row(f"one of two processes {name}"), scale.rng(name)
    while row.tried < scale.times(20):
        workdir, victim = scale.new("run"), row.tried % 2
        other = 1 - victim
        wanted = rf"error: process {other} stops, process {victim} \(.+\) was lost \(.*\); start .*"
        processes = _two(workdir)
        time.sleep(rng.uniform(0.3, 1) * whole)  # before, they have not met
        if any(process.poll() is not None for process in processes):
            for process in processes:
                ended(process)
            continue
        os.killpg(processes[victim].pid, number)
        lost = time.monotonic()
        status, _, errors = ended(processes[other], 4 * HEARTBEAT_SECONDS)
        row.tried += 1
        row.seconds.append(time.monotonic() - lost)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(processes[victim].pid, signal.SIGKILL)
        processes[victim].communicate()
        if status != 0:  # it may just have ended
            row.check(status == 1 and re.fullmatch(wanted, last_line(errors)), errors[-400:])
        row.check(row.seconds[-1] < HEARTBEAT_SECONDS + 10, f"left after {row.seconds[-1]:.0f} s")
        for process in _two(workdir):
            status, _, errors = ended(process)
            row.check(status == 0, f"did not go on: {errors[-300:]}")
        if difference := unlike(workdir, undisturbed):
            row.fail(difference)
    row.note = "the other leaves with the lost one's name; both go on to the same end"
    return row
