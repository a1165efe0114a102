"""Where a program will run: some operations are written in another form there."""

import jax


def on_cpu() -> bool:
    """Whether this process computes on a CPU."""
    return jax.default_backend() == "cpu"
