"""The whole training step, and evaluation, side by side with PyTorch's.

    python -m experiments.speed.step                                             # on CPU
    python -m experiments.speed.step --batch_size=128 --batch_size=512 --forms   # on a GPU

The contenders take turns; a turn is a few updates on a batch that lies on the device, augmentation
included, after one that is not counted. Each is a process of its own, so that no other's threads
and memory are in its way; on a GPU, where those do not decide, ours share one and compile at once.
PyTorch runs in every mode at the first batch size, later in those that were near its best; on CPU
compiled once more with memory kept as our commands keep it, in one heap, with which it is the
faster (`alexnet_jax.machine.keep_freed_memory`). With --forms, each form replaces one operation of
`alexnet_jax.ops` by another way to write it (`experiments.speed.forms`) at the first batch size,
on a GPU in the reduced precisions. Writes results/step_PLATFORM.json, .txt and .png, with --label
results/step_PLATFORM_LABEL, and prints what could not be run.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from alexnet_jax.models.network import PRECISIONS
from experiments import harness, provenance
from experiments.speed.ceilings import ceilings
from experiments.speed.contenders import (
    Ours,
    Process,
    batch_of,
    precisions,
    timed,
    torch_modes,
)
from experiments.speed.forms import forms_here

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU is PyTorch's, too
FLAGS = flags.FLAGS
flags.DEFINE_multi_integer("batch_size", [32, 128, 512], "images a step; evaluation has the first")
flags.DEFINE_integer("turns", 5, "counted turns of each contender")
flags.DEFINE_integer("updates", 2, "updates a turn; evaluations are as many")
flags.DEFINE_bool("torch", True, "PyTorch too")
flags.DEFINE_multi_enum(
    "torch_precision",
    list(PRECISIONS),
    list(PRECISIONS),
    "PyTorch's; a CPU without instructions for bfloat16 takes hours with it",
)
flags.DEFINE_bool("forms", False, "other forms of the operations too")
flags.DEFINE_string("label", "", "ends the files' names: a second machine's beside the first's")
flags.DEFINE_float("near", 0.75, "share of PyTorch's best rate that keeps a mode in the race")
MEASURES = ("train", "center", "ten")
flags.DEFINE_multi_enum("measure", MEASURES, MEASURES, "which: training, centre crops, ten views")
KEPT = ", memory kept"
VIEWS = {"train": 1, "center": 1, "ten": 10}
MACS = 724_406_816  # of one view forward
CONV1 = 55 * 55 * 96 * 11 * 11 * 3  # of them; there is no gradient of the images


def gflop(measure: str) -> float:
    """Of one image."""
    macs = 3 * MACS - CONV1 if measure == "train" else VIEWS[measure] * MACS
    return 2 * macs / 1e9


def contenders(measure: str, size: int, out: set[str]) -> dict[str, dict[str, Any]]:
    """Name -> what it is, for `Process`."""
    found = {}
    for precision in precisions():
        ours = {"measure": measure, "size": size, "precision": precision, "keep": True}
        # Who trains on a GPU in full float32 does not ask for speed.
        tried = jax.default_backend() == "cpu" or precision != "float32"
        tried = FLAGS.forms and tried and (measure, size) == ("train", FLAGS.batch_size[0])
        for form in forms_here() if tried else ["as shipped"]:
            name = f"ours {precision}" + (f", {form}" if form != "as shipped" else "")
            found[name] = {**ours, "form": form}
    for name, how in torch_modes().items() if FLAGS.torch else ():
        if how["precision"] not in FLAGS.torch_precision:
            continue
        theirs = {"measure": measure, "size": size, "how": how}
        for keep in (
            (False, True) if how["compile"] and jax.default_backend() == "cpu" else (False,)
        ):
            found[name + KEPT * keep] = {**theirs, "keep": keep}
    return {name: what for name, what in found.items() if name not in out}


def on_gpu(
    found: dict[str, dict[str, Any]], facts: dict[str, dict[str, Any]], failed: list[str]
) -> Iterator[dict[str, Callable[[], float]]]:
    """The turns of all, while they last; ours compile here while PyTorch's processes start.

    What ships compiles first: the other forms then find what XLA has chosen for most of their
    operations.
    """
    started = time.perf_counter()
    ours = {
        name: Ours(**{key: value for key, value in what.items() if key != "keep"})
        for name, what in found.items()
        if "form" in what
    }
    turns: dict[str, Callable[[], float]] = {}
    processes: dict[str, Process] = {}
    with ThreadPoolExecutor(len(found)) as pool:
        ready = {
            name: pool.submit(Process, what) for name, what in found.items() if name not in ours
        }
        shipped = [name for name in ours if found[name]["form"] == "as shipped"]
        for names in (shipped, [name for name in ours if name not in shipped]):
            ready |= {name: pool.submit(ours[name].compile) for name in names}
            wait([ready[name] for name in names])
    print(f"compiled in {time.perf_counter() - started:.0f} s", flush=True)
    batch = batch_of(next(iter(found.values()))["size"])
    for name, job in ready.items():
        try:
            one = job.result()
            if name in ours:
                one = ours[name]
                one.begin(batch)
                facts[name] |= {"device_bytes": one.device_bytes}
                turns[name] = partial(timed, one, FLAGS.updates)
            else:
                processes[name] = one
                facts[name] |= one.facts
                turns[name] = partial(one, FLAGS.updates)
            turns[name]()
        except Exception as error:
            turns.pop(name, None)
            failed.append(f"{found[name]['measure']} {batch['label'].size} {name}: {error!r:.300}")
    yield turns
    for name, process in processes.items():
        if name in turns:
            facts[name] |= process.end()


def on_cpu(
    found: dict[str, dict[str, Any]], facts: dict[str, dict[str, Any]], failed: list[str]
) -> Iterator[dict[str, Callable[[], float]]]:
    """The turns of those that memory holds at once, while they last; then of the next."""
    for together in in_batches(found):
        processes: dict[str, Process] = {}
        for name, what in together.items():
            try:
                processes[name] = Process(what)
                facts[name] |= processes[name].facts
            except RuntimeError as error:
                failed.append(f"{what['measure']} {what['size']} {name}: {error}")
        yield {name: partial(one, FLAGS.updates) for name, one in processes.items()}
        for name, process in processes.items():
            facts[name] |= process.end()


def race(measure: str, size: int, out: set[str], failed: list[str]) -> list[dict[str, Any]]:
    """The rows of one measure at one batch size, the fastest first."""
    found = contenders(measure, size, out)
    facts: dict[str, dict[str, Any]] = {name: {} for name in found}
    seconds: dict[str, list[float]] = {name: [] for name in found}
    begin = on_cpu if jax.default_backend() == "cpu" else on_gpu
    for turns in begin(found, facts, failed):
        for name, times in harness.interleaved(turns, turns=FLAGS.turns).items():
            seconds[name] += times
    rows = []
    for name, times in seconds.items():
        if not times:  # it could not be run
            continue
        rates = sorted(size * FLAGS.updates / second for second in times)
        row = {
            "measure": measure,
            "batch_size": size,
            "name": name,
            "images_per_second": statistics.median(rates),
            "least": rates[0],
            "most": rates[-1],
            "tflops": statistics.median(rates) * gflop(measure) / 1e3,
        }
        rows.append(row | facts[name])
    return sorted(rows, key=lambda row: -row["images_per_second"])


def in_batches(found: dict[str, dict[str, Any]]) -> list[dict[str, dict[str, Any]]]:
    """The contenders that memory holds at once, ours in each: 17 MB an image and 1 GB."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    ours = {name: what for name, what in found.items() if "form" in what}
    theirs = [name for name in found if name not in ours]
    size = next(iter(found.values()))["size"]
    room = max(1, int(0.8 * free / (1e9 + 17e6 * size)) - len(ours))
    return [
        ours | {name: found[name] for name in theirs[start : start + room]}
        for start in range(0, len(theirs) or 1, room)
    ]


def left_behind(rows: list[dict[str, Any]]) -> set[str]:
    """The modes of PyTorch that are far from its best of the same precision."""
    found: set[str] = set()
    for end in (f" {precision}{kept}" for precision in precisions() for kept in ("", KEPT)):
        rates = {
            row["name"]: row["images_per_second"]
            for row in rows
            if row["name"].startswith("PyTorch") and row["name"].endswith(end)
        }
        best = max(rates.values(), default=0.0)
        found |= {name for name, rate in rates.items() if rate < FLAGS.near * best}
    return found


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours over PyTorch's best mode, as it comes and with memory kept."""
    found = []
    for measure, size, precision, kept in dict.fromkeys(
        (row["measure"], row["batch_size"], precision, kept)
        for row in rows
        for precision in precisions()
        for kept in ("", KEPT)
    ):
        rates = {
            row["name"]: row["images_per_second"]
            for row in rows
            if (row["measure"], row["batch_size"]) == (measure, size)
        }
        end = f" {precision}{kept}"
        theirs = {
            name.removeprefix("PyTorch ").removesuffix(end): rate
            for name, rate in rates.items()
            if name.startswith("PyTorch") and name.endswith(end)
        }
        ours = rates.get(f"ours {precision}")
        if theirs and ours:
            best = max(theirs, key=lambda name: theirs[name])
            found.append(
                {
                    "measure": measure,
                    "batch_size": size,
                    "precision": precision,
                    "ours": ours,
                    "theirs": theirs[best],
                    "ratio": ours / theirs[best],
                    "mode": best + kept,
                }
            )
    return found


def main(_) -> None:
    """Measures, prints and writes."""
    harness.shorten(batch_size=[8], turns=1, updates=1, torch=False, forms=False)
    failed: list[str] = []
    rows: list[dict[str, Any]] = []
    for measure in FLAGS.measure:
        out: set[str] = set()
        for size in FLAGS.batch_size if measure == "train" else FLAGS.batch_size[:1]:
            found = race(measure, size, out, failed)
            out |= left_behind(found)
            rows += found
            print(table(found), flush=True)
            write(rows, failed, {})
    write(rows, failed, {"ceilings": ceilings(precisions())})
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
        f"{row['theirs']:>9.1f}{row['ratio']:>7.2f}  {row['mode']}"
        for row in compared
    ]
    return "\n".join(lines)


def write(rows: list[dict], failed: list[str], more: dict[str, Any]) -> None:
    """The result so far."""
    compared = ratios(rows)
    result = {
        "torch": version("torch") if find_spec("torch") else None,
        "updates_a_turn": FLAGS.updates,
        "turns": FLAGS.turns,
        "ratios": compared,
        "rows": rows,
        "not_run": failed,
        **more,
    }
    name = f"step_{jax.default_backend()}" + (f"_{FLAGS.label}" if FLAGS.label else "")
    harness.record(name, harness.rounded(result, 3), draw(rows))
    with harness.result_file(f"{name}.txt") as file:
        file.write(f"{provenance.machine()}\n\n{table(rows, compared)}\n")


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
    axes.set_title(f"AlexNet, two towers, 224 pixels: {provenance.machine()}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    harness.run(main)
