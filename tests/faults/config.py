"""Every field of a configuration with every bad value: refused before training, or it trains."""

import signal
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from alexnet_jax.configs import digits
from alexnet_jax.runs.checkpoint import CheckpointError
from alexnet_jax.runs.launch import train
from tests.faults.base import Row, Scale

VALUES: dict[str, Any] = {
    "negative": -1,
    "nought": 0,
    "huge": 10**9,
    "a fraction": 0.3,
    "not a number": float("nan"),
    "infinite": float("inf"),
    "text": "wörd 网",
    "empty text": "",
    "a truth value": True,
    "nothing": None,
    "an empty tuple": (),
    "a tuple": ("conv9", -3),
}
SECONDS = 60


def faults(scale: Scale) -> Iterator[Row]:
    """A row for each kind of value."""
    jax.config.update("jax_disable_most_optimizations", True)
    fields = sorted(flatten_dict(_base().to_dict(), sep="."))
    for name, value in VALUES.items():
        row = Row(f"a field of the configuration: {name}")
        chosen = scale.some(fields, name)
        counts = {"refused": 0, "trained": 0}
        for field in chosen:
            config = _base()
            try:
                with config.ignore_type():
                    config.update_from_flattened_dict({field: value})
            except (TypeError, ValueError, KeyError):
                counts["refused"] += 1  # the flags' own check comes first
                row.tried += 1
                continue
            row.tried += 1
            counts[_outcome(config, scale.new("run"), f"{field}={value!r}", row)] += 1
        row.note = ", ".join(f"{number} {what}" for what, number in counts.items())
        yield row
    jax.config.update("jax_disable_most_optimizations", False)


def _base() -> ConfigDict:
    config = digits.get_config()
    config.train_split, config.validation_split = "train[:64]", "train[64:96]"
    config.test_split = "test[:20]"
    config.model.conv_features, config.model.fc_features = (4, 4, 4, 4, 4), (8, 8)
    config.batch_size, config.num_epochs, config.log_every_steps = 32, 1, 1
    config.mesh.data = 1
    return config


def _outcome(config: ConfigDict, workdir: Path, what: str, row: Row) -> str:
    """Whether it was refused in one line, or trained to its end."""

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"{SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            train(config, workdir)
        return "trained"
    except (ValueError, CheckpointError, FloatingPointError, OSError) as error:
        message = str(error)
        row.check(message and "\n" not in message, f"{what}: {message!r}")
        row.check(not list(workdir.glob("checkpoints/*")), f"{what}: refused late: {message}")
        return "refused"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        row.fail(f"{what}: {type(error).__name__}: {error}")
        return "refused"
    finally:
        signal.alarm(0)
