"""The authors' checkpoints and cfg files: their graph is run in NumPy, layer by layer.

The reference knows nothing of AlexNet: it walks over named layers as theirs did, one image as
planes [channels, height, width], one matrix of weights for each input.
"""

import codecs
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from alexnet_jax import alexnet, load_run
from alexnet_jax.augment import IMAGENET_MEAN
from alexnet_jax.interop import checked, read_authors, read_recipe, write_run
from alexnet_jax.models.layer_table import layer_table
from alexnet_jax.runs.recipe import Recipe, build_model
from tests.tiers import slow

SIDE = 96  # leaves more than a pixel for fc6: 96 -> 23 -> 11 -> 5 -> 2
WIDTHS = (4, 6, 6, 6, 4)
UNITS = (10, 6, 5)


# --- layers-145, by any widths --------------------------------------------------------------------


def convolution(name, inputs, channels, filters, size, stride, pad, gpu, bias, deviation):
    n = len(inputs)

    def each(value):
        return ",".join([str(value)] * n)

    return f"""
[{name}]
type=conv
inputs={",".join(inputs)}
channels={each(channels)}
filters={each(filters)}
padding={each(pad)}
stride={each(stride)}
filterSize={each(size)}
initW={each(deviation)}
initB={bias}
sharedBiases=1
gpu={gpu}
"""


def layers_cfg(widths=(48, 128, 192, 192, 128), units=(2048, 2048, 1000), towers="ab"):
    """Their file of the paper's net; widths and units of one tower."""
    w, (u6, u7, classes) = widths, units
    text = "[data]\ntype=data\ndataIdx=0\n[labels]\ntype=data\ndataIdx=1\n"

    def every(template):
        return "".join(template(t, gpu) for gpu, t in enumerate(towers))

    def section(name, kind, inputs, **settings):
        lines = [f"[{name}]", f"type={kind}", f"inputs={inputs}"]
        return "\n".join([*lines, *(f"{k}={v}" for k, v in settings.items())]) + "\n"

    def pool(number, channels, source, **more):
        return lambda t, gpu: section(
            f"pool{number}{t}",
            "pool",
            source + t,
            pool="max",
            start=0,
            sizeX=3,
            stride=2,
            outputsX=0,
            channels=channels,
            **more,
        )

    n = len(towers)
    text += every(
        lambda t, gpu: convolution(f"conv1{t}", ["data"], 3, w[0], 11, 4, 0, gpu, 0, 0.01)
    )
    text += every(lambda t, _: section(f"rn1{t}", "cmrnorm", f"conv1{t}", channels=w[0], size=5))
    text += every(pool(1, w[0], "rn1", neuron="relu"))
    text += every(
        lambda t, gpu: (
            convolution(f"conv2{t}", [f"pool1{t}"], w[0], w[1], 5, 1, 2, gpu, 1, 0.01)
            + "neuron=relu\n"
        )
    )
    text += every(lambda t, _: section(f"rn2{t}", "cmrnorm", f"conv2{t}", channels=w[1], size=5))
    text += every(lambda t, _: section(f"cn2{t}", "rnorm", f"rn2{t}", channels=w[1], size=5))
    text += every(pool(2, w[1], "cn2"))
    both = [f"pool2{t}" for t in towers]
    text += every(
        lambda t, gpu: (
            convolution(f"conv3{t}", both, w[1], w[2], 3, 1, 1, gpu, 0, 0.03) + "neuron=relu\n"
        )
    )
    text += every(
        lambda t, gpu: (
            convolution(f"conv4{t}", [f"conv3{t}"], w[2], w[3], 3, 1, 1, gpu, 1, 0.03)
            + "neuron=relu\n"
        )
    )
    text += every(
        lambda t, gpu: convolution(f"conv5{t}", [f"conv4{t}"], w[3], w[4], 3, 1, 1, gpu, 1, 0.03)
    )
    text += every(pool(3, w[4], "conv5", neuron="relu"))

    def full(name, inputs, outputs, gpu, **more):
        deviations = ",".join(["0.01"] * n)
        return section(
            name, "fc", ",".join(inputs), outputs=outputs, initW=deviations, gpu=gpu, **more
        )

    below = [f"pool3{t}" for t in towers]
    for number, outputs in ((1, u6), (2, u7)):
        text += every(
            lambda t, gpu: full(f"h{number}{t}", below, outputs, gpu, initB=1, neuron="relu")  # noqa: B023
        )
        text += every(lambda t, _: section(f"hs{number}{t}", "hs", f"h{number}{t}", keep=0.5))  # noqa: B023
        below = [f"hs{number}{t}" for t in towers]
    text += full("out", below, classes, 0, initB=0)
    text += section("probs", "softmax", "out")
    text += section("logprob", "cost.logreg", "labels,probs")
    return text


def params_cfg(rate=0.01, towers="ab"):
    n = len(towers)
    weighted = [f"conv{i}{t}" for i in range(1, 6) for t in towers]
    several = {f"conv3{t}" for t in towers}
    text = ""
    for name in [*weighted, *(f"h{i}{t}" for i in (1, 2) for t in towers), "out"]:
        k = n if name in several or not name.startswith("conv") else 1
        each = [",".join([str(x)] * k) for x in (rate, 0.9, 0.0005)]
        text += f"[{name}]\nepsW={each[0]}\nepsB=0.02\nmomW={each[1]}\nmomB=0.9\nwc={each[2]}\n"
    for t in towers:
        text += f"[rn1{t}]\nscale=0.0001\npow=0.75\nminDiv=2\n"
        text += f"[rn2{t}]\nscale=0.0001\npow=0.75\nminDiv=2\n"
        text += f"[cn2{t}]\nscale=0.001\npow=0.75\n"
        text += f"[hs1{t}]\nenable=true\n[hs2{t}]\nenable=true\n"
    return text + "[logprob]\ncoeff=1\n"


def parsed(layers, params, image_size=SIDE):
    """The layers as their parser leaves them: sizes computed, neurons detached, no weights yet."""
    import configparser

    net = OrderedDict()
    parser = configparser.ConfigParser()
    parser.optionxform = str
    parser.read_string(layers)
    more = configparser.ConfigParser()
    more.optionxform = str
    more.read_string(params)
    outputs = {}
    for name in parser.sections():
        text = dict(parser[name])
        layer = {"name": name, "type": text["type"], "gpu": int(text.get("gpu", -1))}
        layer["inputs"] = [x for x in text.get("inputs", "").split(",") if x]
        for key in ("channels", "filters", "padding", "stride", "filterSize"):
            if key in text:
                values = [int(x) for x in text[key].split(",")]
                plain = layer["type"] != "conv" or key == "filters"
                layer[key] = values[0] if plain else values
        if layer["type"] == "data":
            outputs[name] = 3 * image_size**2 if name == "data" else 1
        elif layer["type"] == "conv":
            layer["padding"] = [-p for p in layer["padding"]]
            layer["imgSize"] = [
                int((outputs[x] / c) ** 0.5)
                for x, c in zip(layer["inputs"], layer["channels"], strict=True)
            ]
            reach = layer["imgSize"][0] - 2 * layer["padding"][0] - layer["filterSize"][0]
            layer["modulesX"] = 1 + int(np.ceil(reach / layer["stride"][0]))
            outputs[name] = layer["modulesX"] ** 2 * layer["filters"]
        elif layer["type"] == "pool":
            layer |= {"pool": "max", "sizeX": 3, "stride": 2, "start": 0}
            layer["imgSize"] = int((outputs[layer["inputs"][0]] / layer["channels"]) ** 0.5)
            layer["outputsX"] = int(np.ceil((layer["imgSize"] - 3) / 2)) + 1
            outputs[name] = layer["outputsX"] ** 2 * layer["channels"]
        elif layer["type"] == "fc":
            outputs[name] = layer["outputs"] = int(text["outputs"])
            layer["numInputs"] = [outputs[x] for x in layer["inputs"]]
        elif layer["inputs"]:
            outputs[name] = outputs[layer["inputs"][0]]
        if layer["type"] in ("cmrnorm", "rnorm"):
            size = layer["size"] = int(text["size"])
            layer["pow"] = float(more[name]["pow"])
            layer["scale"] = float(more[name]["scale"])
            layer["scale"] /= size if layer["type"] == "cmrnorm" else size**2
            if layer["type"] == "cmrnorm":
                layer["minDiv"] = float(more[name]["minDiv"])
        if layer["type"] == "hs":
            layer["keep"] = float(text["keep"])
        layer["neuron"] = text.get("neuron", "")
        layer["outputs"] = outputs[name]
        net[name] = layer
    for name, layer in list(net.items()):  # neurons become layers of their own, at the end
        if layer["neuron"]:
            own = f"{name}_neuron"
            for other in net.values():
                other["inputs"] = [own if x == name else x for x in other["inputs"]]
            kind = {"type": layer["neuron"], "params": {}, "usesActs": True}
            net[own] = {"name": own, "type": "neuron", "inputs": [name], "neuron": kind, "gpu": 0}
            net[own]["outputs"] = layer["outputs"]
    return net


def trained(seed=0, **how):
    """A checkpoint's layers, with random weights large enough that the norms matter."""
    rng = np.random.default_rng(seed)
    net = parsed(layers_cfg(WIDTHS, UNITS, **how), params_cfg(**how))
    for layer in net.values():
        if layer["type"] == "conv":
            sizes = zip(layer["channels"], layer["filterSize"], strict=True)
            rows, columns = [c * k * k for c, k in sizes], layer["filters"]
        elif layer["type"] == "fc":
            rows, columns = layer["numInputs"], layer["outputs"]
        else:
            continue
        order = "F" if layer["type"] == "fc" else "C"
        layer["weights"] = [
            np.array(rng.normal(0, 2 / np.sqrt(sum(rows)), (r, columns)), np.float32, order=order)
            for r in rows
        ]
        layer["weightsInc"] = [np.zeros_like(w) for w in layer["weights"]]
        shape = (columns, 1) if layer["type"] == "conv" else (1, columns)
        layer["biases"] = rng.normal(0, 0.5, shape).astype(np.float32)
    return net


# --- their code, as it computes -------------------------------------------------------------------


def run_authors(net, image):
    """Layer -> what it puts out for an image of planes [3, H, W], mean subtracted."""
    found = {"data": image.astype(np.float64)}
    rest = [layer for layer in net.values() if layer["type"] not in ("data", "softmax")]
    rest = [layer for layer in rest if not layer["type"].startswith("cost")]
    while rest:
        ready = [layer for layer in rest if all(x in found for x in layer["inputs"])]
        for layer in ready:
            found[layer["name"]] = RULES[layer["type"]](layer, [found[x] for x in layer["inputs"]])
            rest.remove(layer)
        assert ready
    return found


def run_conv(layer, inputs):
    out = 0.0
    for x, matrix, size, pad, stride in zip(
        inputs,
        layer["weights"],
        layer["filterSize"],
        layer["padding"],
        layer["stride"],
        strict=True,
    ):
        side = layer["modulesX"]
        reach = (side - 1) * stride + size - x.shape[1] + pad  # pad is negative
        x = np.pad(x, ((0, 0), (-pad, reach), (-pad, reach)))
        patches = np.array(
            [
                [x[:, r * stride :, c * stride :][:, :size, :size].ravel() for c in range(side)]
                for r in range(side)
            ]
        )
        out = out + np.moveaxis(patches @ matrix.astype(np.float64), -1, 0)
    return out + layer["biases"].astype(np.float64)[:, :, None]


def run_pool(layer, inputs):
    (x,) = inputs
    side = layer["outputsX"]
    return np.array(
        [
            [[plane[2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max() for c in range(side)]
             for r in range(side)]
            for plane in x
        ]
    )  # fmt: skip


def run_across(layer, inputs):
    (x,) = inputs
    half = layer["size"] // 2
    sums = np.array([(x[max(0, i - half) : i + half + 1] ** 2).sum(0) for i in range(len(x))])
    return x / (layer["minDiv"] + layer["scale"] * sums) ** layer["pow"]


def run_within(layer, inputs):
    (x,) = inputs
    half, (_, height, width) = layer["size"] // 2, x.shape
    sums = np.array(
        [
            [
                (x[:, max(0, r - half) : r + half + 1, max(0, c - half) : c + half + 1] ** 2).sum(
                    (1, 2)
                )
                for c in range(width)
            ]
            for r in range(height)
        ]
    ).transpose(2, 0, 1)
    return x / (1 + layer["scale"] * sums) ** layer["pow"]


def run_fc(layer, inputs):
    parts = zip(inputs, layer["weights"], strict=True)
    return sum(x.ravel() @ w.astype(np.float64) for x, w in parts) + layer["biases"].ravel()


RULES = {
    "conv": run_conv,
    "pool": run_pool,
    "cmrnorm": run_across,
    "rnorm": run_within,
    "fc": run_fc,
    "neuron": lambda layer, inputs: np.maximum(inputs[0], 0),
    "hs": lambda layer, inputs: inputs[0] * layer["keep"],
}


# --- files ----------------------------------------------------------------------------------------


def save(folder, net, name="90.1000", **more):
    """As their `save_state` does, in Python 2's protocol."""
    folder.mkdir(exist_ok=True)
    content = {"model_state": {"layers": net, "epoch": 90, "train_outputs": []}, **more}
    (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def pictures(count=2):
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("towers", ["ab", *slow("a")])
def test_every_layer_is_that_of_their_code(tmp_path, towers):
    net = trained(towers=towers)
    imported = read_authors(save(tmp_path / "ConvNet__2012-05-01", net))
    model = checked(imported)
    assert model.towers == len(towers) and model.image_size == SIDE
    pixels = pictures().astype(np.float32) - imported.mean
    logits, kept = model.apply(
        {"params": imported.params}, pixels, capture_intermediates=True, mutable=["intermediates"]
    )
    names = {f"conv{n}": f"conv{n}" for n in range(1, 6)} | {"fc6": "h1", "fc7": "h2"}
    for at, image in enumerate(pixels):
        expected = run_authors(net, image.transpose(2, 0, 1))
        np.testing.assert_allclose(logits[at], expected["out"], rtol=1e-5, atol=1e-5)
        for layer, theirs in names.items():
            (found,) = kept["intermediates"][layer]["__call__"]
            wanted = np.concatenate([expected[theirs + t] for t in towers])
            wanted = wanted.transpose(1, 2, 0) if wanted.ndim == 3 else wanted
            atol = 1e-5 * np.abs(wanted).max()
            np.testing.assert_allclose(found[at], wanted, rtol=1e-5, atol=atol)


def test_towers_are_told_by_their_gpus_not_by_their_names(tmp_path):
    net = trained()
    other = {"a": "y", "b": "x"}  # the second by name is the first by GPU

    def renamed(name):
        stem = name.removesuffix("_neuron")
        if stem[-1] in other and stem not in ("data",):
            return stem[:-1] + other[stem[-1]] + name[len(stem) :]
        return name

    shuffled = OrderedDict()
    for name in sorted(net, key=renamed):
        layer = dict(net[name])
        layer |= {"name": renamed(name), "inputs": [renamed(x) for x in layer["inputs"]]}
        shuffled[renamed(name)] = layer
    one = read_authors(save(tmp_path / "one", net)).params
    two = read_authors(save(tmp_path / "two", shuffled)).params
    for layer in one:
        np.testing.assert_array_equal(one[layer]["kernel"], two[layer]["kernel"])


def test_inputs_in_another_order_are_the_same_net(tmp_path):
    net = trained()
    expected = read_authors(save(tmp_path / "a", net)).params
    for layer in net.values():
        for key in ("inputs", "weights", "channels"):
            if len(layer["inputs"]) == 2 and isinstance(layer.get(key), list) and key != "inputs":
                layer[key] = layer[key][::-1]
        if len(layer["inputs"]) == 2:
            layer["inputs"] = layer["inputs"][::-1]
    found = read_authors(save(tmp_path / "b", net)).params
    for layer in expected:
        np.testing.assert_array_equal(found[layer]["kernel"], expected[layer]["kernel"])


def test_the_last_checkpoint_is_taken_and_compressed_ones_are_read(tmp_path):
    folder = save(tmp_path / "ConvNet__x", trained(seed=1), "9.1200")
    last = trained(seed=2)
    save(folder, last, "10.40")
    found = read_authors(folder)
    assert found.source.name == "10.40"
    content = (folder / "10.40").read_bytes()
    with zipfile.ZipFile(tmp_path / "10.41", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", content)
    zipped = read_authors(tmp_path / "10.41")
    np.testing.assert_array_equal(zipped.params["fc7"]["kernel"], found.params["fc7"]["kernel"])
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(10_000_000))
    with pytest.raises(ValueError, match="bytes that say they hold 10,000,000"):
        read_authors(tmp_path / "bomb")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        (tmp_path / "ConvNet__none").mkdir()
        read_authors(tmp_path / "ConvNet__none")


def test_their_options_are_not_looked_at(tmp_path):
    """Their checkpoints hold instances of classes that are not here, by Python 2's ways."""
    plain = pickle.dumps({"model_state": {"layers": trained()}}, protocol=2)
    options = (
        b"U\x02opccopy_reg\n_reconstructor\n(coptions\nOptionsParser\nc__builtin__\nobject\nNtR"
        b"}U\x07optionsK\x01sbs"
    )
    assert plain.endswith(b"s.")
    path = tmp_path / "1.1"
    path.write_bytes(plain[:-1] + options + b".")
    assert checked(read_authors(path)).num_classes == 5


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_a_pickle_that_would_run_a_command_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is no pickle of arrays \(it asks for"):
        read_authors(save(tmp_path / "a", trained(), op=Evil()))
    assert not (tmp_path / "evil").exists()


def test_the_mean_of_their_data_is_taken(tmp_path):
    planes = np.arange(3 * 8 * 8, dtype=np.float32)
    meta = {"data_mean": planes[:, None], "label_names": ["a"], "num_vis": planes.size}
    (tmp_path / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    folder = save(tmp_path / "ConvNet__x", trained())
    np.testing.assert_array_equal(read_authors(folder).mean, IMAGENET_MEAN)
    mean = read_authors(folder, mean=tmp_path / "batches.meta").mean
    np.testing.assert_array_equal(mean[2, 3], planes.reshape(3, 8, 8)[:, 2, 3])
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({}, protocol=2))
    with pytest.raises(ValueError, match="holds no data_mean"):
        read_authors(folder, mean=tmp_path / "batches.meta")


def changed(name, **values):
    net = trained()
    net[name] |= values
    return net


def missing(name):
    net = trained()
    del net[name]
    return net


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (changed("conv2a", filterSize=[3]), "'conv2a' has filterSize=.*; conv2 of AlexNet has 5"),
        (changed("conv4b", weights=[np.ones((7, 6), np.float32)]), "'conv4b' has 7 rows"),
        (changed("h1a", weights=[]), "'h1a' has not one matrix of weights for each of 2"),
        (changed("h2b", biases="none"), "'h2b' has weights or biases that are no array"),
        (changed("pool2a", pool="avg"), "'pool2a' pools by 'avg'"),
        (changed("rn1a", type="blur"), "'rn1a' has the type 'blur'"),
        (changed("rn1b", minDiv=1.0), r"'rn1a' and its like have minDiv of \[1.0, 2.0\]"),
        (changed("cn2a", scale=1.0), "'cn2a' has other constants"),
        (changed("out", biases=np.full((1, 5), np.nan, np.float32)), "bias of fc8 has values"),
        (missing("pool1a"), "'pool1a_neuron' reads 'pool1a', which is not there"),
        ({}, "this is nothing with weights"),
        ([*trained().values(), trained()["h1a"]], "has the layer 'h1a' 2 times"),
        (changed("conv1a", inputs=5), "holds no net that is read here"),
        (changed("conv1a", inputs=None), "holds no net that is read here"),
        (changed("conv1a", inputs=[99]), "holds no net that is read here"),
        (changed("pool1a_neuron", neuron=5), "holds no net that is read here"),
        (changed("pool1a_neuron", neuron={}), "it lacks 'type'"),
        (changed("conv3a", filterSize=[3]), "holds no net that is read here"),
        (changed("conv3a", filters=-6), "'conv3a' has filters=-6, which is no value of it"),
        (changed("conv3a", filters=6.5), "'conv3a' has filters=6.5, which is no value of it"),
        (changed("conv3a", filters=np.nan), "'conv3a' has filters=nan, which are not all finite"),
        (changed("conv3a", stride=np.inf), "'conv3a' has stride=inf, which are not all finite"),
        (changed("pool1a", sizeX=np.inf), "'pool1a' has sizeX=inf, which are not all finite"),
        (changed("hs1a", keep=5), "'hs1a' has keep=5, which is no value of it"),
        (changed("rn1a", scale=np.inf), "'rn1a' has scale=inf, which are not all finite"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, net, message):
    with pytest.raises(ValueError, match=message) as error:
        checked(read_authors(save(tmp_path / "ConvNet__x", net)))
    assert "\n" not in str(error.value) and "ConvNet__x" in str(error.value)


@pytest.mark.parametrize("content", [[], {"model_state": [1]}, {"model_state": {"layers": 5}}])
def test_a_pickle_of_something_else_is_told(tmp_path, content):
    (tmp_path / "1.1").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=r"1\.1 holds no model_state with layers"):
        read_authors(tmp_path / "1.1")


@pytest.mark.parametrize("kind", [complex, "f4,f4", bool, "U1"])
def test_a_mean_of_no_numbers_is_refused(tmp_path, kind):
    np.save(tmp_path / "mean.npy", np.zeros(3, kind))
    with pytest.raises(ValueError, match=r"mean\.npy is no array of means .it is of type"):
        read_authors(save(tmp_path / "ConvNet__x", trained()), mean=tmp_path / "mean.npy")


@pytest.mark.parametrize(
    "count", [100, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, count):
    path = save(tmp_path / "ConvNet__x", trained()) / "90.1000"
    content = path.read_bytes()
    checked(read_authors(path))
    rng = np.random.default_rng(0)
    for _ in range(count):
        data = bytearray(content)
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            data[at] = rng.integers(0, 256)
        path.write_bytes(bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.2 else data))
        try:
            checked(read_authors(path))
        except ValueError as error:
            assert "\n" not in str(error)


@pytest.mark.slow
def test_the_run_is_one_of_ours(tmp_path):
    net = trained()
    imported = read_authors(save(tmp_path / "ConvNet__x", net))
    assert "towers joined" in imported.done["conv1"] and "conv3" in imported.table()
    write_run(imported, tmp_path / "run", tuple("abcde"), "digits")
    run = load_run(tmp_path / "run")
    assert run.config.preset == "original"
    assert run.augmentation.mean_at == "center"
    stored = np.random.default_rng(2).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
    offset = (256 - SIDE) // 2
    crop = stored[0, offset : offset + SIDE, offset : offset + SIDE] - imported.mean
    logits = run_authors(net, crop.transpose(2, 0, 1))["out"]
    expected = np.exp(logits - logits.max())
    found = run.predict(stored, views="center")[0]
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-5)


# --- cfg files ------------------------------------------------------------------------------------


def write_cfg(folder, layers, params):
    (folder / "layers.cfg").write_text(layers)
    (folder / "params.cfg").write_text(params)
    return folder / "layers.cfg", folder / "params.cfg"


def test_a_recipe_with_a_byte_order_mark_is_the_same(tmp_path):
    files = write_cfg(tmp_path, layers_cfg(), params_cfg())
    expected = read_recipe(*files)
    for file in files:
        text = file.read_text().replace("\n", "\r\n")
        file.write_bytes(codecs.BOM_UTF8 + text.encode())
    assert read_recipe(*files) == expected


def test_layers_145_is_the_authors_net_with_the_sizes_they_compute(tmp_path):
    config = read_recipe(*write_cfg(tmp_path, layers_cfg(), params_cfg()))
    net = build_model(config, 1000)
    assert net == alexnet("original")
    assert (config.learning_rate, config.bias_learning_rate) == (0.01, 0.02)
    assert (config.momentum, config.weight_decay) == (0.9, 5e-4)
    theirs = parsed(layers_cfg(), params_cfg(), image_size=224)
    ours = {row.name: row for row in layer_table(net)}
    for number in range(1, 6):
        one = theirs[f"conv{number}a"]
        side, kernels = one["modulesX"], 2 * one["filters"]
        assert ours[f"conv{number}"].output == (side, side, kernels)
    assert theirs["pool3a"]["outputsX"] == 6


def test_a_recipe_of_other_widths_makes_the_net_of_their_checkpoint(tmp_path):
    files = write_cfg(tmp_path, layers_cfg(WIDTHS, UNITS), params_cfg(rate=1e-5))
    config = read_recipe(*files, image_size=SIDE, dataset="imagenette")
    assert build_model(config, 5) == checked(read_authors(save(tmp_path / "ConvNet__x", trained())))
    assert config.learning_rate == 1e-5 and config.dataset == "imagenette"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("neuron=relu", "neuron=softrelu", "neurons softrelu"),
        ("0.03", "0.02", "weights of the deviations"),
        ("initB=1", "initB=0.1", None),
        ("keep=0.5", "keep=0.7", None),
        ("filterSize=11", "filterSize=7", "'conv1a' has filterSize=7; conv1 of AlexNet has 11"),
        ("pool=max", "pool=avg", "pools by 'avg'"),
        ("type=hs", "type=eltmax", "has the type 'eltmax'"),
        ("type=rnorm", "type=cnorm", "has the type 'cnorm'"),
        ("sizeX=3", "sizeX=2", None),
        ("[data]", "data]", "section"),
        ("filters=48", "filters=inf", "'conv1a' has filters=inf, which are not all finite"),
        ("filters=48", "filters=-48", "'conv1a' has filters=-48, which is no value of it"),
        ("sizeX=3", "sizeX=inf", "has sizeX=inf, which are not all finite"),
        ("sizeX=3", "sizeX=300", "hold no recipe that is read here"),
        ("keep=0.5", "keep=5", "has keep=5, which is no value of it"),
        ("keep=0.5", "keep=0", "hold no recipe that is read here"),
        ("initB=1", "initB=nan", "has initB=nan, which are not all finite"),
    ],
)
def test_what_a_file_cannot_say_here_is_refused(tmp_path, old, new, message):
    files = write_cfg(tmp_path, layers_cfg().replace(old, new), params_cfg())
    if message is None:
        config = read_recipe(*files)
        assert build_model(config, 1000) != alexnet("original")
        return
    with pytest.raises(ValueError, match=message) as error:
        read_recipe(*files)
    assert "\n" not in str(error.value) and "layers.cfg" in str(error.value)


def test_a_layer_frozen_at_the_end_has_a_factor_on_the_rate(tmp_path):
    params = params_cfg(rate=1e-5)
    for name in ("conv1a", "conv1b"):
        params = params.replace(f"[{name}]\nepsW=1e-05\nepsB=0.02", f"[{name}]\nepsW=0\nepsB=0")
    config = read_recipe(*write_cfg(tmp_path, layers_cfg(), params), dataset="digits")
    config.train_split = "train[:256]"
    assert (config.learning_rate, config.bias_learning_rate) == (1e-5, 0.02)
    found = Recipe(config).hyperparameters(0).rate_multipliers
    assert found["conv1"] == {"kernel": 0, "bias": 0}
    assert found["fc8"] == {"kernel": 1, "bias": pytest.approx(2000)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[conv1a]\nepsW=0.01", "[conv1a]\nepsW=1e-05", r"'conv1a' and its like have epsW of"),
        ("epsB=0.02", "epsB=0", "'out' and most others have rates of 0"),
    ],
)
def test_rates_that_make_no_recipe_are_refused(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message):
        read_recipe(*write_cfg(tmp_path, layers_cfg(), params_cfg().replace(old, new)))
