"""The film's frames are the kept checkpoints', each with its own figures."""

import json
import re

import numpy as np
import pytest

from alexnet_jax.inspect.film import film
from alexnet_jax.inspect.names import readable_names
from alexnet_jax.runs.workdir import load_run
from tests.tiny_run import write_run


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    workdir = write_run(tmp_path_factory.mktemp("film") / "run", kept=(0, 21))
    with (workdir / "metrics.jsonl").open("a") as file:
        for step, dead in ((20, 0.25), (40, 0.5)):
            layers = {"conv1": {"dead": dead, "update": None}}
            row = {"step": step, "epoch": step / 21, "split": "vitals", "layers": layers}
            file.write(json.dumps(row) + "\n")
    return load_run(workdir)


def test_a_frame_is_what_its_checkpoint_says_of_the_images(filmed, digits):
    batch = digits.source.read(np.arange(24))
    images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
    frames = film(filmed, images, labels, readable_names(filmed.class_names))
    assert [frame.step for frame in frames] == [0, 21, 42]
    assert [frame.epoch for frame in frames] == pytest.approx([0, 1, 2])
    assert len({frame.filters for frame in frames}) == 3
    for frame in frames:
        kept = load_run(filmed.workdir, which=frame.step)
        wrong = (kept.predict(images, views="center").argmax(-1) != labels).sum()
        assert frame.words.startswith(f"{wrong} of 24 images wrong")
        assert "<svg" in frame.confusion
    shown = [re.findall(r">conv1</td>.*?>([\d.–]+)<", frame.health, re.S) for frame in frames]
    assert shown == [[], ["0.25"], ["0.5"]]


def test_a_run_that_kept_none_has_no_film(run, digits):
    batch = digits.source.read(np.arange(4))
    assert film(run, np.asarray(batch["image"]), np.asarray(batch["label"]), ("a",) * 10) == []
