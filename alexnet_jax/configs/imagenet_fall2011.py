"""All of ImageNet, Fall 2011, with six convolutions: what "1 CNN*" of table 2 is pre-trained on.

As the authors' log `146-2011` has it for kernels: the rate drops after 6 epochs and the run ends
after 8. They started from convolutions trained on Fall 2009 and gave those a tenth of the rate;
this run starts from random weights at the full rate, unless --config.init_from names others. Their
biases kept a rate of 0.02 (conv6 0.002), which --config.bias_learning_rate=0.02 gives. Their 21,843
outputs read two linear layers of 1,024 units behind fc7, which are left out here.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import default


def get_config() -> ConfigDict:
    """See the module."""
    config = default.get_config()
    config.dataset = "imagenet_fall2011_256/raw"
    config.preset = "six_conv"
    config.model.initialization = "original"  # for the reason given in imagenet2012
    config.num_epochs = 8
    config.schedule.drops = (6.0,)
    # An epoch is 115,000 steps.
    config.validate_every_epochs = 0.1
    config.checkpoint_every_steps = 2000
    return config
