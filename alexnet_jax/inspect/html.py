"""HTML of the report: pieces that escape whatever is not markup already, and the page."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from alexnet_jax.inspect import drawing

_TEMPLATES = Environment(
    loader=PackageLoader("alexnet_jax.inspect", "."), autoescape=True, undefined=StrictUndefined
)
_TEMPLATES.filters["shorten"] = drawing.shorten
_PARTS: Any = _TEMPLATES.get_template("parts.html").module


def page(template: str = "page.html", **content: Any) -> str:
    """The whole page: a template with its content, in the colours of `drawing`."""
    colors = {"light": drawing.COLORS, "dark": drawing.DARK_COLORS}
    return _TEMPLATES.get_template(template).render(**colors, **content)


def text(template: str, **values: Any) -> Markup:
    """A sentence of our own markup, its `{names}` replaced by escaped values."""
    return Markup(template).format(**values)


def section(title: str, words: str, *content: str) -> Markup:
    """A section under a heading: a paragraph, then its content."""
    return _PARTS.section(title, words, content)


def columns(parts: Sequence[str], narrow: bool = False) -> Markup:
    """Parts side by side where there is room."""
    return _PARTS.columns(parts, narrow)


def titled(title: str, content: str) -> Markup:
    """Content under a small heading."""
    return _PARTS.titled(title, content)


def figure(drawn: Figure, label: str, caption: str = "") -> Markup:
    """A drawing as SVG; `label` is for who cannot see it."""
    return _PARTS.figure(svg(drawn, label), caption)


def svg(drawn: Figure, label: str, *, smooth: bool = True) -> Markup:
    """A drawing without a frame."""
    return Markup(drawing.svg(drawn, label, smooth=smooth))


def image(pixels: np.ndarray, caption: str) -> Markup:
    """Pixels uint8 [H, W, 3] or [H, W] as PNG."""
    data = base64.b64encode(drawing.png(pixels)).decode()
    return _PARTS.figure(_PARTS.image(data, caption), caption)


def named(name: str) -> Markup:
    """The name of a class; a long one is cut, and shown whole where it is pointed at."""
    return _PARTS.named(name)


def key(color: str) -> Markup:
    """A patch of colour, to name it in a sentence."""
    return _PARTS.key(color)


def code(words: Any) -> Markup:
    """Words in the typewriter's face."""
    return _PARTS.code(words)


def tiles(rows: Sequence[tuple[str, str, str]]) -> Markup:
    """Figures to see first: (value, unit, what it is)."""
    return Markup("\n").join(_PARTS.tile(*row) for row in rows)


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: int,
    own: int = 0,
    total: bool = False,
) -> Markup:
    """A table whose last `numbers` columns are numbers; the first `own` rows stand out."""
    return _PARTS.table(head, rows, len(head) - numbers, own, total)


def pairs(rows: Mapping[str, Any]) -> Markup:
    """Names with their values."""
    return _PARTS.pairs(rows)
