"""The training command's flags."""

import pytest

from tests.commands import run_command


@pytest.mark.parametrize("config", [[], ["--config=digits"], ["--config", "digits"]])
def test_overrides_hold_with_and_without_a_named_config(config, tmp_path):
    argv = [*config, "--config.seed=3", "--config.dataset=nothing"]
    done = run_command("alexnet_jax.main", f"--workdir={tmp_path}/run", *argv)
    assert done.returncode == 1
    assert "data set 'nothing' is not prepared" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
