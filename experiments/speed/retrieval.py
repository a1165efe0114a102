"""Exact nearest-neighbour search nears the device's rate of matrix products (section 6.1).

    python -m experiments.speed.retrieval
    python -m experiments.speed.retrieval --gallery=1281167   # all of ImageNet, on a GPU

Random features of fc7's width. The contenders take turns: the whole search (products, the best of
every block, ranking by exact distance) of a gallery in host memory and of one on the device, and
the product of a block's shape alone, in float32 at the same precision. A fraction is the search's
2QND operations a second over the product's in that turn; the median over the turns. Writes
results/retrieval_speed_PLATFORM.json.
"""

import json
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from alexnet_jax.inspect.retrieval import VALUES, nearest
from experiments import harness

FLAGS = flags.FLAGS
flags.DEFINE_integer("queries", 1024, "images to search for")
flags.DEFINE_integer("gallery", 32_768, "images searched; all of ImageNet is 1281167")
flags.DEFINE_integer("width", 4096, "values a feature")
flags.DEFINE_integer("neighbors", 6, "images to find")
flags.DEFINE_integer("turns", 7, "counted turns")


def main(_) -> None:
    """Takes the turns and writes the results."""
    harness.shorten(queries=32, gallery=1024, width=256, turns=2)
    queries, rows, width = FLAGS.queries, FLAGS.gallery, FLAGS.width
    rng = np.random.default_rng(0)
    wanted = rng.standard_normal((queries, width), np.float32)
    gallery = rng.standard_normal((rows, width), np.float32)
    on_device = jnp.asarray(gallery)
    block = on_device[: min(VALUES // width, rows)]
    times = max(1, round(rows / len(block)))
    left = jnp.asarray(wanted)
    product = jax.jit(lambda a, b: jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST))

    def multiply() -> None:
        for _ in range(times):
            done = product(left, block)
        done.block_until_ready()

    contenders = {
        "matmul": multiply,
        "search_from_host": lambda: nearest(wanted, gallery, FLAGS.neighbors),
        "search_on_device": lambda: nearest(wanted, on_device, FLAGS.neighbors),
    }
    searched = {"matmul": len(block) * times}
    seconds = harness.interleaved(contenders, turns=FLAGS.turns)
    rates = {
        name: [2 * queries * searched.get(name, rows) * width / time / 1e9 for time in each]
        for name, each in seconds.items()
    }
    result = {
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
    print(json.dumps(result, indent=1))
    harness.record(f"retrieval_speed_{jax.default_backend()}", result)


if __name__ == "__main__":
    harness.run(main, in_turn=False)  # as the commands that search
