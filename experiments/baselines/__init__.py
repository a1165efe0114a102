"""What the paper beat, from libraries of their own."""

from importlib.util import find_spec

for name in ("cv2", "skimage"):
    if find_spec(name) is None:
        message = f"{name} is not installed; pip install '.[baselines]'"
        raise ModuleNotFoundError(message, name=name)
