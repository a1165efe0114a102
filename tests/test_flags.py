"""The training command's flags."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("config", [[], ["--config=digits"], ["--config", "digits"]])
def test_overrides_hold_with_and_without_a_named_config(config, tmp_path):
    argv = [*config, "--config.seed=3", "--config.dataset=nothing"]
    done = subprocess.run(
        [sys.executable, "-m", "alexnet_jax.main", f"--workdir={tmp_path}/run", *argv],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "data set 'nothing' is not prepared" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
