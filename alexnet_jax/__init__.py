"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) in JAX.

What is listed here is the public face. It is imported when it is first asked for, so that
`import alexnet_jax` costs nothing.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from alexnet_jax import interrupts

interrupts.end_at_once()

if TYPE_CHECKING:
    from alexnet_jax.augment import AlreadyAugmented, Augmentation, AugmentationProtocol
    from alexnet_jax.compilation import compiler_options
    from alexnet_jax.data.batches import train_batches
    from alexnet_jax.data.sets import open_dataset
    from alexnet_jax.eval_step import make_eval_step, make_predict_step
    from alexnet_jax.models.alexnet import AlexNet
    from alexnet_jax.models.cifar import CifarNet
    from alexnet_jax.models.layers import Network
    from alexnet_jax.models.presets import alexnet, network
    from alexnet_jax.optimizer import update_rule
    from alexnet_jax.parallel import make_mesh
    from alexnet_jax.runs.workdir import Run, load_run
    from alexnet_jax.state import Hyperparameters, TrainState
    from alexnet_jax.step import create_train_state, make_train_step, make_train_steps

    __version__: str

__all__ = [
    "AlexNet",
    "AlreadyAugmented",
    "Augmentation",
    "AugmentationProtocol",
    "CifarNet",
    "Hyperparameters",
    "Network",
    "Run",
    "TrainState",
    "__version__",
    "alexnet",
    "compiler_options",
    "create_train_state",
    "load_run",
    "make_eval_step",
    "make_mesh",
    "make_predict_step",
    "make_train_step",
    "make_train_steps",
    "network",
    "open_dataset",
    "train_batches",
    "update_rule",
]

_HOMES = {
    "augment": ("AlreadyAugmented", "Augmentation", "AugmentationProtocol"),
    "compilation": ("compiler_options",),
    "data.batches": ("train_batches",),
    "data.sets": ("open_dataset",),
    "eval_step": ("make_eval_step", "make_predict_step"),
    "models.alexnet": ("AlexNet",),
    "models.cifar": ("CifarNet",),
    "models.layers": ("Network",),
    "models.presets": ("alexnet", "network"),
    "optimizer": ("update_rule",),
    "parallel": ("make_mesh",),
    "runs.workdir": ("Run", "load_run"),
    "state": ("Hyperparameters", "TrainState"),
    "step": ("create_train_state", "make_train_step", "make_train_steps"),
}
_MODULES = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # asked once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    try:
        return metadata.version("alexnet-jax")
    except metadata.PackageNotFoundError:  # a copy of the folder
        return "0+unknown"
