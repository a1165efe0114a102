"""ILSVRC-2010: the paper's network and schedule, and its labelled test set (table 1)."""

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012


def get_config() -> ConfigDict:
    """See the module; what is not named here is as for ILSVRC-2012."""
    config = imagenet2012.get_config()
    config.dataset = "imagenet2010_256/raw"
    config.test_split = "test"
    return config
