"""The graph of a net of the authors' 2012 code: its layers as stages of one or two towers.

A net of theirs is a graph of named layers, each on one GPU; one with weights has a matrix for each
layer it reads: [channels x height x width, kernels], or [units, units]. Here it is found by what
reads what, whatever the names: layers as far from the image are the towers of one of ours, in the
order of their GPUs.
Source: the authors' `layer.py`, `gpumodel.py`.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.interop.imported import square_side

# Type of a layer without weights -> what it is here.
_OPERATIONS = {
    "neuron": "activation",
    "cmrnorm": "lrn",
    "rnorm": "map_norm",
    "pool": "pool",
    "hs": "dropout",
}
# Setting -> the least it may be. What counts something is whole, and a share is at most 1.
_COUNTS = dict.fromkeys(("filters", "outputs", "filterSize", "stride", "sizeX", "size"), 1)
_SHARES = dict.fromkeys(("keep", "momW", "momB"), 0)
_LEAST = {**_COUNTS, **_SHARES}
_LEAST |= dict.fromkeys(("scale", "minDiv", "pow", "initW", "epsW", "epsB", "wc", "imgSize"), 0)


class Reading(NamedTuple):
    """What a layer with weights reads: another, or the image (None); and what is on the way."""

    source: str | None
    operations: tuple[str, ...]
    passed: tuple[str, ...]  # the layers that do it


class Graph:
    """Their layers by name, seen as stages of one or two towers."""

    def __init__(self, path: Path, layers: Mapping[str, Mapping[str, Any]]) -> None:
        self.path, self.layers = path, layers
        self._positions = list(layers)
        self.detached = any(layer.get("type") == "neuron" for layer in layers.values())

    def refuse(self, name: str, why: str) -> ValueError:
        """An error about a layer."""
        return ValueError(f"{self.path}: layer {name!r} {why}")

    def number(self, name: str, key: str, default: float | None = None) -> float:
        """A number, the same for each input."""
        values = {float(value) for value in self.values(name, key, default)}
        if len(values) != 1:
            raise self.refuse(name, f"has {key} of {sorted(values)}; one for all is read here")
        value = values.pop()
        sound = value >= _LEAST.get(key, -math.inf)
        sound = sound and (key not in _COUNTS or value.is_integer())
        if not sound or (key in _SHARES and value > 1):
            raise self.refuse(name, f"has {key}={value:g}, which is no value of it")
        return value

    def values(self, name: str, key: str, default: float | None = None) -> list[Any]:
        """A setting as a list."""
        value = self.layers[name].get(key, default)
        if value is None:
            raise self.refuse(name, f"has no {key}")
        if isinstance(value, str):
            value = [word.strip() for word in value.split(",")]
        try:
            found = [float(v) for v in (value if isinstance(value, list | tuple) else [value])]
        except (TypeError, ValueError) as error:
            raise self.refuse(name, f"has {key}={value!r:.60}, which are no numbers") from error
        if not all(map(math.isfinite, found)):
            given = self.layers[name].get(key)
            raise self.refuse(name, f"has {key}={given!s:.60}, which are not all finite")
        return found

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
    def readings(self) -> dict[str, list[Reading]]:
        """Layer with weights -> what it reads, input by input."""
        return {
            name: [self._back(source) for source in self.inputs(name)]
            for name in self.layers
            if self.kind(name) in ("conv", "fc")
        }

    def _back(self, name: str) -> Reading:
        """From an input back to a layer with weights, or to the image."""
        operations: list[str] = []
        passed: list[str] = []
        while True:
            if name in passed:
                raise self.refuse(name, "reads itself")
            neuron = self.layers[name].get("neuron")
            if neuron and not self.detached and self.kind(name) != "neuron":
                operations.append("activation")
            if self.kind(name) == "data":
                return Reading(None, tuple(operations[::-1]), tuple(passed))
            passed.append(name)
            if self.kind(name) in ("conv", "fc"):
                return Reading(name, tuple(operations[::-1]), tuple(passed))
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
