"""Where a program will run: some operations are written in another form there."""

import jax

from alexnet_jax.machine import processor


def on_cpu() -> bool:
    """Whether this process computes on a CPU."""
    return jax.default_backend() == "cpu"


def cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for it, as far as the system tells."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(processor().get("flags", "").split())
