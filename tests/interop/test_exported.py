"""What leaves: to the bit and back, in PyTorch's layout, as a program, proven before it stays."""

import dataclasses
import hashlib
import itertools
import json
import random
import re
import resource
import subprocess
import sys
from functools import partial, reduce
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import alexnet, create_train_state, load_run
from alexnet_jax.augment import Augmentation
from alexnet_jax.configs import digits
from alexnet_jax.files import whole_file
from alexnet_jax.interop import (
    Imported,
    as_written,
    checked,
    exported,
    facts_of,
    read_program,
    read_pytorch,
    read_state_dict,
    read_weights,
    save_run,
    write_program,
    write_pytorch,
    write_weights,
)
from alexnet_jax.interop.exported import card_of, facts_on_card
from alexnet_jax.interop.program import check_packages
from alexnet_jax.interop.pytorch import grouped
from alexnet_jax.interop.tensors import read_tensors, write_tensors
from alexnet_jax.runs.recipe import build_model
from alexnet_jax.runs.workdir import Run
from tests.commands import run_command
from tests.interop.test_caffe import convolve, mutations, pool
from tests.tiers import slow
from tests.tiny_run import write_run

convert = partial(run_command, "alexnet_jax.convert")

ROOT = Path(__file__).parents[2]
STORED, SIDE = 104, 96  # 96 leaves 2x2 pixels for fc6


def a_run(**fields) -> Run:
    """A narrow net with weights large enough that norms and biases matter."""
    config = digits.get_config()
    config.stored_size = STORED
    config.model.update(
        {
            "image_size": SIDE,
            "conv_features": (8, 12, 12, 12, 8),
            "fc_features": (10, 6),
            "initialization": "paper",
            **fields,
        }
    )
    model = build_model(config, 10)
    rng = np.random.default_rng(0)
    state = create_train_state(model, jax.random.key(0))

    def larger(leaf):
        scale = 2 / np.sqrt(leaf[..., 0].size) if leaf.ndim > 1 else 0.5
        return jax.numpy.asarray(rng.normal(0, scale, leaf.shape).astype(np.float32))

    state = state.replace(params=jax.tree.map(larger, state.params), opt_state=())
    mean = rng.uniform(90, 140, (STORED, STORED, 3)).astype(np.float32)
    augmentation = Augmentation(color="none", flip=False, mean=mean)
    names = tuple(map(str, range(10)))
    return Run(Path("runs/a"), config, model, augmentation, state, names, 7)


def pictures(count=3):
    return np.random.default_rng(1).integers(0, 256, (count, STORED, STORED, 3), dtype=np.uint8)


def same(one: Run, other: Run) -> None:
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    assert one.weights_digest == other.weights_digest
    assert one.class_names == other.class_names and one.model == other.model
    assert one.step == other.step
    np.testing.assert_array_equal(one.predict(pictures()), other.predict(pictures()))


@pytest.mark.parametrize("write", [write_weights, write_pytorch])
def test_there_and_back_is_to_the_bit(tmp_path, write):
    run, path = a_run(), tmp_path / "net.safetensors"
    write(run, path)
    back = read_state_dict(path)
    same(run, back)
    save_run(back, tmp_path / "run")
    same(run, load_run(tmp_path / "run"))
    with pytest.raises(ValueError, match="is there already"):
        save_run(back, tmp_path / "run")


@pytest.mark.parametrize("rate", [0.2, 0.3])
def test_weights_that_pytorch_scales_by_no_power_of_two_come_back_as_they_were_written(
    tmp_path, rate
):
    run, path = a_run(dropout_rate=rate), tmp_path / "net.safetensors"
    write_pytorch(run, path)
    back = read_state_dict(path)
    same(as_written(run), back)
    write_pytorch(back, path)  # once more changes nothing
    same(back, read_state_dict(path))
    for layer, leaves in run.params.items():
        np.testing.assert_allclose(back.params[layer]["kernel"], leaves["kernel"], rtol=2e-7)


@pytest.mark.parametrize("preset", ["paper", "valid224", "caffe"])
def test_a_state_dict_of_the_whole_image_is_of_the_presets_image(preset):
    fields = {"conv_features": (8, 12, 12, 12, 8), "fc_features": (10, 6), "num_classes": 4}
    net = alexnet(preset, **fields)
    shapes = jax.eval_shape(
        net.init, jax.random.key(0), jnp.zeros((1, net.image_size, net.image_size, 3))
    )["params"]
    arrays = {}
    for name, leaves in shapes.items():
        kernel = np.zeros(leaves["kernel"].shape, np.float32)
        arrays[f"{name}.weight"] = kernel.transpose(*((1, 0) if kernel.ndim == 2 else (3, 2, 0, 1)))
        arrays[f"{name}.bias"] = np.zeros(leaves["bias"].shape, np.float32)
    assert checked(grouped(arrays, Path("x"), preset)) == net


def test_a_preset_of_nine_layers_is_no_state_dict(tmp_path):
    with pytest.raises(ValueError, match="preset='six_conv' has 9 layers; give one of eight"):
        grouped({}, tmp_path, "six_conv")


ERRORS = {"split": "test", "dataset": "digits", "views": "center", "images": 9, "top1_wrong": 1,
          "top5_wrong": 0, "loss": 0.5}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.pop("weights"), "it lacks 'weights'"),
        (lambda facts: facts.pop("views"), "it lacks 'views'"),
        (lambda facts: facts.update(views="nine"), "views is 'nine'"),
        (lambda facts: facts.update(views=["ten"]), r"views is \['ten'\]"),
        (lambda facts: facts.update(errors={"split": "test"}), "it lacks 'dataset'"),
        (lambda facts: facts.update(errors=5), ""),
        (lambda facts: facts.update(errors=ERRORS | {"loss": np.nan}), "loss is nan"),
        (lambda facts: facts.update(errors=ERRORS | {"loss": np.inf}), "loss is inf"),
        (lambda facts: facts.update(errors=ERRORS | {"top1_wrong": -1}), "top1_wrong is -1"),
        (lambda facts: facts.update(errors=ERRORS | {"images": 0}), "its errors are of 0 images"),
        (lambda facts: facts.update(class_names="cat"), "class_names is 'cat'"),
        (lambda facts: facts.update(config={}), "dataset=''; it is a name"),
        (lambda facts: facts.update(config=None), ""),
        (lambda facts: facts["config"].update(dataset=5), ""),
        (lambda facts: facts["config"].update(stored_size=None), "stored_size=None; it is"),
        (lambda facts: facts["config"].update(stored_size="x"), ""),
    ],
)
def test_a_damaged_card_is_told(tmp_path, change, message):
    facts, path = facts_of(a_run()), tmp_path / "net.safetensors"
    facts |= {"errors": ERRORS, "file": hashlib.sha256(b"net").hexdigest()}
    path.write_bytes(b"net")
    write = partial(card_of(path).write_text, encoding="utf-8")
    write(exported.card("net", facts))
    assert facts_on_card(path) == facts
    change(facts)
    write(f"```json\n{json.dumps(facts)}\n```\n")
    with pytest.raises(ValueError, match=f"net.safetensors.md is damaged .{message}") as error:
        facts_on_card(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"step": ' + "9" * 5000 + "}", '{"a": ' * 10**5])
def test_a_card_or_header_that_is_no_table_is_told(tmp_path, text):
    path = tmp_path / "net.safetensors"
    card_of(path).write_text(f"```json\n{text}\n```\n")
    write_tensors(path, {"conv1.kernel": np.ones(3, np.float32)}, {"alexnet_jax": text})
    for read in (facts_on_card, read_weights):
        with pytest.raises(ValueError, match=str(path)) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_loss_that_is_not_a_number_is_never_the_cards(tmp_path):
    with pytest.raises(ValueError, match=r"the loss is nan here and its card says 0.5"):
        exported.compare(ERRORS, ERRORS | {"loss": np.nan}, tmp_path / "net.stablehlo")


def test_a_header_names_no_folder_of_the_machine(tmp_path):
    run = a_run()
    run.config.data_dir = run.config.init_from = "/somewhere/of/mine"
    write_weights(run, tmp_path / "net.safetensors")
    assert b"somewhere" not in (tmp_path / "net.safetensors").read_bytes()


# --- PyTorch's layout -----------------------------------------------------------------------------


def norm_of_towers(x):
    """As torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2) of either half."""
    halves = []
    for half in np.split(x, 2, axis=1):
        sums = [
            (half[:, max(0, c - 2) : c + 3] ** 2).sum(1) * 5e-4 / 5 for c in range(half.shape[1])
        ]
        halves.append(half / (2 + np.stack(sums, 1)) ** 0.75)
    return np.concatenate(halves, 1)


def run_pytorch(tensors, pixels):
    """The docs' network at test: NCHW, ceil by zeros at the end, dropout doing nothing."""
    x = np.pad(pixels.transpose(0, 3, 1, 2).astype(np.float64), ((0, 0), (0, 0), (0, 3), (0, 3)))
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        weight = tensors[f"{layer}.weight"].astype(np.float64)
        bias = tensors[f"{layer}.bias"].astype(np.float64)
        if weight.ndim == 4:
            stride, pad = {"conv1": (4, 0), "conv2": (1, 2)}.get(layer, (1, 1))
            x = convolve(x, weight, bias, stride, pad, x.shape[1] // weight.shape[1])
        else:
            x = x.reshape(len(x), -1) @ weight.T + bias
        if layer != "fc8":
            x = np.maximum(x, 0)
        if layer in ("conv1", "conv2"):
            x = norm_of_towers(x)
        if layer in ("conv1", "conv2", "conv5"):
            x = pool(x)
    return x


def test_pytorchs_layout_computes_the_same_in_pytorchs_way(tmp_path):
    run, path = a_run(), tmp_path / "net.safetensors"
    write_pytorch(run, path)
    tensors = read_tensors(path).arrays
    assert {name.partition(".")[0] for name in tensors} == set(run.params)
    mean = np.load(tmp_path / "net.mean.npy")
    edge = (STORED - SIDE) // 2
    pixels = (pictures() - mean)[:, edge:-edge, edge:-edge]
    expected = run.features(pictures(), ["fc8"])["fc8"]
    found = run_pytorch(tensors, pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_another_grouped_net_is_read_by_its_shapes(tmp_path):
    run, path = a_run(), tmp_path / "net.safetensors"
    write_pytorch(run, path)
    tensors = read_tensors(path).arrays
    numbers = dict(zip(run.params, (0, 4, 8, 10, 12, 16, 19, 22), strict=True))
    others = {
        f"layers.{numbers[name.partition('.')[0]]}.{name.partition('.')[2]}": array
        for name, array in tensors.items()
    }
    write_tensors(tmp_path / "other.safetensors", others)
    for imported in (read_state_dict(tmp_path / "other.safetensors"),
                     read_pytorch(tmp_path / "other.safetensors")):  # fmt: skip
        assert isinstance(imported, Imported)
        assert checked(imported) == run.model
        for layer, leaves in run.params.items():
            np.testing.assert_array_equal(imported.params[layer]["kernel"], leaves["kernel"])
    del others["layers.4.bias"]
    write_tensors(tmp_path / "other.safetensors", others)
    with pytest.raises(ValueError, match=r"'layers.4' has no weight and bias"):
        read_pytorch(tmp_path / "other.safetensors")


WORDS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]
NUMBERED = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
STEM = ["stem", "body2", "body3", "body4", "body5", "fc", "hidden", "head"]


def grouped_net(names, widths):
    """A state dict of layers `names`, in PyTorch's order; `widths` of fc6's inputs to fc8's."""
    rng = np.random.default_rng(0)
    shapes = [(8, 3, 11, 11), (16, 4, 5, 5), (24, 16, 3, 3), (24, 12, 3, 3), (16, 12, 3, 3)]
    shapes += [(out, given) for given, out in itertools.pairwise(widths)]
    arrays = {}
    for name, shape in zip(names, shapes, strict=True):
        arrays[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(size=shape[:1]).astype(np.float32)
    return arrays


@pytest.mark.parametrize(
    ("names", "widths", "suffix"),
    [
        (WORDS, (64, 20, 28, 7), "safetensors"),  # the shapes tell it
        (STEM, (64, 20, 28, 7), "safetensors"),
        (WORDS, (16, 16, 16, 16), "pt"),  # the file tells it
        (STEM, (16, 16, 16, 16), "pt"),
        (NUMBERED, (16, 16, 16, 16), "safetensors"),  # the names tell it
        ([f"net.{n}" for n in range(4, 12)], (16, 16, 16, 16), "safetensors"),
    ],
)
def test_layers_are_told_by_shapes_then_by_the_file_or_by_numbers(names, widths, suffix):
    arrays = grouped_net(names, widths)
    given = arrays if suffix == "pt" else dict(sorted(arrays.items()))
    imported = grouped(given, Path(f"net.{suffix}"), "paper")
    checked(imported)
    for name, leaves in zip(names, imported.params.values(), strict=True):
        np.testing.assert_array_equal(leaves["bias"], arrays[f"{name}.bias"])


@pytest.mark.parametrize(
    ("names", "suffix", "message"),
    [
        (
            WORDS,
            "safetensors",
            r"several orders of 'eighth', 'seventh', 'sixth', and \.safetensors ",
        ),
        (STEM, "safetensors", r"several orders of 'fc', 'head', 'hidden', and .* as \.pt, or numb"),
        ([*NUMBERED[:5], "fc8", "fc7", "fc6"], "pt", "numbers and places in the file do not te"),
    ],
)
def test_an_order_that_nothing_tells_is_refused(names, suffix, message):
    arrays = grouped_net(names, (16, 16, 16, 16))
    given = arrays if suffix == "pt" else dict(sorted(arrays.items()))
    with pytest.raises(ValueError, match=message) as error:
        grouped(given, Path(f"net.{suffix}"), "paper")
    assert str(error.value).isprintable()


def test_what_pytorch_has_no_layer_for_is_refused(tmp_path):
    run = a_run(exchange=("conv3", "fc7", "fc8"))
    with pytest.raises(ValueError, match="fc6 reads its own tower alone"):
        write_pytorch(run, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_docs_network_takes_the_file(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.chdir(tmp_path)
    wide = {"image_size": 224, "conv_features": (96, 256, 384, 384, 256)}
    run = a_run(**wide, fc_features=(4096, 4096))
    run.config.stored_size = 256
    mean = np.full((256, 256, 3), 120, np.float32)
    run = Run(**{**vars(run), "augmentation": Augmentation(color="none", mean=mean)})
    write_pytorch(run, "net.safetensors")
    text = (ROOT / "docs" / "convert.md").read_text()
    (code,) = re.findall(r"```python\n(from collections.*?)```", text, re.DOTALL)
    images = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    names = {"images": images}
    exec(code.replace("nn.Linear(4096, 1000)", "nn.Linear(4096, 10)"), names)
    assert isinstance(names["logits"], torch.Tensor)
    expected = run.features(images, ["fc8"])["fc8"]
    np.testing.assert_allclose(
        names["logits"].numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


# --- a program ------------------------------------------------------------------------------------

ALONE = """
import sys
sys.modules["alexnet_jax"] = None  # as where it is not installed
import jax, numpy as np
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
images = np.load(sys.argv[2])
params = ()
if len(sys.argv) > 4:
    from safetensors.numpy import load_file
    params = ({k: v for k, v in load_file(sys.argv[4]).items() if not k.startswith("augment")},)
found = [np.asarray(program.call(*params, images[:n])) for n in (1, 3, 128)]
assert program.platforms == ("cpu", "cuda"), program.platforms
np.savez(sys.argv[3], *found)
"""


@pytest.mark.parametrize("parameters", ["beside", *slow("inside")])
def test_a_program_predicts_without_this_library(tmp_path, parameters):
    run, path = a_run(), tmp_path / "net.stablehlo"
    write_program(run, path, parameters=parameters)
    images = pictures(128)
    np.save(tmp_path / "images.npy", images)
    argv = [path, tmp_path / "images.npy", tmp_path / "found.npz"]
    argv += [tmp_path / "net.stablehlo.safetensors"] * (parameters == "beside")
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *argv],
        cwd=tmp_path / "empty",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    expected = run.predict(images)
    with np.load(tmp_path / "found.npz") as found:
        for count, name in zip((1, 3, 128), found, strict=True):
            np.testing.assert_allclose(found[name], expected[:count], rtol=1e-3, atol=1e-5)
    found = read_program(path)(images[:2])
    np.testing.assert_allclose(found, expected[:2], rtol=1e-3, atol=1e-5)


def test_a_damaged_program_is_one_line(tmp_path):
    path = tmp_path / "net.stablehlo"
    for content in (b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"net\.stablehlo is no program") as error:
            read_program(path)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="cannot be read"):
        read_program(tmp_path / "none.stablehlo")


def test_a_program_is_its_cards_before_it_is_run(tmp_path):
    """A flipped bit can end the process that reads it."""
    path = program(tmp_path / "net.stablehlo", lambda images: images)
    content = bytearray(path.read_bytes())
    facts = facts_of(a_run()) | {"file": hashlib.sha256(content).hexdigest()}
    card_of(path).write_text(exported.card(path.name, facts))
    assert convert(f"--verify={path}").stdout == f"{path}: its errors were not measured\n"
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = convert(f"--verify={path}")
    assert done.returncode == 1
    assert done.stderr == f"error: {path} is not the file that its card is of; fetch it again\n"


@pytest.mark.parametrize("change", ["other", "zeros", "missing", "extra"])
def test_parameters_beside_a_program_are_those_of_its_card(tmp_path, change):
    run, path = a_run(), tmp_path / "net.stablehlo"
    program(path, lambda params, images: params["fc8.bias"][:1], {"fc8.bias": jnp.ones(10)})
    beside = tmp_path / "net.stablehlo.safetensors"
    write_weights(run, beside)
    facts = facts_of(run)
    read_program(path, facts)
    found = read_tensors(beside)
    if change == "other":
        facts["weights"] = "0" * 64
    elif change == "zeros":
        found.arrays["fc8.bias"][:] = 0
    elif change == "missing":
        del found.arrays["fc8.bias"]
    else:
        found.arrays["fc9.bias"] = found.arrays["fc8.bias"]
    write_tensors(beside, found.arrays, found.texts)
    with pytest.raises(ValueError, match=str(beside)) as error:
        read_program(path, facts)
    assert "\n" not in str(error.value)


def program(path, function, *before):
    """Writes a program of images 4x4, which compiles in no time."""
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, 4, 4, 3), jnp.uint8)
    path.write_bytes(jax.export.export(jax.jit(function))(*before, images).serialize())
    return path


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images: images.sum(), r"it gives the shape \(\)"),
        (lambda images: {"a": images}, "it gives a dict"),
        (lambda images: [images, images], "it gives a list"),
        (lambda images: images[:, 0, 0, :2], r"it gives the shape \(2, 2\)"),
        (lambda images: images[:1, 0, 0], r"it gives the shape \(1, 3\)"),
    ],
)
def test_a_program_that_gives_no_probabilities_is_told(tmp_path, function, message):
    predict = read_program(
        program(tmp_path / "a.stablehlo", function), {"class_names": list("abc")}
    )
    with pytest.raises(ValueError, match=rf"a\.stablehlo predicts nothing .* .{message}") as error:
        predict(np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a\.stablehlo predicts nothing") as other:
        predict(np.zeros((2, 5, 4, 3), np.uint8))
    assert "\n" not in str(error.value) + str(other.value)


# --- kept only if it proves itself ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["net.safetensors", "net.stablehlo"])
def test_an_export_is_measured_again_by_anyone(tmp_path, name):
    path = tmp_path / name
    done = convert(f"--workdir={write_run(tmp_path / 'run')}", f"--output={path}")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{path}: \d+ of 219 wrong .* digits, test, centre crop\n", done.stdout)
    card = exported.card_of(path).read_text()
    assert done.stdout.split(": ", 1)[1].strip() in card
    assert load_run(tmp_path / "run").weights_digest in card
    again = convert(f"--verify={path}")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    facts = exported.facts_on_card(path)
    wrong = facts["errors"]["top1_wrong"]
    facts["errors"]["top1_wrong"] = wrong - 1
    exported.card_of(path).write_text(exported.card(path.name, facts))
    refused = convert(f"--verify={path}")
    assert refused.returncode == 1
    told = f"top1_wrong is {wrong} of 219 here and its card says {wrong - 1}"
    if path.suffix == ".safetensors":  # whose header says the errors, too
        told = "its header and its card differ in errors"
    assert told in refused.stderr
    names = {path.name, f"{path.name}.md", "run"}
    assert {entry.name for entry in tmp_path.iterdir()} == names


def test_a_file_and_its_card_that_do_not_say_the_same_are_told(tmp_path):
    run, path = load_run(write_run(tmp_path / "run")), tmp_path / "net.safetensors"
    exported.keep(path, partial(write_weights, run), facts_of(run))
    card, content = card_of(path).read_text(), path.read_bytes()
    facts = facts_on_card(path)

    card_of(path).write_text(card.replace("| its errors were not measured", "| 2 of 219 wrong"))
    with pytest.raises(ValueError, match=r"safetensors\.md says other things in words than in"):
        facts_on_card(path)
    card_of(path).write_text(card)

    write_weights(run, path, facts_of(run) | {"class_names": facts["class_names"][::-1]})
    with pytest.raises(ValueError, match="is not the file that its card is of; fetch it again"):
        facts_on_card(path)
    path.write_bytes(content)

    other = facts | {"class_names": facts["class_names"][::-1], "step": facts["step"] + 1}
    card_of(path).write_text(exported.card(path.name, other))
    done = convert(f"--verify={path}")
    assert done.returncode == 1
    assert "its header and its card differ in class_names, step; fetch both again" in done.stderr


def done_by_another(monkeypatch):
    """The process that reads an export back finds nothing wrong."""
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(exported.subprocess, "run", lambda *_, **__: done)


@pytest.mark.parametrize("name", ["net.mean.npy", "net.safetensors.md"])
def test_an_export_is_there_whole_or_not_at_all(tmp_path, monkeypatch, name):
    done_by_another(monkeypatch)
    run, path = a_run(), tmp_path / "net.safetensors"
    (tmp_path / name / "full").mkdir(parents=True)
    with pytest.raises(ValueError, match=f"{tmp_path / name} is a folder and belongs to net.safe"):
        exported.keep(path, partial(write_pytorch, run), facts_of(run))
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_the_parameters_of_a_program_that_was_replaced_are_gone(tmp_path, monkeypatch):
    done_by_another(monkeypatch)
    path, facts = tmp_path / "net.stablehlo", facts_of(a_run())

    def write(path, facts, beside):
        for file in [path, path.with_name("net.stablehlo.safetensors")][: 1 + beside]:
            file.write_bytes(b"net")

    (tmp_path / "net.safetensors").touch()  # another export
    for beside in (True, False):
        exported.keep(path, partial(write, beside=beside), facts)
        assert (tmp_path / "net.stablehlo.safetensors").exists() == beside
    names = {"net.safetensors", "net.stablehlo", "net.stablehlo.md"}
    assert {entry.name for entry in tmp_path.iterdir()} == names


def test_a_file_that_does_not_hold_what_was_written_is_not_kept(tmp_path):
    run = load_run(write_run(tmp_path / "run"))

    def write(path, facts):
        """Loses a bit of one weight on the way, as a bad disk would."""
        write_weights(run, path, facts)
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        with whole_file(path, "wb") as file:
            file.write(content)

    with pytest.raises(ValueError, match=r"is not kept: .*its weights are not those"):
        exported.keep(tmp_path / "net.safetensors", write, facts_of(run))
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--output=a.safetensors", "--verify=b"], "give one of --weights"),
        (["--output=a.safetensors"], "--workdir is missing"),
        (["--workdir=none", "--output=a.onnx"], "is .safetensors or .stablehlo"),
        (["--weights=a.bin", "--workdir=none"], "error: a.bin is not there; change --weights"),
        (["--weights=ConvNet__a", "--workdir=none"], "error: ConvNet__a is not there; change"),
        ([f"--weights={__file__}", "--workdir=none"], "weights that are read are .safetensors"),
        (["--verify=b", "--workdir=none"], "--workdir does nothing with --verify; leave it out"),
        (["--verify=b", "--split=test"], "--split does nothing with --verify"),
        (["--weights=a.pt", "--workdir=none", "--layout=pytorch"], "--layout does nothing with"),
        (["--output=a.stablehlo", "--workdir=none", "--layout=pytorch"], "--layout does nothing"),
        (["--output=a.safetensors", "--workdir=none", "--parameters=beside"], "--parameters does"),
        (["--output=a.safetensors", "--workdir=none", "--preset=caffe"], "--preset does nothing"),
        (["--output=a.safetensors", "--workdir=none", "--mean=m.npy"], "--mean does nothing with"),
        (["--output=a.safetensors", "--workdir=n", "--nomeasure", "--split=x"], "--split does not"),
    ],
)
def test_wrong_flags_are_told_in_a_line(tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    done = convert(*argv)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_its_data_set_a_run_is_told_how_it_is_written(tmp_path):
    config = a_run().config.copy_and_resolve_references()
    config.dataset = "nowhere"
    save_run(dataclasses.replace(a_run(), config=config), tmp_path / "run")
    done = convert(f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'net.safetensors'}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.endswith("; --nomeasure writes without measuring\n")


NONSENSE = (None, -1, 2**64, 1e300, np.nan, np.inf, "", "x", True, [], [1], ["a"], {}, {"a": 1})


def fields_in(table, above=()):
    """The path of every field, those of the tables in it too."""
    for name, value in table.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from fields_in(value, (*above, name))


@pytest.mark.parametrize("count", [60, *slow(10_000)])
def test_whatever_a_field_of_a_header_or_card_says_it_is_read_or_one_line(tmp_path, count):
    path, run = tmp_path / "net.safetensors", a_run()
    write_weights(run, path)
    arrays = read_tensors(path).arrays
    text = json.dumps(facts_of(run) | {"errors": ERRORS})
    cases = [(field, value) for field in fields_in(json.loads(text)) for value in NONSENSE]
    random.Random(0).shuffle(cases)
    for (*above, name), value in cases[:count]:
        facts = json.loads(text)
        reduce(dict.__getitem__, above, facts)[name] = value
        write_tensors(path, arrays, {"alexnet_jax": json.dumps(facts)})
        card_of(path).write_text(f"```json\n{json.dumps(facts)}\n```\n")
        for read in (read_weights, facts_on_card):
            try:
                read(path)
            except ValueError as error:
                assert "\n" not in str(error) and str(path) in str(error), (above, name, value)


@pytest.mark.parametrize("flag", ["--preset=paper", "--classes=none", "--dataset=digits"])
def test_our_own_weights_say_themselves_what_others_want_flags_for(tmp_path, flag):
    path = tmp_path / "net.safetensors"
    write_weights(a_run(), path)
    done = convert(f"--weights={path}", f"--workdir={tmp_path / 'run'}", flag)
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    assert "does nothing with" in done.stderr and "which says it itself" in done.stderr


def test_a_package_that_is_not_there_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="wants the package flatbuffers: pip install"):
        check_packages("inside")


@pytest.mark.parametrize(
    "count", [50, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
@pytest.mark.parametrize("write", [write_weights, write_pytorch])
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, write, count):
    path = tmp_path / "net.safetensors"
    write(a_run(), path)
    read_state_dict(path)
    for content in mutations(path.read_bytes(), count):
        path.write_bytes(content)
        try:
            read_state_dict(path)
        except ValueError as error:
            assert "\n" not in str(error) and str(path) in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a"]}, "of fc8 has the shape"),
        ({"class_names": "abcdefghij"}, "class_names is 'abcdefghij'"),
        ({"config": {"nothing": 1}}, "unknown config field 'nothing'"),
        ({"config": {}}, "dataset=''; it is a name"),
        ({"weights": "0" * 64}, "its weights are not those"),
        ({"mean": "0" * 64}, "its mean is not the one"),
        ({"augmentation": {}}, "it lacks 'crop'"),
        ({"augmentation": None}, ""),
        ({"step": []}, ""),
        ({"step": -1}, "step is -1"),
        ({"step": 2**64}, ""),
        ({"constants": 5}, ""),
    ],
    ids=str,
)
@pytest.mark.parametrize("write", [write_weights, write_pytorch])
def test_damaged_facts_are_named(tmp_path, write, change, message):
    path = tmp_path / "net.safetensors"
    run = a_run()
    write(run, path, facts_of(run) | change)
    with pytest.raises(ValueError, match=f"{path}.*{message}") as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def test_a_seed_that_is_none_is_named(tmp_path):
    path, run = tmp_path / "net.safetensors", a_run()
    facts = facts_of(run)
    facts["config"]["seed"] = 2**64
    write_weights(run, path, facts)
    with pytest.raises(ValueError, match=r"net\.safetensors: its header is damaged .seed="):
        read_weights(path)


def test_a_mean_that_is_not_the_one_written_is_told_where_its_digest_is_known(tmp_path):
    path, run = tmp_path / "net.safetensors", a_run()
    write_weights(run, path)
    found = read_tensors(path)
    facts = json.loads(found.texts["alexnet_jax"])

    def changed(value, **others):
        mean = found.arrays["augmentation.mean"].copy()
        mean[5, 5, 1] = value
        text = {"alexnet_jax": json.dumps(facts | others)}
        write_tensors(path, found.arrays | {"augmentation.mean": mean}, text)
        return read_weights(path)

    with pytest.raises(ValueError, match="its mean is not the one that was written"):
        changed(1.0)
    del facts["mean"]  # as files of earlier versions
    assert changed(1.0).augmentation.mean[5, 5, 1] == 1
    with pytest.raises(ValueError, match=r"its header is damaged .mean holds values that are not"):
        changed(np.nan)


def test_the_same_export_is_the_same_bytes(tmp_path):
    texts = {name: f"{name} of é网" for name in ("one", "two", "three", "four", "five")}
    arrays = {"b": np.arange(6, dtype=np.float32), "a": np.ones((2, 3), np.float32)}
    contents = set()
    for number in range(8):  # of 120 orders
        path = tmp_path / f"{number}.safetensors"
        write_tensors(path, arrays, texts)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    found = read_tensors(path)
    assert found.texts == texts
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def test_a_header_without_facts_is_no_file_of_ours(tmp_path):
    path = tmp_path / "net.safetensors"
    write_tensors(path, {"conv1.kernel": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match="was not written by this library"):
        read_weights(path)
    write_tensors(path, {"a.b": np.ones(3, np.float32)}, {"alexnet_jax": json.dumps([1])})
    with pytest.raises(ValueError, match="header is damaged"):
        read_weights(path)


@pytest.mark.parametrize("layout", ["alexnet_jax", "pytorch"])
def test_a_file_that_grows_too_large_is_named_where_it_was_to_be(tmp_path, layout):
    """The system's limit lies below the weights, or below the mean beside them alone."""
    run, path = a_run(), tmp_path / "net.safetensors"
    write, name = write_weights, path.name
    if layout == "pytorch":
        write, name = write_pytorch, "net.mean.npy"
        mean = np.zeros((256, 256, 3), np.float32)
        run = dataclasses.replace(run, augmentation=Augmentation(color="none", mean=mean))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000 if layout == "pytorch" else 9, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            exported.keep(path, partial(write, run), facts_of(run))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(tmp_path / name)
    assert not list(tmp_path.iterdir())
