"""Measurements: each module is a command, `python -m experiments.…`; README.md lists the claims."""

from alexnet_jax import interrupts

interrupts.end_at_once("experiments")
