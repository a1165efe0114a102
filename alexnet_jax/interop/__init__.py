"""Weights of other programs, read into this one's layout: one module a format."""

from alexnet_jax.interop.caffe import read_caffe
from alexnet_jax.interop.imported import Imported, checked, write_run

__all__ = ["Imported", "checked", "read_caffe", "write_run"]
