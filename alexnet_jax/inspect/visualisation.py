"""What units look for: images made by gradient ascent (Erhan 2009, Simonyan 2013, Olah 2017)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from alexnet_jax.activations import known_outputs
from alexnet_jax.augment import Augmentation, center_view
from alexnet_jax.compilation import compiled, made_once
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.models.receptive import ReceptiveField, receptive_fields
from alexnet_jax.runs.workdir import Run

STEPS = 192
_RATE = 0.1
_JITTER = 16  # the image is moved by up to a 16th of its side
_STILL = 0.25  # share of the steps at the end in which it is not


def visualise(
    run: Run, output: str, units: Sequence[int] | np.ndarray, *, steps: int = STEPS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """For each unit the image that activates it most, as far as gradient ascent finds it.

    The image is as large as what the unit in the middle of its map sees, the rest is the mean
    pixel. It is climbed in its Fourier coefficients, the low frequencies the faster and the colours
    along the data's principal axes, as photographs have them, and held to 0-255 by a sigmoid; small
    random moves keep it from fine patterns that only one place would see.

    Args:
      run: from `load_run`.
      output: a name in `activations.known_outputs`, such as "conv3.linear".
      units: their numbers.
      steps: of the ascent.
      seed: of the image it starts from and of the moves.

    Returns:
      uint8 [N, f, f, 3], f the side of the receptive field or of the image, and the activations
      float32 [N].

    Source: Olah, Mordvintsev and Schubert, "Feature Visualization", Distill 2017.
    """
    climb = _climb(run.model, run.augmentation, output, run.config.stored_size, steps)
    images, values = climb(run.params, np.asarray(units, np.int32), jax.random.key(seed))
    return np.asarray(images), np.asarray(values)


@made_once(16)
def _climb(
    model: LayeredNetwork, augmentation: Augmentation, output: str, stored: int, steps: int
) -> Any:
    name = known_outputs(model)[output]
    field = receptive_fields(model)[output]
    side = min(field.size, model.image_size)
    middle = _middle(field, model.image_size)
    first = field.start + middle * field.stride if side < model.image_size else 0
    # A view is linear in the pixels: that of a black image is what is subtracted.
    black = np.zeros((1, stored, stored, 3), np.uint8)
    less_mean = center_view(black, augmentation, model.image_size)[0]
    grey = jnp.asarray(np.asarray(augmentation.mean, np.float32).reshape(-1, 3).mean(0))
    spectrum, colors = _spectrum(side), _colors(augmentation)
    optimizer = optax.adam(_RATE)

    def drawn(coefficients: jax.Array) -> jax.Array:
        """The images float32 [N, f, f, 3], 0-255."""
        waves = lax.complex(coefficients[0], coefficients[1]) * spectrum[None, :, :, None]
        signal = jnp.fft.irfft2(waves, s=(side, side), axes=(1, 2), norm="ortho")
        return 255 * jax.nn.sigmoid(signal @ colors)

    def activations(params: Any, images: jax.Array, units: jax.Array) -> jax.Array:
        """Of each image its own unit in the middle of the map."""
        size = model.image_size
        rest = jnp.broadcast_to(grey, (len(images), size + 2 * side, size + 2 * side, 3))
        whole = lax.dynamic_update_slice(rest, images, (0, side + first, side + first, 0))
        crops = whole[:, side : side + size, side : side + size] + less_mean
        _, sown = model.apply({"params": params}, crops, mutable=["intermediates"])
        maps = sown["intermediates"][name][-1]
        if maps.ndim == 4:
            maps = maps[:, middle, middle]
        return maps[jnp.arange(len(maps)), units].astype(jnp.float32)

    def step(params: Any, units: Any, key: jax.Array, number: Any, climbed: Any) -> Any:
        """One step up, `number` of them done."""
        coefficients, state = climbed
        most = side // _JITTER
        by = jax.random.randint(jax.random.fold_in(key, number), (2,), -most, most + 1, jnp.int32)
        by = jnp.where(number < steps * (1 - _STILL), by, 0)

        def loss(coefficients: jax.Array) -> jax.Array:
            images = jnp.roll(drawn(coefficients), by, axis=(1, 2))
            return -activations(params, images, units).sum()

        updates, state = optimizer.update(jax.grad(loss)(coefficients), state)
        return optax.apply_updates(coefficients, updates), state

    def finish(params: Any, units: Any, coefficients: jax.Array) -> tuple[jax.Array, jax.Array]:
        images = jnp.round(drawn(coefficients))
        return images.astype(jnp.uint8), activations(params, images, units)

    step, finish = compiled(step), compiled(finish)

    def climb(params: Any, units: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        start, moves = jax.random.split(key)
        shape = (2, len(units), *spectrum.shape, 3)
        coefficients = 0.1 * jax.random.normal(start, shape, jnp.float32)
        climbed = coefficients, optimizer.init(coefficients)
        # Not a loop of XLA's, in which the CPU has no fast convolutions.
        for number in range(steps):
            climbed = step(params, units, moves, number, climbed)
        return finish(params, units, climbed[0])

    return climb


def _middle(field: ReceptiveField, side: int) -> int:
    """Row and column of the unit that looks at the middle of an image; 0 of a full connection."""
    return round((side / 2 - field.start - field.size / 2) / field.stride) if field.stride else 0


def _spectrum(side: int) -> jax.Array:
    """What coefficients of `rfft2` are multiplied with: 1 / frequency, as of photographs."""
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / side)
    return jnp.asarray(1 / (side * frequency) * np.sqrt(side), jnp.float32)


def _colors(augmentation: Augmentation) -> jax.Array:
    """float32 [3, 3]: from the data's principal axes, longest 1, to red, green and blue."""
    axes = np.asarray(augmentation.eigenvectors, np.float32) * np.asarray(augmentation.deviations)
    longest = max(float(np.linalg.norm(axes, axis=0).max()), 1e-12)  # of images all alike
    return jnp.asarray(axes.T / longest, jnp.float32)
