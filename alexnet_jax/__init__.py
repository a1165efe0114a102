"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) in JAX."""

from alexnet_jax.augment import Augmentation
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.presets import alexnet
from alexnet_jax.parallel import make_mesh
from alexnet_jax.step import (
    Hyperparameters,
    TrainState,
    create_train_state,
    make_eval_step,
    make_predict_step,
    make_train_step,
    make_train_steps,
)

__all__ = [
    "AlexNet",
    "Augmentation",
    "Hyperparameters",
    "TrainState",
    "alexnet",
    "create_train_state",
    "make_eval_step",
    "make_mesh",
    "make_predict_step",
    "make_train_step",
    "make_train_steps",
]
