"""A run's own configuration as a config file: `--config=…/saved_config.py:WORKDIR`."""

from ml_collections import ConfigDict

from alexnet_jax.runs.configuration import load_config


def get_config(workdir: str) -> ConfigDict:
    """The configuration saved in `workdir`. Raises ValueError as `load_config` does."""
    return load_config(workdir)
