"""Augmentation on the host gives the pixels, hence the run, that the step's own gives."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import Hyperparameters, alexnet, create_train_state, make_train_step
from alexnet_jax.augment import AlreadyAugmented, Augmentation, augment, example_keys
from alexnet_jax.data.batches import train_batches
from alexnet_jax.data.cache import cached
from alexnet_jax.data.host import host_augment
from alexnet_jax.data.sets import open_dataset

pytestmark = pytest.mark.usefixtures("quick_compilation")


KEY = jax.random.key(7)
SETTINGS = [
    {},
    {"crop": "ten", "flip": False, "mean": np.full((24, 24, 3), 100, np.float32)},
    {"scale_with_color": True},
]


def batches(step=0, **options):
    dataset = open_dataset("digits", "train", stored_size=24)
    return train_batches(dataset, batch_size=16, seed=0, step=step, **options)


@pytest.mark.parametrize("settings", SETTINGS)
def test_pixels_are_those_of_the_step(settings):
    augmentation = Augmentation(**settings)
    transform = host_augment(
        augmentation, KEY, image_size=20, color_strength=lambda step: step % 3 / 10
    )

    @jax.jit
    def in_step(images, step, strength):
        keys = example_keys(KEY, step, jnp.arange(16))
        return augment(images, keys, augmentation, 20, strength)

    for start in (0, 83):  # the last step of the first epoch, and the second epoch
        found = itertools.islice(batches(start, transform=transform), 2)
        for step, (batch, stored) in enumerate(zip(found, batches(start), strict=False), start):
            assert batch["image"].dtype == np.float32
            expected = in_step(stored["image"], np.int32(step), np.float32(step % 3 / 10))
            np.testing.assert_array_equal(batch["image"], expected)
            np.testing.assert_array_equal(batch["label"], stored["label"])


@pytest.mark.parametrize("what", ["augmented", "on the device"])
def test_what_lies_on_a_device_is_not_sent_to_other_processes(what):
    dataset = open_dataset("digits", "train[:32]", stored_size=24)
    transform = None
    if what == "augmented":
        transform = host_augment(Augmentation(), KEY, image_size=20)
    else:
        dataset = cached(dataset, "device")
    with pytest.raises(ValueError, match="workers=0"):
        next(train_batches(dataset, batch_size=16, seed=0, workers=1, transform=transform))


def test_a_jax_without_its_cpu_is_told(monkeypatch):
    def none(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", none)
    with pytest.raises(ValueError, match="add cpu to JAX_PLATFORMS"):
        host_augment(Augmentation(), KEY, image_size=20)


def test_each_process_augments_its_rows_as_the_whole_batch():
    augmentation = Augmentation()
    whole = next(batches(5, transform=host_augment(augmentation, KEY, image_size=20)))
    for rows in (slice(0, 8), slice(8, 16)):
        transform = host_augment(augmentation, KEY, image_size=20, rows=rows)
        part = next(batches(5, rows=rows, transform=transform))
        np.testing.assert_array_equal(part["image"], whole["image"][rows])


def small_run(augmentation):
    narrow = {"conv_features": (8,) * 5, "fc_features": (16, 16)}
    model = alexnet("original", num_classes=10, image_size=64, **narrow)
    return create_train_state(model, jax.random.key(0)), make_train_step(model, augmentation)


def test_only_a_step_that_is_told_so_takes_augmented_images():
    """Float crops would else go without the mean; stored images would else go raw."""
    augmentation = Augmentation()
    state, train_step = small_run(augmentation)
    _, told = small_run(AlreadyAugmented(augmentation))
    crops = {"image": jnp.zeros((8, 64, 64, 3)), "label": jnp.zeros(8, jnp.int32)}
    stored = crops | {"image": jnp.zeros((8, 64, 64, 3), jnp.uint8)}
    larger = crops | {"image": jnp.zeros((8, 72, 72, 3))}
    for step, batch in ((told, crops), (train_step, stored)):
        _, metrics = step.eval_shape(state, batch, Hyperparameters())
        assert metrics["loss"].shape == ()
    for step, batch in ((told, stored), (told, larger), (train_step, crops)):
        with pytest.raises(ValueError, match="float32"):
            step.eval_shape(state, batch, Hyperparameters())


@pytest.mark.slow
def test_training_is_the_same_with_either():
    dataset = open_dataset("digits", "train", stored_size=72)
    augmentation = Augmentation(flip=False)
    losses = []
    for on_host in (False, True):
        state, train_step = small_run(AlreadyAugmented(augmentation) if on_host else augmentation)
        transform = host_augment(augmentation, state.key, image_size=64) if on_host else None
        stream = train_batches(dataset, batch_size=8, seed=0, transform=transform)
        for batch in itertools.islice(stream, 3):
            state, metrics = train_step(state, batch, Hyperparameters(learning_rate=0.01))
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
