"""Data augmentation: crop, flip, colour, and the ten views of testing (sections 2, 4.1).

All of it is a pure function of the stored image and of a key that is derived from the run's key,
the step and the image's position in the global batch: the same pixels on any mesh and any host.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet_jax.kinds import is_finite, is_kind

# ILSVRC-2012's training images, RGB 0-255. Source: cuda-convnet2's data meta file.
IMAGENET_MEAN = np.array([127.305, 119.715, 104.913], np.float32)
IMAGENET_DEVIATIONS = np.array([19.72083, 37.09389, 121.78006], np.float32)
IMAGENET_EIGENVECTORS = np.array(  # in columns, in the order of the deviations
    [
        [0.41796, -0.71258, -0.56351],
        [-0.81698, -0.02354, -0.57618],
        [0.39731, 0.70120, -0.59200],
    ],
    np.float32,
)


@dataclasses.dataclass(frozen=True)
class Views:
    """One way to look at a test image."""

    count: int  # views, whose probabilities are averaged
    title: str
    log_name: str  # of the final test in metrics.jsonl


VIEWS = {
    "center": Views(1, "centre crop", "test"),
    "ten": Views(10, "mean of ten views", "test_ten_views"),
}


class AugmentationProtocol(Protocol):
    """What train, evaluation and predict steps ask of an augmentation.

    Pure functions, traced into the step. One that has a field `image_size` of None is given the
    network's by the step (`sized`).
    """

    def train(self, images: Any, keys: jax.Array, strength: Any) -> jax.Array:
        """What the network is trained on.

        Args:
          images: the images of the batch, as they are stored: uint8 [B, S, S, 3], RGB.
          keys: [B] PRNG keys, one per image; all draws should come from them, so that they are
            the same on every mesh.
          strength: float32 scalar, `Hyperparameters.color_strength`; free to mean another thing.

        Returns:
          float32 [B, s, s, 3], s the network's image size.
        """
        ...

    def views(self, images: Any) -> Mapping[str, jax.Array]:
        """Name in `VIEWS` -> float32 [V, B, s, s, 3]: how test images are looked at.

        The probabilities of the V views are averaged.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Augmentation:
    """What is done to the stored images [B, S, S, 3] before the network sees them.

    The authors' code gives 32 images in a row the same crop and flip, for speed; here every image
    has its own, on purpose.

    Fields:
      crop: in training, "random" (any offset), "center", or "ten" (one of the ten test views).
      flip: mirror half of the training images.
      color: "std" (shifts along each principal axis by N(0, strength) standard deviations),
        "eigenvalue" (the formula as printed: by variances, of pixels in 0-1) or "none".
      mean: float32 [S, S, 3] or [3], subtracted, pixels 0-255.
      mean_at: "crop" subtracts the mean image before cropping, so both are mirrored together;
        "center" subtracts its centre, never mirrored, from every crop after the flip, as the
        authors' code does.
      deviations: float32 [3], standard deviation along each principal axis, pixels 0-255.
      eigenvectors: float32 [3, 3], the axes of RGB space in columns.
      scale: factor on training images after the colour.
      scale_with_color: divide training images by 1 + strength while there is colour noise, as the
        authors' code does: where `color` is not "none" and the strength is above 0.
      image_size: s, the side of the crop in pixels; None is that of the step's network.

    Raises:
      ValueError: an unknown choice, what is no number, or a constant of the wrong shape.

    Source: AlexNet §4.1.
    """

    crop: str = "random"
    flip: bool = True
    color: str = "std"
    mean: np.ndarray = dataclasses.field(default_factory=lambda: IMAGENET_MEAN)
    mean_at: str = "crop"
    deviations: np.ndarray = dataclasses.field(default_factory=lambda: IMAGENET_DEVIATIONS)
    eigenvectors: np.ndarray = dataclasses.field(default_factory=lambda: IMAGENET_EIGENVECTORS)
    scale: float = 1.0
    scale_with_color: bool = False
    image_size: int | None = None

    def __post_init__(self) -> None:
        for field, allowed in (
            ("crop", ("random", "center", "ten")),
            ("flip", (True, False)),
            ("color", ("std", "eigenvalue", "none")),
            ("mean_at", ("crop", "center")),
            ("scale_with_color", (True, False)),
        ):
            if np.ndim(getattr(self, field)) or getattr(self, field) not in allowed:
                raise ValueError(f"{field}={getattr(self, field)!r}; use one of {allowed}")
        if not (is_kind(self.scale, like=1.0) and is_finite(self.scale)):
            raise ValueError(f"scale={self.scale!r}; give a number")
        size = self.image_size
        if size is not None and not (is_kind(size, like=0) and size > 0):
            raise ValueError(f"image_size={size!r}; give a number of pixels, or None")
        mean = np.shape(self.mean)
        if mean != (3,) and not (len(mean) == 3 and mean[0] == mean[1] and mean[2] == 3):
            raise ValueError(f"mean has shape {mean}; give [S, S, 3] or [3]")
        if np.shape(self.deviations) != (3,) or np.shape(self.eigenvectors) != (3, 3):
            raise ValueError(
                f"deviations have shape {np.shape(self.deviations)} and eigenvectors "
                f"{np.shape(self.eigenvectors)}; give [3] and [3, 3]"
            )

    def train(self, images: Any, keys: jax.Array, strength: Any) -> jax.Array:
        """Training images as the network sees them; see `augment`."""
        return augment(images, keys, self, self._size(), strength)

    def views(self, images: Any) -> Mapping[str, jax.Array]:
        """The centre crop and the ten views; see `center_view` and `ten_views`."""
        size = self._size()
        return {"center": center_view(images, self, size), "ten": ten_views(images, self, size)}

    def _size(self) -> int:
        if self.image_size is None:
            raise ValueError("the side of the crops is not known; give Augmentation(image_size=…)")
        return self.image_size


@dataclasses.dataclass(frozen=True, eq=False)
class AlreadyAugmented:
    """For training images that the host has augmented (`data.host.host_augment`).

    `train` takes float32 [B, s, s, 3] as they are. Test images are stored ones: their views are
    those of `augmentation`.
    """

    augmentation: AugmentationProtocol

    def train(self, images: Any, keys: jax.Array, strength: Any) -> jax.Array:
        """The images themselves. Raises ValueError where they are no float32 crops."""
        size = getattr(self.augmentation, "image_size", None)
        sides = images.shape[1:3] if size is None else (size, size)
        if images.dtype != jnp.float32 or images.shape[1:] != (*sides, 3):
            side = "s" if size is None else size
            raise ValueError(
                f"images are {images.dtype} {list(images.shape)} where augmented ones are float32 "
                f"[B, {side}, {side}, 3]; augment them on the host, or give the step the "
                "augmentation itself"
            )
        return jnp.asarray(images)

    def views(self, images: Any) -> Mapping[str, jax.Array]:
        """The views of the augmentation that the host has used."""
        return self.augmentation.views(images)


def sized(augmentation: AugmentationProtocol, image_size: int) -> AugmentationProtocol:
    """The augmentation itself, with `image_size` where it has such a field that is None.

    Raises ValueError for what is no augmentation.
    """
    if isinstance(augmentation, type):
        raise ValueError(f"augmentation is a class; give one made of it: {augmentation.__name__}()")
    if not all(callable(getattr(augmentation, name, None)) for name in ("train", "views")):
        raise ValueError(
            f"augmentation={augmentation!r} has no `train` and `views`; give an Augmentation(…) "
            "or an object with both (AugmentationProtocol)"
        )
    if isinstance(augmentation, AlreadyAugmented):
        return AlreadyAugmented(sized(augmentation.augmentation, image_size))
    if (
        not dataclasses.is_dataclass(augmentation)
        or getattr(augmentation, "image_size", 0) is not None
    ):
        return augmentation
    return dataclasses.replace(augmentation, image_size=image_size)


def threefry(key: Any) -> jax.Array:
    """A threefry key of the same seed as `key`, whatever its implementation.

    The draws of other implementations depend on how the batch lies on the devices. A raw key
    (uint32 words) is taken too. Raises ValueError for what is no key.
    """
    typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    words = jnp.shape(key)[-1:] in ((2,), (4,)) and getattr(key, "dtype", None) == jnp.uint32
    if not (typed or words):
        seed = int(key) if isinstance(key, int | np.integer) else 0
        raise ValueError(f"key={key!r:.80} is no PRNG key; give jax.random.key({seed})")
    if typed and str(jax.random.key_impl(key)) == "threefry2x32":
        return key
    # An "rbg" key of four words is the threefry key of the same seed, twice.
    words = jax.random.key_data(key) if typed else jnp.asarray(key)
    return jax.random.wrap_key_data(words[..., :2], impl="threefry2x32")


def example_keys(key: jax.Array, step: jax.Array | int, positions: jax.Array) -> jax.Array:
    """Keys [B] of the images that stand at `positions` of step `step`'s global batch."""
    step_key = jax.random.fold_in(threefry(key), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(step_key, positions)


def augment(
    images: Any,
    keys: jax.Array,
    augmentation: Augmentation,
    image_size: int,
    color_strength: Any = 0.1,
) -> jax.Array:
    """Training images as the network sees them.

    Args:
      images: uint8 [B, S, S, 3], RGB.
      keys: [B] PRNG keys, one per image.
      augmentation: what to do.
      image_size: s, the side of the crop in pixels.
      color_strength: standard deviation of the colour shift, in the units of `color`.

    Returns:
      float32 [B, s, s, 3], 0-255 scale, mean subtracted.

    Raises:
      ValueError: images of another shape or dtype, or smaller than the crop.

    Source: AlexNet §4.1.
    """
    _check_size(images, augmentation, image_size)
    margin = images.shape[1] - image_size
    views = jnp.asarray(view_offsets(margin))
    strength = jnp.asarray(color_strength, jnp.float32)

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        offset_key, flip_key, color_key = jax.random.split(jax.random.fold_in(key, 0), 3)
        # Dtypes are given, so that JAX_ENABLE_X64 changes no draw.
        flip = jax.random.bernoulli(flip_key, jnp.float32(0.5))
        if augmentation.crop == "random":
            offset = jax.random.randint(offset_key, (2,), 0, margin + 1, jnp.int32)
        elif augmentation.crop == "ten":
            offset = views[jax.random.randint(offset_key, (), 0, len(views), jnp.int32)]
        else:
            offset = views[2]
        x = _crop(image, offset, augmentation, image_size)
        if augmentation.flip:
            x = jnp.where(flip, x[:, ::-1], x)
        x = _less_center_mean(x, augmentation, image_size)
        if augmentation.color != "none":
            x += _color_shift(color_key, augmentation, strength).reshape(1, 1, 3)
            if augmentation.scale_with_color:
                x /= 1 + jnp.maximum(strength, 0)
        return x * float(augmentation.scale)

    return jax.vmap(one)(images, keys)


def center_view(images: Any, augmentation: Augmentation, image_size: int) -> jax.Array:
    """The centre crops float32 [1, B, s, s, 3] of uint8 [B, S, S, 3], mean subtracted."""
    return _views(images, augmentation, image_size, slice(2, 3), mirrored=False)


def ten_views(images: Any, augmentation: Augmentation, image_size: int) -> jax.Array:
    """The ten test views float32 [10, B, s, s, 3] of uint8 [B, S, S, 3], mean subtracted.

    Order: top left, top right, centre, bottom left, bottom right, then the same five mirrored.

    Source: AlexNet §4.1; the order is the authors' code's.
    """
    return _views(images, augmentation, image_size, slice(0, 5), mirrored=True)


def view_offsets(margin: int) -> np.ndarray:
    """int32 [5, 2]: (y, x) of the five test crops where `margin` pixels are to spare."""
    m, c = margin, margin // 2
    return np.array([(0, 0), (0, m), (c, c), (m, 0), (m, m)], np.int32)


def _views(
    images: Any, augmentation: Augmentation, image_size: int, which: slice, mirrored: bool
) -> jax.Array:
    _check_size(images, augmentation, image_size)
    offsets = view_offsets(images.shape[1] - image_size)[which]

    def cut(array: Any) -> jax.Array:
        """[..., S, S, 3] to [V, ..., s, s, 3]."""
        crops = jnp.stack(
            [array[..., y : y + image_size, x : x + image_size, :] for y, x in offsets]
        )
        return jnp.concatenate([crops, crops[..., ::-1, :]]) if mirrored else crops

    # Pixels are cut and mirrored as bytes: four times less to move than as numbers.
    mean = jnp.asarray(augmentation.mean, jnp.float32)
    if mean.ndim == 3:
        in_place = augmentation.mean_at == "crop"
        mean = cut(mean)[:, None] if in_place else _centre(mean, image_size)
    crops = cut(jnp.asarray(images)).astype(jnp.float32)
    return crops - jnp.expand_dims(mean, tuple(range(crops.ndim - mean.ndim)))


def _crop(image: jax.Array, offset: Any, augmentation: Augmentation, size: int) -> jax.Array:
    """The crop of one image at `offset` (y, x), float32; less the mean, if it is of that place."""
    window = (size, size, 3)
    start = (offset[0], offset[1], np.int32(0))
    x = lax.dynamic_slice(image, start, window).astype(jnp.float32)
    mean = jnp.asarray(augmentation.mean, jnp.float32)
    if mean.ndim == 1:
        return x - mean.reshape(1, 1, 3)
    return x if augmentation.mean_at == "center" else x - lax.dynamic_slice(mean, start, window)


def _less_center_mean(x: jax.Array, augmentation: Augmentation, size: int) -> jax.Array:
    """One crop, mirrored or not, less the centre of the mean image as it stands."""
    mean = jnp.asarray(augmentation.mean, jnp.float32)
    return x if mean.ndim == 1 or augmentation.mean_at == "crop" else x - _centre(mean, size)


def _centre(image: jax.Array, size: int) -> jax.Array:
    """[S, S, 3] to [size, size, 3]."""
    at = (image.shape[0] - size) // 2
    return image[at : at + size, at : at + size]


def _color_shift(key: jax.Array, augmentation: Augmentation, strength: jax.Array) -> jax.Array:
    """float32 [3]: what is added to every pixel of one image."""
    deviations = jnp.asarray(augmentation.deviations, jnp.float32)
    if augmentation.color == "eigenvalue":
        deviations = deviations**2 / 255  # (deviation / 255)² on pixels in 0-1, back to 0-255
    along_axes = strength * deviations * jax.random.normal(key, (3,), jnp.float32)
    axes = jnp.asarray(augmentation.eigenvectors, jnp.float32)
    # Not `(axes * along_axes).sum(1)`: by default XLA:CPU (jaxlib 0.10.2) fuses that sum with the
    # broadcast over the pixels wrongly, and from some 400 images on all share a few colours.
    return jnp.matmul(axes, along_axes, precision=lax.Precision.HIGHEST)


def _check_size(images: Any, augmentation: Augmentation, image_size: int) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(
            f"images of shape {images.shape} where [B, S, S, 3] is wanted; convert them to square "
            "RGB (alexnet_jax.data.images does)"
        )
    if images.dtype != jnp.uint8:
        raise ValueError(
            f"images are {images.dtype} where stored pixels are uint8, 0-255; convert them "
            "(crops that the host has augmented go with AlreadyAugmented)"
        )
    stored = images.shape[1]
    if stored < image_size:
        raise ValueError(
            f"stored images of {stored} pixels are smaller than image_size={image_size}; store "
            "them larger or set a smaller image_size"
        )
    mean = np.shape(augmentation.mean)
    if len(mean) == 3 and mean[0] != stored:
        raise ValueError(
            f"the mean image has {mean[0]} pixels a side and the stored images {stored}; compute "
            "the statistics of this data set at this size"
        )
