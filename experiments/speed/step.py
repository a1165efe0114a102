"""The whole training step, and evaluation, side by side with PyTorch's.

    python -m experiments.speed.step                                             # on CPU
    python -m experiments.speed.step --batch_size=128 --batch_size=512 --forms   # on a GPU

All contenders take turns in one process; a turn is a few updates on a batch that lies on the
device, augmentation included. PyTorch runs in every mode at the first batch size, later in those
that were near its best. With --forms, each form replaces one operation of `alexnet_jax.ops` by
another way to write it (`experiments.speed.forms`). Writes results/step_PLATFORM.json, .txt and
.png, and prints what could not be run.
"""

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from matplotlib.figure import Figure

from alexnet_jax import Hyperparameters, alexnet, create_train_state, make_train_step
from alexnet_jax.machine import keep_freed_memory
from alexnet_jax.models.network import PRECISIONS
from alexnet_jax.step import make_predict_step
from experiments import harness
from experiments.speed.forms import FORMS, replaced

FLAGS = flags.FLAGS
flags.DEFINE_multi_integer("batch_size", [32, 128, 512], "images a step; evaluation has the first")
flags.DEFINE_integer("turns", 5, "counted turns of each contender")
flags.DEFINE_integer("updates", 2, "updates a turn; evaluations are as many")
flags.DEFINE_bool("torch", True, "PyTorch too")
flags.DEFINE_bool("forms", False, "other forms of the operations too")
flags.DEFINE_float("near", 0.85, "share of PyTorch's best rate that keeps a mode in the race")
MEASURES = ("train", "center", "ten")
VIEWS = {"train": 1, "center": 1, "ten": 10}
MACS = 724_406_816  # of one view forward
CONV1 = 55 * 55 * 96 * 11 * 11 * 3  # of them; there is no gradient of the images


def gflop(measure: str) -> float:
    """Of one image."""
    macs = 3 * MACS - CONV1 if measure == "train" else VIEWS[measure] * MACS
    return 2 * macs / 1e9


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
    """Our step in one form; lowered at once, compiled by `compile`, called for a turn."""

    def __init__(self, measure: str, precision: str, size: int, form: str):
        self.model = alexnet(precision=precision)
        self.measure, self.size = measure, size
        state = jax.eval_shape(lambda: create_train_state(self.model, jax.random.key(0)))
        batch = {
            "image": jax.ShapeDtypeStruct((size, 256, 256, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((size,), jnp.int32),
        }
        with replaced(FORMS[form]):
            if measure == "train":
                step = make_train_step(self.model)
                self._lowered = step.lower(state, batch, Hyperparameters())
            else:
                del batch["label"]
                self._lowered = make_predict_step(self.model, views=measure).lower(state, batch)

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
            if self.measure == "train":
                self.state, result = self._step(self.state, self.batch, Hyperparameters())
            else:
                result = self._step(self.state, {"image": self.batch["image"]})
        jax.block_until_ready(result)

    def end(self) -> None:
        del self.state, self.batch


def precisions() -> tuple[str, ...]:
    """Those that differ on this backend."""
    cpu = jax.default_backend() == "cpu"
    return ("float32", "bfloat16") if cpu else ("float32", "tensorfloat32", "bfloat16")


def torch_modes() -> list[tuple[str, dict[str, Any]]]:
    """Name -> how, of every way to run PyTorch."""
    return [
        (
            f"PyTorch {'compile' if compiled else 'eager'} "
            f"{'channels_last' if channels_last else 'NCHW'} {precision}",
            {"precision": precision, "channels_last": channels_last, "compile": compiled},
        )
        for precision in precisions()
        for compiled in (False, True)
        for channels_last in (True, False)
    ]


def torch_turns(
    measure: str, size: int, out: set[str], failed: list[str]
) -> dict[str, Callable[[], None]]:
    """PyTorch's contenders but those `out` of the race, warmed up."""
    from experiments.speed.torch_alexnet import Step

    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    found = {}
    for name, how in torch_modes():
        if name in out:
            continue
        started = time.perf_counter()
        try:
            step = Step(size, measure, device=device, **how)
            for _ in range(2):
                step()
            step.wait()
        except Exception as error:
            failed.append(f"{measure} {size} {name}: {type(error).__name__}: {str(error)[:200]}")
            continue

        def turn(step: Any = step) -> None:
            for _ in range(FLAGS.updates):
                step()
            step.wait()

        found[name] = turn
        print(f"{measure} {size} {name}: ready after {time.perf_counter() - started:.0f} s")
    return found


# --- what could be reached ------------------------------------------------------------------------


def ceilings() -> dict[str, float]:
    """TFLOP/s of a large product by precision, and TB/s of a copy (read and written)."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    found = {}
    key = jax.random.key(0)
    for name in precisions():
        dtype = jnp.bfloat16 if name == "bfloat16" else jnp.float32
        a = jax.random.normal(key, (side, side), dtype)
        product = jax.jit(
            partial(jnp.matmul, precision=PRECISIONS[name], preferred_element_type=jnp.float32)
        )
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


# --- the race -------------------------------------------------------------------------------------


def prepared(failed: list[str]) -> dict[tuple[str, int, str], Ours]:
    """Our contenders, compiled: (measure, batch size, name)."""
    ours = {}
    forms = list(FORMS) if FLAGS.forms else ["as shipped"]
    first = FLAGS.batch_size[0]
    for measure in MEASURES:
        for size in FLAGS.batch_size if measure == "train" else [first]:
            for precision in precisions():
                for form in forms if measure == "train" else forms[:1]:
                    if form != "as shipped" and precision == "float32" and len(precisions()) > 2:
                        continue
                    if form != "as shipped" and precision != "bfloat16" and size != first:
                        continue
                    name = f"ours {precision}" + (f", {form}" if form != "as shipped" else "")
                    ours[measure, size, name] = Ours(measure, precision, size, form)
    print(f"lowered {len(ours)} programs", flush=True)
    with ThreadPoolExecutor(8) as pool:
        compiling = {key: pool.submit(one.compile) for key, one in ours.items()}
        for key, future in compiling.items():  # on GPU XLA tries kernels: a minute and more
            try:
                future.result()
            except Exception as error:
                failed.append(f"{key}: {type(error).__name__}: {str(error)[:300]}")
                del ours[key]
    return ours


def race(
    measure: str,
    size: int,
    ours: dict[tuple[str, int, str], Ours],
    out: set[str],
    failed: list[str],
) -> list[dict[str, Any]]:
    """The rows of one measure at one batch size, the fastest first."""
    batch = batch_of(size)
    turns: dict[str, Callable[[], None]] = {}
    begun = {name: one for (of, at, name), one in ours.items() if (of, at) == (measure, size)}
    for name, one in begun.items():
        try:
            one.begin(batch)
            one()
            turns[name] = one
        except Exception as error:
            failed.append(f"{measure} {size} {name}: {type(error).__name__}: {str(error)[:300]}")
    if FLAGS.torch:
        try:
            turns |= torch_turns(measure, size, out, failed)
        except ImportError as error:
            failed.append(f"PyTorch: {error}")
    rows = []
    for name, times in harness.interleaved(turns, turns=FLAGS.turns).items():
        rates = sorted(size * FLAGS.updates / second for second in times)
        mine = begun.get(name)
        rows.append(
            {
                "measure": measure,
                "batch_size": size,
                "name": name,
                "images_per_second": statistics.median(rates),
                "least": rates[0],
                "most": rates[-1],
                "tflops": statistics.median(rates) * gflop(measure) / 1e3,
                "seconds_to_compile": mine and mine.seconds_to_compile,
                "temporary_bytes": mine and mine.temporary_bytes,
            }
        )
    for one in begun.values():
        one.end()
    return sorted(rows, key=lambda row: -row["images_per_second"])


def left_behind(rows: list[dict[str, Any]]) -> set[str]:
    """The modes of PyTorch that are far from its best of the same precision."""
    found: set[str] = set()
    for precision in precisions():
        rates = {
            row["name"]: row["images_per_second"]
            for row in rows
            if row["name"].startswith("PyTorch") and row["name"].endswith(f" {precision}")
        }
        found |= {name for name, rate in rates.items() if rate < FLAGS.near * max(rates.values())}
    return found


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours over PyTorch's best mode, by measure, batch size and precision."""
    found = []
    for measure, size, precision in dict.fromkeys(
        (row["measure"], row["batch_size"], precision) for row in rows for precision in precisions()
    ):
        rates = {
            row["name"]: row["images_per_second"]
            for row in rows
            if (row["measure"], row["batch_size"]) == (measure, size)
            and row["name"].endswith(f" {precision}")
        }
        theirs = {name: rate for name, rate in rates.items() if name.startswith("PyTorch")}
        if theirs and f"ours {precision}" in rates:
            best = max(theirs, key=lambda name: theirs[name])
            found.append(
                {
                    "measure": measure,
                    "batch_size": size,
                    "precision": precision,
                    "ours": rates[f"ours {precision}"],
                    "best of PyTorch": best.removesuffix(f" {precision}").removeprefix("PyTorch "),
                    "theirs": theirs[best],
                    "ratio": rates[f"ours {precision}"] / theirs[best],
                }
            )
    return found


def main(_) -> None:
    """Measures, prints and writes."""
    keep_freed_memory()
    failed: list[str] = []
    ours = prepared(failed)
    rows: list[dict[str, Any]] = []
    for measure in MEASURES:
        out: set[str] = set()
        for size in FLAGS.batch_size if measure == "train" else FLAGS.batch_size[:1]:
            found = race(measure, size, ours, out, failed)
            out |= left_behind(found)
            rows += found
            print(table(found), flush=True)
            write(rows, failed, {})
    write(rows, failed, {"ceilings": ceilings()})
    print(table(rows, ratios(rows)))
    for line in failed:
        print("not run:", line)


def table(rows: list[dict[str, Any]], compared: list[dict[str, Any]] = ()) -> str:
    """As text."""
    lines = [f"{'':7}{'batch':>6}  {'':<44}{'images/s':>9}{'least':>9}{'most':>9}"]
    lines += [
        f"{row['measure']:<7}{row['batch_size']:>6}  {row['name']:<44}"
        f"{row['images_per_second']:>9.1f}{row['least']:>9.1f}{row['most']:>9.1f}"
        for row in rows
    ]
    if compared:
        lines += [
            "",
            f"{'':7}{'batch':>6}  {'':<12}{'ours':>9}{'PyTorch':>9}{'ratio':>7}  its mode",
        ]
    lines += [
        f"{row['measure']:<7}{row['batch_size']:>6}  {row['precision']:<12}{row['ours']:>9.1f}"
        f"{row['theirs']:>9.1f}{row['ratio']:>7.2f}  {row['best of PyTorch']}"
        for row in compared
    ]
    return "\n".join(lines)


def write(rows: list[dict], failed: list[str], more: dict[str, Any]) -> None:
    """The result so far."""
    versions = {"torch": sys.modules["torch"].__version__} if "torch" in sys.modules else {}
    compared = ratios(rows)
    result = {
        "updates_a_turn": FLAGS.updates,
        "turns": FLAGS.turns,
        "ratios": compared,
        "rows": rows,
        "not_run": failed,
        **versions,
        **more,
    }
    name = f"step_{jax.default_backend()}"
    harness.record(name, harness.rounded(result, 3), draw(rows))
    (harness.RESULTS / f"{name}.txt").write_text(
        f"{harness.machine()}\n\n{table(rows, compared)}\n"
    )


def draw(rows: list[dict]) -> Figure:
    """Images a second of every contender."""
    rows = sorted(
        rows,
        key=lambda row: (
            -MEASURES.index(row["measure"]),
            -row["batch_size"],
            row["images_per_second"],
        ),
    )
    titles = {"train": "training", "center": "evaluation", "ten": "ten views"}
    figure = Figure(figsize=(8.5, 0.22 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    colors = ["#cc6644" if row["name"].startswith("PyTorch") else "#4477aa" for row in rows]
    places = np.arange(len(rows))
    axes.barh(places, [row["images_per_second"] for row in rows], color=colors)
    labels = [f"{titles[row['measure']]}, {row['batch_size']}: {row['name']}" for row in rows]
    axes.set_yticks(places, labels, fontsize=7)
    axes.margins(y=0.01)
    axes.set_xlabel("images/s (after the task: the batch size)")
    axes.set_title(f"AlexNet, two towers, 224 pixels: {harness.machine()}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    app.run(main)
