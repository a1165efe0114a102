"""A run's folder with an untrained, narrow network on the digits, for tests of what reads runs."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from alexnet_jax.configs import digits
from alexnet_jax.runs.checkpoint import Checkpointer
from alexnet_jax.runs.configuration import save_config
from alexnet_jax.runs.recipe import build_model
from alexnet_jax.step import create_train_state

CLASS_NAMES = tuple(map(str, range(10)))


def write_run(workdir: Path, seed: int = 0, kept: Sequence[int] = ()) -> Path:
    """Writes `workdir` as training would: configuration, measurements, a checkpoint of step 42.

    Before it those `kept`, multiples of 21, each of other parameters.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    config = digits.get_config()
    config.model.conv_features = (8, 16, 16, 16, 16)
    config.model.fc_features = (32, 32)
    save_config(config, workdir, resumes=False)
    rng = np.random.default_rng(0)
    arrays = {
        "mean": rng.uniform(0, 100, (72, 72, 3)).astype(np.float32),
        "deviations": np.ones(3, np.float32),
        "eigenvectors": np.eye(3, dtype=np.float32),
    }
    model = build_model(config, 10)
    with Checkpointer(workdir / "checkpoints", keep_every=21) as checkpoints:
        settings = {k: v for k, v in config.augmentation.items() if k != "statistics"}
        metadata = {
            "class_names": list(CLASS_NAMES),
            "dataset": "digits/1.0.0",
            "augmentation": settings,
        }
        for step in (*kept, 42):
            state = create_train_state(model, jax.random.key(seed if step == 42 else 100 + step))
            checkpoints.save(step, state, arrays=arrays, metadata=metadata, best_metric=0.5)
    rows = [
        ("train", 21, 1.0, 2.3, 0.01),
        ("validation", 21, 1.0, 2.2, 0.01),
        ("train", 42, 2.0, 1.1, 0.001),
        ("validation", 42, 2.0, 0.9, 0.001),
        ("test", 42, 2.0, 0.8, 0.001),
        ("test_ten_views", 42, 2.0, 0.7, 0.001),
    ]
    lines = [
        json.dumps(
            {
                "step": step,
                "epoch": epoch,
                "split": split,
                "loss": loss,
                "top1_error": loss / 4,
                "top5_error": loss / 10,
                "learning_rate": rate,
                "images_per_second": 1234.5,
            }
        )
        for split, step, epoch, loss, rate in rows
    ]
    (workdir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return workdir
