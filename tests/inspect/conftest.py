import pytest

from alexnet_jax.data.cache import cached
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.inspect.samples import sample
from alexnet_jax.runs.workdir import load_run
from tests.tiny_run import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return load_run(write_run(tmp_path_factory.mktemp("inspect") / "run"))


@pytest.fixture(scope="session")
def digits():
    """60 test digits in memory."""
    return cached(sample(open_dataset("digits", "test", stored_size=72), 60), "host")
