"""Any folder of `class/image` files at 256x256."""
