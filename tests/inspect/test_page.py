"""The report page is whole, stands alone and tells the run's own figures."""

import dataclasses
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from ml_collections import ConfigDict

from alexnet_jax.inspect import page as page_module
from alexnet_jax.inspect import sections
from alexnet_jax.inspect.drawing import COLORS, DARK_COLORS
from alexnet_jax.inspect.page import write_report
from alexnet_jax.inspect.samples import sample, split_of
from alexnet_jax.runs.checkpoint import Checkpointer
from alexnet_jax.runs.metrics_log import read_metrics

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Collects the text, and checks that every element ends where it should."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def html(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("page") / "report.html"
    write_report(run, output, images=40, gallery=60)
    return output.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    page = Page()
    page.feed(html)
    assert page.open == []
    return page


def test_page_needs_no_network_and_no_other_file(html, page):
    assert page.sources
    for source in page.sources:
        assert source.startswith(("data:image/png;base64,", "#"))
    assert "<script" not in html
    assert not re.search(r"url\((?!#)|@import", html)


def test_page_has_the_runs_figures_and_the_papers(page):
    text = " ".join(" ".join(page.text).split())
    for expected in (
        "AlexNet on digits",
        "The paper network with conv_features = (8, 16, 16, 16, 16), fc_features = (32, 32)",
        "checkpoint of step 42",
        "test, ten views 0.700 17.50 7.00",  # loss, top-1, top-5, from metrics.jsonl
        "test, centre 0.800 20.00 8.00",
        "Sparse coding 47.1 28.2 SIFT + FVs 45.7 25.7 CNN 37.5 17.0",
        "SIFT + FVs – – 26.2 1 CNN 40.7 18.2 – 5 CNNs 38.1 16.4 16.4 "
        "1 CNN* 39.0 16.6 – 7 CNNs* 36.7 15.4 15.3",
        "training, median (images/s) 1,234.5",
        "model.conv_features (8, 16, 16, 16, 16)",
        "By fc7 features:",
        "By raw pixels:",
        "predicted",
    ):
        assert expected in text, expected


@pytest.mark.parametrize(
    ("validation", "test", "said"),
    [
        ("validation", "test", "release.</p>"),
        ("validation", None, "release.</p>"),
        ("train[90%:]", "test", "release. The validation here is <code>train[90%:]</code>.</p>"),
        ("validation", "test[:8]", "release. The test here is <code>test[:8]</code>.</p>"),
    ],
)
def test_splits_are_named_where_they_are_not_what_they_are_called(run, validation, test, said):
    splits = {"dataset": "x", "validation_split": validation, "test_split": test}
    assert said in sections.errors(dataclasses.replace(run, config=ConfigDict(splits)), [])


def test_every_color_of_the_pictures_changes_on_a_dark_page(html):
    assert COLORS.keys() == DARK_COLORS.keys()
    style, body = html.split("</style>")
    for name, color in COLORS.items():
        assert f"--{name}: {color};" in style
        assert f"--{name}: {DARK_COLORS[name]};" in style
        assert color not in body


def test_lines_missing_from_the_log_are_told_and_stand_in_the_page(
    run, tmp_path, monkeypatch, capsys
):
    workdir = shutil.copytree(run.workdir, tmp_path / "run")
    progress = {"schedule": {}, "validated": 42, "sums": {}, "lines": 4}
    with Checkpointer(workdir / "checkpoints") as checkpoints:
        metadata = {"progress": progress}
        checkpoints.save(63, run.state, arrays={}, metadata=metadata, best_metric=None)
    monkeypatch.setattr(page_module, "build_page", lambda *given: sections.curves([], given[-1]))
    copied = dataclasses.replace(run, workdir=workdir)
    page = tmp_path / "report.html"

    def reported():
        write_report(copied, page, images=8, gallery=8)
        return capsys.readouterr().out, page.read_text()

    assert reported() == ("", str(sections.curves([])))
    log = workdir / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:2]) + lines[2][:20])
    told = f"{log} holds 2 of the 4 lines written up to step 63: it was damaged"
    output, written = reported()
    assert output.startswith(f"warning: {told}") and told in written
    log.unlink()
    output, written = reported()
    assert "holds 0 of the 4 lines" in output and "holds 0 of the 4 lines" in written
    assert "no measurements yet" not in written


def test_what_is_wrong_with_the_log_stands_above_the_curves(run):
    drawn = sections.curves(read_metrics(run.workdir), "the log holds <2> of 4 lines: it")
    assert "<p>the log holds &lt;2&gt; of 4 lines: it. Training figures are" in drawn


def test_another_data_sets_classes_are_an_error(run, tmp_path):
    other = dataclasses.replace(run, class_names=("cat", "dog"))
    with pytest.raises(ValueError, match=r"has 10 classes and .* 2, or others"):
        write_report(other, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_names_are_escaped_wherever_they_stand(run, digits, monkeypatch):
    evil = "<script>alert(1)</script>"
    names = (evil, *run.class_names[1:])
    bad = dataclasses.replace(
        run,
        class_names=names,
        workdir=run.workdir.parent / f"{evil}",
        config=run.config.copy_and_resolve_references(),
    )
    bad.config.dataset = evil
    monkeypatch.setattr(page_module, "read_metrics", lambda _: [])
    html = page_module.build_page(bad, sample(digits, 20), sample(digits, 20))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 3


def test_of_very_many_classes_those_that_occur_are_shown(run, monkeypatch):
    test = split_of(run, "test[:40]")
    batch = test.source.read(np.arange(40))
    probabilities = np.eye(10)[(np.asarray(batch["label"]) % 3) * 2]
    labels = np.asarray(batch["label"]) % 3 * 2  # 0, 2, 4: all right
    labels[0] = 9 if labels[0] != 9 else 0
    names = [f"class {n}" for n in range(10)]
    whole = str(sections.mistakes(run, test, labels, probabilities, names))
    monkeypatch.setattr(sections, "MOST_CONFUSED", 5)
    few = str(sections.mistakes(run, test, labels, probabilities, names))
    for name in ("class 0", "class 2", "class 4", "class 9"):
        assert name in few
    assert "class 7" in whole and "class 7" not in few
    assert "most frequent mistakes" in few


@pytest.mark.parametrize(
    ("number", "words"),
    [(0.5, "0.5"), (3, "3"), (62.378, "62.4"), (99.7, "100"), (1234, "1,234")],
)
def test_numbers_of_tiles_are_short(number, words):
    assert page_module._short(number) == words
