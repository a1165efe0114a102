"""ILSVRC-2012 as Caffe's bvlc_alexnet: 42.9% and 19.8% top-1 and top-5 error, centre crop.

Crops of 227, batches of 256, no colour shift, twice the rate for biases, a tenth of the rate every
100,000 iterations of 450,000. Those figures are of the published snapshot, iteration 360,000.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012
from alexnet_jax.models.alexnet import LAYER_NAMES

EPOCH_STEPS = 1_281_167 // 256  # whole batches of the training images


def get_config() -> ConfigDict:
    """See the module."""
    config = imagenet2012.get_config()
    config.preset = "caffe"
    config.model.initialization = "caffe"
    config.augmentation.color = "none"
    config.batch_size = 256
    for layer in set(LAYER_NAMES) - {"conv6"}:
        config.rate_multipliers[layer] = {"bias": 2.0}
    config.schedule.drops = tuple(n * 100_000 / EPOCH_STEPS for n in range(1, 5))
    config.num_epochs = 450_000 / EPOCH_STEPS
    return config
