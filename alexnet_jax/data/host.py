"""Augmentation on the host while the devices train: the paper's own way (section 4.1)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.augment import AugmentationProtocol, example_keys, sized
from alexnet_jax.data.records import Batch


def host_augment(
    augmentation: AugmentationProtocol,
    key: jax.Array,
    *,
    image_size: int,
    color_strength: Callable[[int], float] | float = 0.1,
    rows: slice | None = None,
) -> Callable[[int, Batch], Batch]:
    """A `transform` for `train_batches` that does on the CPU what the train step would do.

    It takes (step, batch) to `{"image": float32[B, s, s, 3], "label": int32[B]}`: the pixels that
    the step makes of that batch with the run's `key` (`TrainState.key`). A step made with
    `AlreadyAugmented(augmentation)` takes them as they are. Runs on the host's cores, in the
    threads that read; not in other processes.

    Args:
      augmentation: any; its `train` is called.
      key: the run's.
      image_size: s, the network's.
      color_strength: a number, or a function of the step.
      rows: the rows of the global batch that this process loads; None for all.

    Raises:
      ValueError: JAX was told not to use the CPU.
    """
    augmentation = sized(augmentation, image_size)
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise ValueError(
            "images are augmented on JAX's CPU backend, which is off; add cpu to JAX_PLATFORMS"
        ) from error
    first = 0 if rows is None or rows.start is None else rows.start
    # The run's key lies on every device of the mesh, those of other hosts among them.
    key = jax.random.wrap_key_data(
        jax.device_put(np.asarray(jax.random.key_data(key).addressable_data(0)), cpu),
        impl=jax.random.key_impl(key),
    )

    @jax.jit
    def augmented(key: jax.Array, step: Any, images: Any, strength: Any) -> jax.Array:
        positions = first + jnp.arange(images.shape[0], dtype=jnp.int32)
        return augmentation.train(images, example_keys(key, step, positions), strength)

    def transform(step: int, batch: Batch) -> Batch:
        strength = color_strength(step) if callable(color_strength) else color_strength
        with jax.default_device(cpu):
            images = jax.device_put(batch["image"], cpu)
            images = augmented(key, np.int32(step), images, np.float32(strength))
        return {**batch, "image": np.asarray(images)}

    return _InThisProcess(transform)


@dataclasses.dataclass(frozen=True)
class _InThisProcess:
    """A transform that is not sent to processes that read, with what it holds on a device."""

    transform: Callable[[int, Batch], Batch]

    def __call__(self, step: int, batch: Batch) -> Batch:
        return self.transform(step, batch)

    def __reduce__(self) -> NoReturn:
        raise ValueError("images are augmented in this process's threads; read with workers=0")
