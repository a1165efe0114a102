"""The conv-local net with twice the kernels in local3 and norms across maps: 11% test error.

`--config.model.norm=False` takes its norms out, and nothing else (section 3.3).
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import cifar10_conv_local


def get_config() -> ConfigDict:
    """See the module."""
    config = cifar10_conv_local.get_config()
    config.preset = "cifar10_conv_local_11pct"
    config.decay_multipliers.fc10 = 0.01 / 0.004  # its decay is 0.01
    return config
