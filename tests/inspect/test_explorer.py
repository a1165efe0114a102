"""The explorer stands alone, every link leads somewhere, and patches are cut where units look."""

import base64
import dataclasses
import io
import re
from functools import partial

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import alexnet
from alexnet_jax.data.batches import padded_batches
from alexnet_jax.inspect.explorer import Looked, build_explorer, figure_2, write_explorer
from alexnet_jax.inspect.photographs import Distances
from alexnet_jax.inspect.sections import center_crops
from alexnet_jax.inspect.units import patch, strongest
from alexnet_jax.models.layer_table import layer_table
from alexnet_jax.models.receptive import receptive_fields
from tests.inspect.test_page import Page

SEARCHED = 30
build = partial(build_explorer, visualised=0)
write = partial(write_explorer, visualised=0)


@pytest.fixture(scope="module")
def searched(run, digits):
    batch = digits.source.read(np.arange(SEARCHED))
    images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
    return Looked(images, center_crops(images, run.model.image_size), labels)


@pytest.fixture(scope="module")
def html(run, searched):
    return build(run, searched, Looked(*(part[:3] for part in searched)), units=8, visualised=0)


def test_every_link_leads_somewhere_and_nothing_is_fetched(html):
    page = Page()
    page.feed(html)
    assert page.open == []
    targets = re.findall(r' id="([^"]+)"', html)
    assert len(set(targets)) == len(targets)
    assert {source.removeprefix("#") for source in page.sources} <= set(targets)
    assert {"conv1", "conv5-8", "fc8-8", "image-2", "images"} <= set(targets)
    assert "<script" not in html
    assert "network with conv_features = (8, 16, 16, 16, 16), fc_features = (32, 32)" in html
    assert not re.search(r"url\((?!data:image/(png|webp);base64,)|@import|https?:", html)


def pictures_of(html):
    """Class -> the picture of the style sheet."""
    found = re.findall(r"\.(\w+)\{background-image:url\(data:image/\w+;base64,([^)]+)\)\}", html)
    return {name: Image.open(io.BytesIO(base64.b64decode(data))) for name, data in found}


def test_every_cut_has_its_picture_and_every_picture_is_used(html):
    used = re.findall(r'class="cut [\w ]*?(\w+)" role', html)
    assert set(used) == set(pictures_of(html))


@pytest.mark.parametrize("layer", ["conv1", "conv3", "fc7"])
def test_patches_are_the_pixels_that_a_unit_sees(run, searched, html, layer):
    output = f"{layer}.linear"
    batches = padded_batches(searched.images, 8)
    field = receptive_fields(run.model)[output]
    best = strongest(run.features_of_batches(batches, [output]), 9)[output]
    pictures = pictures_of(html)
    panel = html[html.index(f'id="{layer}-4"') :]
    cuts = re.findall(r'large (\w+)".*?--x:([-.\d]+);--y:([-.\d]+);--z:([-.\d]+)', panel)[:9]
    assert len(cuts) == 9
    for rank, (picture, *place) in enumerate(cuts):
        x, y, zoom = (float(number) for number in place)
        shown = np.asarray(pictures[picture].convert("RGB"))
        side = len(shown) / zoom  # what a browser's square tile shows of the picture, in pixels
        left, top = round(-x * side), round(-y * side)
        assert round(side) == field.size
        window = np.s_[
            max(top, 0) : max(top + field.size, 0), max(left, 0) : max(left + field.size, 0)
        ]
        crop = searched.crops[best.images[4, rank]]
        np.testing.assert_array_equal(shown[window], patch(crop, field, best.places[4, rank]))


def test_a_map_is_that_of_the_unit_on_the_image(run, searched, html):
    maps = run.features(searched.images[:3], ["conv2.linear"])["conv2.linear"][..., 4]
    panel = html[html.index('id="conv2-4"') :]
    found = re.findall(r'map (\w+)" role.*?--x:([-.\d]+);--y:([-.\d]+);--z:3"', panel)[:3]
    side = maps.shape[1]
    assert len(found) == 3
    for number, (picture, x, y) in enumerate(found):
        left, top = round(-float(x)) * side, round(-float(y)) * side
        tile = np.asarray(pictures_of(html)[picture])[top : top + side, left : left + side]
        expected = 255 * np.maximum(maps[number], 0) / maps.max()
        np.testing.assert_allclose(tile, expected, atol=1)


@pytest.mark.parametrize("exchange", [("conv3", "fc6", "fc7", "fc8"), ("fc8",)])
def test_lines_of_figure_2_cross_where_the_towers_talk(exchange):
    model = alexnet("paper", exchange=exchange)
    rows = [row for row in layer_table(model) if row.parameters]
    drawn = figure_2(model, rows)
    ends = {box[4]: box[0] for box in drawn["boxes"]}
    crossing = {
        name
        for name, x in ends.items()
        for _, y, to_x, to_y in drawn["lines"]
        if to_x == x and y != to_y and name not in ("conv1", "fc8")
    }
    assert crossing == set(exchange) - {"fc8"}


def test_a_units_classes_are_those_whose_images_it_answers_to(run, searched, html):
    peaks = run.features(searched.images, ["conv4.linear"], maps="max")["conv4.linear"][:, 8]
    means = {label: peaks[searched.labels == label].mean() for label in set(searched.labels)}
    expected = sorted(means, key=means.get, reverse=True)[:3]
    panel = html[html.index('id="conv4-8"') :]
    found = re.search(r"Classes it answers to</h3>([^<]+)<", panel)[1]
    assert found == ", ".join(run.class_names[label] for label in expected)


def test_words_from_outside_are_escaped(run, searched):
    evil = "<script>alert(1)</script>"
    bad = dataclasses.replace(
        run, class_names=(evil,) * 10, workdir=run.workdir.parent / evil,
        config=run.config.copy_and_resolve_references(),
    )  # fmt: skip
    bad.config.dataset = evil
    html = build(bad, searched, Looked(*(part[:1] for part in searched)), units=2, visualised=0)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 3


def test_the_users_own_images_are_looked_at(run, tmp_path, capsys):
    for number in range(12):
        Image.new("RGB", (90, 70), "orange").save(tmp_path / f"mine{number:02}.png")
    write(run, tmp_path / "page.html", photos=[tmp_path], examples=12, units=2, visualised=0)
    assert capsys.readouterr().out == "12 images are given; the first 10 are looked at\n"
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "your image 10" in html and "your image 11" not in html
    (tmp_path / "mine03.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"mine03\.png"):
        write(run, tmp_path / "other.html", photos=[tmp_path], examples=12, units=2, visualised=0)
    assert not (tmp_path / "other.html").exists()


def test_a_run_that_saw_mirrored_images_is_asked_in_ten_views_too(run, searched):
    flipped = dataclasses.replace(run.augmentation, flip=True)
    mirrored = dataclasses.replace(run, augmentation=flipped)
    html = build(
        mirrored, searched, Looked(*(part[:1] for part in searched)), units=2, visualised=0
    )
    (center,), (ten,) = (
        mirrored.predict(searched.images[:1], views=views) for views in ("center", "ten")
    )
    best = center.argmax()
    shown = re.search(r"mean of ten views</h3>.*?<span>([\d.]+%, [\d.]+%)</span>", html)[1]
    assert shown == f"{100 * center[best]:.1f}%, {100 * ten[best]:.1f}%"


def test_images_are_made_for_the_units_that_tell_classes_apart(run, searched, monkeypatch):
    asked = {}

    def visualise(run, output, units):
        asked[output] = list(units)
        return np.zeros((len(units), 8, 8, 3), np.uint8), 100.0 + np.asarray(units)

    monkeypatch.setattr("alexnet_jax.inspect.explorer.visualise", visualise)
    one = Looked(*(part[:1] for part in searched))
    html = build_explorer(run, searched, one, units=8, visualised=2)
    shown = range(0, 16, 2)  # of conv4's 16
    peaks = run.features(searched.images, ["conv4.linear"], maps="max")["conv4.linear"][:, shown]
    classes = [peaks[searched.labels == label] for label in set(searched.labels)]
    ratio = np.var([x.mean(0) for x in classes], 0) / np.mean([x.var(0) for x in classes], 0)
    assert asked["conv4.linear"] == sorted(shown[n] for n in np.argsort(-ratio)[:2])
    for unit in shown:
        panel = html[html.index(f'id="conv4-{unit}"') :].partition("Its map on each")[0]
        assert (f"Made to activate it: {100 + unit}<" in panel) == (unit in asked["conv4.linear"])
    assert html.count("Made to activate it") == 2 * 8


def test_neighbours_are_the_nearest_by_what_each_layer_puts_out(run, searched, html):
    layers = [row.name for row in layer_table(run.model) if row.parameters]
    outputs = run.features(searched.images, layers)
    section = html[html.index('id="image-1"') : html.index('id="image-2"')]
    for layer in layers:
        flat = outputs[layer].reshape(SEARCHED, -1).astype(np.float64)
        order = np.argsort(((flat - flat[1]) ** 2).sum(1))
        part = section.partition(f"Nearest by what {layer} puts out")[2].partition("</div>")[0]
        assert re.findall(r"large i(\d+)\"", part) == [str(n) for n in order[1:7]], layer


def test_each_view_is_the_crop_it_is_said_of(run, searched):
    """Cut out of the page as a browser does it, and asked one by one."""
    mirrored = dataclasses.replace(
        run, augmentation=dataclasses.replace(run.augmentation, flip=True)
    )
    html = build(mirrored, searched, Looked(*(part[:1] for part in searched)), units=2)
    section = html.partition("The ten views")[2].partition("<h3>")[0]
    found = re.findall(
        r"large (mirrored )?v0\".*?--x:([-.\d]+);--y:([-.\d]+);--z:([-.\d]+).*?>([\d.]+)%", section
    )
    image, size = searched.images[0], run.model.image_size
    assert len(found) == 10 and len({cut[:3] for cut in found}) == 10
    for flipped, x, y, zoom, share in found:
        left, top = (round(-float(at) * size) for at in (x, y))
        assert round(float(zoom) * size) == len(image)
        crop = image[top : top + size, left : left + size]
        margin = (len(image) - size) // 2
        placed = np.zeros_like(image)  # where the centre view looks
        placed[margin : margin + size, margin : margin + size] = crop[:, ::-1] if flipped else crop
        (wanted,) = run.predict(placed[None], views="center")
        assert float(share) == pytest.approx(100 * wanted[searched.labels[0]], abs=0.2)


def test_a_long_class_name_is_cut_and_whole_where_it_is_pointed_at(run, searched):
    names = tuple(letter * 200 for letter in "abcdefghij")
    long = dataclasses.replace(run, class_names=names)
    page = Page()
    page.feed(html := build(long, searched, Looked(*(part[:2] for part in searched)), units=2))
    shown = [name for name in names if f"{name[:29]}…" in page.text]
    assert len(shown) > 3 and all(f'<span title="{name}">' in html for name in shown)
    assert not [name for name in names if any(name in text for text in page.text)]


def test_an_image_is_no_neighbour_of_its_own_however_it_is_rounded():
    distances = Distances({"fc7": np.zeros((1, 4))})
    distances.add({"fc7": np.array([[1e-6] * 4, [2.0] * 4, [1.0] * 4])})
    found = distances.nearest(0, np.array([False, True, True]))
    assert found["fc7"].tolist() == [2, 1]
