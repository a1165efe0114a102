"""Exact nearest-neighbour search against the device's rate of matrix products (section 6.1).

    python experiments/retrieval_speed.py [--gallery=1281167]

Random features of fc7's width. In each round the contenders take turns: the whole search (products,
the best of every block, ranking by exact distance) of a gallery in host memory and of one on the
device, and the product of a block's shape alone, in float32 at the same precision. A fraction is
the search's 2QND operations a second over the product's in that round; the median over the rounds.
Writes results/retrieval_speed_DEVICE.json.
"""

import json
import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from alexnet_jax.inspect.retrieval import VALUES, nearest

RESULTS = Path(__file__).parent / "results"

FLAGS = flags.FLAGS
flags.DEFINE_integer("queries", 1024, "images to search for")
flags.DEFINE_integer("gallery", 32_768, "images searched; all of ImageNet is 1281167")
flags.DEFINE_integer("width", 4096, "values a feature")
flags.DEFINE_integer("neighbors", 6, "images to find")
flags.DEFINE_integer("rounds", 7, "timed rounds")


def main(_) -> None:
    """Times the rounds and writes the results."""
    queries, rows, width = FLAGS.queries, FLAGS.gallery, FLAGS.width
    rng = np.random.default_rng(0)
    wanted = rng.standard_normal((queries, width), np.float32)
    gallery = rng.standard_normal((rows, width), np.float32)
    on_device = jnp.asarray(gallery)

    block = on_device[: min(VALUES // width, rows)]
    times = max(1, round(rows / len(block)))
    left = jnp.asarray(wanted)
    product = jax.jit(lambda a, b: jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST))

    def multiply() -> float:
        for _ in range(times):
            done = product(left, block)
        done.block_until_ready()
        return 2 * queries * len(block) * times * width

    def search(gallery) -> float:
        nearest(wanted, gallery, FLAGS.neighbors)
        return 2 * queries * rows * width

    contenders = {
        "matmul": multiply,
        "search_from_host": lambda: search(gallery),
        "search_on_device": lambda: search(on_device),
    }
    for run in contenders.values():
        run()  # compiles
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(FLAGS.rounds):
        for name, run in contenders.items():
            started = time.perf_counter()
            operations = run()
            rates[name].append(operations / (time.perf_counter() - started) / 1e9)
    device = jax.devices()[0]
    result = {
        "device": device.device_kind,
        "processor": platform.machine(),
        "jax": jax.__version__,
        "queries": queries,
        "gallery": rows,
        "width": width,
        "rounds": FLAGS.rounds,
        "gflops": {name: round(statistics.median(rate), 1) for name, rate in rates.items()},
        "fraction_of_matmul": {},
    }
    for name in ("search_from_host", "search_on_device"):
        fractions = [a / b for a, b in zip(rates[name], rates["matmul"], strict=True)]
        result["fraction_of_matmul"][name] = {
            "median": round(statistics.median(fractions), 3),
            "smallest": round(min(fractions), 3),
            "largest": round(max(fractions), 3),
        }
    name = device.device_kind.lower().replace(" ", "_")
    path = RESULTS / f"retrieval_speed_{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    app.run(main)
