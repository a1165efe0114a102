"""The tour of the paper, docs/tour.md: its snippets run, and print and draw what it shows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tour import PAGE, PICTURES, compare, pictures, run_snippets, snippets, with_outputs

ROOT = Path(__file__).parents[1]
TEXT = PAGE.read_text()
LARGEST_PICTURE = 60_000  # bytes


def check(*arguments: str) -> None:
    """Fails with what is other than on the page. A fresh process: the page sets up JAX itself."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "tests.tour", *arguments]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=570
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-6000:]


def test_a_section_by_itself_is_as_shown():
    check("--sections", "3.3")


@pytest.mark.slow
def test_the_whole_page_is_as_shown():
    check()


def test_pictures_are_drawn_by_the_snippets_and_small():
    drawn = [
        name for snippet in snippets(TEXT) for name in re.findall(r'"(\w+\.png)"', snippet.code)
    ]
    assert sorted(drawn) == sorted(pictures(TEXT))
    assert sorted(drawn) == sorted(path.name for path in PICTURES.iterdir())
    assert max(path.stat().st_size for path in PICTURES.iterdir()) < LARGEST_PICTURE


def test_figures_of_other_runs_are_those_of_the_results():
    results = ROOT / "experiments" / "results"
    sooner = json.loads((results / "figure1.json").read_text())["result"]["tanh_over_relu"]["mean"]
    lines = map(json.loads, (results / "imagenette_224.jsonl").read_text().splitlines())
    error = {line["split"]: 100 * line["top1_error"] for line in lines}
    looked_inside = json.loads((results / "look_inside_imagenette.json").read_text())["result"]
    (looked,) = looked_inside["runs"]
    same = [100 * looked[f"precision_of_{name}"] for name in ("fc7", "pixels")]
    for words in (
        f"ReLU {sooner} times sooner",
        f"from {error['test']:.1f}% to {error['test_ten_views']:.1f}%",
        f"{same[0]:.0f}% are of the query's class by fc7, and {same[1]:.0f}% by pixels",
    ):
        assert words in " ".join(TEXT.split()), words


def test_a_changed_output_is_told_and_taken(tmp_path):
    page = "## 1\n```python\nprint(1 + 1)\n```\n\n```text\n{}\n```\n"
    found = snippets(page.format(3))
    printed = run_snippets(found, tmp_path)
    told = compare(found, printed, tmp_path)
    assert "-3" in told and "+2" in told
    assert with_outputs(page.format(3), found, printed) == page.format(2)
