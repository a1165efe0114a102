"""Any tfds image classification set at 256x256."""
