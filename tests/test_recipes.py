"""The shipped recipes as a user runs them: `make test-slow`."""

import json
import os

import pytest

from tests.commands import run_command

DATA = os.environ.get("ALEXNET_DATA_DIR")  # before a fixture takes it away


def train(workdir, *flags, timeout):
    """The rows of the finished run's log, and what was printed."""
    done = run_command("alexnet_jax.main", f"--workdir={workdir}", *flags, timeout=timeout)
    assert done.returncode == 0, done.stderr
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], done.stdout


@pytest.mark.slow
def test_the_default_run_learns_handwritten_digits(tmp_path):
    rows, _ = train(tmp_path, timeout=600)
    assert [row["split"] for row in rows[-2:]] == ["test", "test_ten_views"]
    assert rows[-2]["top1_error"] <= 0.02


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="no Imagenette: ALEXNET_DATA_DIR is not set")
def test_the_full_network_trains_on_imagenette(tmp_path):
    rows, _ = train(
        tmp_path,
        f"--data_dir={DATA}",
        "--config=imagenette",
        "--config.batch_size=32",
        "--config.num_epochs=0.0179",  # 5 steps
        "--config.validation_split=train[99%:]",
        "--config.test_split=validation[:2%]",
        "--config.cache=none",
        timeout=600,
    )
    assert [row["split"] for row in rows] == ["train", "validation", "test", "test_ten_views"]
    assert all(row["step"] == 5 for row in rows)
