"""What splitting kernels, the batch, or both costs in bytes on N devices, and where each wins.

    python -m experiments.speed.scaling

The bytes are those of the compiled step of the paper's net; who wins follows from them, a link's
bandwidth and a device's speed. Then the step is timed on simulated devices, which share the
machine's cores: what that shows is the overhead of the partition, not a speed-up. Writes
results/scaling.json and prints it as the tables of docs/parallel.md.
"""

import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import flags

from alexnet_jax import (
    Hyperparameters,
    alexnet,
    create_train_state,
    make_mesh,
    make_train_step,
    parallel,
)
from alexnet_jax.communication import collectives, compile_train_step
from alexnet_jax.models.layer_table import layer_table
from alexnet_jax.wording import align
from experiments import harness

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 128, "images a device, where bytes are counted")
flags.DEFINE_integer("images", 8, "images a data shard, where steps are timed")
flags.DEFINE_integer("turns", 5, "counted turns of each mesh, two steps each")
# Bytes a second that one device can send while it receives as many.
LINKS = {
    "NVLink 4 (450 GB/s)": 450e9,
    "PCIe 3 x16 (12 GB/s)": 12e9,
    "PCIe 2 x16 (6 GB/s)": 6e9,  # the paper's
    "10 Gb Ethernet (1.25 GB/s)": 1.25e9,
}
# Useful FLOP/s of one device in a training step.
DEVICES = {"1 TFLOP/s": 1e12, "100 TFLOP/s": 100e12}
NARROW = {
    "image_size": 64,
    "conv_features": (48, 128, 192, 192, 128),
    "fc_features": (1024, 1024),
}
MESHES = [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1)]


def main(_) -> None:
    """Counts, computes, times, writes."""
    harness.shorten(batch_size=4, images=1, turns=1)
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_platforms", "cpu")
    model = alexnet("paper", **(harness.TINY if harness.quick() else {}))
    batch = FLAGS.batch_size
    mesh = make_mesh(2, 2)
    found = collectives(compile_train_step(model, mesh, batch), mesh, model)
    exchanged = sum(one.sent for one in found if one.axis == "model") * mesh.shape["data"] // batch
    rows = layer_table(model)
    macs = sum(row.macs for row in rows)
    flop = 2 * (3 * macs - rows[0].macs)  # no gradient of the images
    gradients = 4 * sum(row.parameters for row in rows)
    result = {
        "bytes_an_image_over_model": exchanged,
        "gradient_bytes": gradients,
        "flop_an_image": flop,
        "bytes_a_step": [sent(n, batch, exchanged, gradients) for n in (2, 4, 8, 16)],
        "images_a_device_where_both_ways_send_alike": round(gradients / 2 / exchanged, 1),
        "wins_over_one_device": [
            wins(link, device, exchanged, gradients, flop) for device in DEVICES for link in LINKS
        ],
        "weak_scaling": weak_scaling(),
    }
    harness.record("scaling", result)
    for name in ("bytes_a_step", "wins_over_one_device", "weak_scaling"):
        lines = result[name]
        cells = [[str(cell) for cell in line.values()] for line in lines]
        print(f"\n{name}\n{align([tuple(lines[0]), *map(tuple, cells)])}")


def sent(devices: int, images: int, exchanged: int, gradients: int) -> dict[str, float]:
    """Megabytes that each device sends a step, with `images` in the batch for every device.

    Rings: of n devices each sends 2 (n - 1) / n of what is summed.
    """

    def ring(n: int, size: float) -> float:
        return 2 * (n - 1) / n * size

    total = images * devices
    both = exchanged * total / (devices / 2) + ring(devices // 2, gradients / 2)
    return {
        "devices": devices,
        "images": total,
        "batch split (Nx1), MB": round(ring(devices, gradients) / 1e6, 1),
        "kernels split, batch over pairs (N/2x2), MB": round(both / 1e6, 1),
    }


def wins(link: str, device: str, exchanged: int, gradients: int, flop: int) -> dict[str, object]:
    """When two devices beat one, if nothing that is sent hides behind computing.

    Half of the computing is saved. Kernels: exchanged / bandwidth < flop / 2 / speed, whatever the
    batch. Batch: gradients / bandwidth < images x flop / 2 / speed.
    """
    bandwidth, speed = LINKS[link], DEVICES[device]
    saved = flop / 2 / speed
    return {
        "device": device,
        "link": link,
        "computing saved, us/image": round(1e6 * saved, 2),
        "exchange, us/image": round(1e6 * exchanged / bandwidth, 2),
        "kernel split wins": "yes" if exchanged / bandwidth < saved else "no",
        "batch split wins from, images": int(gradients / bandwidth / saved) + 1,
    }


def weak_scaling() -> list[dict[str, object]]:
    """Times the step of a narrow net on simulated devices, the meshes in turn."""
    meshes = MESHES[:3] if harness.quick() else MESHES
    seconds = harness.interleaved({shape: contender(shape) for shape in meshes}, turns=FLAGS.turns)
    medians = {shape: statistics.median(times) for shape, times in seconds.items()}
    alone = FLAGS.images / medians[1, 1]
    return [
        {
            "data x model": f"{data}x{towers}",
            "images": FLAGS.images * data,
            "ms a step": round(1e3 * median, 1),
            "images/s": round(FLAGS.images * data / median, 1),
            "images/s against 1x1": round(FLAGS.images * data / median / alone, 2),
        }
        for (data, towers), median in medians.items()
    ]


def contender(shape: tuple[int, int]) -> Callable[[], float]:
    """A turn on a mesh: seconds a step of two, after one that is not counted."""
    model = alexnet("paper", num_classes=10, **(harness.TINY if harness.quick() else NARROW))
    mesh = make_mesh(*shape)
    images = FLAGS.images * shape[0]
    batch = {
        "image": np.zeros((images, 72, 72, 3), np.uint8),
        "label": np.zeros(images, np.int32),
    }
    batch = parallel.place_batch(batch, mesh)
    step = make_train_step(model, mesh=mesh)
    state = create_train_state(model, jax.random.key(0), mesh=mesh)

    def turn() -> float:
        nonlocal state
        for number in range(3):
            if number == 1:
                started = time.perf_counter()
            state, metrics = step(state, batch, Hyperparameters())
            jax.block_until_ready((state, metrics))
        return (time.perf_counter() - started) / 2

    return turn


if __name__ == "__main__":
    harness.run(main)
