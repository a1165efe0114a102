"""`import alexnet_jax` is light: no data or checkpoint library, no TensorFlow, no device."""

import re
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import pytest

import alexnet_jax

PROBE = """
import sys
import alexnet_jax
assert "jax" not in sys.modules, "importing costs nothing"
assert {"Network", "load_run", "__version__"} <= set(dir(alexnet_jax))
assert "jax" not in sys.modules
from alexnet_jax import Augmentation, alexnet, make_mesh, make_train_step, update_rule
from jax._src import xla_bridge

heavy = ("tensorflow", "tensorflow_datasets", "grain", "orbax.checkpoint", "matplotlib", "sklearn",
         "PIL", "ml_collections", "tensorboardX", "tqdm")
assert not [name for name in heavy if name in sys.modules]
assert not xla_bridge._backends, "importing started a device"

from alexnet_jax import load_run, open_dataset, train_batches
import alexnet_jax.evaluate, alexnet_jax.main, alexnet_jax.runs.training
assert "tensorflow" not in sys.modules
assert not xla_bridge._backends, "importing started a device"
"""


def test_imports_are_light():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FLOORS = (  # each may import itself and those before it (CONTRIBUTING.md)
    ("files", "kinds", "wording", "machine", "interrupts", "hosts"),
    ("ops", "augment", "optimizer", "schedules", "parallel", "scores"),
    ("models",),
)


def test_what_lies_below_imports_nothing_from_above():
    package = Path(alexnet_jax.__file__).parent
    known: set[str] = set()
    for floor in FLOORS:
        known |= set(floor)
        for name in floor:
            files = [*package.glob(f"{name}.py"), *package.glob(f"{name}/*.py")]
            assert files
            text = "\n".join(file.read_text() for file in files)
            found = re.findall(r"^from alexnet_jax\.(\w+)", text, re.MULTILINE)
            of_package = re.findall(r"^from alexnet_jax import (.+)$", text, re.MULTILINE)
            found += [one for names in of_package for one in names.split(", ")]
            assert set(found) <= known, name


@pytest.mark.parametrize("name", alexnet_jax.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert getattr(alexnet_jax, name).__doc__
    assert name in dir(alexnet_jax)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Alexnet'"):
        alexnet_jax.Alexnet  # noqa: B018
    with pytest.raises(ImportError):
        exec("from alexnet_jax import Alexnet")


def test_the_version_is_that_of_the_package(monkeypatch):
    assert alexnet_jax.__version__ == metadata.version("alexnet-jax")

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert alexnet_jax._version() == "0+unknown"


def test_type_checkers_read_the_annotations():
    assert resources.files("alexnet_jax").joinpath("py.typed").is_file()
