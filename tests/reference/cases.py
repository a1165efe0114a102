"""The networks the tests compare: every preset and its variants, a few channels wide."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np

from tests.reference import alexnet_numpy as reference
from tests.reference.alexnet_numpy import PRESETS

# Compiling costs far more than the few multiplications of these networks.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SMALL = {"conv": (8, 12, 16, 12, 8), "fc": (12, 8), "num_classes": 6}


def small(preset: str, **changes) -> reference.Net:
    """The preset with a few channels, on the smallest image its pools leave something of."""
    net = PRESETS[preset]
    size = 67 if net.conv1 == "floor" else 64
    extra = {"conv6": 8} if net.conv6 else {}
    return replace(net, image_size=size, **SMALL, **extra, **changes)


NETS = {name: small(name) for name in PRESETS} | {
    "tanh": small("paper", activation="tanh"),
    "sigmoid": small("paper", activation="sigmoid"),
    "no_lrn": small("original", lrn=None),
    "no_exchange": small("paper", exchange=("fc8",)),
    "exchange_everywhere": small(
        "paper", exchange=("conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    ),
    "never_meets": small("paper", exchange=()),
    "without_conv3": small("paper", remove=("conv3",)),
    "without_conv4": small("paper", remove=("conv4",)),
    "without_conv5": small("paper", remove=("conv5",)),
    "norm_after_pool": small("caffe", stage1=("act", "pool", "norm")),
    "plain_pool": small("paper", pool=(2, 2)),
    "even_window": small("paper", lrn=(2.0, 4, 1e-4, 0.75)),
    "merged_map": replace(small("paper"), image_size=96, conv=(4, 4, 4, 4, 4)),
    "split_map": replace(small("paper", exchange=("fc8",)), image_size=96, conv=(4, 4, 4, 4, 4)),
}


def problem(net: reference.Net, seed: int = 0, batch: int = 2):
    """Parameters, images, labels and masks at which no operation is idle."""
    rng = np.random.default_rng(seed)
    # He-sized weights, pixels of about 50 grey levels: the norm's denominators matter.
    std = {n: np.sqrt(2 / np.prod(s.kernel[:-1])) for n, s in reference.sizes(net).items()}
    params = reference.random_params(net, seed, std)
    images = rng.normal(0, 50, (batch, net.image_size, net.image_size, 3))
    labels = rng.integers(0, net.num_classes, batch)
    masks = {
        name: rng.integers(0, 2, (batch, width)).astype(float)
        for name, width in zip(("fc6", "fc7"), net.fc, strict=True)
    }
    return params, images, labels, masks


def relative(found, expected) -> float:
    """Norm of the difference by the norm of what it should be."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
