"""Handwritten digits: the data set of the default run, in tfds's package convention."""
