"""Caffe's weights: written as real files, read, and compared layer by layer with Caffe's rules.

The reference works as Caffe is documented to: NCHW, BGR, kernels [outputs, inputs, h, w], groups of
two, ceil-mode pooling, LRN with k = 1 and α / n over all channels, fc6 on channels first. It shares
no code with the package.
"""

import os
import pickle
import re

import chex
import numpy as np
import pytest

from alexnet_jax import load_run
from alexnet_jax.interop import caffe, checked, read_caffe, write_run
from tests.commands import run_command

SIDE = 99  # the smallest image that leaves more than a pixel: 99 -> 23 -> 11 -> 5 -> 2
WIDTHS = (8, 12, 12, 12, 8)
UNITS = (10, 6, 5)
GROUPS = {"conv2": 2, "conv4": 2, "conv5": 2}


def random_blobs(seed=0):
    """Kernels and biases of a narrow net in Caffe's layout, large enough that LRN matters."""
    rng = np.random.default_rng(seed)
    shapes = {
        "conv1": (8, 3, 11, 11),
        "conv2": (12, 4, 5, 5),
        "conv3": (12, 12, 3, 3),
        "conv4": (12, 6, 3, 3),
        "conv5": (8, 6, 3, 3),
        "fc6": (10, 8 * 2 * 2),
        "fc7": (6, 10),
        "fc8": (5, 6),
    }
    return {
        name: [
            rng.normal(0, 2 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32),
            rng.normal(0, 0.5, shape[0]).astype(np.float32),
        ]
        for name, shape in shapes.items()
    }


# --- Caffe, as documented -------------------------------------------------------------------------


def convolve(x, kernel, bias, stride, pad, groups):
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    size = kernel.shape[-1]
    side = (x.shape[-1] - size) // stride + 1
    parts = []
    for inputs, outputs in zip(np.split(x, groups, 1), np.split(kernel, groups, 0), strict=True):
        out = np.zeros((len(x), len(outputs), side, side))
        for row in range(side):
            for column in range(side):
                patch = inputs[:, :, row * stride :, column * stride :][:, :, :size, :size]
                out[:, :, row, column] = np.einsum("bchw,ochw->bo", patch, outputs)
        parts.append(out)
    return np.concatenate(parts, 1) + bias[:, None, None]


def pool(x, size=3, stride=2):
    side = -(-(x.shape[-1] - size) // stride) + 1
    out = np.empty((*x.shape[:2], side, side))
    for row in range(side):
        for column in range(side):
            window = x[:, :, row * stride :, column * stride :][:, :, :size, :size]
            out[:, :, row, column] = window.max((2, 3))
    return out


def norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0):
    out = np.empty_like(x)
    for channel in range(x.shape[1]):
        near = x[:, max(0, channel - size // 2) : channel + size // 2 + 1]
        out[:, channel] = x[:, channel] / (k + alpha / size * (near**2).sum(1)) ** beta
    return out


def run_caffe(blobs, images, mean, pool_first):
    """Every layer's output, before its ReLU, of RGB images [B, H, W, 3]."""
    x = (images.astype(np.float64) - mean)[..., ::-1].transpose(0, 3, 1, 2)
    found = {}
    for name, (kernel, bias) in blobs.items():
        kernel, bias = kernel.astype(np.float64), bias.astype(np.float64)
        if name.startswith("conv"):
            stride, pad = {"conv1": (4, 0), "conv2": (1, 2)}.get(name, (1, 1))
            x = convolve(x, kernel, bias, stride, pad, GROUPS.get(name, 1))
        else:
            x = x.reshape(len(x), -1) @ kernel.T + bias
        found[name] = x
        if name == "fc8":
            break
        x = np.maximum(x, 0)
        if name in ("conv1", "conv2"):
            x = norm(pool(x)) if pool_first else pool(norm(x))
        elif name == "conv5":
            x = pool(x)
    return found


# --- files of Caffe -------------------------------------------------------------------------------


def message_of(blobs, kind="layer", name="", order=(), legacy=False):
    """A `NetParameter` with the layers, as `Net::ToProto` writes them."""
    net = caffe._schema()["NetParameter"](name=name)
    for layer in (*blobs, *order):
        added = getattr(net, kind).add(name=layer)
        for array in blobs.get(layer, []):
            blob = added.blobs.add(data=array.ravel())
            if legacy:  # four sizes, the first ones filled with ones
                sizes = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = sizes
            else:
                blob.shape.dim.extend(array.shape)
    return net


def write(path, *args, **kwargs):
    path.write_bytes(message_of(*args, **kwargs).SerializeToString())
    return path


def pictures():
    return np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("preset", caffe.PRESETS)
@pytest.mark.parametrize(("kind", "legacy"), [("layer", False), ("layers", True)])
def test_every_layer_is_that_of_caffe(tmp_path, preset, kind, legacy):
    blobs, images = random_blobs(), pictures()
    order = ("norm1", "pool1") if preset == "caffe" else ("pool1", "norm1")
    path = write(tmp_path / "net.caffemodel", blobs, kind, order=order, legacy=legacy)
    imported = read_caffe(path)
    assert imported.preset == preset
    net = checked(imported)
    assert net.image_size == SIDE and net.num_classes == 5
    logits, kept = net.apply(
        {"params": imported.params},
        images.astype(np.float32) - imported.mean,
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    expected = run_caffe(blobs, images, imported.mean.astype(np.float64), preset == "caffenet")
    np.testing.assert_allclose(logits, expected["fc8"], rtol=1e-5, atol=1e-5)
    for layer in caffe.LAYERS:
        (found,) = kept["intermediates"][layer]["__call__"]
        wanted = expected[layer]
        if wanted.ndim == 4:
            wanted = wanted.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_the_order_of_norm_and_pool_makes_a_difference():
    blobs, images = random_blobs(), pictures()
    one, other = (run_caffe(blobs, images, 0.0, first)["fc8"] for first in (True, False))
    assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()


def write_dictionary(path, blobs):
    """As `bvlc_alexnet.npy`: kernels and rows pixel by pixel, channels together."""
    side, channels = 2, WIDTHS[4]
    dictionary = {}
    for layer, (kernel, bias) in blobs.items():
        kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
        if layer == "fc6":
            kernel = kernel.reshape(channels, side, side, -1).transpose(1, 2, 0, 3)
            kernel = kernel.reshape(channels * side * side, -1)
        dictionary[layer] = [kernel, bias]
    np.save(path, dictionary)
    return path


def test_a_head_of_another_name_is_the_head(tmp_path):
    blobs = random_blobs()
    expected = read_caffe(write(tmp_path / "a.caffemodel", blobs, name="AlexNet"))
    blobs["fc8_flickr"] = blobs.pop("fc8")
    found = read_caffe(write(tmp_path / "a.caffemodel", blobs, name="AlexNet"))
    assert "fc8_flickr" in found.table()
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(found.params["fc8"][name], expected.params["fc8"][name])


def test_full_connections_that_were_made_convolutions_are_read(tmp_path):
    blobs = random_blobs()
    expected = read_caffe(write(tmp_path / "a.caffemodel", blobs, name="AlexNet"))
    for layer, shape in {"fc6": (10, 8, 2, 2), "fc7": (6, 10, 1, 1), "fc8": (5, 6, 1, 1)}.items():
        blobs[layer][0] = blobs[layer][0].reshape(shape)
    found = read_caffe(write(tmp_path / "a.caffemodel", blobs, name="AlexNet"))
    for layer in ("fc6", "fc7", "fc8"):
        np.testing.assert_array_equal(
            found.params[layer]["kernel"], expected.params[layer]["kernel"]
        )


@pytest.mark.parametrize(
    ("name", "preset"),
    [("bvlc_alexnet", "caffe"), ("BVLC_Reference_CaffeNet", "caffenet"), ("net", None)],
)
def test_a_dictionary_is_the_net_that_its_name_says_or_is_asked_for(tmp_path, name, preset):
    path = write_dictionary(tmp_path / f"{name}.npy", random_blobs())
    assert read_caffe(path, preset="caffenet").preset == "caffenet"
    if preset:
        assert read_caffe(path).preset == preset
        return
    with pytest.raises(
        ValueError, match=r"net\.npy does not say whether it pools first; give --pr"
    ):
        read_caffe(path)


def test_the_dictionary_gives_what_the_model_gives(tmp_path):
    blobs = random_blobs()
    expected = read_caffe(write(tmp_path / "a.caffemodel", blobs, name="AlexNet"))
    found = read_caffe(write_dictionary(tmp_path / "bvlc_alexnet.npy", blobs))
    assert found.preset == "caffe"
    content = np.load(tmp_path / "bvlc_alexnet.npy", allow_pickle=True).item()
    named = {layer: {"biases": b, "weights": k} for layer, (k, b) in content.items()}
    np.save(tmp_path / "named_alexnet.npy", named)
    again = read_caffe(tmp_path / "named_alexnet.npy")
    np.testing.assert_array_equal(again.params["fc6"]["kernel"], found.params["fc6"]["kernel"])
    for layer in caffe.LAYERS:
        for name in ("kernel", "bias"):
            np.testing.assert_array_equal(found.params[layer][name], expected.params[layer][name])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, bool, object])
def test_numbers_that_are_no_values_are_told(tmp_path, kind):
    path = write_dictionary(tmp_path / "bvlc_alexnet.npy", random_blobs())
    content = np.load(path, allow_pickle=True).item()
    content["fc7"][0] = (content["fc7"][0] * 50).astype(kind)
    np.save(path, content)
    with pytest.raises(ValueError, match=r"npy is no dictionary .*'fc7' is of type .*; save it"):
        read_caffe(path)


def test_means_become_rgb(tmp_path):
    blobs = write(tmp_path / "a.caffemodel", random_blobs(), name="CaffeNet")
    assert read_caffe(blobs).mean[0] > read_caffe(blobs).mean[2]  # red above blue
    bgr = np.arange(3 * 4 * 4, dtype=np.float32).reshape(3, 4, 4)
    np.save(tmp_path / "mean.npy", bgr)
    blob = caffe._schema()["BlobProto"](num=1, channels=3, height=4, width=4, data=bgr.ravel())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    for name in ("mean.npy", "mean.binaryproto"):
        mean = read_caffe(blobs, mean=tmp_path / name).mean
        np.testing.assert_array_equal(mean[1, 2], bgr[::-1, 1, 2])
    for shape in ((2, 3), (3, 4, 5), (0,), (3, 0, 0)):
        np.save(tmp_path / "mean.npy", np.ones(shape))
        with pytest.raises(ValueError, match=r"a mean has \[3\] or \[3, S, S\]"):
            read_caffe(blobs, mean=tmp_path / "mean.npy")
    for name in ("none.npy", "none.binaryproto"):
        with pytest.raises(
            ValueError, match=r"none\.\w+ cannot be read \(No such file or [a-z]+\)$"
        ):
            read_caffe(blobs, mean=tmp_path / name)


# --- what does not fit ----------------------------------------------------------------------------


def without(layer):
    return {name: arrays for name, arrays in random_blobs().items() if name != layer}


def other_shape():
    blobs = random_blobs()
    blobs["conv4"][0] = blobs["conv4"][0][:, :5]
    return blobs


def not_finite():
    blobs = random_blobs()
    blobs["fc7"][1][2] = np.nan
    return blobs


def reshaped(layer, shape):
    blobs = random_blobs()
    blobs[layer][0] = np.ones(shape, np.float32)
    return blobs


def odd(layer, size):
    return {layer: [np.ones((size, 4, 5, 5), np.float32), np.ones(size, np.float32)]}


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        (without("conv3"), "no weights of conv3"),
        (random_blobs() | {"conv9": [np.ones(2), np.ones(2)]}, "a layer 'conv9'"),
        (other_shape(), r"kernel of conv4 has the shape \(3, 3, 5, 12\)"),
        (not_finite(), "bias of fc7 has values that are not finite"),
        (
            without("fc8") | odd("fc8_a", 5) | odd("fc8_b", 5),
            "no weights of fc8 .*; its layers are",
        ),
        (reshaped("conv1", (3, 3)), r"the kernel of conv1 has the shape \(3, 3\)"),
        (reshaped("conv2", (2, 6, 4, 5, 5)), r"conv2 has the shape \(2, 6, 4, 5, 5\)"),
        (reshaped("fc6", (10, 0)), "is no AlexNet"),
        (reshaped("fc6", (10,)), r"the kernel of fc6 has the shape \(10,\)"),
        (random_blobs() | odd("conv2", 11), "is no AlexNet"),
    ],
)
def test_what_is_no_such_net_is_named(tmp_path, blobs, message):
    path = write(tmp_path / "a.caffemodel", blobs, name="AlexNet")
    with pytest.raises(ValueError, match=message) as error:
        checked(read_caffe(path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_two_files_behind_each_other_are_refused(tmp_path):
    path = write(tmp_path / "a.caffemodel", random_blobs(), name="AlexNet")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match=r"a\.caffemodel has the layer 'conv1' twice"):
        read_caffe(path)


def test_a_net_that_does_not_say_which_it_is_asks(tmp_path):
    path = write(tmp_path / "a.caffemodel", random_blobs())
    with pytest.raises(ValueError, match="give --preset=caffe"):
        read_caffe(path)
    assert read_caffe(path, preset="caffenet").preset == "caffenet"


class Evil:
    """A pickle that would run a command."""

    def __reduce__(self):
        return os.system, ("touch evil",)


def test_a_pickle_that_would_run_a_command_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", {"conv1": [Evil(), np.ones(2)]}, allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy is no dictionary of layers \(it asks for"):
        read_caffe(tmp_path / "a.npy")
    assert not (tmp_path / "evil").exists()


def test_damaged_files_are_one_line(tmp_path):
    whole = message_of(random_blobs(), name="AlexNet").SerializeToString()
    huge = whole[:2] + b"\xa2\x06\xff\xff\xff\xff\x7f" + whole[2:]  # a length field of gigabytes
    for name, content in (("cut", whole[:-7]), ("huge", huge), ("text", b"hello"), ("empty", b"")):
        path = tmp_path / f"{name}.caffemodel"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=name) as error:
            checked(read_caffe(path))
        assert "\n" not in str(error.value)
    np.save(tmp_path / "a.npy", np.ones(3))
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY" + pickle.dumps({}))
    for name in ("a.npy", "b.npy", "none.npy", "none.caffemodel"):
        with pytest.raises(ValueError, match=name):
            read_caffe(tmp_path / name)


def mutations(content, count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        data = bytearray(content)
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            data[at] = rng.integers(0, 256)
        yield bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.2 else data)


@pytest.mark.parametrize("name", [b"1 AlexNet", b"conv1"])
def test_a_name_that_is_no_utf_8_is_read_or_shown(tmp_path, name):
    path = tmp_path / "alexnet.caffemodel"
    write(path, random_blobs(), name="1 AlexNet")
    before, content = read_caffe(path), path.read_bytes()
    path.write_bytes(content.replace(name, b"\xff" + name[1:]))
    if name == b"conv1":
        with pytest.raises(ValueError, match="\ufffdonv1"):
            read_caffe(path)
    else:
        after = read_caffe(path)
        assert after.preset == before.preset
        chex.assert_trees_all_equal(after.params, before.params)


@pytest.mark.parametrize(
    "count", [100, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
@pytest.mark.parametrize("suffix", [".caffemodel", ".npy"])
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, suffix, count):
    path = tmp_path / f"alexnet{suffix}"
    if suffix == ".npy":
        write_dictionary(path, random_blobs())
    else:
        write(path, random_blobs(), name="AlexNet")
    read_caffe(path)
    for content in mutations(path.read_bytes(), count):
        path.write_bytes(content)
        try:
            read_caffe(path)
        except ValueError as error:
            assert "\n" not in str(error) and str(path) in str(error)


# --- the run --------------------------------------------------------------------------------------


def test_the_run_predicts_what_caffe_would(tmp_path):
    blobs = random_blobs()
    imported = read_caffe(write(tmp_path / "a.caffemodel", blobs, name="CaffeNet"))
    names = tuple("abcde")
    write_run(imported, tmp_path / "run", names, "digits")
    run = load_run(tmp_path / "run")
    assert run.class_names == names and run.model.image_size == SIDE
    stored = np.random.default_rng(2).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    offset = (256 - SIDE) // 2
    crops = stored[:, offset : offset + SIDE, offset : offset + SIDE]
    logits = run_caffe(blobs, crops, imported.mean.astype(np.float64), True)["fc8"]
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(run.predict(stored, views="center"), expected, atol=1e-5)
    with pytest.raises(ValueError, match="there already"):
        write_run(imported, tmp_path / "run", names, "digits")
    with pytest.raises(ValueError, match="4 class names for 5 outputs"):
        write_run(imported, tmp_path / "other", names[:4], "digits")
    assert not list(tmp_path.glob("other*"))


def test_the_command_prints_what_it_did(tmp_path):
    path = write(tmp_path / "a.caffemodel", random_blobs(), name="AlexNet")
    (tmp_path / "names.txt").write_text("\ufeffa\nb\nc\nd\ntoy poodle\n")
    flags = [f"--workdir={tmp_path / 'run'}", f"--classes={tmp_path / 'names.txt'}"]
    command = ["alexnet_jax.convert", f"--weights={path}", *flags]
    ended = run_command(*command)
    assert ended.returncode == 0, ended.stderr
    assert re.search("conv1 +11x11x3x8 +8 +transposed, BGR made RGB", ended.stdout)
    assert load_run(tmp_path / "run").class_names == ("a", "b", "c", "d", "toy poodle")
    again = run_command(*command)
    assert again.returncode == 1
    assert again.stderr.startswith("error: ") and again.stderr.count("\n") == 1
    (tmp_path / "names.txt").write_text("a\nb\nc\ncrane\ncrane\n")
    twice = run_command(*command[:-2], f"--workdir={tmp_path / 'b'}", command[-1])
    assert twice.returncode == 1 and "names.txt: class name 'crane' stands twice" in twice.stderr
    (tmp_path / "names.txt").write_bytes(b"a\nb\nc\nd\n\xe9\n")
    other = run_command(*command[:-2], f"--workdir={tmp_path / 'b'}", command[-1])
    assert other.returncode == 1 and "names.txt is no text in UTF-8 (" in other.stderr
