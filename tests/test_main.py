"""What the user can mend ends in one line that says how, and exit status 1."""

import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from alexnet_jax.checkpoint import Checkpointer
from alexnet_jax.configs import digits
from alexnet_jax.train import train
from alexnet_jax.workdir import save_config
from tests.small import SMALL


def run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "alexnet_jax.main", *flags],
        env=dict(os.environ, XLA_FLAGS=""),  # one device
        capture_output=True,
        text=True,
        timeout=300,
    )


def error_of(*flags):
    """The one line a failing command prints, without `error: `."""
    done = run(*flags)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if "img/s" not in line]  # progress bars
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--config.learning_rat=1", 'Did you mean "learning_rate" instead of "learning_rat"?'),
        ("--config.batch_size=x", "batch_size"),
        ("--config=digit", "no config 'digit': did you mean 'digits'?"),
    ],
)
def test_a_mistake_in_a_flag_is_one_line(tmp_path, flag, message):
    assert message in error_of(f"--workdir={tmp_path}", flag)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("preset", "papr", "did you mean 'paper'"),
        ("schedule.name", "plato", 'unknown schedule "plato"; did you mean "plateau"?'),
        ("dataset", "imagenet2012", "python -m alexnet_jax.prepare --dataset=imagenet2012"),
        ("mesh.model", 3, "model=3: the net has two towers"),
    ],
)
def test_a_field_that_cannot_be_used_is_one_line(tmp_path, field, value, message):
    config = digits.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError) as error:
        train(config, tmp_path / "run")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_error_from_inside_the_step_is_one_line(tmp_path):
    message = error_of(f"--workdir={tmp_path}", *SMALL, "--config.stored_size=60")
    assert message.startswith("stored images of 60 pixels are smaller than image_size=64; ")


def test_a_checkpoint_of_another_net_is_one_line(tmp_path):
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        state = {"params": {"fc8": {"bias": jnp.zeros(7)}}}
        checkpointer.save(1, state, arrays={}, metadata={}, best_metric=None)
    message = error_of(f"--workdir={tmp_path}", *SMALL)
    assert "params/fc8/bias is float32[7] in the checkpoint, float32[10] in the model" in message


def test_another_configuration_in_the_same_workdir_names_the_field(tmp_path):
    config = digits.get_config()
    save_config(config, tmp_path)
    config.weight_decay = 0.1
    with pytest.raises(ValueError, match=r"weight_decay=0.0005 and this one has 0.1; give the"):
        save_config(config, tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    message = error_of(f"--workdir={tmp_path}", *SMALL, "--config.learning_rate=1e9")
    assert "at step " in message and "lower --config.learning_rate" in message
    assert not any((tmp_path / "checkpoints").iterdir())
