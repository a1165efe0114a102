"""Preparing runs at the speed of decoding and resizing, in memory that does not grow (section 2).

    python -m experiments.speed.preparing

One core: on the same 50 photographs the contenders take turns, then on the next 50, and so on, so
that what else the machine does touches all alike. They are decoding and resizing alone (and
encoding, for JPEG), and the whole preparation of a shard (read, decode, resize, encode, serialise,
write, digest). Then all cores: a whole preparation (index, plan, processes, shards, metadata) of
many photographs against as many processes that only decode and resize them. Then the command itself
on archives of more and more images, for its peak memory. Writes results/prepare_speed.json and
.png.
"""

import contextlib
import functools
import io
import itertools
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from alexnet_jax import machine
from alexnet_jax.data.archives import Member, read_member
from alexnet_jax.data.datasets.image_folder import image_folder_dataset_builder as image_folder
from alexnet_jax.data.images import decode_image
from alexnet_jax.data.writing import IMAGE_SIZE, ShardTask, WriteShard, encode_image
from experiments.speed import photographs

# The processes import this module; so jax, and the harness, are not imported up here.
TARGET = 0.85
TURN = 50  # photographs

PAIRS = {"raw": "decode + resize", "jpeg": "decode + resize + encode"}
FLAGS = flags.FLAGS
flags.DEFINE_integer("turns", 11, "counted turns of each contender on one core")
flags.DEFINE_integer("all_core_turns", 3, "counted turns on all cores")
flags.DEFINE_integer("copies", 60, "of each photograph, on all cores")
flags.DEFINE_list("images", ["500", "5000", "50000"], "archive sizes for the peak memory")


def time_one_core(members: list[Member], folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Seconds of each turn over all photographs: clock -> contender -> [turns]."""
    from experiments import harness

    plan, shard = folder / "plan.jsonl", folder / "a.array_record"
    seconds = {clock: dict.fromkeys(CONTENDERS, 0.0) for clock in ("wall", "cpu")}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    for first in range(0, len(members), TURN):
        some = members[first : first + TURN]
        plan.write_text("".join(json.dumps(member) + "\n" for member in some))
        cpu: dict[str, list[float]] = {name: [] for name in CONTENDERS}

        def turn(name: str) -> float:
            shard.unlink(missing_ok=True)  # a preparation overwrites nothing
            run, encoding = CONTENDERS[name]
            started, of_processor = time.perf_counter(), time.process_time()
            run(some, encoding, plan, shard)  # noqa: B023
            cpu[name].append(time.process_time() - of_processor)  # noqa: B023
            return time.perf_counter() - started

        turns = {name: functools.partial(turn, name) for name in CONTENDERS}
        for name, times in harness.interleaved(turns, turns=FLAGS.turns).items():
            seconds["wall"][name] += np.array(times)
            seconds["cpu"][name] += np.array(cpu[name][1:])  # the first is not counted
    os.sched_setaffinity(0, cores)
    return seconds


def prepare(members: list[Member], encoding: str, plan: Path, shard: Path) -> None:
    """A shard of the members that the plan lists."""
    WriteShard(encoding, skip=False, read=read_member)(ShardTask(str(plan), str(shard)))


def alone(members: list[Member], encoding: str, *_: Path) -> None:
    """The work that no preparation can do without."""
    for member in members:
        encode_image(decode_image(read_member(member), IMAGE_SIZE), encoding)


CONTENDERS = {
    "decode + resize": (alone, "raw"),
    "prepare raw": (prepare, "raw"),
    "decode + resize + encode": (alone, "jpeg"),
    "prepare jpeg": (prepare, "jpeg"),
}


def time_all_cores(paths: list[Path]) -> dict[str, list[float]]:
    """Seconds of each turn, processes started anew each time."""
    from experiments import harness

    with tempfile.TemporaryDirectory() as scratch:
        originals = Path(scratch) / "originals"
        for path, copy in itertools.product(paths, range(FLAGS.copies)):
            link = originals / path.parent.name / f"{copy}_{path.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
        members = [Member(path.name, 0, str(path), 0, -1) for path in originals.glob("*/*")]
        chunks = [members[i::128] for i in range(128)]

        def work(encoding: str) -> None:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(machine.cores(), mp_context=context) as pool:
                list(pool.map(functools.partial(alone, encoding=encoding), chunks))

        def whole(encoding: str) -> float:
            started = time.perf_counter()
            builder = image_folder.Builder(
                folder=originals, name="whole", data_dir=scratch, config=encoding
            )
            builder.download_and_prepare()
            seconds = time.perf_counter() - started
            shutil.rmtree(Path(scratch) / "whole")
            return seconds

        turns: dict[str, Callable[[], Any]] = {}
        for encoding in PAIRS:
            turns[f"alone {encoding}"] = functools.partial(work, encoding)
            turns[f"prepare {encoding}"] = functools.partial(whole, encoding)
        return harness.interleaved(turns, turns=FLAGS.all_core_turns, dropped=0)


def peak_memory(images: int, folder: Path) -> dict[str, int]:
    """Peak resident MB of the command and of its one worker, for an archive of `images` images."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).save(file, "JPEG")
    with tarfile.open(folder / "n00000001.tar", "w") as tar:
        for number in range(images):
            entry = tarfile.TarInfo(f"n00000001_{number}.JPEG")
            entry.size = len(file.getvalue())
            tar.addfile(entry, io.BytesIO(file.getvalue()))
    command = [sys.executable, "-m", "alexnet_jax.prepare", "--dataset=imagenet_fall2011_256"]
    command += [f"--manual_dir={folder}", f"--data_dir={folder}/out"]
    command += ["--encoding=jpeg", "--num_workers=1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks = {"main": 0, "worker": 0}
    while process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        with contextlib.suppress(OSError):  # a process that has just ended
            peaks["main"] = max(peaks["main"], high_water(process.pid))
            for child in children.read_text().split():
                peaks["worker"] = max(peaks["worker"], high_water(int(child)))
        time.sleep(0.05)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {"images": images} | peaks


def high_water(pid: int) -> int:
    """Peak resident MB of a process (getrusage would count what its parent held when it forked)."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) // 1024 if found else 0


def draw(result: dict[str, Any]) -> Any:
    """Bars of the speeds, a line of the memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    names, rates = zip(*result["images_per_second"].items(), strict=True)
    bars = left.barh(names, rates, color=["#bbbbbb", "#c44e52"] * 2)
    left.bar_label(bars, [f"{rate:.0f}" for rate in rates], padding=3)
    left.invert_yaxis()
    left.margins(x=0.12)
    left.set_xlabel("images/s on one core")
    ratios = " and ".join(f"{ratio['wall']:.0%} ({key})" for key, ratio in result["ratio"].items())
    left.set_title(f"prepared at {ratios} of the work alone", fontsize="medium")
    images = [row["images"] for row in result["peak_memory_mb"]]
    for process in ("main", "worker"):
        memory = [row[process] for row in result["peak_memory_mb"]]
        right.plot(images, memory, "o-", label=f"{process} process")
    right.set(xscale="log", xlabel="images in the set", ylabel="peak memory, MB")
    right.set_ylim(0, 1.25 * max(row["main"] for row in result["peak_memory_mb"]))
    right.legend(loc="lower right")
    return figure


def main(_) -> None:
    """Measures, prints and writes."""
    from experiments import harness

    harness.shorten(turns=1, all_core_turns=1, copies=1, images=["20", "40"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = photographs.draw(folder, 20) if harness.quick() else photographs.find()
        members = [Member(path.name, 0, str(path), 0, path.stat().st_size) for path in paths]
        memory = []
        for images in map(int, FLAGS.images):
            with tempfile.TemporaryDirectory() as archives:
                memory.append(peak_memory(images, Path(archives)))
        whole = time_all_cores(paths)
        seconds = time_one_core(members, folder)
    result = {
        "photographs": len(paths),
        "images_per_second": {
            name: round(len(paths) / float(np.median(times)), 1)
            for name, times in seconds["wall"].items()
        },
        "ratio": {
            encoding: {
                clock: round(float(np.median(of[work] / of[f"prepare {encoding}"])), 3)
                for clock, of in seconds.items()
            }
            for encoding, work in PAIRS.items()
        },
        "all_cores": {
            "images": len(paths) * FLAGS.copies,
            "seconds": harness.rounded(whole, 2),
            "ratio": {encoding: round(_ratio(whole, encoding), 3) for encoding in PAIRS},
        },
        "target": TARGET,
        "peak_memory_mb": memory,
        "pillow": Image.__version__,
    }
    harness.record("prepare_speed", result, draw(result))
    for encoding, work in PAIRS.items():
        wall, cpu = result["ratio"][encoding].values()
        every = result["all_cores"]["ratio"][encoding]
        print(
            f"prepare {encoding}: {wall:.0%} of {work} alone ({cpu:.0%} by processor time), "
            f"{_verdict(wall)}; on all cores {every:.0%}, {_verdict(every)}"
        )


def _ratio(seconds: dict[str, list[float]], encoding: str) -> float:
    pairs = zip(seconds[f"alone {encoding}"], seconds[f"prepare {encoding}"], strict=True)
    return statistics.median(a / b for a, b in pairs)


def _verdict(share: float) -> str:
    return f"target {TARGET:.0%} {'met' if share >= TARGET else 'missed'}"


if __name__ == "__main__":
    from experiments import harness

    harness.run(main)
