"""Many hosts as one machine: how a process joins the others and how it leaves them (section 3.2).

JAX's distributed runtime does both; here are the words for what goes wrong.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from alexnet_jax.wording import first_line

# A host that is silent for so long is given up and all others stop; jax's own default is 100.
HEARTBEAT_SECONDS = 20
JOIN_SECONDS = 300  # as long as the others may take to start


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
    join_seconds: int = JOIN_SECONDS,
) -> None:
    """Makes this process one of several that train together, one per host; call it first.

    What is not given is found from Slurm, Open MPI, GKE or the TPU's environment.

    Args:
      coordinator_address: "host:port" of process 0.
      num_processes: number of processes.
      process_id: this one's number, 0 to num_processes - 1.
      heartbeat_seconds: silence after which a process counts as lost and the others stop.
      join_seconds: how long the others may take; then this process ends with one line, and exit
        code 1.

    Raises:
      ValueError: not everything is given and there is no cluster to ask, or the address is none,
        or is in use.
    """
    if coordinator_address is not None and not re.fullmatch(r".+:\d+", coordinator_address):
        raise ValueError(
            f"coordinator_address={coordinator_address!r}; give host:port of process 0, such as "
            "node0:1234"
        )
    if coordinator_address is not None and process_id == 0:
        _check_port(int(coordinator_address.rpartition(":")[2]))
    number = "" if num_processes is None else f" {num_processes}"
    where = "" if coordinator_address is None else f" to {coordinator_address}"
    if where:
        print(f"Waiting for all{number} processes to come{where}", file=sys.stderr, flush=True)
    alone = (
        f"error: not all{number} processes came{where} within {join_seconds} s; start the same "
        "command on every host, each with a --process_id of its own"
    )
    try:
        with _saying_on_abort(alone):
            jax.distributed.initialize(
                coordinator_address,
                num_processes,
                process_id,
                initialization_timeout=join_seconds,
                heartbeat_timeout_seconds=heartbeat_seconds,
                shutdown_timeout_seconds=heartbeat_seconds,
            )
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"cannot join the other hosts: {reason}; run under Slurm, Open MPI or "
            "GKE, or give --coordinator_address, --num_processes and --process_id"
        ) from error
    faulthandler.disable()  # after a silent host's abort, threads tell nothing


def _check_port(port: int) -> None:
    """Raises ValueError where the port is taken, or none: jaxlib 0.10 would end in a fault."""
    try:
        socket.create_server(("", port)).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"port {port} of this machine cannot be taken ({error}); give --coordinator_address "
            "another"
        ) from error


@contextlib.contextmanager
def leaving_lost_hosts() -> Iterator[None]:
    """Ends this process with one line, and exit code 1, where another one of the run is lost.

    At once, since the usual way out waits for all of them. Where a collective breaks off, JAX
    raises; so does whatever broke off with it, such as a checkpoint that all of them write. Where
    this process waits for one that is silent, or the first one is gone, JAX's runtime logs its
    reason and aborts the process, from a thread of its own: only a handler that does not return to
    it, which Python's own do, can still say what to do. The processes leave together, since that
    waits for all of them, too; but one with an error of its own leaves as soon as it is told.
    """
    if jax.process_count() == 1:
        yield
        return
    others = _other_processes()

    def lost(reason: str) -> str:
        return (
            f"error: process {jax.process_index()} stops, {others} was lost ({reason}); start the "
            "same command again on every host, it resumes from the last checkpoint"
        )

    with _saying_on_abort(lost("JAX's own reason stands above")):
        try:
            try:
                yield
            except SystemExit:  # all of them stop
                jax.distributed.shutdown()
                raise
            jax.distributed.shutdown()
        except Exception as error:
            if broken := _broken_collective(error):
                _leave(lost(broken))
            # A save that broke off, in whatever way, may have done so because a host is lost;
            # within this time JAX's runtime says so, and aborts.
            if isinstance(error, RuntimeError) and error.__cause__:
                time.sleep(HEARTBEAT_SECONDS + 2)
            atexit.register(_leave_at_once)
            raise


@contextlib.contextmanager
def _saying_on_abort(line: str) -> Iterator[None]:
    """Where JAX's runtime aborts the process, that prints `line` and ends with exit code 1."""
    # Only the C library installs a handler that runs in the aborting thread.
    on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: _leave(line))
    c_library = ctypes.CDLL(None)
    c_library.signal.restype = ctypes.c_void_p
    c_library.signal(signal.SIGABRT, on_abort)
    try:
        yield
    finally:
        signal.signal(signal.SIGABRT, signal.SIG_DFL)


def _leave(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
    os._exit(1)


def _broken_collective(error: BaseException) -> str | None:
    """What JAX's runtime said where that led to `error`, or was met on the way."""
    errors = [error]
    for one in errors:  # grows
        if isinstance(one, jax.errors.JaxRuntimeError):
            return first_line(one)
        earlier = (one.__cause__, one.__context__)
        errors += [other for other in earlier if other is not None and other not in errors]
    return None


def _leave_at_once() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _other_processes() -> str:
    """The run's other processes by number and host: "process 1 (node7)"."""
    named = [
        f"process {number} ({host})"
        for number, host in enumerate(_gathered(socket.gethostname()))
        if number != jax.process_index()
    ]
    return " or ".join(named)


def check_agreement(facts: Mapping[str, Any]) -> None:
    """All processes call it with what each was started with: by name, as JSON holds it.

    Raises:
      ValueError: one differs from process 0, with which it would train another network together.
    """
    if jax.process_count() == 1:
        return
    first, *others = map(json.loads, _gathered(json.dumps(facts)))
    for number, other in enumerate(others, 1):
        names = sorted(name for name in first | other if first.get(name) != other.get(name))
        if names:
            told = [f"{n} is {other.get(n)!r}, not {first.get(n)!r}" for n in names[:3]]
            more = f", and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(
                f"process {number} was started otherwise than process 0: {', '.join(told)}{more}; "
                "give all of them the same flags and data"
            )


def _gathered(text: str) -> list[str]:
    """The text of each process, in order; a collective."""
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(data)))
    padded = np.pad(data, (0, sizes.max() - len(data)))
    rows = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]
