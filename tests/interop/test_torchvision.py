"""torchvision's weights, compared with its definition written out in NumPy, and back again."""

import dataclasses
import pickle
import struct
import sys
import types

import numpy as np
import pytest

from alexnet_jax import alexnet, load_run
from alexnet_jax.interop import (
    checked,
    read_pytorch,
    read_state_dict,
    read_torchvision,
    torchvision,
    write_run,
    write_torchvision,
)
from tests.interop.test_caffe import convolve, mutations, pool

safetensors = pytest.importorskip("safetensors.numpy")

SIDE = 95  # the smallest image that leaves more than a pixel: 95 -> 23 -> 11 -> 5 -> 2
WIDTHS = (8, 12, 14, 10, 6)


def state_dict(seed=0):
    """Random weights of a narrow net under torchvision's names."""
    rng = np.random.default_rng(seed)
    inputs = (3, *WIDTHS[:-1])
    sizes = (11, 5, 3, 3, 3)
    shapes = [(o, i, k, k) for o, i, k in zip(WIDTHS, inputs, sizes, strict=True)]
    shapes += [(9, 6 * 2 * 2), (7, 9), (5, 7)]
    tensors = {}
    for name, shape in zip(torchvision.NAMES.values(), shapes, strict=True):
        scale = 2 / np.sqrt(np.prod(shape[1:]))
        tensors[f"{name}.weight"] = rng.normal(0, scale, shape).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.5, shape[0]).astype(np.float32)
    return tensors


def run_torchvision(tensors, images):
    """Every layer's output before its ReLU, of uint8 RGB images [B, H, W, 3]."""
    x = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x, found = x.transpose(0, 3, 1, 2), {}
    for layer, name in torchvision.NAMES.items():
        weight, bias = (tensors[f"{name}.{leaf}"].astype(np.float64) for leaf in ("weight", "bias"))
        if weight.ndim == 4:
            stride, pad = {"conv1": (4, 2), "conv2": (1, 2)}.get(layer, (1, 1))
            x = convolve(x, weight, bias, stride, pad, 1)
        else:
            x = x.reshape(len(x), -1) @ weight.T + bias
        found[layer] = x
        x = np.maximum(x, 0)
        if layer in ("conv1", "conv2", "conv5"):
            x = pool(x)
    return found


def write(path, tensors):
    safetensors.save_file(tensors, path)
    return path


def test_every_layer_is_that_of_torchvision(tmp_path):
    tensors = state_dict()
    images = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    imported = read_torchvision(write(tmp_path / "a.safetensors", tensors))
    net = checked(imported)
    assert net.image_size == SIDE and net.dropout_at == ("conv5", "fc6")
    _, kept = net.apply(
        {"params": imported.params},
        images.astype(np.float32) - imported.mean,
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    for layer, wanted in run_torchvision(tensors, images).items():
        (found,) = kept["intermediates"][layer]["__call__"]
        wanted = wanted.transpose(0, 2, 3, 1) if wanted.ndim == 4 else wanted
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("side", [2, 6])
def test_there_and_back_changes_nothing(tmp_path, side):
    tensors = state_dict()
    rng = np.random.default_rng(3)
    tensors["classifier.1.weight"] = rng.normal(size=(9, 6 * side**2)).astype(np.float32)
    imported = read_torchvision(write(tmp_path / "a.safetensors", tensors))
    assert checked(imported).image_size == (224 if side == 6 else SIDE)
    write_torchvision(imported, tmp_path / "b.safetensors")
    back = safetensors.load_file(tmp_path / "b.safetensors")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        if name == "features.0.weight":  # divided and multiplied again
            np.testing.assert_allclose(back[name], tensor, rtol=2e-7)
        else:
            np.testing.assert_array_equal(back[name], tensor)
    again = read_torchvision(tmp_path / "b.safetensors")
    np.testing.assert_array_equal(again.params["fc6"]["kernel"], imported.params["fc6"]["kernel"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: name,
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: name.replace("features.", "features.module."),
    ],
)
def test_torchvisions_names_are_known_through_what_wraps_them_and_are_no_other_net(tmp_path, wrap):
    tensors = state_dict()
    path = write(tmp_path / "a.safetensors", {wrap(name): x for name, x in tensors.items()})
    expected = torchvision.torchvision(tensors, path)
    for found in (read_state_dict(path), read_torchvision(path)):
        assert found.preset == "torchvision" and found.fields == expected.fields
        np.testing.assert_array_equal(
            found.params["conv1"]["kernel"], expected.params["conv1"]["kernel"]
        )
    for preset in ("one_gpu", "paper"):
        for read in (read_state_dict, read_pytorch):
            with pytest.raises(
                ValueError, match="torchvision's alexnet by its names; leave out --"
            ):
                read(path, preset=preset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net._replace(preset="one_gpu"), "is another net than torchvision's; only"),
        (lambda net: net._replace(fields=net.fields | {"lrn": True}), "is another net than"),
        (lambda net: net._replace(fields=net.fields | {"dropout_style": "paper"}), "is another"),
        (lambda net: net._replace(mean=net.mean + 1), "was trained with another mean than torchv"),
        (lambda net: net._replace(mean=np.full((99, 99, 3), 120, "f4")), "with another mean than"),
        (lambda net: net.params, "a dict is no run; give what load_run returns"),
    ],
)
def test_what_is_not_torchvisions_is_not_written_as_it(tmp_path, change, message):
    imported = read_torchvision(write(tmp_path / "a.safetensors", state_dict()))
    imported = imported._replace(fields=imported.fields | {"image_size": 96})
    with pytest.raises(ValueError, match=message):
        write_torchvision(change(imported), tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mean": np.zeros((227, 227, 3), np.float32)},
            "has 227 pixels .* give a --mean of 256 pi",
        ),
        (
            {"fields": {"image_size": 257}},
            "safetensors: fc6 reads maps of images of 257 pixels and tho",
        ),
    ],
)
def test_what_no_command_could_take_becomes_no_run(tmp_path, change, message):
    """Two pixels more than 255 make no larger maps, so that the weights themselves fit."""
    tensors = state_dict()
    tensors["classifier.1.weight"] = np.zeros((9, 6 * 7**2), np.float32)
    imported = read_torchvision(write(tmp_path / "a.safetensors", tensors))
    fields = imported.fields | {"image_size": 255} | change.pop("fields", {})
    with pytest.raises(ValueError, match=message):
        write_run(
            imported._replace(fields=fields, **change), tmp_path / "run", tuple("abcde"), "digits"
        )
    assert not (tmp_path / "run").exists()


def test_a_run_of_torchvisions_net_is_written_and_the_papers_is_not(tmp_path):
    tensors = state_dict()
    imported = read_torchvision(write(tmp_path / "a.safetensors", tensors))
    write_run(imported, tmp_path / "run", tuple("abcde"), "digits")
    run = load_run(tmp_path / "run")
    write_torchvision(run, tmp_path / "b.safetensors")
    back = safetensors.load_file(tmp_path / "b.safetensors")
    np.testing.assert_array_equal(back["features.3.weight"], tensors["features.3.weight"])
    with pytest.raises(ValueError, match="is another net than torchvision's"):
        other = dataclasses.replace(run, model=alexnet("paper"))
        write_torchvision(other, tmp_path / "c.safetensors")


def test_pytorch_itself_agrees(tmp_path):
    """torchvision's module, written out; and its own kind of file."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch import nn

    a, b, c, d, e = WIDTHS
    features = nn.Sequential(
        *(nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(a, b, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(b, c, 3, 1, 1), nn.ReLU()),
        *(nn.Conv2d(c, d, 3, 1, 1), nn.ReLU()),
        *(nn.Conv2d(d, e, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
    classifier = nn.Sequential(
        *(nn.Dropout(), nn.Linear(e * 36, 9), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(9, 7), nn.ReLU()),
        nn.Linear(7, 5),
    )
    net = nn.ModuleDict({"features": features, "classifier": classifier}).eval()
    torch.save(net.state_dict(), tmp_path / "a.pt")
    imported = read_torchvision(tmp_path / "a.pt")
    images = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    pixels = (images / 255 - 255 * torchvision.MEAN / 255) / torchvision.DEVIATIONS
    with torch.no_grad():
        maps = features(torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32))
        wanted = classifier(maps.flatten(1)).numpy()
    net_here = checked(imported)
    found = net_here.apply({"params": imported.params}, images.astype(np.float32) - imported.mean)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


class Tensor(np.ndarray):
    """As one of PyTorch's that asks for gradients, or is of a type that NumPy has not."""

    def detach(self):
        return self.astype(np.float32).view(np.ndarray).view(Detached)


class Detached(np.ndarray):
    def to(self, kind):
        return self

    def numpy(self):
        return self.view(np.ndarray)


def read_with_torch(monkeypatch, path, load):
    """What is read of a `.pt` file where `load` is PyTorch's."""
    kinds = {name: np.dtype(name) for name in ("float64", "float32", "float16")}
    fake = types.SimpleNamespace(
        load=load, is_tensor=lambda x: isinstance(x, Tensor), bfloat16=None, **kinds
    )
    monkeypatch.setitem(sys.modules, "torch", fake)
    return read_torchvision(path)


@pytest.mark.parametrize("around", ["", "state_dict", "model_state_dict", "model"])
def test_a_state_dict_is_found_in_a_checkpoint(tmp_path, monkeypatch, around):
    tensors = {name: array.view(Tensor) for name, array in state_dict().items()}
    content = {"epoch": 9, around: tensors, "optimizer": {}} if around else tensors
    found = read_with_torch(monkeypatch, tmp_path / "a.pt", lambda *_, **__: content)
    np.testing.assert_array_equal(found.params["fc8"]["bias"], tensors["classifier.6.bias"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"epoch": 9, "net": {}},
            "a.pt holds epoch, net and no state dict; save model.state_dict()",
        ),
        ([1], "a.pt holds list and no state dict; save model.state_dict()"),
        (
            {"a.weight": np.ones(3, np.int8).view(Tensor)},
            "a.pt: 'a.weight' is of type int8; save it",
        ),
    ],
)
def test_what_is_no_state_dict_is_told(tmp_path, monkeypatch, content, message):
    with pytest.raises(ValueError, match=message):
        read_with_torch(monkeypatch, tmp_path / "a.pt", lambda *_, **__: content)


def test_a_pickled_module_is_told_in_our_words(tmp_path, monkeypatch):
    def load(*_, **__):
        raise pickle.UnpicklingError("Weights only load failed. \33[1mdo those steps\33[0m")

    with pytest.raises(
        ValueError, match=r"a\.pt is damaged, or holds more than tensors; save model"
    ):
        read_with_torch(monkeypatch, tmp_path / "a.pt", load)


def test_numbers_that_are_no_values_are_told(tmp_path):
    tensors = state_dict() | {"classifier.6.weight": np.ones((5, 7), np.int8)}
    with pytest.raises(
        ValueError, match=r"'classifier\.6\.weight' is of type I8; save it as float32"
    ):
        read_torchvision(write(tmp_path / "a.safetensors", tensors))


@pytest.mark.slow
def test_the_run_predicts(tmp_path):
    imported = read_torchvision(write(tmp_path / "a.safetensors", state_dict()))
    write_run(imported, tmp_path / "run", tuple("abcde"), "digits")
    run = load_run(tmp_path / "run")
    stored = np.random.default_rng(2).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    at = (256 - SIDE) // 2
    logits = run_torchvision(state_dict(), stored[:, at : at + SIDE, at : at + SIDE])["fc8"]
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(run.predict(stored, views="center"), expected, atol=1e-5)


def test_what_is_no_such_net_is_named(tmp_path):
    tensors = state_dict()
    cases = {
        "has no features.6.bias": {k: v for k, v in tensors.items() if k != "features.6.bias"},
        "which torchvision's alexnet has not": tensors | {"features.1.weight": np.ones(3)},
        "the shape": tensors | {"features.3.weight": tensors["features.3.weight"][:, :5]},
        "is no AlexNet": tensors | {"features.0.weight": np.ones((4, 4, 11, 11), np.float32)},
        "of fc6 has the shape": tensors | {"classifier.1.weight": np.ones((0, 24), np.float32)},
        "not finite": tensors | {"classifier.4.bias": np.full(7, np.nan, np.float32)},
    }
    for message, changed in cases.items():
        path = write(tmp_path / "a.safetensors", {k: v.copy() for k, v in changed.items()})
        with pytest.raises(ValueError, match=message) as error:
            checked(read_torchvision(path))
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_header_that_lies_is_told_before_it_is_read(tmp_path):
    path = write(tmp_path / "a.safetensors", state_dict())
    whole = path.read_bytes()
    for content in (
        struct.pack("<Q", 10 * 2**30) + whole[8:],
        whole[:-9],
        whole[:4],
        b"",
        whole.replace(b"F32", b"F99", 1),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"no whole \.safetensors file") as error:
            read_torchvision(path)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="cannot be read"):
        read_torchvision(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "count", [100, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, count):
    path = write(tmp_path / "a.safetensors", state_dict())
    read_torchvision(path)
    for content in mutations(path.read_bytes(), count):
        path.write_bytes(content)
        try:
            read_torchvision(path)
        except ValueError as error:
            assert "\n" not in str(error) and str(path) in str(error)
