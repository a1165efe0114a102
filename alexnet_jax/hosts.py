"""Many hosts as one machine: how a process joins the others and how it leaves them (section 3.2).

JAX's distributed runtime does both; here are the words for what goes wrong.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from alexnet_jax.wording import first_line

# A host that is silent for so long is given up and all others stop; jax's own default is 100.
HEARTBEAT_SECONDS = 20


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> None:
    """Makes this process one of several that train together, one per host; call it first.

    What is not given is found from Slurm, Open MPI, GKE or the TPU's environment.

    Args:
      coordinator_address: "host:port" of process 0.
      num_processes: number of processes.
      process_id: this one's number, 0 to num_processes - 1.
      heartbeat_seconds: silence after which a process counts as lost and the others stop.

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
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
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

    def leave(reason: str) -> None:
        print(
            f"error: process {jax.process_index()} stops, {others} was lost ({reason}); start the "
            "same command again on every host, it resumes from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    # Only the C library installs a handler that runs in the aborting thread.
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
    on_abort = handler(lambda _: leave("JAX's own reason stands above"))
    c_library = ctypes.CDLL(None)
    c_library.signal.restype = ctypes.c_void_p
    c_library.signal(signal.SIGABRT, on_abort)
    try:
        try:
            yield
        except SystemExit:  # all of them stop
            jax.distributed.shutdown()
            raise
        jax.distributed.shutdown()
    except Exception as error:
        if broken := _broken_collective(error):
            leave(broken)
        # A save that broke off, in whatever way, may have done so because a host is lost; within
        # this time JAX's runtime says so, and aborts.
        if isinstance(error, RuntimeError) and error.__cause__:
            time.sleep(HEARTBEAT_SECONDS + 2)
        atexit.register(_leave_at_once)
        raise
    finally:
        signal.signal(signal.SIGABRT, signal.SIG_DFL)


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
    name = np.zeros(64, np.uint8)
    host = socket.gethostname().encode()[:64]
    name[: len(host)] = np.frombuffer(host, np.uint8)
    hosts = multihost_utils.process_allgather(name)
    named = [
        f"process {number} ({bytes(host).rstrip(bytes(1)).decode(errors='replace')})"
        for number, host in enumerate(hosts)
        if number != jax.process_index()
    ]
    return " or ".join(named)
