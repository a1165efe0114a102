"""ImageNet Fall 2011 at 256x256."""
