"""The documents: their links lead somewhere, and their tables and pages are those of the code."""

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import alexnet_jax
from alexnet_jax.models.cifar import CifarNet
from alexnet_jax.models.layer_table import layer_table, towers_exchange
from alexnet_jax.models.presets import CIFAR_PRESETS, PRESETS, network

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")),
    *(path.name for path in sorted(ROOT.glob("*.md"))),
    "experiments/README.md",
]
LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def _text(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@cache
def _anchors(page: Path) -> set[str]:
    """What "#anchor" may be, as GitHub and the built pages make it of a heading."""
    headings = re.findall(r"^#+ +(.+)$", _text(page), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in headings)
    named = re.findall(r"^::: ([\w.]+)$", _text(page), re.MULTILINE)  # modules of the API page
    return {word.replace(" ", "-") for word in words} | set(named)


def broken(page: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading."""
    found = []
    for link in LINK.findall(_text(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        known = not anchor or target.suffix != ".md" or anchor in _anchors(target)
        if not target.exists() or not (known or _in_api(target, anchor)):
            found.append(link)
    return found


def _in_api(page: Path, anchor: str) -> bool:
    """Whether an anchor is a name of a module of the API page."""
    module, _, name = anchor.rpartition(".")
    return module in _anchors(page) and hasattr(import_module(module), name)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    assert broken(ROOT / page) == []


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A b\n[1](page.md#a-b) [2](#a-b) [3](#b) [4](no.md) [5](page.md#b)\n")
    assert broken(page) == ["#b", "no.md", "page.md#b"]


def _table(start: str) -> dict[str, list[str]]:
    """The rows of the table of presets that begins with `start`: preset -> the other cells."""
    lines = (ROOT / "docs" / "presets.md").read_text().partition(start)[2].splitlines()[2:]
    rows = [line.strip("| ").split(" | ") for line in lines[: lines.index("")]]
    return {row[0].strip("`"): row[1:] for row in rows}


def _parameters(preset: str) -> str:
    return f"{sum(row.parameters for row in layer_table(network(preset))):,}"


def test_the_table_of_presets_is_the_codes():
    table = _table("| preset | whose |")
    assert set(table) == set(PRESETS)
    for preset, (_, fields, parameters) in table.items():
        pairs = (span.partition("=") for span in re.findall(r"`([^`]+)`", fields))
        assert {name: ast.literal_eval(value) for name, _, value in pairs} == PRESETS[preset]
        assert parameters == _parameters(preset)


def test_the_table_of_cifar_nets_is_the_codes():
    table = _table("| preset | image size |")
    assert set(table) == set(CIFAR_PRESETS)
    for preset, (size, _, parameters) in table.items():
        net = network(preset)
        assert isinstance(net, CifarNet)
        assert (size, parameters) == (str(net.image_size), _parameters(preset))


def test_the_api_page_has_every_public_name():
    text = (ROOT / "docs" / "api.md").read_text()
    shown = set()
    for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE):
        module = import_module(name)
        own = {key for key, value in vars(module).items() if _home(value) == name}
        shown |= set(getattr(module, "__all__", own))
    public = set(alexnet_jax.__all__) - {"__version__"}
    assert public <= shown
    assert all(f"`{name}`" in text for name in public)


def _home(value: object) -> str | None:
    return getattr(value, "__module__", None)


@pytest.mark.slow
def test_the_example_of_a_sweep_is_one_program():
    example = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "sweeps.md").read_text(), re.S)[1]
    names = {}
    exec(compile(example, "docs/sweeps.md", "exec"), names)
    assert names["programs"] == 1
    assert names["metrics"]["loss"].shape == (3,)


def test_the_picture_of_the_towers_has_the_values_that_they_exchange():
    picture = (ROOT / "docs" / "towers.svg").read_text()
    exchanged = towers_exchange(network())
    assert exchanged.keys() == {"conv3", "fc6", "fc7", "fc8"}
    for layer in ("conv3", "fc6", "fc7"):
        assert f"all_gather: {exchanged[layer]:,} values each way" in picture
