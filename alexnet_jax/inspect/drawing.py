"""What all pictures share: colours, figures without global state, PNG files and themed SVG."""

import contextlib
import functools
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

# The colours of every picture. On the report page each is a CSS variable of this name, which a
# dark page changes.
COLORS = {
    "ink": "#1f2328",
    "muted": "#656d77",
    "line": "#d8dee5",
    "blue": "#3d6fd6",
    "red": "#d64562",
    "orange": "#c77712",
    "green": "#2f8f5b",
    "bar": "#aab9ec",  # figure 4's bars, and the true label's
    "true": "#f2a0a5",
}

# What becomes of `COLORS` on a dark page.
DARK_COLORS = {
    "ink": "#e6eaef",
    "muted": "#96a0ac",
    "line": "#2c343e",
    "blue": "#7ea2f5",
    "red": "#f0788f",
    "orange": "#e6a24b",
    "green": "#62c08c",
    "bar": "#3b4f86",
    "true": "#8f3a48",
}

_FONT = "DejaVu Sans"  # comes with matplotlib, so that a picture is the same everywhere
_STYLE: Any = {
    "font.family": _FONT,
    "font.size": 9,
    "text.color": COLORS["ink"],
    "axes.labelcolor": COLORS["ink"],
    "axes.edgecolor": COLORS["muted"],
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.8,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "text.parse_math": False,  # a "$" in a class name is just that
    "svg.fonttype": "none",
    "svg.hashsalt": "alexnet_jax",
}


@contextlib.contextmanager
def style(text: str = "") -> Iterator[None]:
    """The context in which every figure is built and saved; `text` is written in `fonts` of it."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # what a user's matplotlibrc says is of other pictures
        matplotlib.rcParams.update(_STYLE | {"font.family": fonts(text)[0]})
        # Said in our own words of a file; on a page the text is the browser's to draw.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


@functools.cache
def fonts(text: str) -> tuple[list[str], str]:
    """The fonts to write `text` in, the usual one first, and what of it no font here has."""
    lacking = set(text)
    found = []
    known = sorted(font_manager.fontManager.ttflist, key=lambda font: font.weight == 400)
    files = {font.name: font.fname for font in known}  # of each name its normal weight, or any
    for name in (_FONT, *sorted(files.keys() - {_FONT})):
        codes = font_manager.get_font(files[name]).get_charmap()
        has = {letter for letter in lacking if ord(letter) in codes}
        # The font of last resort has a box for every character.
        if name == _FONT or (has and not name.startswith("Last")):
            found.append(name)
            lacking -= has
        if not lacking:
            break
    return found, "".join(sorted(lacking))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches; belongs to no pyplot state."""
    return Figure(figsize=(width, height))


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Puts uint8 [H, W, 3 or 4] into `axes`, pixel by pixel, without ticks."""
    axes.imshow(image, interpolation="none")
    axes.set_axis_off()


def shorten(name: str, length: int) -> str:
    """`name` in at most `length` characters."""
    return name if len(name) <= length else name[: length - 1].rstrip(" ,") + "…"


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W] or [H, W, 3 or 4] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return file.getvalue()


def svg(figure: Figure, label: str, *, smooth: bool = True) -> str:
    """The figure as an inline `<svg>` that takes the page's font and colours.

    Args:
      figure: drawn in `COLORS`.
      label: says in words what is seen, for those who cannot see it.
      smooth: enlarge the images in it without showing their pixels.
    """
    file = io.StringIO()
    with style():
        figure.savefig(file, format="svg", dpi=200, transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # Inline, a <style> would hold for the whole page.
    text = re.sub(r"<(metadata|style).*?</\1>", "", text, flags=re.DOTALL)
    head = rf'<svg viewBox="\1" role="img" aria-label="{escape(label)}">'
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', head, text, count=1)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)  # the same in every figure
    if smooth:
        text = re.sub(r"image-rendering: *(crisp-edges|pixelated);?", "", text)
    text = text.replace(f"'{_FONT}'", "var(--font)")
    for name, color in COLORS.items():
        text = text.replace(color, f"var(--{name})")
    return text


def image_grid(rows: Sequence[Sequence[np.ndarray]], *, gap: int = 1, color: int = 0) -> np.ndarray:
    """Equal-sized uint8 images [H, W, 3] side by side, `gap` pixels of grey `color` around each.

    Rows may differ in length; what is missing is filled with `color`.
    """
    height, width, channels = rows[0][0].shape
    columns = max(map(len, rows))
    shape = (len(rows) * (height + gap) + gap, columns * (width + gap) + gap, channels)
    grid = np.full(shape, color, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = gap + i * (height + gap), gap + j * (width + gap)
            grid[top : top + height, left : left + width] = image
    return grid
