"""ILSVRC-2010 as the authors ran it in 2012: their log `145-2010`, table 1.

37.5% and 17.0% on the test split in ten views, 39.0% and 18.3% with the centre crop. As
`imagenet2012_original`, with that log's epochs: rates divided after 23, 51 and 78 of 93, conv1
slowed to a tenth at 68 and frozen at 72, colour noise off at 68. Biases keep a rate of 0.02; in the
log's last files it is 0.002, and nothing says since when.
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012_original


def get_config() -> ConfigDict:
    """See the module."""
    config = imagenet2012_original.get_config()
    config.dataset = "imagenet2010_256/raw"
    config.test_split = "test"
    config.schedule.drops = (23.0, 51.0, 78.0)
    config.hand_changes = (
        (68, {"color_strength": 0.0, "rate_multipliers": {"conv1": 0.1}}),
        (72, {"rate_multipliers": {"conv1": 0.0}}),
    )
    config.num_epochs = 93
    return config
