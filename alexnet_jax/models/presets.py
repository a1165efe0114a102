"""The named nets: what each changes of the paper's, and who ran it."""

import dataclasses
from typing import Any

from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.cifar import VARIANTS, CifarNet
from alexnet_jax.wording import suggestion

_CAFFE = {
    "geometry": "caffe227",
    "lrn_k": 1.0,
    "lrn_alpha_over_n": True,
    "lrn_scope": "all",
    "dropout_style": "inverted",
    "initialization": "caffe",
    "hidden_bias": 0.1,
}
_POOL_FIRST = ("activation", "pool", "lrn")

# What each named net changes of the paper's.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # The authors' code: layers-145.
    "original": {
        "conv1_order": ("lrn", "pool", "activation"),
        "conv2_order": ("activation", "lrn", "map_norm", "pool"),
        "lrn_alpha_over_n": True,
        "initialization": "original",
    },
    "valid224": {"geometry": "valid224"},
    # models/bvlc_alexnet.
    "caffe": _CAFFE,
    # models/bvlc_reference_caffenet: pools before it normalises, and keeps the paper's bias.
    "caffenet": {
        **_CAFFE,
        "conv1_order": _POOL_FIRST,
        "conv2_order": _POOL_FIRST,
        "hidden_bias": 1.0,
    },
    # torchvision.models.alexnet: the one-column net of 2014, without norms.
    "torchvision": {
        "geometry": "torchvision224",
        "towers": 1,
        "conv_features": (64, 192, 384, 256, 256),
        "lrn": False,
        "dropout_style": "inverted",
        "dropout_at": ("conv5", "fc6"),  # before fc6 and fc7
    },
    # Section 3.2: half the kernels in conv1 to conv4, as many parameters in all.
    "one_gpu": {"towers": 1, "conv_features": (48, 128, 192, 192, 256)},
    # Section 6's net for pre-training.
    "six_conv": {
        "conv6_features": 256,
        "exchange": ("conv3", "conv6", "fc6", "fc7", "fc8"),
    },
}

# The authors' nets for CIFAR-10: preset -> variant.
CIFAR_PRESETS = {f"cifar10_{variant}": variant for variant in VARIANTS}

# Fields that a preset decides, or the machine.
_NOT_FOR_USERS = ("variant", "tower_axis", "parent", "name")


def network_fields(preset: str) -> dict[str, Any]:
    """The fields of a named net that can be overridden -> their defaults.

    Raises:
      ValueError: unknown preset.
    """
    given = _NOT_FOR_USERS + (("towers",) if _class_of(preset) is CifarNet else ())
    return {
        field.name: field.default
        for field in dataclasses.fields(_class_of(preset))
        if field.name not in given
    }


def network(preset: str = "paper", **overrides: Any) -> AlexNet | CifarNet:
    """Builds a named net, any field overridden.

    Args:
      preset: a key of `PRESETS` or of `CIFAR_PRESETS`.
      **overrides: fields of `AlexNet`, or of `CifarNet` but for its variant.

    Raises:
      ValueError: unknown preset, unknown field, or a field's bad value.
    """
    kind, fields = _class_of(preset), network_fields(preset)
    for name in overrides:
        if name not in fields:
            raise ValueError(
                f"{kind.__name__} has no field {name!r} (preset {preset!r}); "
                f"{suggestion(name, fields)}"
            )
    base = PRESETS[preset] if preset in PRESETS else {"variant": CIFAR_PRESETS[preset]}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in {**base, **overrides}.items()
    }
    return kind(**values)


def alexnet(preset: str = "paper", **overrides: Any) -> AlexNet:
    """Builds a named AlexNet, any field overridden.

    Args:
      preset: a key of `PRESETS`.
      **overrides: fields of `AlexNet`.

    Raises:
      ValueError: unknown preset, unknown field, or a field's bad value.
    """
    if preset not in tuple(PRESETS):  # as in `_class_of`
        raise ValueError(f"unknown preset {preset!r}; {suggestion(preset, PRESETS)}")
    net = network(preset, **overrides)
    assert isinstance(net, AlexNet)
    return net


def _class_of(preset: str) -> type[AlexNet] | type[CifarNet]:
    known = (*PRESETS, *CIFAR_PRESETS)
    if preset not in known:  # a tuple: what cannot be hashed is none, too
        raise ValueError(f"unknown preset {preset!r}; {suggestion(preset, known)}")
    return AlexNet if preset in PRESETS else CifarNet
