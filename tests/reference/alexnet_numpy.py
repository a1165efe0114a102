"""AlexNet and its gradients in plain float64 NumPy, written from the paper alone (sections 3, 4.2).

Nothing here is fast and nothing is shared with the package: loops over taps, channels and windows,
every gradient by hand. An operation returns its result and a function that takes the gradient of
the result to the gradients of its inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

Array = np.ndarray
Params = dict[str, dict[str, Array]]


# --- operations -------------------------------------------------------------------------------


def convolution(x: Array, kernel: Array, bias: Array, stride: int, pad: tuple[int, int], groups=1):
    """Cross-correlation of [B, H, W, groups * I] with [h, w, I, O]; pad is (low, high), both axes.

    Output group t is computed from input group t only.
    """
    taps, width, outputs = kernel.shape[0], kernel.shape[2], kernel.shape[3] // groups
    padded = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    rows = (padded.shape[1] - taps) // stride + 1
    columns = (padded.shape[2] - taps) // stride + 1

    def window(array: Array, i: int, j: int, group: int) -> Array:
        """What tap (i, j) of every output position reads (or, in the gradient, writes)."""
        i_range = slice(i, i + (rows - 1) * stride + 1, stride)
        j_range = slice(j, j + (columns - 1) * stride + 1, stride)
        return array[:, i_range, j_range, group * width : (group + 1) * width]

    every_tap = [(i, j, t) for i in range(taps) for j in range(taps) for t in range(groups)]
    y = np.zeros((len(x), rows, columns, outputs * groups)) + bias
    for i, j, t in every_tap:
        own = slice(t * outputs, (t + 1) * outputs)
        y[..., own] += window(padded, i, j, t) @ kernel[i, j, :, own]

    def backward(g: Array):
        d_padded, d_kernel = np.zeros_like(padded), np.zeros_like(kernel)
        for i, j, t in every_tap:
            own = slice(t * outputs, (t + 1) * outputs)
            d_kernel[i, j, :, own] = np.tensordot(
                window(padded, i, j, t), g[..., own], ((0, 1, 2), (0, 1, 2))
            )
            window(d_padded, i, j, t)[...] += g[..., own] @ kernel[i, j, :, own].T
        low = pad[0]
        d_x = d_padded[:, low : low + x.shape[1], low : low + x.shape[2]]
        return d_x, {"kernel": d_kernel, "bias": g.sum((0, 1, 2))}

    return y, backward


def dense(x: Array, kernel: Array, bias: Array, groups: int = 1):
    """[B, ...] @ [in / groups, out]: tower t's outputs read tower t's features.

    The last axis of x holds the towers one after another; a map is flattened in H, W, C order,
    after it was cut into towers.
    """
    cut = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    towers_first = np.moveaxis(cut, -2, 1)  # [B, groups, ..., features of one tower]
    read = towers_first.reshape(len(x), groups, -1)
    own = np.split(np.arange(kernel.shape[1]), groups)
    y = np.concatenate([read[:, t] @ kernel[:, own[t]] for t in range(groups)], axis=1) + bias

    def backward(g: Array):
        d_read = np.stack([g[:, own[t]] @ kernel[:, own[t]].T for t in range(groups)], axis=1)
        d_kernel = np.concatenate([read[:, t].T @ g[:, own[t]] for t in range(groups)], axis=1)
        d_x = np.moveaxis(d_read.reshape(towers_first.shape), 1, -2).reshape(x.shape)
        return d_x, {"kernel": d_kernel, "bias": g.sum(0)}

    return y, backward


def activation(x: Array, name: str):
    """relu, tanh or sigmoid; relu's derivative at 0 is 0."""
    if name == "relu":
        y = np.maximum(x, 0)
        slope = (x > 0).astype(x.dtype)
    elif name == "tanh":
        y = np.tanh(x)
        slope = 1 - y * y
    elif name == "sigmoid":
        y = 1 / (1 + np.exp(-x))
        slope = y * (1 - y)
    else:
        raise ValueError(name)
    return y, lambda g: g * slope


def local_response_norm(x: Array, k: float, n: int, alpha: float, beta: float, groups: int = 1):
    """b_i = a_i / (k + alpha sum a_j^2)^beta over j = i - n//2 ... i - n//2 + n - 1 (AlexNet §3.3).

    The window is clipped to the channels of i's own tower.
    """
    channels = x.shape[-1] // groups
    windows = []
    for i in range(x.shape[-1]):
        first = i // channels * channels
        start = i - n // 2
        windows.append(slice(max(start, first), min(start + n, first + channels)))
    d = np.stack([k + alpha * (x[..., w] ** 2).sum(-1) for w in windows], axis=-1)

    def backward(g: Array) -> Array:
        d_x = g * d**-beta
        through = -beta * g * x * d ** (-beta - 1)  # gradient of each channel's d
        for i, w in enumerate(windows):
            d_x[..., w] += through[..., i : i + 1] * 2 * alpha * x[..., w]
        return d_x

    return x * d**-beta, backward


def within_map_norm(x: Array, size: int = 5, scale: float = 0.001, beta: float = 0.75):
    """The authors' second norm: divided by (1 + scale / size^2 * sum of squares nearby)^beta.

    Nearby is the size x size neighbourhood in the same map, clipped at its edge.
    """
    _, height, width, _ = x.shape
    alpha, half = scale / size**2, size // 2
    near = {
        (r, c): (
            slice(None),
            slice(max(r - half, 0), min(r + half + 1, height)),
            slice(max(c - half, 0), min(c + half + 1, width)),
        )
        for r in range(height)
        for c in range(width)
    }
    d = np.ones_like(x)
    for (r, c), neighbourhood in near.items():
        d[:, r, c] += alpha * (x[neighbourhood] ** 2).sum((1, 2))

    def backward(g: Array) -> Array:
        d_x = g * d**-beta
        through = -beta * g * x * d ** (-beta - 1)
        for (r, c), neighbourhood in near.items():
            d_x[neighbourhood] += through[:, r : r + 1, c : c + 1] * 2 * alpha * x[neighbourhood]
        return d_x

    return x * d**-beta, backward


def max_pool(x: Array, window: int = 3, stride: int = 2):
    """Largest value of each window, no padding; the gradient goes to the first such value.

    First in reading order, row by row.
    """
    batch, height, width, channels = x.shape
    rows, columns = (height - window) // stride + 1, (width - window) // stride + 1
    y = np.zeros((batch, rows, columns, channels))
    source = np.zeros(y.shape, int)  # where in its window each maximum stood
    for r in range(rows):
        for c in range(columns):
            patch = x[:, r * stride : r * stride + window, c * stride : c * stride + window]
            patch = patch.reshape(batch, window * window, channels)
            source[:, r, c] = patch.argmax(1)
            y[:, r, c] = patch.max(1)

    def backward(g: Array) -> Array:
        d_x = np.zeros_like(x)
        image, channel = np.arange(batch)[:, None], np.arange(channels)
        for r in range(rows):
            for c in range(columns):
                i, j = np.divmod(source[:, r, c], window)
                np.add.at(d_x, (image, r * stride + i, c * stride + j, channel), g[:, r, c])
        return d_x

    return y, backward


def dropout(x: Array, keep: float, style: str, mask: Array | None):
    """A given mask of zeros and ones in training; None is test time (AlexNet §4.2).

    "paper": x * mask, and x * keep at test time. "inverted": x * mask / keep, and x.
    """
    if style == "paper":
        factor = keep if mask is None else mask
    elif style == "inverted":
        factor = 1.0 if mask is None else mask / keep
    else:
        raise ValueError(style)
    return x * factor, lambda g: g * factor


def negative_log_likelihood(logits: Array, labels: Array):
    """Mean over the batch of -log softmax(logits)[label], and its gradient by the logits."""
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log_p)
    gradient[rows, labels] -= 1
    return -log_p[rows, labels].mean(), gradient / len(labels)


# --- the network ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    """A description of one network; the defaults are the paper's."""

    num_classes: int = 1000
    image_size: int = 224
    conv1: str = "ceil"  # or "floor"
    towers: int = 2
    conv: tuple[int, ...] = (96, 256, 384, 384, 256)
    conv6: int | None = None
    fc: tuple[int, int] = (4096, 4096)
    exchange: tuple[str, ...] = ("conv3", "fc6", "fc7", "fc8")
    remove: tuple[str, ...] = ()
    activation: str = "relu"
    stage1: tuple[str, ...] = ("act", "norm", "pool")
    stage2: tuple[str, ...] = ("act", "norm", "pool")
    lrn: tuple[float, int, float, float] | None = (2.0, 5, 1e-4, 0.75)  # k, n, alpha, beta
    lrn_across_towers: bool = False
    pool: tuple[int, int] = (3, 2)  # window, stride
    keep: float = 0.5
    dropout: str = "paper"


PAPER = Net()
PRESETS = {
    "paper": PAPER,
    "original": replace(
        PAPER,
        stage1=("norm", "pool", "act"),
        stage2=("act", "norm", "map_norm", "pool"),
        lrn=(2.0, 5, 1e-4 / 5, 0.75),
    ),
    "valid224": replace(PAPER, conv1="floor"),
    "caffe": replace(
        PAPER,
        image_size=227,
        conv1="floor",
        lrn=(1.0, 5, 1e-4 / 5, 0.75),
        lrn_across_towers=True,
        dropout="inverted",
    ),
    "caffenet": replace(
        PAPER,
        image_size=227,
        conv1="floor",
        stage1=("act", "pool", "norm"),
        stage2=("act", "pool", "norm"),
        lrn=(1.0, 5, 1e-4 / 5, 0.75),
        lrn_across_towers=True,
        dropout="inverted",
    ),
    "one_gpu": replace(PAPER, towers=1, conv=(48, 128, 192, 192, 256)),
    "six_conv": replace(PAPER, conv6=256, exchange=("conv3", "conv6", "fc6", "fc7", "fc8")),
}

# Weights N(0, std) and constant biases, by preset; the rest is std 0.01, bias 0.
_BIASED = ("conv2", "conv4", "conv5", "conv6", "fc6", "fc7")
INITIAL_STD = {
    "paper": {},
    "original": dict.fromkeys(("conv3", "conv4", "conv5", "conv6"), 0.03),
    "caffe": {"fc6": 0.005, "fc7": 0.005},
    "caffenet": {"fc6": 0.005, "fc7": 0.005},
}
INITIAL_BIAS = {
    "paper": dict.fromkeys(_BIASED, 1.0),
    "original": dict.fromkeys(_BIASED, 1.0),
    "caffe": dict.fromkeys(_BIASED, 0.1),
    "caffenet": dict.fromkeys(_BIASED, 1.0),
}


@dataclass(frozen=True)
class Layer:
    """One learned layer: how it reads its input, and what follows it."""

    name: str
    features: int
    groups: int  # towers it keeps apart
    taps: int = 0  # 0: dense
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    then: tuple[str, ...] = ("act",)


def layers(net: Net) -> list[Layer]:
    """The layers in order, with the wiring that removals and exchanges ask for."""
    excess = (net.image_size - 11) % 4
    high = (4 - excess) % 4 if net.conv1 == "ceil" else 0
    after = {"conv1": net.stage1, "conv2": net.stage2}
    features = dict(zip(("conv1", "conv2", "conv3", "conv4", "conv5"), net.conv, strict=True))
    shape = {"conv1": (11, 4, (0, high)), "conv2": (5, 1, (2, 2))}

    middle = [name for name in ("conv3", "conv4", "conv5") if name not in net.remove]
    # Without conv3, the next layer takes over reading both towers; without conv5, the layer
    # before it takes over its width (and its pool).
    exchange = set(net.exchange)
    if "conv3" in exchange:
        exchange = exchange - {"conv3"} | {middle[0]}
    features[middle[-1]] = features["conv5"]
    after[middle[-1]] = ("act", "pool")

    convolutions = ["conv1", "conv2", *middle]
    if net.conv6 is not None:
        convolutions.append("conv6")
        features["conv6"] = net.conv6

    def groups(name: str) -> int:
        return 1 if name == "conv1" or name in exchange else net.towers

    result = []
    for name in convolutions:
        taps, stride, pad = shape.get(name, (3, 1, (1, 1)))
        then = after.get(name, ("act",))
        result.append(Layer(name, features[name], groups(name), taps, stride, pad, then))
    result += [
        Layer("fc6", net.fc[0], groups("fc6"), then=("act", "dropout")),
        Layer("fc7", net.fc[1], groups("fc7"), then=("act", "dropout")),
        Layer("fc8", net.num_classes, groups("fc8"), then=()),
    ]
    return result


@dataclass(frozen=True)
class Size:
    """What one layer measures: before its pool, as the paper counts neurons."""

    output: tuple[int, ...]
    kernel: tuple[int, ...]
    macs: int

    @property
    def neurons(self) -> int:
        return int(np.prod(self.output))

    @property
    def parameters(self) -> int:
        return int(np.prod(self.kernel)) + self.kernel[-1]


def sizes(net: Net) -> dict[str, Size]:
    """Output shape, kernel shape and multiply-accumulates per image of every layer."""
    side, channels, result = net.image_size, 3, {}
    for layer in layers(net):
        if layer.taps:
            side = (side + sum(layer.pad) - layer.taps) // layer.stride + 1
            output = (side, side, layer.features)
            kernel = (layer.taps, layer.taps, channels // layer.groups, layer.features)
            macs = side * side * int(np.prod(kernel))
            channels = layer.features
        else:
            output = (layer.features,)
            kernel = (side * side * channels // layer.groups, layer.features)
            macs = int(np.prod(kernel))
            side, channels = 1, layer.features
        result[layer.name] = Size(output, kernel, macs)
        if "pool" in layer.then:
            side = (side - net.pool[0]) // net.pool[1] + 1
    return result


def random_params(net: Net, seed: int, std: float | dict[str, float] = 0.05) -> Params:
    """Parameters for tests: normal weights and biases, no structure."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, size in sizes(net).items():
        scale = std[name] if isinstance(std, dict) else std
        kernel = rng.normal(0, scale, size.kernel)
        params[name] = {"kernel": kernel, "bias": rng.normal(0, 0.1, size.kernel[-1])}
    return params


def forward(net: Net, params: Params, images: Array, masks: dict[str, Array] | None = None):
    """Logits [B, classes] of mean-subtracted images [B, H, W, 3], and the way back.

    masks: {"fc6": [B, features], "fc7": ...} of zeros and ones for training; None is test time.
    The way back takes the gradient of the logits to (gradient of the images, of every parameter).
    """
    x = np.asarray(images, np.float64)
    tape: list[tuple[str | None, Callable]] = []
    for layer in layers(net):
        own = params[layer.name]
        if layer.taps:
            x, back = convolution(
                x, own["kernel"], own["bias"], layer.stride, layer.pad, layer.groups
            )
        else:
            x, back = dense(x, own["kernel"], own["bias"], layer.groups)
        tape.append((layer.name, back))
        for operation in layer.then:
            if operation == "act":
                x, back = activation(x, net.activation)
            elif operation == "norm":
                if net.lrn is None:
                    continue
                towers = 1 if net.lrn_across_towers else net.towers
                x, back = local_response_norm(x, *net.lrn, groups=towers)
            elif operation == "map_norm":
                if net.lrn is None:  # "no normalisation" takes this one away too
                    continue
                x, back = within_map_norm(x)
            elif operation == "pool":
                x, back = max_pool(x, *net.pool)
            else:
                mask = None if masks is None else masks[layer.name]
                x, back = dropout(x, net.keep, net.dropout, mask)
            tape.append((None, back))

    def backward(g: Array) -> tuple[Array, Params]:
        gradients = {}
        for name, back in reversed(tape):
            if name is None:
                g = back(g)
            else:
                g, gradients[name] = back(g)
        return g, gradients

    return x, backward


def loss_and_gradients(net: Net, params: Params, images: Array, labels: Array, masks=None):
    """Mean negative log-likelihood, the logits, and the gradient of every parameter."""
    logits, backward = forward(net, params, images, masks)
    loss, d_logits = negative_log_likelihood(logits, labels)
    return loss, logits, backward(d_logits)[1]
