"""A run that was stopped, however, and started again is the same run."""

import json
import random
import re
import shutil
import signal
import time

import pytest

from alexnet_jax.runs.metrics_log import CLOCKED, MetricsLog
from tests.commands import Command
from tests.small import SMALL
from tests.tiers import slow

RUN = (*SMALL, "--config.watch_every_steps=7")


def start(workdir, *flags):
    return Command("alexnet_jax.main", f"--workdir={workdir}", *RUN, *flags)


def finish(process):
    output, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    return output


def metrics(workdir):
    """The lines of `metrics.jsonl` but for the fields that a clock measured."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(row.pop(name, 0) >= 0 for row in rows for name in CLOCKED)
    return rows


def wait_for_lines(process, workdir, count):
    """Returns once the log has `count` lines; False if the run ended first."""
    log = workdir / "metrics.jsonl"
    while process.poll() is None:
        if log.exists() and log.read_text().count("\n") >= count:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    output = finish(start(workdir))
    assert output.startswith("Training on 1 device(s): cpu")
    assert any(path.stat().st_size > 500 for path in workdir.glob("events.out.tfevents.*"))
    rows = metrics(workdir)
    assert [row["step"] for row in rows if row["split"] == "validation"] == [10, 20, 30, 40]
    assert rows[-1]["split"] == "test"
    return workdir, rows


@pytest.mark.parametrize(
    "stops", [[(signal.SIGTERM, 8)], *slow([(signal.SIGINT, 7), (signal.SIGTERM, 10)])]
)
def test_killed_and_stopped_it_ends_as_the_undisturbed_run(tmp_path, undisturbed, stops):
    process = start(tmp_path)
    assert wait_for_lines(process, tmp_path, 5)  # a checkpoint or two is there
    process.kill()
    process.communicate()

    for number, lines in stops:
        process = start(tmp_path)
        assert wait_for_lines(process, tmp_path, lines)
        process.send_signal(number)
        output, error = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert "Resuming at step" in output
        stopped = re.match(r"Stopped at step (\d+), saved", output.splitlines()[-1])
        assert (tmp_path / "checkpoints" / stopped[1]).is_dir()
        assert "Traceback" not in error

    finish(start(tmp_path))
    assert metrics(tmp_path) == undisturbed[1]


@pytest.mark.slow
def test_a_damaged_last_checkpoint_is_passed_over_or_with_strict_refused(tmp_path, undisturbed):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed[0], workdir)
    last = max((p for p in (workdir / "checkpoints").iterdir()), key=lambda p: int(p.name))
    (last / "manifest" / "metadata").write_bytes(b"")
    older = min(int(path.name) for path in (workdir / "checkpoints").iterdir())
    process = start(workdir, "--strict")
    _, error = process.communicate(timeout=400)
    assert process.returncode == 1
    assert re.fullmatch(rf"error: checkpoint {last} is damaged: .*; delete .*\n", error)
    output = finish(start(workdir))
    assert f"{last} is damaged" in output and f"going on from checkpoint {older}" in output
    assert metrics(workdir) == undisturbed[1]


@pytest.mark.slow
def test_a_finished_run_stays_as_it_is(undisturbed):
    workdir, rows = undisturbed
    finish(start(workdir))
    assert metrics(workdir) == rows


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_ends_as_the_undisturbed_run(tmp_path, undisturbed, seed):
    rng = random.Random(seed)
    kills = 0
    for lines in (0, 1, 3, 4, 6, 7, 9, 11, 13):
        process = start(tmp_path)
        if wait_for_lines(process, tmp_path, lines):
            time.sleep(rng.uniform(0, 0.3))
        kills += process.poll() is None
        process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.communicate()
    assert kills > 4
    finish(start(tmp_path))
    assert metrics(tmp_path) == undisturbed[1]


def test_a_validation_whose_checkpoint_was_never_saved_is_measured_again(tmp_path):
    means = {"loss": 1.0, "top1_error": 0.5, "top5_error": 0.1}
    with MetricsLog(tmp_path, writes=True) as log:
        log.begin(0, validated=0)
        for step, split in [(5, "train"), (5, "validation"), (10, "train"), (10, "validation")]:
            log.write(step, step / 5, split, means, 0.01, images_per_second=100.0)
        log.begin(10, validated=5)
    assert [(row["step"], row["split"]) for row in metrics(tmp_path)] == [
        (5, "train"),
        (5, "validation"),
        (10, "train"),
    ]
