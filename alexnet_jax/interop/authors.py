"""The authors' 2012 code: its checkpoints, and `layers-*.cfg` with `layer-params-*.cfg`.

Their net is a graph of named layers, each on one GPU; one with weights has a matrix for each layer
it reads: [channels x height x width, kernels], or [units, units]. Here it is found by what reads
what, whatever the names: layers as far from the image are the towers of one of ours, in the order
of their GPUs.
Source: the authors' `layer.py`, `gpumodel.py`, `util.py`, `layers-145.cfg`.
"""

import configparser
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet2012_original
from alexnet_jax.files import local_path
from alexnet_jax.interop.caffe import MEAN
from alexnet_jax.interop.imported import Imported, square_side
from alexnet_jax.interop.pickled import load_arrays
from alexnet_jax.models.alexnet import INITIAL_STDDEV
from alexnet_jax.models.presets import alexnet

PRESET = "original"
# A compressed checkpoint that grows more than this is none: weights hardly shrink.
_LARGEST_GROWTH = 20
# Type of a layer without weights -> what it is here.
_OPERATIONS = {
    "neuron": "activation",
    "cmrnorm": "lrn",
    "rnorm": "map_norm",
    "pool": "pool",
    "hs": "dropout",
}
# Kernel, stride and padding of conv1 to conv6, and the initial biases that are zero.
_CONVOLUTIONS = ((11, 4, 0), (5, 1, 2), *((3, 1, 1),) * 4)
_ZERO_BIAS = ("conv1", "conv3", "fc8")


def read_authors(path: str | Path, *, mean: str | Path | None = None) -> Imported:
    """Reads a checkpoint: towers joined, kernels and rows in this library's order.

    Args:
      path: a folder `ConvNet__…`, whose last checkpoint is taken, or the file of one.
      mean: the `batches.meta` of their data, or a `.npy` file of [3] or [3, S, S], RGB; None is
        ImageNet's colour.

    Raises:
      ValueError: the file is damaged, holds no checkpoint, or a net that is not expressed here; the
        message names the first layer that does not fit.
    """
    path = _checkpoint(local_path(path))
    content = _unpickled(path)
    state = content.get("model_state", content) if isinstance(content, dict) else {}
    layers = state.get("layers")
    if isinstance(layers, list) and all(isinstance(x, dict) and "name" in x for x in layers):
        layers = {layer["name"]: layer for layer in layers}
    if not (isinstance(layers, dict) and all(isinstance(x, dict) for x in layers.values())):
        raise ValueError(f"{path} holds no model_state with layers; is it a checkpoint of theirs?")
    graph = _Graph(path, layers)
    fields = graph.fields(trained=True)
    params, done = graph.params()
    first = graph.stages[0][0]
    size = int(graph.number(first, "imgSize", 0))
    if size:
        fields["image_size"] = size
    return Imported(path, PRESET, _differing(fields), params, _read_mean(mean), done)


def read_recipe(
    layers: str | Path, params: str | Path, *, image_size: int = 224, dataset: str | None = None
) -> ConfigDict:
    """Reads a net and its recipe from their two files.

    Args:
      layers: `layers-*.cfg`, the net.
      params: `layer-params-*.cfg`, rates and constants; as their last runs left it.
      image_size: side of the crops in pixels, which their data provider knows and no file.
      dataset: prepared data set; None keeps ILSVRC-2012.

    Returns:
      `imagenet2012_original`, changed to what the files say. The number of classes is the data
      set's.

    Raises:
      ValueError: a file cannot be read, or says what is not expressed here: the layer, and what.
    """
    layers, params = local_path(layers), local_path(params)
    net, constants = _read_cfg(layers), _read_cfg(params)
    for name, values in constants.items():
        if name in net:
            net[name] = {**net[name], **values}
    graph = _Graph(layers, net)
    fields = _differing(graph.fields(trained=False) | {"image_size": image_size})
    config = imagenet2012_original.get_config()
    config.model.update({name: fields[name] for name in fields if name != "num_classes"})
    config.update(graph.rates())
    # Theirs were turned by hand while it ran, and the files hold the last.
    config.schedule.name, config.hand_changes = "constant", ()
    if dataset:
        config.dataset = dataset
    return config


class _Reading(NamedTuple):
    """What a layer with weights reads: another, or the image (None); and what is on the way."""

    source: str | None
    operations: tuple[str, ...]
    passed: tuple[str, ...]  # the layers that do it


class _Graph:
    """Their layers by name, seen as stages of one or two towers."""

    def __init__(self, path: Path, layers: Mapping[str, Mapping[str, Any]]) -> None:
        self.path, self.layers = path, layers
        self._positions = list(layers)
        self._detached = any(layer.get("type") == "neuron" for layer in layers.values())

    def refuse(self, name: str, why: str) -> ValueError:
        """An error about a layer."""
        return ValueError(f"{self.path}: layer {name!r} {why}")

    def number(self, name: str, key: str, default: float | None = None) -> float:
        """A number, the same for each input."""
        values = {float(value) for value in self.values(name, key, default)}
        if len(values) != 1:
            raise self.refuse(name, f"has {key} of {sorted(values)}; one for all is read here")
        return values.pop()

    def values(self, name: str, key: str, default: float | None = None) -> list[Any]:
        """A setting as a list."""
        value = self.layers[name].get(key, default)
        if value is None:
            raise self.refuse(name, f"has no {key}")
        if isinstance(value, str):
            value = [word.strip() for word in value.split(",")]
        try:
            return [float(v) for v in (value if isinstance(value, list | tuple) else [value])]
        except (TypeError, ValueError) as error:
            raise self.refuse(name, f"has {key}={value!r}, which are no numbers") from error

    def kind(self, name: str) -> str:
        """Its type; "" where it has none."""
        return str(self.layers[name].get("type", ""))

    def inputs(self, name: str) -> list[str]:
        """Names of the layers it reads."""
        value = self.layers[name].get("inputs", [])
        names = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
        names = [self._positions[x] if isinstance(x, int) else x for x in names]
        for x in names:
            if x not in self.layers:
                raise self.refuse(name, f"reads {x!r}, which is not there")
        return names

    @cached_property
    def readings(self) -> dict[str, list[_Reading]]:
        """Layer with weights -> what it reads, input by input."""
        return {
            name: [self._back(source) for source in self.inputs(name)]
            for name in self.layers
            if self.kind(name) in ("conv", "fc")
        }

    def _back(self, name: str) -> _Reading:
        """From an input back to a layer with weights, or to the image."""
        operations: list[str] = []
        passed: list[str] = []
        while True:
            if name in passed:
                raise self.refuse(name, "reads itself")
            neuron = self.layers[name].get("neuron")
            if neuron and not self._detached and self.kind(name) != "neuron":
                operations.append("activation")
            if self.kind(name) == "data":
                return _Reading(None, tuple(operations[::-1]), tuple(passed))
            passed.append(name)
            if self.kind(name) in ("conv", "fc"):
                return _Reading(name, tuple(operations[::-1]), tuple(passed))
            if self.kind(name) not in _OPERATIONS:
                raise self.refuse(
                    name, f"has the type {self.kind(name)!r}, which is not expressed here"
                )
            operations.append(_OPERATIONS[self.kind(name)])
            inputs = self.inputs(name)
            if len(inputs) != 1:
                raise self.refuse(name, f"reads {len(inputs)} layers; one is read here")
            name = inputs[0]

    @cached_property
    def stages(self) -> list[list[str]]:
        """The layers with weights, by their distance from the image; towers by their GPUs.

        Raises:
          ValueError: it is no AlexNet: five or six convolutions, then three full connections.
        """
        distance: dict[str, int] = {}
        waiting = dict(self.readings)
        while waiting:
            ready = {
                name: {0 if r.source is None else distance[r.source] for r in readings}
                for name, readings in waiting.items()
                if all(r.source is None or r.source in distance for r in readings)
            }
            for name, sources in ready.items():
                if len(sources) != 1:
                    raise self.refuse(name, "reads layers of different depths, or none")
                distance[name] = sources.pop() + 1
                del waiting[name]
            if not ready:
                raise self.refuse(next(iter(waiting)), "reads itself")
        stages: list[list[str]] = [[] for _ in range(max(distance.values(), default=0))]
        for name, depth in distance.items():
            stages[depth - 1].append(name)
        order = list(self.layers)
        for stage in stages:
            stage.sort(key=lambda name: (self.number(name, "gpu", 0), order.index(name)))
        kinds = ["/".join(sorted({self.kind(name) for name in stage})) for stage in stages]
        if kinds not in (["conv"] * n + ["fc"] * 3 for n in (5, 6)):
            raise ValueError(
                f"{self.path}: five or six convolutions and three full connections are an AlexNet; "
                f"this is {', '.join(kinds) or 'nothing with weights'}"
            )
        towers = len(stages[0])
        for stage in stages:
            if len(stage) != towers and not (stage is stages[-1] and len(stage) == 1):
                raise self.refuse(stage[0], f"is one of {len(stage)} where conv1 is {towers}")
        if towers > 2:
            raise self.refuse(stages[0][2], "is a third tower; two are the most")
        return stages

    @property
    def names(self) -> list[str]:
        """Our name of each stage."""
        convolutions = len(self.stages) - 3
        return [f"conv{n + 1}" for n in range(convolutions)] + ["fc6", "fc7", "fc8"]

    def towers_read(self, at: int, name: str) -> list[int]:
        """The towers of the stage before, in the order in which a layer reads them."""
        before = self.stages[at - 1]
        return [before.index(reading.source) for reading in self.readings[name] if reading.source]

    def reads_all(self, at: int) -> bool:
        """Whether the layers of a stage read both towers.

        Raises:
          ValueError: they read neither all nor their own.
        """
        before = range(len(self.stages[at - 1]))
        found = [sorted(self.towers_read(at, name)) for name in self.stages[at]]
        if found == [[tower] for tower in range(len(self.stages[at]))] and len(before) > 1:
            return False
        if any(towers != list(before) for towers in found):
            raise self.refuse(
                self.stages[at][0], "or its twin reads neither both towers nor its own"
            )
        return True

    def params(self) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
        """Our kernels and biases, and what was done to each in words."""
        params: dict[str, dict[str, np.ndarray]] = {}
        done: dict[str, str] = {}
        for at, (layer, stage) in enumerate(zip(self.names, self.stages, strict=True)):
            kernels = [self._kernel(at, name) for name in stage]
            biases = [self._array(name, self.layers[name].get("biases")) for name in stage]
            if len({kernel.shape for kernel in kernels}) != 1:
                raise self.refuse(stage[0], "and its twin have kernels of different shapes")
            params[layer] = {
                "kernel": np.ascontiguousarray(np.concatenate(kernels, -1)),
                "bias": np.concatenate([bias.reshape(-1) for bias in biases]),
            }
            what = ["towers joined"] * (len(stage) > 1)
            what += ["pixels before channels"] * layer.startswith("conv")
            what += ["rows put from CHW into HWC"] * (layer == "fc6")
            done[layer] = ", ".join(what) or "as it was"
        return params, done

    def _kernel(self, at: int, name: str) -> np.ndarray:
        """[h, w, inputs, kernels] or [inputs, units] of a tower, what it reads in tower order."""
        matrices = self.layers[name].get("weights")
        readings = self.readings[name]
        if not isinstance(matrices, list | tuple) or len(matrices) != len(readings):
            raise self.refuse(
                name, f"has not one matrix of weights for each of {len(readings)} inputs"
            )
        towers = self.towers_read(at, name) if at else [0]
        parts: dict[int, np.ndarray] = {}
        for number, (tower, reading) in enumerate(zip(towers, readings, strict=True)):
            matrix = self._array(name, matrices[number])
            if matrix.ndim != 2:
                raise self.refuse(name, f"has weights of the shape {matrix.shape}, no matrix")
            if self.kind(name) == "conv":
                side = int(self.values(name, "filterSize")[number])
                channels = len(matrix) // max(side, 1) ** 2
                if side < 1 or channels * side**2 != len(matrix):
                    raise self.refuse(name, f"has {len(matrix)} rows for kernels of {side} pixels")
                maps = matrix.reshape(channels, side, side, -1)
                parts[tower] = maps.transpose(1, 2, 0, 3)
            elif reading.source and self.kind(reading.source) == "conv":
                channels = self._array(reading.source, self.layers[reading.source]["biases"]).size
                side = square_side(len(matrix), channels, self.path)
                parts[tower] = matrix.reshape(channels, side, side, -1).transpose(1, 2, 0, 3)
            else:
                parts[tower] = matrix
        joined = [parts[tower] for tower in sorted(parts)]
        if joined[0].ndim == 2:
            return np.concatenate(joined, 0)
        maps = np.concatenate(joined, 2)  # both towers' channels of a pixel, side by side
        return maps if self.kind(name) == "conv" else maps.reshape(-1, maps.shape[-1])

    def _array(self, name: str, value: Any) -> np.ndarray:
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
            raise self.refuse(name, "has weights or biases that are no array of numbers")
        return np.asarray(value, np.float32)

    def operations(self, at: int) -> tuple[str, ...]:
        """What follows a stage, the same for every reader."""
        found = {
            reading.operations for name in self.stages[at + 1] for reading in self.readings[name]
        }
        if len(found) != 1:
            raise self.refuse(
                self.stages[at][0], f"is followed by {' or by '.join(map(str, found))}"
            )
        return found.pop()

    def passed(self, kind: str) -> list[str]:
        """The layers of a type between those with weights."""
        return list(
            dict.fromkeys(
                name
                for readings in self.readings.values()
                for reading in readings
                for name in reading.passed
                if self.kind(name) == kind
            )
        )

    def same(self, names: Sequence[str], key: str, default: float | None = None) -> float | None:
        """A number that all have alike; None where there are no layers."""
        found = {self.number(name, key, default) for name in names}
        if len(found) > 1:
            raise self.refuse(names[0], f"and its like have {key} of {sorted(found)}, not the same")
        return found.pop() if found else None

    def fields(self, *, trained: bool) -> dict[str, Any]:
        """The fields of `AlexNet` that make this net; `trained` where they were read back."""
        names, stages = self.names, self.stages
        for name, stage, (kernel, stride, padding) in zip(
            names, stages, _CONVOLUTIONS, strict=False
        ):
            if name.startswith("fc"):
                break
            for layer in stage:
                settings = {"filterSize": kernel, "stride": stride, "padding": padding}
                for key, wanted in settings.items():
                    defaults = {"stride": 1, "padding": 0}
                    # Padding is kept with its sign turned.
                    if abs(self.number(layer, key, defaults.get(key))) != wanted:
                        found = self.layers[layer].get(key)
                        raise self.refuse(
                            layer, f"has {key}={found}; {name} of AlexNet has {wanted}"
                        )
                for key in ("groups", "randSparse"):
                    if any(str(x) not in ("1", "1.0", "0.0") for x in self.values(layer, key, 1)):
                        raise self.refuse(layer, f"has {key}, which is not expressed here")
        width = [sum(self._width(layer) for layer in stage) for stage in stages]
        orders = [self.operations(at) for at in range(len(stages) - 1)]
        six = len(stages) == 9
        pooled = 4  # conv5, which pools whether a sixth follows or not
        for at, order in enumerate(orders):
            plain = tuple(x for x in order if x != "dropout")
            if at == pooled and sorted(plain) == ["activation", "pool"]:
                continue
            if at > 1 and plain != ("activation",):
                raise self.refuse(stages[at][0], f"is followed by {', '.join(order) or 'nothing'}")
        drop = self.same(self.passed("hs"), "keep")
        fields: dict[str, Any] = {
            "num_classes": width[-1],
            "towers": len(stages[0]),
            "conv_features": tuple(width[:5]),
            "conv6_features": width[5] if six else 0,
            "fc_features": tuple(width[-3:-1]),
            "exchange": tuple(name for at, name in enumerate(names) if at and self.reads_all(at)),
            "activation": self._activation(),
            "conv1_order": tuple(x for x in orders[0] if x != "dropout"),
            "conv2_order": tuple(x for x in orders[1] if x != "dropout"),
            "dropout_at": tuple(
                name for name, order in zip(names, orders, strict=False) if "dropout" in order
            ),
            "dropout_rate": 0.0 if drop is None else 1 - drop,
            **self._pools(),
            **self._norms(trained),
        }
        if fields["towers"] == 1:
            del fields["exchange"]
        if not drop:
            del fields["dropout_at"]
        return fields if trained else fields | self._initial()

    def _width(self, layer: str) -> int:
        key = "filters" if self.kind(layer) == "conv" else "outputs"
        return int(self.number(layer, key))

    def _activation(self) -> str:
        if self._detached:
            names = self.passed("neuron")
            found = {str(dict(self.layers[x]["neuron"])["type"]) for x in names}
        else:
            found = {
                str(neuron["type"] if isinstance(neuron, dict) else neuron)
                for layer in self.layers.values()
                if (neuron := layer.get("neuron"))
            }
        known = {"relu": "relu", "logistic": "sigmoid", "tanh[1,1]": "tanh"}
        kinds = {known.get(kind.replace(" ", "")) for kind in found}
        if len(kinds) != 1 or None in kinds:
            raise ValueError(
                f"{self.path}: neurons {', '.join(sorted(found)) or 'of no kind'}; one of "
                f"{', '.join(known)} for all is read here"
            )
        return str(kinds.pop())

    def _pools(self) -> dict[str, Any]:
        names = self.passed("pool")
        for name in names:
            if self.layers[name].get("pool") != "max":
                raise self.refuse(name, f"pools by {self.layers[name].get('pool')!r}, not by max")
            if self.number(name, "start", 0):
                raise self.refuse(name, "starts outside of the maps")
        window, stride = self.same(names, "sizeX"), self.same(names, "stride")
        return (
            {} if window is None else {"pool_window": int(window), "pool_stride": int(stride or 1)}
        )

    def _norms(self, trained: bool) -> dict[str, Any]:
        """The constants of section 3.3; a checkpoint has its scale divided by the size already."""
        names, within = self.passed("cmrnorm"), self.passed("rnorm")
        for name in within:
            area = self.number(name, "size") ** 2
            strength = self.number(name, "scale") * (area if trained else 1)
            if (area, round(strength, 9), self.number(name, "pow")) != (25, 0.001, 0.75):
                raise self.refuse(name, "has other constants than those of layers-145")
        if not names:
            return {} if within else {"lrn": False}
        size, scale = self.same(names, "size"), self.same(names, "scale")
        assert size is not None and scale is not None
        return {
            "lrn_size": int(size),
            "lrn_k": self.same(names, "minDiv", 1.0),
            "lrn_alpha": round(scale * size, 12) if trained else scale,
            "lrn_beta": self.same(names, "pow"),
        }

    def _initial(self) -> dict[str, Any]:
        """How weights and biases begin."""
        names = self.names
        stddev = {
            name: self.same(stage, "initW", 0.01)
            for name, stage in zip(names, self.stages, strict=True)
        }
        known = [
            initialization
            for initialization, differing in INITIAL_STDDEV.items()
            if all(stddev[name] == differing.get(name, 0.01) for name in names)
        ]
        if not known:
            raise ValueError(
                f"{self.path}: weights of the deviations {stddev}, as no net here begins"
            )
        hidden = [
            layer
            for name, stage in zip(names, self.stages, strict=True)
            for layer in stage
            if name not in _ZERO_BIAS
        ]
        for name, stage in zip(names, self.stages, strict=True):
            if name in _ZERO_BIAS and self.same(stage, "initB", 0):
                raise self.refuse(
                    stage[0], f"has biases that begin at another value than 0 ({name})"
                )
        return {"initialization": known[0], "hidden_bias": self.same(hidden, "initB", 0)}

    def rates(self) -> dict[str, Any]:
        """Fields of a recipe."""
        layers = [name for stage in self.stages for name in stage]
        fields = {
            "learning_rate": self.same(layers, "epsW"),
            "bias_learning_rate": self.same(layers, "epsB"),
            "momentum": self.same(layers, "momW"),
            "weight_decay": self.same(layers, "wc", 0),
        }
        if self.same(layers, "momB") != fields["momentum"]:
            raise self.refuse(layers[0], "has another momentum for its biases than for its weights")
        return fields


def _differing(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those that differ from the preset's."""
    net = alexnet(PRESET)
    return {name: value for name, value in fields.items() if getattr(net, name) != value}


# --- files ----------------------------------------------------------------------------------------


def _checkpoint(path: Path) -> Path:
    """The file, or the last of a folder: they are named EPOCH.BATCH."""
    if not path.is_dir():
        return path
    found = [x for x in path.iterdir() if re.fullmatch(r"\d+\.\d+", x.name)]
    if not found:
        raise ValueError(f"{path} holds no checkpoint (a file EPOCH.BATCH)")
    return max(found, key=lambda x: tuple(map(int, x.name.split("."))))


def _unpickled(path: Path) -> Any:
    """What a checkpoint holds; their options are not looked at."""
    try:
        data = path.read_bytes()
        if zipfile.is_zipfile(io.BytesIO(data)):  # saved with --zip-save
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                size = archive.getinfo("data").file_size
                if size > _LARGEST_GROWTH * len(data):
                    raise ValueError(f"{len(data):,} bytes that say they hold {size:,}")
                data = archive.read("data")
        return load_arrays(io.BytesIO(data), ignore=("options",))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged pickle raises as many kinds as there are
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is no pickle of arrays ({reason})") from error


def _read_mean(path: str | Path | None) -> np.ndarray:
    """RGB, [3] or [S, S, 3]."""
    if path is None:
        return MEAN
    path = local_path(path)
    if path.suffix == ".npy":
        try:
            mean = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path} is not an array of means ({error})") from error
    else:
        content = _unpickled(path)
        mean = content.get("data_mean") if isinstance(content, dict) else None
        if mean is None:
            raise ValueError(f"{path} holds no data_mean")
    try:
        mean = np.asarray(mean, np.float32)
        if mean.shape != (3,):
            side = square_side(mean.size, 3, path)
            mean = mean.reshape(3, side, side).transpose(1, 2, 0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no mean image of three planes") from error
    if not np.isfinite(mean).all():
        raise ValueError(f"{path} holds values that are not finite")
    return np.ascontiguousarray(mean)


def _read_cfg(path: Path) -> dict[str, dict[str, str]]:
    """Section -> setting -> text."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    except configparser.Error as error:
        raise ValueError(" ".join(str(error).split())) from error
    return {name: dict(parser[name]) for name in parser.sections()}
