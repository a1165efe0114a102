"""ILSVRC-2012 on the paper's two GPUs: a tower on each, figure 2."""

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012


def get_config() -> ConfigDict:
    """See the module."""
    config = imagenet2012.get_config()
    config.mesh.data = 1
    config.mesh.model = 2
    return config
