"""Reading a prepared set is many times faster than decoding originals each epoch (section 4.1).

    python -m experiments.speed.reading

Batches of 128 from the same ImageNet photographs: as a prepared set (raw and JPEG), from the
original files by a PyTorch DataLoader (PIL decode + RandomResizedCrop + flip, to uint8) and by
tf.data (the same work in TensorFlow), from the same prepared raw set by a PyTorch DataLoader (its
samples by tfds's own random access), and as bare ArrayRecord reads. Each contender lives in a
process of its own, bound to the same core or cores; they take turns, and what they had prefetched
is dropped before each turn is timed. Then the train step alone against the step fed by the
pipeline. Writes results/read_speed.json and .png. PyTorch and TensorFlow come with
`pip install .[bench]`; a contender that is not installed is left out and said so.
"""

import importlib.util
import itertools
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.speed import photographs

# The contenders' processes import this module; so jax, and the harness, are not imported up here.
BATCH = 128
CROP = 224
COPIES = 4  # of each photograph in the prepared set, for batches without repetition
RAW_TARGET, JPEG_TARGET = 15, 4  # times the PyTorch DataLoader
ARRAY_RECORD_TARGET = 0.9  # of ArrayRecord's own read
STEP_TARGET = 1.05  # fed against alone

FLAGS = flags.FLAGS
flags.DEFINE_integer("turns", 5, "counted turns of each contender")
flags.DEFINE_float("seconds", 1.5, "of a turn, after half as many that are not counted")
flags.DEFINE_list("parts", ["read", "step"], "what to measure; of one, the other's is kept")
flags.DEFINE_string("suffix", "", "of the result files, for another machine: _h200")


def torch_loader(files: list[str], folder: str, workers: int) -> Iterator[Any]:
    """torchvision's usual ImageNet loader, without torchvision: originals, decoded each time."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)

    class Photographs(torch.utils.data.Dataset):
        def __len__(self):
            return 1 << 20

        def __getitem__(self, index):
            random = np.random.default_rng(index)
            with Image.open(files[index % len(files)]) as image:
                left, top, width, height = random_resized_crop(image.size, random)
                box = (left, top, left + width, top + height)
                image = image.convert("RGB").crop(box)
                image = image.resize((CROP, CROP), Image.Resampling.BILINEAR)
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            return torch.from_numpy(np.array(image)), index % 1000

    context = "fork" if workers else None  # its default here would be the race's own "spawn"
    return iter(
        torch.utils.data.DataLoader(
            Photographs(),
            BATCH,
            shuffle=True,
            num_workers=workers,
            multiprocessing_context=context,
        )
    )


def torch_prepared(files: list[str], folder: str, workers: int) -> Iterator[Any]:
    """PyTorch's loader over the prepared raw set: no decoding there either."""
    import tensorflow_datasets as tfds
    import torch

    torch.set_num_threads(1)
    (path,) = Path(folder).glob("photographs/raw/*")
    source = tfds.builder_from_directory(path).as_data_source(split="train")

    class Prepared(torch.utils.data.Dataset):
        def __len__(self):
            return len(source)

        def __getitems__(self, indices):
            found = source.__getitems__(indices)
            return [(torch.from_numpy(one["image"]), int(one["label"])) for one in found]

    context = "fork" if workers else None
    loader = torch.utils.data.DataLoader(
        Prepared(),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        multiprocessing_context=context,
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


def random_resized_crop(size: tuple[int, int], random) -> tuple[int, int, int, int]:
    """left, top, width, height: 8% to 100% of the area, sides 3:4 to 4:3, as torchvision has it."""
    for _ in range(10):
        area = size[0] * size[1] * random.uniform(0.08, 1)
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        width, height = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < width <= size[0] and 0 < height <= size[1]:
            left = random.integers(0, size[0] - width, endpoint=True)
            top = random.integers(0, size[1] - height, endpoint=True)
            return int(left), int(top), width, height
    side = min(size)
    return (size[0] - side) // 2, (size[1] - side) // 2, side, side


def tf_data(files: list[str], folder: str, threads: int) -> Iterator[Any]:
    """The same work in tf.data, which decodes only the crop."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)

    def load(file):
        data = tf.io.read_file(file)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros((1, 0, 4)),
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
        image = tf.image.resize(image, (CROP, CROP))
        return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    stream = tf.data.Dataset.from_tensor_slices(files).repeat().shuffle(len(files))
    stream = stream.map(load, num_parallel_calls=threads).batch(BATCH).prefetch(2)
    return iter(stream.with_options(options))


def prepared(
    files: list[str], folder: str, encoding: str, threads: int = 1, workers: int = 0
) -> Iterator[Any]:
    """This project's pipeline over the prepared set."""
    from alexnet_jax.data.batches import train_batches
    from alexnet_jax.data.sets import open_dataset

    dataset = open_dataset(f"photographs/{encoding}", "train", data_dir=folder)
    return train_batches(dataset, batch_size=BATCH, seed=0, threads=threads, workers=workers)


def in_memory(files: list[str], folder: str) -> Iterator[Any]:
    """This project's pipeline over the set kept in memory (`--config.cache=host`)."""
    from alexnet_jax.data.batches import train_batches
    from alexnet_jax.data.cache import cached
    from alexnet_jax.data.sets import open_dataset

    dataset = cached(open_dataset("photographs/raw", "train", data_dir=folder), "host")
    return train_batches(dataset, batch_size=BATCH, seed=0, threads=1)


def array_record(files: list[str], folder: str, shuffled: bool) -> Iterator[Any]:
    """ArrayRecord's own read of 128 records at once, in parallel by its threads; bytes only."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    source = ArrayRecordDataSource(sorted(map(str, Path(folder).rglob("raw/*/*array_record*"))))
    random = np.random.default_rng(0)
    while True:
        order = random.permutation(len(source)) if shuffled else np.arange(len(source))
        for start in range(0, len(source) - BATCH + 1, BATCH):
            yield source.__getitems__(order[start : start + BATCH].tolist())


Contender = tuple[str | None, Callable[..., Iterator[Any]]]  # the module it needs, how to make it


def contenders(cores: int) -> dict[str, Contender]:
    """Who takes part on `cores` cores."""
    read: dict[str, Contender] = {
        "PyTorch DataLoader, originals": (
            "torch",
            partial(torch_loader, workers=0 if cores == 1 else cores),
        ),
        "PyTorch DataLoader, the same raw set": (
            "torch",
            partial(torch_prepared, workers=0 if cores == 1 else cores),
        ),
        "tf.data, originals": ("tensorflow", partial(tf_data, threads=cores)),
        "JPEG set": (None, partial(prepared, encoding="jpeg", threads=cores)),
        "raw set": (None, partial(prepared, encoding="raw", threads=cores)),
        "ArrayRecord alone, shuffled": (None, partial(array_record, shuffled=True)),
    }
    if cores == 1:
        return read | {
            "ArrayRecord alone, in order": (None, partial(array_record, shuffled=False)),
            "raw set, 8 threads": (None, partial(prepared, encoding="raw", threads=8)),
            "raw set, in memory": (None, in_memory),
        }
    processes = {"threads": 1, "workers": cores}
    read["PyTorch DataLoader, the same raw set, no workers"] = (
        "torch",
        partial(torch_prepared, workers=0),
    )
    return read | {
        f"{encoding} set, {cores} worker processes": (
            None,
            partial(prepared, encoding=encoding.lower(), **processes),
        )
        for encoding in ("JPEG", "raw")
    }


def take_turns(pipe, make: Callable[[], Iterator[Any]], cores: list[int], seconds: float) -> None:
    """A contender's process: at each word from `pipe`, reads for `seconds`; sends s an image."""
    os.sched_setaffinity(0, cores)
    stream = make()
    next(stream)
    pipe.send("ready")
    while pipe.recv():
        # What was fetched while the others had their turn.
        until = time.perf_counter() + seconds / 2
        while time.perf_counter() < until:
            next(stream)
        batches, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds or batches < 2:
            next(stream)
            batches += 1
        pipe.send(elapsed / (batches * BATCH))
    if hasattr(stream, "close"):
        stream.close()  # ends worker processes
    os._exit(0)  # without waiting for prefetch threads


def race(files: list[str], folder: str, cores: list[int]) -> dict[str, list[float]]:
    """Images/s of every contender in each turn."""
    from experiments import harness

    context = multiprocessing.get_context("spawn")
    running = {}
    try:
        for name, (module, make) in contenders(len(cores)).items():
            if module and importlib.util.find_spec(module) is None:
                print(f"{name}: left out, {module} is not installed", flush=True)
                continue
            here, there = context.Pipe()
            arguments = (there, partial(make, files, folder), cores, FLAGS.seconds)
            process = context.Process(target=take_turns, args=arguments)
            process.start()
            there.close()
            running[name] = (process, here)
        for _, pipe in running.values():
            pipe.recv()

        def turn(pipe: Any) -> float:
            pipe.send(True)
            return pipe.recv()

        turns = {name: partial(turn, pipe) for name, (_, pipe) in running.items()}
        seconds = harness.interleaved(turns, turns=FLAGS.turns, dropped=0)
        for process, pipe in running.values():
            pipe.send(False)
            process.join()
        return {name: [1 / time for time in times] for name, times in seconds.items()}
    finally:
        for process, _ in running.values():
            process.kill()


def race_step(folder: str) -> dict[str, list[float]]:
    """Seconds a step of the full net, on a batch at hand and fed by the pipeline, in turns."""
    import jax

    from alexnet_jax import Hyperparameters, alexnet, create_train_state, make_train_step
    from alexnet_jax.data.batches import train_batches
    from alexnet_jax.data.sets import open_dataset
    from alexnet_jax.parallel import place_batch
    from experiments import harness

    on_cpu = jax.default_backend() == "cpu"
    batch_size, steps = (32, 4) if on_cpu else (128, 50)
    model = alexnet("paper", **(harness.TINY if harness.quick() else {}))
    state = create_train_state(model, jax.random.key(0))
    train_step, hparams = make_train_step(model), Hyperparameters(learning_rate=0.0)
    dataset = open_dataset("photographs/raw", "train", data_dir=folder)
    stream = train_batches(
        dataset, batch_size=batch_size, seed=0, place=lambda batch: place_batch(batch, None)
    )
    at_hand = next(stream)

    def turn(batches: Iterator[Any]) -> float:
        nonlocal state
        for number in range(steps + 1):
            if number == 1:  # the first step of a turn finds a full buffer and cold caches
                start = time.perf_counter()
            state, metrics = train_step(state, next(batches), hparams)
            jax.block_until_ready(metrics)
        return (time.perf_counter() - start) / steps

    contenders = {"alone": itertools.repeat(at_hand), "fed": stream}
    turns = {name: partial(turn, batches) for name, batches in contenders.items()}
    return harness.interleaved(turns, turns=FLAGS.turns)


def prepare_sets(paths: list[Path], folder: str) -> None:
    """The photographs, `COPIES` times, as the sets photographs/raw and photographs/jpeg."""
    import tensorflow_datasets as tfds

    from alexnet_jax.data.datasets.image_folder.image_folder_dataset_builder import Builder

    originals = Path(folder) / "originals"
    for photograph, copy in itertools.product(paths, range(COPIES)):
        to = originals / photograph.parent.name / f"{copy}_{photograph.name}"
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photograph, to)
    for encoding in ("raw", "jpeg"):
        builder = Builder(
            folder=str(originals),
            name="photographs",
            validation_share=0.0,
            data_dir=folder,
            config=encoding,
        )
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig())


def draw(panels: dict[str, dict[str, float]]) -> Any:
    """Bars of the speeds, a panel for each number of cores."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2 * len(panels), 4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, (cores, rates) in zip(axes[0], panels.items(), strict=True):
        base = rates.get("PyTorch DataLoader, originals")
        colours = {"P": "#bbbbbb", "t": "#bbbbbb", "A": "#8c8cc8"}
        bars = axis.barh(
            list(rates), list(rates.values()), color=[colours.get(n[0], "#c44e52") for n in rates]
        )
        labels = [
            f"{rate:,.0f}" + (f"  ({rate / base:.1f}x)" if base else "") for rate in rates.values()
        ]
        axis.bar_label(bars, labels, padding=3)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.55 * max(rates.values()))
        axis.set_xlabel("images/s, batches of 128")
        axis.set_title(cores)
    return figure


def verdicts(parts: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """The claims: medians, least and most over the rounds of the ratio within a round."""
    claims: dict[str, Any] = {}

    def claim(name: str, ours: list[float], theirs: list[float], target: str, meets) -> None:
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        median = statistics.median(ratios)
        claims[name] = {
            "ratio": round(median, 3),
            "rounds": [round(ratios[0], 3), round(ratios[-1], 3)],
            "target": target,
            "met": meets(median),
        }

    for title, rates in parts.items():
        if title == "step":
            above = STEP_TARGET
            seconds = rates["fed"], rates["alone"]
            claim("step fed / step alone", *seconds, f"<= {above}", lambda x: x <= STEP_TARGET)
            continue
        theirs = "PyTorch DataLoader, originals"
        for ours, least in (("raw set", RAW_TARGET), ("JPEG set", JPEG_TARGET)):
            if theirs in rates:
                name = f"{title}: {ours} / {theirs}"
                claim(name, rates[ours], rates[theirs], f">= {least}", lambda x, y=least: x >= y)
        theirs = "PyTorch DataLoader, the same raw set"
        if ways := [values for name, values in rates.items() if name.startswith(theirs)]:
            fastest = max(ways, key=statistics.median)  # its workers cost more than they read
            name = f"{title}: raw set / {theirs}"
            claim(name, rates["raw set"], fastest, "> 1", lambda x: x > 1)
        for theirs in [name for name in rates if name.startswith("ArrayRecord")]:
            name, least = f"{title}: raw set / {theirs}", ARRAY_RECORD_TARGET
            claim(name, rates["raw set"], rates[theirs], f">= {least}", lambda x, y=least: x >= y)
    return claims


def main(_) -> None:
    """Prepares the sets, measures and writes."""
    from experiments import harness

    harness.shorten(turns=1, seconds=0.2)
    cores = sorted(os.sched_getaffinity(0))
    name = f"read_speed{FLAGS.suffix}"
    file = harness.results_folder() / f"{name}.json"
    measured: dict[str, dict[str, list[float]]] = {}
    if file.exists() and len(FLAGS.parts) == 1:  # the other part is kept
        content = json.loads(file.read_text())
        kept = content.get("result", content)["all_rounds"]
        measured = {k: v for k, v in kept.items() if (k == "step") != ("step" in FLAGS.parts)}
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny"
        paths = photographs.draw(tiny, 40) if harness.quick() else photographs.find()
        files = list(map(str, paths))
        prepare_sets(paths, folder)
        if "read" in FLAGS.parts:
            measured["one core"] = race(files, folder, cores[:1])
            if len(cores) > 1 and not harness.quick():
                measured[f"{len(cores)} cores"] = race(files, folder, cores)
            write(measured, len(paths), name)
        if "step" in FLAGS.parts:
            measured["step"] = race_step(folder)
            write(measured, len(paths), name)


def write(measured: dict[str, dict[str, list[float]]], images: int, name: str) -> None:
    """Writes and prints what was measured so far."""
    from experiments import harness

    medians = {
        title: {name: statistics.median(values) for name, values in rates.items()}
        for title, rates in measured.items()
    }
    step_seconds = medians.pop("step", None)
    result = {
        "photographs": images,
        "images_per_second": medians,
        "step_seconds": step_seconds,
        "claims": verdicts(measured),
        "all_rounds": measured,
    }
    harness.record(name, result, draw(medians) if medians else None)
    for title, rates in medians.items():
        for contender, rate in rates.items():
            print(f"{title:10} {contender:36} {rate:10,.0f} img/s")
    for title, claim in result["claims"].items():
        verdict = "met" if claim["met"] else "missed"
        least, most = claim["rounds"]
        print(
            f"{title}: {claim['ratio']:.3g} ({least:.3g} to {most:.3g}), target {claim['target']}: "
            f"{verdict}",
            flush=True,
        )


if __name__ == "__main__":
    from experiments import harness

    harness.run(main)
