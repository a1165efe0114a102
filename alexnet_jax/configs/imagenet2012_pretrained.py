"""ILSVRC-2012 after pre-training, "1 CNN*" of table 2: give --config.init_from=WORKDIR.

WORKDIR holds a run of the config `imagenet_fall2011`. Kernels have the rates of the authors' log
`146-2012-2011` (39.0% and 16.6% in ten views): 0.001, and
  conv1   0.0001, from epoch 5 on 0.00001, from epoch 7 on frozen;
  fc8     0.01 from their batch 300 to epoch 9. A batch there is a file of about 1,024 images (an
          epoch of 8.9 million had more than 6,491 of them), so that is after 0.24 epochs.
Biases follow their kernels here; the authors left theirs at 0.02 (conv6 at 0.022; conv1 at 0 in the
end).
"""

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012


def get_config() -> ConfigDict:
    """See the module."""
    config = imagenet2012.get_config()
    config.preset = "six_conv"
    config.learning_rate = 1e-3
    config.num_epochs = 54
    config.schedule.drops = (22.0, 42.0)
    config.hand_changes = (
        (0, {"rate_multipliers": {"conv1": 0.1}}),
        (0.24, {"rate_multipliers": {"fc8": 10.0}}),
        (5, {"rate_multipliers": {"conv1": 0.01}}),
        (7, {"rate_multipliers": {"conv1": 0.0}}),
        (9, {"rate_multipliers": {"fc8": 1.0}}),
        (38, {"color_strength": 0.0}),
    )
    return config
