"""Data sets in the package convention of tensorflow-datasets."""
