"""Measurements: each module is a command, `python -m experiments.…`; README.md lists the claims."""

import os

from alexnet_jax import interrupts

interrupts.end_at_once("experiments")
os.environ["MPLBACKEND"] = "agg"  # as `alexnet_jax.command.run` has it, for imports before that
