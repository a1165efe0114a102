"""What the paper beat, from libraries of their own."""

import sys
from importlib.util import find_spec

for name in ("cv2", "skimage"):
    if find_spec(name) is None:
        sys.exit(f"error: {name} is not installed; pip install '.[baselines]'")
