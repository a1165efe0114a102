"""Pictures of a page that the style sheet holds once and cuts into tiles."""

import base64
import io
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from alexnet_jax.inspect import drawing


class Cut(NamedTuple):
    """A part of a picture: its class in the style sheet, and the part in sides of a square tile.

    Fields:
      picture: the class.
      x, y: where the picture's corner lies.
      zoom: the picture's width.
    """

    picture: str
    x: float
    y: float
    zoom: float


class Pictures:
    """Each picture once, as a class of the style sheet."""

    def __init__(self, side: int):
        """`side` of the images in pixels."""
        self._side = side
        self._css: dict[str, str] = {}

    def image(self, name: str, crop: np.ndarray) -> str:
        """The class of an image uint8 [H, W, 3]; of one name it is there once."""
        if name not in self._css:
            file = io.BytesIO()
            # Small pictures show what compressing costs, and cost little.
            Image.fromarray(crop).save(file, "WEBP", quality=80, lossless=self._side <= 96)
            self._add(name, "webp", file.getvalue())
        return name

    def whole(self, name: str, image: np.ndarray) -> Cut:
        """All of an image."""
        return Cut(self.image(name, image), 0, 0, 1)

    def sheet(self, tiles: np.ndarray) -> str:
        """The class of tiles uint8 [rows, columns, h, w] or [rows, columns, h, w, 3]."""
        rows, columns, height, width = tiles.shape[:4]
        name = f"s{len(self._css)}"
        whole = tiles.swapaxes(1, 2).reshape(rows * height, columns * width, *tiles.shape[4:])
        self._add(name, "png", drawing.png(whole))
        return name

    def column(self, tiles: np.ndarray) -> list[Cut]:
        """A part for each of the tiles uint8 [N, h, w] or [N, h, w, 3]."""
        sheet = self.sheet(tiles[:, None])
        return [Cut(sheet, 0, -n, 1) for n in range(len(tiles))]

    def _add(self, name: str, kind: str, data: bytes) -> None:
        encoded = base64.b64encode(data).decode()
        self._css[name] = f".{name}{{background-image:url(data:image/{kind};base64,{encoded})}}"

    def css(self) -> Markup:
        """The rules, one of each picture."""
        return Markup("\n".join(self._css.values()))  # of our own making, letter by letter
