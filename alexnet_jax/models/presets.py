"""The named nets: what each changes of the paper's, and who ran it."""

import dataclasses
from typing import Any

from alexnet_jax.models.alexnet import AlexNet
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
    # Section 3.2: half the kernels in conv1 to conv4, as many parameters in all.
    "one_gpu": {"towers": 1, "conv_features": (48, 128, 192, 192, 256)},
    # Section 6.1's net for pre-training.
    "six_conv": {
        "conv6_features": 256,
        "exchange": ("conv3", "conv6", "fc6", "fc7", "fc8"),
    },
}


def alexnet(preset: str = "paper", **overrides: Any) -> AlexNet:
    """Builds a named net, any field overridden.

    Args:
      preset: a key of `PRESETS`.
      **overrides: fields of `AlexNet`.

    Raises:
      ValueError: unknown preset, unknown field, or a field's bad value.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; {suggestion(preset, PRESETS)}")
    fields = {field.name for field in dataclasses.fields(AlexNet)} - {
        "tower_axis",
        "parent",
        "name",
    }
    for name in overrides:
        if name not in fields:
            raise ValueError(f"AlexNet has no field {name!r}; {suggestion(name, fields)}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in {**PRESETS[preset], **overrides}.items()
    }
    return AlexNet(**values)
