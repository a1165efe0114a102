"""Augmentation on the host while the devices train: the paper's own way (section 4.1)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.augment import Augmentation, augment, example_keys
from alexnet_jax.data.records import Batch


def host_augment(
    augmentation: Augmentation,
    key: jax.Array,
    *,
    image_size: int,
    color_strength: Callable[[int], float] | float = 0.1,
    rows: slice | None = None,
) -> Callable[[int, Batch], Batch]:
    """A `transform` for `train_batches` that does on the CPU what the train step would do.

    It takes (step, batch) to `{"image": float32[B, s, s, 3], "label": int32[B]}`: the pixels that
    the step makes of that batch with the run's `key` (`TrainState.key`), which it then takes as
    they are. `color_strength` is a number or a function of the step; `rows` are the rows of the
    global batch that this process loads. Runs on the host's cores, in the threads that read.
    """
    cpu = jax.local_devices(backend="cpu")[0]
    first = 0 if rows is None or rows.start is None else rows.start
    # The run's key lies on every device of the mesh, those of other hosts among them.
    key = jax.random.wrap_key_data(
        jax.device_put(np.asarray(jax.random.key_data(key).addressable_data(0)), cpu),
        impl=jax.random.key_impl(key),
    )

    @jax.jit
    def augmented(key, step, images, strength):
        keys = example_keys(key, step, first + jnp.arange(len(images)))
        return augment(images, keys, augmentation, image_size, strength)

    def transform(step: int, batch: Batch) -> Batch:
        strength = color_strength(step) if callable(color_strength) else color_strength
        with jax.default_device(cpu):
            images = jax.device_put(batch["image"], cpu)
            images = augmented(key, np.int32(step), images, np.float32(strength))
        return {**batch, "image": np.asarray(images)}

    return transform
