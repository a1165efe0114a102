"""Preparing runs at the speed of decoding and resizing, in memory that does not grow (section 2).

    python experiments/prepare_speed.py [--photographs=DIR]

One core; in each round the contenders take turns on the same 50 photographs, and the next 50, and
so on, so that what else the machine does touches all alike. The contenders: decode
and resize alone (and encode, for JPEG), and the whole preparation of a shard (read, decode, resize,
encode, serialise, write, digest). Then all cores: a whole preparation (index, plan, processes,
shards, metadata) of many photographs against as many processes that only decode and resize them.
Then the command itself on archives of more and more images, for its peak memory. Writes
results/prepare_speed.json and .png beside this file.
"""

import contextlib
import functools
import io
import itertools
import json
import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from absl import app, flags
from PIL import Image

from alexnet_jax.data.archives import Member, read_member
from alexnet_jax.data.datasets.image_folder import image_folder_dataset_builder as image_folder
from alexnet_jax.data.images import decode_image
from alexnet_jax.data.writing import IMAGE_SIZE, ShardTask, WriteShard, encode_image

RESULTS = Path(__file__).parent / "results"
TARGET = 0.85
TURN = 50  # photographs

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "photographs", None, "folder of JPEG files (default: imagenet_samples beside ALEXNET_DATA_DIR)"
)
flags.DEFINE_integer("rounds", 11, "timed rounds")
flags.DEFINE_integer("all_core_rounds", 3, "timed rounds on all cores")
flags.DEFINE_integer("copies", 30, "of each photograph, on all cores")
flags.DEFINE_list("images", ["500", "5000", "50000"], "archive sizes for the peak memory")


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def time_contenders(members: list[Member], folder: Path, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of every contender on one core, `[rounds, clocks]`."""
    plan, shard = folder / "plan.jsonl", folder / "a.array_record"

    def prepare(members: list[Member], encoding: str) -> None:
        WriteShard(encoding, skip=False, read=read_member)(ShardTask(str(plan), str(shard)))

    contenders = {
        "decode + resize": (alone, "raw"),
        "prepare raw": (prepare, "raw"),
        "decode + resize + encode": (alone, "jpeg"),
        "prepare jpeg": (prepare, "jpeg"),
    }
    seconds = {name: np.zeros((rounds + 1, len(CLOCKS))) for name in contenders}
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for number in range(rounds + 1):
        for first in range(0, len(members), TURN):
            turn = members[first : first + TURN]
            plan.write_text("".join(json.dumps(member) + "\n" for member in turn))
            for name, (run, encoding) in contenders.items():
                shard.unlink(missing_ok=True)  # a preparation overwrites nothing
                start = [clock() for clock in CLOCKS.values()]
                run(turn, encoding)
                stop = [clock() for clock in CLOCKS.values()]
                seconds[name][number] += np.subtract(stop, start)
    return {name: rounds[1:] for name, rounds in seconds.items()}  # the first round warms up


def alone(members: list[Member], encoding: str) -> None:
    """The work that no preparation can do without."""
    for member in members:
        encode_image(decode_image(read_member(member), IMAGE_SIZE), encoding)


def time_all_cores(paths: list[Path], copies: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, processes started anew each time."""
    cores = len(os.sched_getaffinity(0))
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        originals = Path(scratch) / "originals"
        for path, copy in itertools.product(paths, range(copies)):
            link = originals / path.parent.name / f"{copy}_{path.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
        members = [Member(path.name, 0, str(path), 0, -1) for path in originals.glob("*/*")]
        chunks = [members[i::128] for i in range(128)]
        for number, encoding in itertools.product(range(rounds), ("raw", "jpeg")):
            context = multiprocessing.get_context("spawn")
            start = time.perf_counter()
            with ProcessPoolExecutor(cores, mp_context=context) as pool:
                list(pool.map(functools.partial(alone, encoding=encoding), chunks))
            seconds.setdefault(f"alone {encoding}", []).append(time.perf_counter() - start)
            start = time.perf_counter()
            builder = image_folder.Builder(
                folder=originals, name=f"set_{number}", data_dir=scratch, config=encoding
            )
            builder.download_and_prepare()
            seconds.setdefault(f"prepare {encoding}", []).append(time.perf_counter() - start)
            shutil.rmtree(Path(scratch) / f"set_{number}")
    return seconds


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


def draw(result: dict, path: Path) -> None:
    """Bars of the speeds, a line of the memory."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=[3, 2])
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
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main(argv: list[str]) -> None:
    del argv
    folder = FLAGS.photographs
    if folder is None and "ALEXNET_DATA_DIR" in os.environ:
        folder = Path(os.environ["ALEXNET_DATA_DIR"]).parent / "imagenet_samples"
    paths = sorted(Path(folder).rglob("*.JPEG")) if folder else []
    if not paths:
        sys.exit("no photographs: give --photographs=DIR or set ALEXNET_DATA_DIR")
    members = [Member(path.name, 0, str(path), 0, path.stat().st_size) for path in paths]
    memory = []
    for images in map(int, FLAGS.images):
        with tempfile.TemporaryDirectory() as scratch:
            memory.append(peak_memory(images, Path(scratch)))
    whole = time_all_cores(paths, FLAGS.copies, FLAGS.all_core_rounds)
    with tempfile.TemporaryDirectory() as scratch:
        seconds = time_contenders(members, Path(scratch), FLAGS.rounds)
    pairs = {"raw": "decode + resize", "jpeg": "decode + resize + encode"}
    ratio = {
        encoding: np.median(seconds[alone] / seconds[f"prepare {encoding}"], axis=0)
        for encoding, alone in pairs.items()
    }
    result = {
        "photographs": len(paths),
        "rounds": FLAGS.rounds,
        "images_per_second": {
            name: round(len(paths) / np.median(each[:, 0]), 1) for name, each in seconds.items()
        },
        "ratio": {
            encoding: dict(zip(CLOCKS, np.round(each, 3).tolist(), strict=True))
            for encoding, each in ratio.items()
        },
        "all_cores": {
            "images": len(paths) * FLAGS.copies,
            "seconds": {name: np.round(each, 2).tolist() for name, each in whole.items()},
            "ratio": {
                encoding: round(
                    float(
                        np.median(
                            np.divide(whole[f"alone {encoding}"], whole[f"prepare {encoding}"])
                        )
                    ),
                    3,
                )
                for encoding in pairs
            },
        },
        "target": TARGET,
        "peak_memory_mb": memory,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, Pillow {Image.__version__}",
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "prepare_speed.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, RESULTS / "prepare_speed.png")
    print(json.dumps(result, indent=1))
    for encoding, (wall, cpu) in ratio.items():
        verdict = "met" if wall >= TARGET else "missed"
        print(
            f"prepare {encoding}: {wall:.0%} of {pairs[encoding]} alone "
            f"({cpu:.0%} by processor time); target {TARGET:.0%} {verdict}"
        )
    for encoding, value in result["all_cores"]["ratio"].items():
        verdict = "met" if value >= TARGET else "missed"
        print(f"prepare {encoding} on all cores: {value:.0%} of that work alone; {verdict}")


if __name__ == "__main__":
    app.run(main)
