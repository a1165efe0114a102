"""ILSVRC-2012 as the authors ran it in 2012, where that differs from what the paper prints.

Their log `145`, "1 CNN" of table 2 (40.7% and 18.2% in ten views): LRN before the ReLU in conv1, a
second norm within the maps of conv2, alpha divided by n, 0.03 in conv3-5, a rate of the biases that
was not divided, the mean's centre for every crop, images divided by 1.1 while there is colour
noise, and what was changed by hand in the last quarter: conv1's rates, here of kernels and biases
alike, and the noise. Left out: their blocks of 32 images with the same crop.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012
from alexnet_jax.schedules import ORIGINAL_CHANGES


def get_config() -> ConfigDict:
    """See the module."""
    config = imagenet2012.get_config()
    config.preset = "original"
    config.augmentation.mean_at = "center"
    config.augmentation.scale_with_color = True  # 1 / 1.1 until the colour noise ends
    config.bias_learning_rate = 0.02
    config.schedule.drops = (25.0, 51.0, 79.0)
    config.hand_changes = ORIGINAL_CHANGES
    config.num_epochs = 91
    return config
