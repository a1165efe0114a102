"""Two processes on loopback train as one, and one that is lost stops the other."""

import atexit
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from alexnet_jax import hosts
from alexnet_jax.hosts import HEARTBEAT_SECONDS
from alexnet_jax.runs.workdir import load_run
from tests.commands import Command
from tests.tiers import slow

LOST = rf"error: process 0 stops, process 1 \({socket.gethostname()}\) was lost \(.*\); start .*"

# 42 updates of a narrow net on digits, each logged.
RUN = [
    "--config=digits",
    "--config.model.conv_features=(8, 16, 16, 16, 8)",
    "--config.model.fc_features=(32, 32)",
    "--config.batch_size=32",
    "--config.num_epochs=1",
    "--config.log_every_steps=1",
    "--config.checkpoint_every_steps=10",
    "--config.test_split=",
]


def start(workdir, *flags, devices=1):
    """The training command with devices of its own."""
    flags = [f"--workdir={workdir}", *RUN, *flags]
    return Command("alexnet_jax.main", *flags, devices=devices)


def free_address():
    """Of this machine, where process 0 may listen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start_two(workdir, *flags, devices=1):
    """The command on two hosts."""
    address = free_address()
    together = [f"--coordinator_address={address}", "--num_processes=2", *flags]
    return [
        start(workdir, *together, f"--process_id={number}", devices=devices) for number in (0, 1)
    ]


def finish(*processes):
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, output + errors


def curve(workdir):
    rows = (json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row["split"], row["loss"], row["top1_error"]) for row in rows]


def steps_logged(workdir):
    log = workdir / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    finish(start(workdir))  # also prepares the digits, which two would do at once
    return workdir


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_lost_process_stops_the_other_and_the_run_goes_on_as_that_of_one(tmp_path, one_process):
    first, second = start_two(tmp_path)
    while steps_logged(tmp_path) < 12:
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, errors = first.communicate(timeout=300)
    assert time.monotonic() - killed < HEARTBEAT_SECONDS + 10
    assert first.returncode not in (0, None)
    assert re.fullmatch(LOST, errors.splitlines()[-1])
    second.communicate()
    assert steps_logged(tmp_path) < steps_logged(one_process)

    finish(*start_two(tmp_path))
    for row, expected in zip(curve(tmp_path), curve(one_process), strict=True):
        assert row[:2] == expected[:2]
        assert row[2:] == pytest.approx(expected[2:], rel=1e-4)
    assert_same_velocity(tmp_path, one_process)


def assert_same_velocity(*workdirs):
    """The losses hardly leave ln 10 in 42 updates; this shows that all gradients counted."""
    velocities = [load_run(workdir, which="last").state.opt_state for workdir in workdirs]
    for found, expected in zip(*map(jax.tree.leaves, velocities), strict=True):
        assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("flag", ["--config.cache=device", *slow("--config.augment=host")])
def test_two_hosts_of_two_devices_see_the_images_of_one(tmp_path, one_process, flag):
    finish(*start_two(tmp_path, flag, devices=2))
    assert_same_velocity(tmp_path, one_process)


def test_a_process_without_a_cluster_is_told_what_to_give(tmp_path, monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    process = start(tmp_path, "--multihost")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.fullmatch("error: cannot join the other hosts: .*--coordinator_address.*\n", errors)


def test_hosts_that_were_started_otherwise_do_not_train_together(tmp_path):
    address = free_address()
    together = [f"--coordinator_address={address}", "--num_processes=2"]
    processes = [
        start(tmp_path, *together, f"--process_id={n}", f"--config.seed={7 + n}") for n in (0, 1)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 1
        assert errors.splitlines()[-1] == (
            "error: process 1 was started otherwise than process 0: seed is 8, not 7; give all of "
            "them the same flags and data"
        )
    assert not any(tmp_path.iterdir())


def test_hosts_whose_data_differ_are_told(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    facts = {"images": 9, "classes": 2}
    monkeypatch.setattr(
        hosts, "_gathered", lambda text: [text, text, json.dumps(facts | {"images": 8})]
    )
    with pytest.raises(ValueError, match=r"process 2 was .* than process 0: images is 8, not 9;"):
        hosts.check_agreement(facts)


ALONE = """
import sys
from alexnet_jax import hosts
hosts.initialize(sys.argv[1], 2, 0, join_seconds=1)
"""


def test_a_host_whose_partners_never_come_says_so():
    address = free_address()
    done = subprocess.run([sys.executable, "-c", ALONE, address], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert (done.returncode, lines[0]) == (1, f"Waiting for all 2 processes to come to {address}")
    assert lines[-1].startswith(f"error: not all 2 processes came to {address} within 1 s; start")


ONE_FAILS = """
import sys
from jax.experimental import multihost_utils
from alexnet_jax import command, hosts

def main(argv):
    address, number = argv[1], int(argv[2])
    hosts.initialize(address, 2, number)
    with hosts.leaving_lost_hosts():
        if number == 1:
            raise ValueError("no room on this disk")
        multihost_utils.sync_global_devices("saved")

command.run(main, sys.argv)
"""


def test_a_process_with_an_error_of_its_own_leaves_at_once_and_so_does_the_other():
    address = free_address()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first, second = (
        subprocess.Popen([sys.executable, "-c", ONE_FAILS, address, number], **pipes)
        for number in ("0", "1")
    )
    _, errors = second.communicate(timeout=300)
    assert (second.returncode, errors.splitlines()[1:]) == (1, ["error: no room on this disk"])
    _, errors = first.communicate(timeout=300)
    assert first.returncode == 1
    assert re.fullmatch(LOST, errors.splitlines()[-1])


class Left(BaseException):
    """The process would have ended."""


def lost_while_saving():
    try:
        raise jax.errors.JaxRuntimeError("UNAVAILABLE: peer is gone\nand much more")
    except jax.errors.JaxRuntimeError as error:
        raise RuntimeError("checkpoint 56 could not be written; make room") from error


def lost_and_then_more():
    try:
        raise jax.errors.JaxRuntimeError("UNAVAILABLE: peer is gone\nand much more")
    except jax.errors.JaxRuntimeError:
        raise ValueError("no such file") from OSError("of a checkpoint")


@pytest.mark.parametrize(
    ("broken_off", "waits"), [(True, [HEARTBEAT_SECONDS + 2]), (False, [])], ids=["save", "other"]
)
def test_a_save_that_broke_off_waits_for_the_word_of_a_lost_host(monkeypatch, broken_off, waits):
    slept, at_the_end = [], []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "_other_processes", lambda: "process 1 (node7)")
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(atexit, "register", at_the_end.append)
    before = signal.getsignal(signal.SIGABRT)
    cause = OSError("no such file") if broken_off else None
    with pytest.raises(RuntimeError, match="not written"), hosts.leaving_lost_hosts():
        raise RuntimeError("not written") from cause
    signal.signal(signal.SIGABRT, before)
    assert (slept, len(at_the_end)) == (waits, 1)


@pytest.mark.parametrize("ends", [None, SystemExit(143), lost_while_saving, lost_and_then_more])
def test_a_process_lost_after_the_last_step_is_named_too(monkeypatch, capsys, ends):
    """Leaving together is the last thing that waits for the others."""

    def shutdown():
        raise jax.errors.JaxRuntimeError("UNAVAILABLE: peer is gone\nand much more")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax.distributed, "shutdown", shutdown)
    monkeypatch.setattr(hosts, "_other_processes", lambda: "process 1 (node7)")

    def leave(status):
        raise Left(status)

    monkeypatch.setattr(os, "_exit", leave)
    before = signal.getsignal(signal.SIGABRT)
    with pytest.raises(Left, match="1"), hosts.leaving_lost_hosts():
        if callable(ends):
            ends()
        if ends:
            raise ends
    signal.signal(signal.SIGABRT, before)
    expected = (
        r"error: process 0 stops, process 1 \(node7\) was lost \(UNAVAILABLE: peer is gone\);.*"
    )
    assert re.fullmatch(expected, capsys.readouterr().err.rstrip())
