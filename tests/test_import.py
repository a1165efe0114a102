"""`import alexnet_jax` is light: no data or checkpoint library, no TensorFlow, no device."""

import subprocess
import sys

PROBE = """
import sys
import alexnet_jax
from jax._src import xla_bridge

heavy = ("tensorflow", "tensorflow_datasets", "grain", "orbax.checkpoint", "matplotlib", "sklearn",
         "PIL", "ml_collections", "tensorboardX", "tqdm")
assert not [name for name in heavy if name in sys.modules]
assert not xla_bridge._backends, "importing started a device"

import alexnet_jax.evaluate, alexnet_jax.main, alexnet_jax.runs.training
assert "tensorflow" not in sys.modules
assert not xla_bridge._backends, "importing started a device"
"""


def test_imports_are_light():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
