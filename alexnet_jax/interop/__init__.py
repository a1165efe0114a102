"""Weights in and out, as other programs have them: one module a format."""

from alexnet_jax.interop.authors import read_authors, read_recipe
from alexnet_jax.interop.caffe import read_caffe
from alexnet_jax.interop.exported import facts_of, keep, measure
from alexnet_jax.interop.imported import Imported, checked, save_run, write_run
from alexnet_jax.interop.own import read_weights, write_weights
from alexnet_jax.interop.program import read_program, write_program
from alexnet_jax.interop.pytorch import as_written, read_pytorch, read_state_dict, write_pytorch
from alexnet_jax.interop.torchvision import read_torchvision, write_torchvision

__all__ = [
    "Imported",
    "as_written",
    "checked",
    "facts_of",
    "keep",
    "measure",
    "read_authors",
    "read_caffe",
    "read_program",
    "read_pytorch",
    "read_recipe",
    "read_state_dict",
    "read_torchvision",
    "read_weights",
    "save_run",
    "write_program",
    "write_pytorch",
    "write_run",
    "write_torchvision",
    "write_weights",
]
