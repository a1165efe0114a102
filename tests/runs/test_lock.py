"""A workdir takes one run at a time."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from alexnet_jax.runs.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from alexnet_jax.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_dead_one_s_lock_taken_over(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    owner = f"process {holder.pid} on {socket.gethostname()}"
    with pytest.raises(ValueError, match=f"is in use by {owner}; wait"), locked(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()


def test_an_owner_that_cannot_be_read_is_still_an_owner(tmp_path):
    with locked(tmp_path):
        (tmp_path / ".lock").write_bytes(b"\xff")
        with pytest.raises(ValueError, match="in use by another process"), locked(tmp_path):
            pass


def test_where_there_are_no_locks_a_run_goes_on(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", refused)
    with locked(tmp_path):
        pass
    monkeypatch.setattr("alexnet_jax.machine.fcntl", None)
    with locked(tmp_path), locked(tmp_path):
        pass


def test_a_lock_that_a_full_disk_has_no_room_for_names_its_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/\.lock'"), locked(tmp_path):
        pass
