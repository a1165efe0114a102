"""Seconds from the start of a process to its first step: programs compiled, and found again.

    python -m experiments.speed.start

Each start is a new process that imports the library, draws the whole net's parameters and makes one
update of 32 images; "cold" has an empty folder of programs, "warm" the one that a cold start left.
Writes results/start_cpu.json, with --label results/start_cpu_LABEL.json.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

from experiments import harness

FLAGS = flags.FLAGS
flags.DEFINE_integer("turns", 3, "pairs of a cold and a warm start")
flags.DEFINE_string("label", "", "ends the file's name: a second machine's beside the first's")

START = """
import jax, numpy as np
from alexnet_jax import Hyperparameters, alexnet, create_train_state, make_train_step
from alexnet_jax.state import run_key
from alexnet_jax.compilation import keep_programs
from alexnet_jax.machine import keep_freed_memory

keep_freed_memory(one_heap=False)
jax.config.update("jax_cpu_enable_async_dispatch", False)  # as the command does
keep_programs()
model = alexnet()
state = create_train_state(model, run_key(0))
batch = {"image": np.zeros((32, 256, 256, 3), np.uint8), "label": np.zeros(32, np.int32)}
state, metrics = make_train_step(model)(state, batch, Hyperparameters())
assert np.isfinite(metrics["loss"])
"""


def start(cache: str) -> float:
    """Seconds of one process."""
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    started = time.perf_counter()
    tiny = f"alexnet(**{harness.TINY})"
    program = START.replace("alexnet()", tiny) if harness.quick() else START
    subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True
    )
    return time.perf_counter() - started


def main(_) -> None:
    """Measures, prints and writes."""
    harness.shorten(turns=1)
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(FLAGS.turns):
        with tempfile.TemporaryDirectory() as cache:
            for name in seconds:
                seconds[name].append(start(cache))
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    result = {
        name: {"median": statistics.median(times), "all": times} for name, times in seconds.items()
    }
    name = "start_cpu" + (f"_{FLAGS.label}" if FLAGS.label else "")
    harness.record(name, harness.rounded(result, 2))


if __name__ == "__main__":
    harness.run(main)
