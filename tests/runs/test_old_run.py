"""A run of the first version (commit c41fbf4), stopped half-way, is read and goes on as it would.

`tests/fixtures/run_of_c41fbf4.tar.gz` is its workdir at step 20 of 40, and what that version logged
and learned when it went on to the end.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.runs.configuration import load_config
from alexnet_jax.runs.launch import train
from alexnet_jax.runs.metrics_log import CLOCKED
from alexnet_jax.runs.workdir import load_run

pytestmark = pytest.mark.usefixtures("quick_compilation")


ARCHIVE = Path(__file__).parents[1] / "fixtures" / "run_of_c41fbf4.tar.gz"


@pytest.fixture
def workdir(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # none before 3.11.4
        archive.extractall(tmp_path)
    return tmp_path / "run"


def test_it_is_loaded(workdir):
    best, last = (load_run(workdir, which=which) for which in ("best", "last"))
    assert (best.step, last.step) == (10, 20)
    assert last.class_names == tuple("0123456789")
    images = np.random.default_rng(0).integers(0, 256, (3, 72, 72, 3), np.uint8)
    np.testing.assert_allclose(last.predict(images).sum(1), 1, rtol=1e-5)


def test_it_goes_on_to_the_end_that_it_had(workdir):
    config = load_config(workdir)
    config.mesh.data = 1
    train(config, workdir)
    found, expected = (
        [json.loads(line) for line in (workdir / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "expected_metrics.jsonl")
    )
    assert len(found) == len(expected)
    for row, old in zip(found, expected, strict=True):
        for name in CLOCKED:
            row.pop(name, None), old.pop(name, None)
        assert row.keys() == old.keys()
        # Other processors round otherwise; on the one that made the file they are equal.
        for name, value in old.items():
            close = isinstance(value, float)
            assert row[name] == (pytest.approx(value, rel=1e-3, abs=1e-3) if close else value)
    params = load_run(workdir, which="last").params
    with np.load(workdir / "expected_params.npz") as old:
        for name, values in old.items():
            layer, parameter = name.split("/")
            np.testing.assert_allclose(params[layer][parameter], values, rtol=1e-3, atol=1e-5)
