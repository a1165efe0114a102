"""Two runs in one folder: the second one refuses, and says who is there."""

import os
import re
import signal
import socket
from collections.abc import Iterator

from tests.faults.base import Row, Scale, ended, start, train, unlike, wait_for


def faults(scale: Scale) -> Iterator[Row]:
    """A live owner, one that was killed, and one that is frozen."""
    undisturbed = scale.new("undisturbed")
    status, _, errors = ended(train(undisturbed))
    assert status == 0, errors
    row, host = Row("a second run in a folder that is in use"), re.escape(socket.gethostname())
    for turn in range(scale.times(10)):
        workdir = scale.new("run")
        first = train(workdir)
        assert wait_for((workdir / ".lock").exists, first)
        if turn % 3 == 2:
            os.killpg(first.pid, signal.SIGSTOP)
        status, _, errors = ended(train(workdir))
        owner = rf"error: .*{re.escape(str(workdir))} is in use by process {first.pid} on {host};"
        row.tried += 1
        finished = first.poll() is not None
        row.check(finished or (status == 1 and re.match(owner, errors)), errors[-300:])
        os.killpg(first.pid, signal.SIGCONT)
        if turn % 3 == 1:  # a dead owner's lock is free at once
            os.killpg(first.pid, signal.SIGKILL)
            first.communicate()
            status, _, errors = ended(train(workdir))
        else:
            status, _, errors = ended(first)
        row.check(status == 0, errors[-300:])
        if difference := unlike(workdir, undisturbed):
            row.fail(difference)
    row.note = "refused, naming host and process; the owner ends undisturbed; a dead one's is free"
    yield row
    reading = Row("reading a run while it trains")
    workdir = scale.new("run")
    process = train(workdir)
    assert wait_for(lambda: any(workdir.glob("checkpoints/*/commit_success.txt")), process)
    for command in ("evaluate", "report", "features") * scale.times(2):
        flags = (f"--workdir={workdir}",)
        if command == "evaluate":
            flags += (f"--output={scale.new('tables')}",)
        if command == "features":
            flags += ("--split=test", f"--output={scale.new('f.npz')}")
        status, _, errors = ended(start(command, *flags))
        reading.tried += 1
        reading.check(status == 0, f"{command}: {errors[-300:]}")
    status, _, errors = ended(process)
    reading.check(status == 0, errors[-300:])
    (workdir / "report.html").unlink(missing_ok=True)
    if difference := unlike(workdir, undisturbed):
        reading.fail(difference)
    reading.note = "each command reads what is whole; the run ends undisturbed"
    yield reading
