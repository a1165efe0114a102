"""The step's operations one by one, beside PyTorch's and beside what the machine allows.

    python -m experiments.speed.operations

Each is run forward, and forward with its gradient, at batch 32 in float32, in turn with PyTorch's
(compiled, channels_last). Its bound is the longer of two times of the same run: that of its
multiplications at the rate of a product of 2048 x 2048, and that of its arrays, each read or
written once, at the rate of a copy. Winograd's form multiplies less than a sum over taps, so that a
convolution may come in under its bound. Writes results/operations_cpu.json, .txt and .png.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from alexnet_jax import alexnet, create_train_state, ops
from alexnet_jax.compilation import compiled
from alexnet_jax.optimizer import update_rule
from experiments import harness, provenance
from experiments.speed.ceilings import ceilings

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 32, "images")
flags.DEFINE_integer("turns", 9, "counted turns")
flags.DEFINE_bool("torch", True, "PyTorch too")
EXACT = jax.lax.Precision.HIGHEST


def operations(batch: int) -> dict[str, dict[str, Any]]:
    """Name -> shapes of input and weights, ours, PyTorch's and MACs forward."""
    found: dict[str, dict[str, Any]] = {}
    for name, side, channels, features, taps, stride, pad, groups in (
        ("conv1", 224, 3, 96, 11, 4, (0, 3), 1),
        ("conv2", 27, 96, 256, 5, 1, (2, 2), 2),
        ("conv3", 13, 256, 384, 3, 1, (1, 1), 1),
        ("conv4", 13, 384, 384, 3, 1, (1, 1), 2),
        ("conv5", 13, 384, 256, 3, 1, (1, 1), 2),
    ):
        places = ((side + sum(pad) - taps) // stride + 1) ** 2
        found[name] = {
            "x": (batch, side, side, channels),
            "weights": [(taps, taps, channels // groups, features)],
            "ours": partial(
                ops.convolution, stride=stride, padding=(pad, pad), groups=groups, precision=EXACT
            ),
            "theirs": partial(_torch_convolution, stride=stride, pad=pad, groups=groups),
            "macs": batch * places * taps**2 * channels // groups * features,
        }
    for name, side, channels, norm in (
        ("bias, ReLU, LRN, pool 1", 55, 96, True),
        ("bias, ReLU, LRN, pool 2", 27, 256, True),
        ("bias, ReLU, pool 5", 13, 256, False),
    ):
        found[name] = {
            "x": (batch, side, side, channels),
            "weights": [(channels,)],
            "ours": partial(_block, norm=norm),
            "theirs": partial(_torch_block, norm=norm),
            "macs": 0,
        }
    for name, inputs, units in (("fc6", 9216, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000)):
        found[name] = {
            "x": (batch, inputs),
            "weights": [(inputs, units)],
            "ours": partial(ops.dense, precision=EXACT),
            "theirs": lambda x, kernel: x @ kernel,
            "macs": batch * inputs * units,
        }
    return found


def _block(x: jax.Array, bias: jax.Array, norm: bool) -> jax.Array:
    x = jax.nn.relu(ops.add_bias(x, bias))
    return ops.max_pool(ops.local_response_norm(x, towers=2) if norm else x)


def _torch_convolution(x, kernel, stride, pad, groups):
    from torch.nn import functional

    x = functional.pad(x, (*pad, *pad)) if pad[0] != pad[1] else x
    padding = pad[0] if pad[0] == pad[1] else 0
    return functional.conv2d(x, kernel, None, stride, padding, groups=groups)


def _torch_block(x, bias, norm):
    from torch.nn import functional

    x = functional.relu(x + bias.view(1, -1, 1, 1))
    if norm:
        x = functional.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)
    return functional.max_pool2d(x, 3, 2)


def our_turns(what: dict[str, Any], name: str) -> dict[str, Callable[[], Any]]:
    """Forward, and with the gradient; none of the images."""
    rng = np.random.default_rng(0)
    x, *weights = (
        jnp.asarray(rng.standard_normal(shape, np.float32))
        for shape in (what["x"], *what["weights"])
    )
    y = jax.eval_shape(what["ours"], x, *weights)
    g = jnp.full(y.shape, 0.5)

    def both(x: jax.Array, g: jax.Array, *weights: jax.Array) -> Any:
        if name == "conv1":
            value, vjp = jax.vjp(partial(what["ours"], x), *weights)
        else:
            value, vjp = jax.vjp(what["ours"], x, *weights)
        return value, vjp(g)

    forward, gradient = compiled(what["ours"]), compiled(both)
    return {
        "forward": lambda: jax.block_until_ready(forward(x, *weights)),
        "both": lambda: jax.block_until_ready(gradient(x, g, *weights)),
    }


def their_turns(what: dict[str, Any], name: str) -> dict[str, Callable[[], Any]]:
    """The same of PyTorch."""
    import torch

    def tensor(shape: tuple[int, ...], kernel: bool = False) -> Any:
        if len(shape) < 4:
            return torch.randn(shape)
        order = (3, 2, 0, 1) if kernel else (0, 3, 1, 2)
        values = torch.randn([shape[axis] for axis in order])
        return values.contiguous(memory_format=torch.channels_last)

    x = tensor(what["x"]).requires_grad_(name != "conv1")
    weights = [tensor(shape, kernel=True).requires_grad_() for shape in what["weights"]]
    torch.compiler.reset()  # or it stops compiling after eight of them
    work = torch.compile(what["theirs"])
    g = torch.full_like(work(x, *weights), 0.5)

    def both() -> None:
        for leaf in (x, *weights):
            leaf.grad = None
        work(x, *weights).backward(g)

    def forward() -> None:
        with torch.no_grad():
            work(x, *weights)

    return {"forward": forward, "both": both}


def update_turn() -> tuple[Callable[[], Any], int]:
    """The update of all parameters, donated, and how many they are."""
    model = alexnet()
    shapes = jax.eval_shape(lambda: create_train_state(model, jax.random.key(0))).params
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    rule = update_rule(learning_rate=0.01)
    kept = {"params": params, "state": rule.init(params)}
    gradients = jax.tree.map(jnp.ones_like, params)

    def update(params: Any, state: Any, gradients: Any) -> Any:
        changes, state = rule.update(gradients, state, params)
        return jax.tree.map(jnp.add, params, changes), state

    step = compiled(update, donate_argnums=(0, 1))

    def turn() -> None:
        kept["params"], kept["state"] = step(kept["params"], kept["state"], gradients)
        jax.block_until_ready(kept["params"])

    return turn, sum(leaf.size for leaf in jax.tree.leaves(params))


def bounds(name: str, what: dict[str, Any], flops: float, bandwidth: float) -> dict[str, float]:
    """Milliseconds that no implementation by sums over taps can beat."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (what["x"], *what["weights"])]
    output = jax.eval_shape(what["ours"], *shapes)
    moved = sum(4 * array.size for array in (*shapes, output))
    passes = 2 if name == "conv1" else 3
    return {
        "bound forward": 1e3 * max(2 * what["macs"] / flops, moved / bandwidth),
        # The gradient reads input, weights and the output's gradient, and writes the other two's.
        "bound both": 1e3 * max(2 * passes * what["macs"] / flops, 3 * moved / bandwidth),
    }


def main(_) -> None:
    """Measures, prints and writes."""
    harness.shorten(batch_size=1, turns=1, torch=False)
    reached = ceilings(["float32"])
    flops, bandwidth = 1e12 * reached["float32 TFLOP/s"], 1e12 * reached["copy TB/s"]
    rows: list[dict[str, Any]] = []
    print(HEAD)
    for name, what in operations(FLAGS.batch_size).items():
        turns = {f"ours {way}": turn for way, turn in our_turns(what, name).items()}
        if FLAGS.torch:
            turns |= {f"PyTorch {way}": turn for way, turn in their_turns(what, name).items()}
        seconds = harness.interleaved(turns, turns=FLAGS.turns, dropped=2)
        medians = {key: 1e3 * statistics.median(times) for key, times in seconds.items()}
        rows.append({"name": name} | medians | bounds(name, what, flops, bandwidth))
        print(line(rows[-1]), flush=True)
    turn, parameters = update_turn()
    times = harness.interleaved({"both": turn}, turns=FLAGS.turns)["both"]
    bound = 1e3 * 5 * 4 * parameters / bandwidth  # three arrays read, two written
    rows.append(
        {"name": "update", "ours both": 1e3 * statistics.median(times), "bound both": bound}
    )
    print(line(rows[-1]))
    result = {
        "batch_size": FLAGS.batch_size,
        "product GFLOP/s": flops / 1e9,
        "copy GB/s": bandwidth / 1e9,
        "milliseconds": rows,
    }
    harness.record("operations_cpu", harness.rounded(result, 2), draw(rows))
    text = "\n".join([provenance.machine(), "", HEAD, *map(line, rows)])
    with harness.result_file("operations_cpu.txt") as file:
        file.write(text + "\n")


WAYS = ("forward", "both")
HEAD = f"{'milliseconds':<26}" + "".join(
    f"{who + ' ' + ('forward' if way == 'forward' else '+ gradient'):>20}"
    for way in WAYS
    for who in ("ours", "PyTorch", "bound")
)


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    cells = [row.get(f"{who} {way}") for way in WAYS for who in ("ours", "PyTorch", "bound")]
    return f"{row['name']:<26}" + "".join(
        f"{'' if cell is None else format(cell, '.1f'):>20}" for cell in cells
    )


def draw(rows: list[dict[str, Any]]) -> Figure:
    """With the gradient: ours, PyTorch's, and the bound as a mark."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    for who, offset, color in (("ours", 0.2, "#4477aa"), ("PyTorch", -0.2, "#cc6644")):
        values = [row.get(f"{who} both", 0) for row in rows]
        axes.barh(places + offset, values, 0.38, color=color, label=who)
    bound = [row["bound both"] for row in rows]
    axes.scatter(bound, places, marker="|", s=260, color="black", label="bound", zorder=3)
    axes.set_yticks(places, [row["name"] for row in rows], fontsize=8)
    axes.set_xlabel("milliseconds, forward and gradient")
    axes.set_title(f"batch {FLAGS.batch_size}, float32: {provenance.machine()}", fontsize=8)
    axes.legend(fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    harness.run(main)
