"""The whole training step side by side with PyTorch's, and forms of its slow operations.

    python -m experiments.speed.step --batch_size=32 --updates=2       # on CPU
    python -m experiments.speed.step --batch_size=128 --batch_size=512 --forms   # on a GPU

All contenders take turns in one process; a turn is a few updates on a batch that lies on the
device, augmentation included. With --forms, each form replaces one operation of `alexnet_jax.ops`
by another way to write it. Writes results/step_PLATFORM.json and .png, and prints what could not be
run. On an H200 the 36 programs of both batch sizes with --forms took more than two and a half
minutes to compile.
"""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax
from matplotlib.figure import Figure

from alexnet_jax import Hyperparameters, alexnet, create_train_state, make_train_step, ops
from alexnet_jax.models.network import PRECISIONS
from alexnet_jax.step import make_eval_step
from experiments import harness

FLAGS = flags.FLAGS
flags.DEFINE_multi_integer("batch_size", [32, 128], "images a step")
flags.DEFINE_integer("turns", 7, "counted turns of each contender")
flags.DEFINE_integer("updates", 2, "updates a turn")
flags.DEFINE_bool("torch", True, "PyTorch too")
flags.DEFINE_bool("forms", False, "other forms of the operations too")
GFLOP = 4.136  # of a training step, an image: 724,406,816 MAC x 2 x 3 less conv1's input gradient


# --- other forms ----------------------------------------------------------------------------------


def _shifted_sum(x: jax.Array, size: int, towers: int, transpose: bool = False) -> jax.Array:
    """`ops._window_sum` as `size` shifted additions."""
    before, after = size // 2, size - 1 - size // 2
    if transpose:
        before, after = after, before
    parts = []
    for part in jnp.split(x, towers, -1):
        padded = jnp.pad(part, [(0, 0)] * (x.ndim - 1) + [(before, after)])
        width = part.shape[-1]
        parts.append(sum(padded[..., k : k + width] for k in range(size)))
    return jnp.concatenate(parts, -1)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def _lrn_recomputed(x, size=5, k=2.0, alpha=1e-4, beta=0.75, towers=1):
    """LRN by shifted additions that keeps its input alone."""
    return _lrn_recomputed_forward(x, size, k, alpha, beta, towers)[0]


def _lrn_recomputed_forward(x, size, k, alpha, beta, towers):
    a = x.astype(ops.at_least_float32(x.dtype))
    d = k + alpha * _shifted_sum(a * a, size, towers)
    return (a * ops._inverse_power(d, beta)).astype(x.dtype), x


def _lrn_recomputed_backward(size, k, alpha, beta, towers, x, g):
    a = x.astype(ops.at_least_float32(x.dtype))
    d = k + alpha * _shifted_sum(a * a, size, towers)
    scaled = g.astype(d.dtype) * ops._inverse_power(d, beta)
    spread = _shifted_sum(scaled * a / d, size, towers, transpose=True)
    return ((scaled - (2 * alpha * beta) * a * spread).astype(x.dtype),)


_lrn_recomputed.defvjp(_lrn_recomputed_forward, _lrn_recomputed_backward)


def _pool_by_window(
    x: jax.Array, window: int = 3, stride: int = 2, ceil: bool = False
) -> jax.Array:
    """`reduce_window`, whose gradient is `select_and_scatter`."""
    assert not ceil
    shape = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, (1, stride, stride, 1), "VALID")


def _plain_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias


def _feature_groups(x, kernel, *, stride=1, padding=((0, 0), (0, 0)), groups=1, precision=None):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision,
    )


_convolution = ops.convolution


def _more_channels(x, kernel, *, channels, **rest):
    """conv1 with its input filled up with channels of zeros."""
    if x.shape[-1] == 3:
        more = channels - 3
        x = jnp.pad(x, ((0, 0),) * 3 + ((0, more),))
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0)))
    return _convolution(x, kernel, **rest)


def _space_to_depth(x, kernel, *, stride=1, padding=((0, 0), (0, 0)), **rest):
    """conv1, 11 x 11 with stride 4, as 3 x 3 over blocks of 4 x 4 pixels: 48 channels."""
    if stride != 4 or kernel.shape[0] != 11:
        return _convolution(x, kernel, stride=stride, padding=padding, **rest)
    outputs = (x.shape[1] + sum(padding[0]) - 11) // 4 + 1
    side = 4 * (outputs + 2)
    (low, _), _ = padding
    x = jnp.pad(x, ((0, 0), *((low, side - low - x.shape[1]),) * 2, (0, 0)))
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    batch, blocks, maps = x.shape[0], side // 4, kernel.shape[-1]
    x = x.reshape(batch, blocks, 4, blocks, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    kernel = kernel.reshape(3, 4, 3, 4, 3, maps).transpose(0, 2, 1, 3, 4, 5)
    return _convolution(
        x.reshape(batch, blocks, blocks, 48), kernel.reshape(3, 3, 48, maps), **rest
    )


FORMS: dict[str, dict[str, Callable[..., Any]]] = {
    "as shipped": {},
    "LRN: shifted sums": {"_window_sum": _shifted_sum},
    "LRN: shifted, recomputed": {"local_response_norm": _lrn_recomputed},
    "pool: reduce_window": {"max_pool": _pool_by_window},
    "bias: plain sum": {"add_bias": _plain_bias},
    "groups: feature_group_count": {"convolution": _feature_groups},
    "conv1: 4 channels": {"convolution": partial(_more_channels, channels=4)},
    "conv1: 8 channels": {"convolution": partial(_more_channels, channels=8)},
    "conv1: space to depth": {"convolution": _space_to_depth},
    "LRN recomputed, plain bias": {
        "local_response_norm": _lrn_recomputed,
        "add_bias": _plain_bias,
    },
    "LRN recomputed, plain bias, space to depth": {
        "local_response_norm": _lrn_recomputed,
        "add_bias": _plain_bias,
        "convolution": _space_to_depth,
    },
}


@contextlib.contextmanager
def replaced(functions: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """`alexnet_jax.ops` with some functions replaced."""
    kept = {name: getattr(ops, name) for name in functions}
    for name, function in functions.items():
        setattr(ops, name, function)
    jax.clear_caches()
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(ops, name, function)


# --- contenders -----------------------------------------------------------------------------------


def batch_of(size: int) -> dict[str, jax.Array]:
    """Random stored images and labels, on the device."""
    rng = np.random.default_rng(0)
    return jax.device_put(
        {
            "image": rng.integers(0, 256, (size, 256, 256, 3), np.uint8),
            "label": rng.integers(0, 1000, size).astype(np.int32),
        }
    )


class Ours:
    """Our step in one form; lowered at once, compiled by `compile`, called to make updates."""

    def __init__(self, precision: str, size: int, form: str):
        self.model = alexnet(precision=precision)
        self.size, self.hparams = size, Hyperparameters()
        self.template = jax.eval_shape(lambda: create_train_state(self.model, jax.random.key(0)))
        image = jax.ShapeDtypeStruct((size, 256, 256, 3), jnp.uint8)
        label = jax.ShapeDtypeStruct((size,), jnp.int32)
        with replaced(FORMS[form]):
            self._lowered = make_train_step(self.model).lower(
                self.template, {"image": image, "label": label}, self.hparams
            )

    def compile(self) -> None:
        started = time.perf_counter()
        self._step = self._lowered.compile()
        self.seconds_to_compile = time.perf_counter() - started
        memory = self._step.memory_analysis()
        self.temporary_bytes = getattr(memory, "temp_size_in_bytes", None)

    def begin(self, batch: dict[str, jax.Array]) -> None:
        self.state, self.batch = create_train_state(self.model, jax.random.key(0)), batch

    def __call__(self) -> None:
        for _ in range(FLAGS.updates):
            self.state, metrics = self._step(self.state, self.batch, self.hparams)
        jax.block_until_ready(metrics)

    def end(self) -> None:
        del self.state, self.batch


def _torch(names: list[str], size: int) -> dict[str, Callable[[], None]]:
    """PyTorch's contenders, warmed up."""
    from experiments.speed.torch_alexnet import Step

    found = {}
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    for precision in _precisions():
        for compiled in (False, True):
            for channels_last in (True, False):
                layout = "channels_last" if channels_last else "NCHW"
                name = f"PyTorch {'compile' if compiled else 'eager'} {layout} {precision}"
                started = time.perf_counter()
                try:
                    step = Step(
                        size,
                        device=device,
                        precision=precision,
                        channels_last=channels_last,
                        compile=compiled,
                    )
                    for _ in range(3):
                        step()
                    step.wait()
                except Exception as error:
                    names.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
                    continue

                def turn(step: Any = step) -> None:
                    for _ in range(FLAGS.updates):
                        step()
                    step.wait()

                found[name] = turn
                print(f"{name}: ready after {time.perf_counter() - started:.0f} s", flush=True)
    return found


def _precisions() -> tuple[str, ...]:
    """Those that differ on this backend."""
    cpu = jax.default_backend() == "cpu"
    return ("float32", "bfloat16") if cpu else ("float32", "tensorfloat32", "bfloat16")


def ceilings() -> dict[str, float]:
    """TFLOP/s of a large product by precision, and TB/s of a copy (read and written)."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    found = {}
    key = jax.random.key(0)
    for name in _precisions():
        dtype = jnp.bfloat16 if name == "bfloat16" else jnp.float32
        precision = PRECISIONS[name]
        a = jax.random.normal(key, (side, side), dtype)
        product = jax.jit(partial(jnp.matmul, precision=precision))
        found[f"{name} TFLOP/s"] = 2 * side**3 / _seconds(lambda a=a, f=product: f(a, a)) / 1e12
    x = jnp.ones((side**2 * 16,), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    found["copy TB/s"] = 2 * x.nbytes / _seconds(lambda: copy(x)) / 1e12
    return found


def _seconds(work: Callable[[], Any], calls: int = 5) -> float:
    jax.block_until_ready(work())
    times = []
    for _ in range(5):
        started = time.perf_counter()
        jax.block_until_ready([work() for _ in range(calls)][-1])
        times.append((time.perf_counter() - started) / calls)
    return statistics.median(times)


def _evaluation(size: int, precision: str) -> dict[str, float]:
    """Images/s of evaluation by views."""
    model = alexnet(precision=precision)
    state, batch = create_train_state(model, jax.random.key(0)), batch_of(size)
    found = {}
    for views in ("center", "ten"):
        step = make_eval_step(model, views=views)
        found[views] = size / _seconds(lambda step=step: step(state, batch))
    return found


def main(_) -> None:
    """Measures, prints and writes."""
    failed: list[str] = []
    forms = list(FORMS) if FLAGS.forms else ["as shipped"]
    ours = {}
    for size in FLAGS.batch_size:
        for precision in _precisions():
            for form in forms if precision != "float32" else forms[:1]:
                if form != "as shipped" and precision != "bfloat16" and size != FLAGS.batch_size[0]:
                    continue
                ours[f"ours {precision}, {form}", size] = Ours(precision, size, form)
    print(f"lowered {len(ours)} programs", flush=True)
    with ThreadPoolExecutor(8) as pool:
        compiling = {key: pool.submit(one.compile) for key, one in ours.items()}
        for key, future in compiling.items():  # XLA tries kernels as it compiles: a minute and more
            try:
                future.result()
            except Exception as error:
                failed.append(f"{key}: {type(error).__name__}: {str(error)[:300]}")
                del ours[key]
                continue
            print(f"{key}: compiled in {ours[key].seconds_to_compile:.0f} s", flush=True)
    rows = []
    for size in FLAGS.batch_size:
        batch = batch_of(size)
        contenders: dict[str, Callable[[], None]] = {}
        for (name, of), one in ours.items():
            if of == size:
                try:
                    one.begin(batch)
                    one()
                    contenders[name] = one
                except Exception as error:
                    failed.append(f"{name} {size}: {type(error).__name__}: {str(error)[:300]}")
        theirs: dict[str, Callable[[], None]] = {}
        if FLAGS.torch:
            try:
                theirs = _torch(failed, size)
            except ImportError as error:
                failed.append(f"PyTorch: {error}")
        seconds = harness.interleaved({**contenders, **theirs}, turns=FLAGS.turns)
        for name, times in seconds.items():
            rates = sorted(size * FLAGS.updates / second for second in times)
            mine = ours.get((name, size))
            rows.append(
                {
                    "name": name,
                    "batch_size": size,
                    "images_per_second": statistics.median(rates),
                    "least": rates[0],
                    "most": rates[-1],
                    "tflops": statistics.median(rates) * GFLOP / 1e3,
                    "seconds_to_compile": mine and mine.seconds_to_compile,
                    "temporary_bytes": mine and mine.temporary_bytes,
                }
            )
            print(
                f"{size:5} {name:64} {rows[-1]['images_per_second']:9.0f} img/s "
                f"({rates[0]:.0f} to {rates[-1]:.0f})",
                flush=True,
            )
        for one in contenders.values():
            one.end()
        write(rows, failed, {})
    evaluated = {name: _evaluation(FLAGS.batch_size[0], name) for name in _precisions()}
    write(rows, failed, {"ceilings": ceilings(), "evaluation": evaluated})
    for line in failed:
        print("not run:", line)


def write(rows: list[dict], failed: list[str], more: dict[str, Any]) -> None:
    """The result so far."""
    versions = {"torch": sys.modules["torch"].__version__} if "torch" in sys.modules else {}
    result = {
        "updates_a_turn": FLAGS.updates,
        "turns": FLAGS.turns,
        "steps": rows,
        "not_run": failed,
        **versions,
        **more,
    }
    harness.record(f"step_{jax.default_backend()}", harness.rounded(result, 3), draw(rows))


def draw(rows: list[dict]) -> Figure:
    """Images a second of every contender."""
    rows = sorted(rows, key=lambda row: (row["batch_size"], row["images_per_second"]))
    figure = Figure(figsize=(8, 0.24 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    colors = ["#cc6644" if row["name"].startswith("PyTorch") else "#4477aa" for row in rows]
    places = np.arange(len(rows))
    axes.barh(places, [row["images_per_second"] for row in rows], color=colors)
    axes.set_yticks(places, [f"{row['name']}  ({row['batch_size']})" for row in rows], fontsize=7)
    axes.set_xlabel("images/s, whole training step (batch size in brackets)")
    axes.set_title(f"AlexNet, two towers, 224 pixels, {jax.devices()[0].device_kind}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    app.run(main)
