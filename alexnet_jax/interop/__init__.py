"""Weights of other programs, read into this one's layout: one module a format."""

from alexnet_jax.interop.authors import read_authors, read_recipe
from alexnet_jax.interop.caffe import read_caffe
from alexnet_jax.interop.imported import Imported, checked, write_run
from alexnet_jax.interop.pytorch import read_torchvision, write_torchvision

__all__ = [
    "Imported",
    "checked",
    "read_authors",
    "read_caffe",
    "read_recipe",
    "read_torchvision",
    "write_run",
    "write_torchvision",
]
