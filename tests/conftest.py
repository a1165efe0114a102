"""Eight simulated devices for every test, and one compilation cache; set before jax starts.

`make test` compiles in half the time, to slower code (QUICK in the Makefile); `make test-slow`
compiles everything as users have it.
"""

import os
import tempfile

import pytest

from tests.commands import seldom_collect

DEVICES = "--xla_force_host_platform_device_count"
if DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests, their worker processes and the commands they start compile the same few programs.
cache = os.path.join(tempfile.gettempdir(), f"alexnet_jax_tests_{os.getuid()}")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
os.environ["XDG_CACHE_HOME"] = cache  # statistics of data sets are kept there, not at the user's
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


# Files that take longest come first, or one worker would sit over the last of them alone.
LONG = ("test_multihost", "test_resume", "test_parallel", "test_wiring", "test_main", "test_vitals")
LONG += ("test_exported", "test_prepare", "test_cifar", "test_alexnet", "test_step")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_collection_finish():
    seldom_collect()


@pytest.fixture
def sums_over_taps(monkeypatch):
    """Convolutions in no other form: Winograd's rounds to 2e-5, and a tile leaks into its margin.

    So little turns a ReLU or a maximum over somewhere in a wide net, and its gradient with it.
    """
    import jax

    from alexnet_jax.ops import linear

    monkeypatch.setattr(linear, "_winograd_tile", lambda *_: 0)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests of many programs that run once or twice: slow machine code is made sooner.

    What a program computes stays the same to rounding; tests of speed-critical code go without.
    """
    import jax

    before = jax.config.read("jax_disable_most_optimizations")  # `make test` has it everywhere
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
