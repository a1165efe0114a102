"""CIFAR-10: 60,000 real photographs of ten things, 32 pixels, through the paper's layers.

Enlarged to 72 pixels, of which the network sees crops of 64, at half its width, as the digits are:
AlexNet's strides leave nothing of 32. The paper's own CIFAR-10 nets (figure 1) are smaller.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import default


def get_config() -> ConfigDict:
    """See the module."""
    config = default.get_config()
    config.dataset = "cifar10"
    config.train_split = "train[:90%]"
    config.validation_split = "train[90%:]"
    config.test_split = "test"
    config.stored_size = 72
    config.cache = "host"
    config.model.image_size = 64
    config.model.conv_features = (48, 128, 192, 192, 128)
    config.model.fc_features = (2048, 2048)
    config.model.initialization = "original"  # for the reason given in imagenet2012
    config.num_epochs = 60
    config.schedule.drops = (0.6, 0.85)
    return config
