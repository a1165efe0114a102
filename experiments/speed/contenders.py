"""What races in `experiments.speed.step`: our step and PyTorch's, each in every form.

    python -m experiments.speed.contenders '{"measure": "train", …}'

is one of them in a process of its own: it takes a turn of so many updates for each line of input.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

from alexnet_jax import Hyperparameters, alexnet, create_train_state, make_train_step
from alexnet_jax.eval_step import make_predict_step
from alexnet_jax.machine import keep_freed_memory
from experiments import harness
from experiments.speed.forms import FORMS, replaced


def side() -> int:
    """Of the stored images."""
    return 72 if harness.quick() else 256


def batch_of(size: int) -> dict[str, jax.Array]:
    """Random stored images and labels, on the device."""
    rng = np.random.default_rng(0)
    return jax.device_put(
        {
            "image": rng.integers(0, 256, (size, side(), side(), 3), np.uint8),
            "label": rng.integers(0, 1000, size).astype(np.int32),
        }
    )


class Ours:
    """Our step in one form; lowered at once, compiled by `compile`, called for a turn."""

    def __init__(self, measure: str, precision: str, size: int, form: str):
        self.model = alexnet(precision=precision, **(harness.TINY if harness.quick() else {}))
        self.measure, self.size = measure, size
        state = jax.eval_shape(lambda: create_train_state(self.model, jax.random.key(0)))
        batch = {
            "image": jax.ShapeDtypeStruct((size, side(), side(), 3), jnp.uint8),
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
        # Of the program; what is donated is counted as an argument alone.
        parts = ("temp_size", "argument_size", "output_size")
        sizes = [getattr(memory, f"{part}_in_bytes", 0) for part in parts]
        self.device_bytes = sum(sizes) - getattr(memory, "alias_size_in_bytes", 0)

    def begin(self, batch: dict[str, jax.Array]) -> None:
        self.state, self.batch = create_train_state(self.model, jax.random.key(0)), batch

    def __call__(self, times: int) -> None:
        for _ in range(times):
            if self.measure == "train":
                self.state, result = self._step(self.state, self.batch, Hyperparameters())
            else:
                result = self._step(self.state, {"image": self.batch["image"]})
        jax.block_until_ready(result)

    def end(self) -> None:
        del self.state, self.batch


def precisions() -> tuple[str, ...]:
    """Those that differ on this backend."""
    if harness.quick():
        return ("float32",)
    cpu = jax.default_backend() == "cpu"
    return ("float32", "bfloat16") if cpu else ("float32", "tensorfloat32", "bfloat16")


class Theirs:
    """PyTorch's step in one mode; called for a turn."""

    def __init__(self, measure: str, size: int, how: dict[str, Any]):
        from experiments.speed.torch_alexnet import Step

        self._step = Step(size, measure, **how)

    def __call__(self, times: int) -> None:
        for _ in range(times):
            self._step()
        self._step.wait()

    @property
    def device_bytes(self) -> int | None:
        """The most memory its arrays took on a GPU."""
        return self._step.device_bytes()


def torch_modes() -> dict[str, dict[str, Any]]:
    """Name -> how, of every way to run PyTorch."""
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    return {
        f"PyTorch {'compile' if compiled else 'eager'} "
        f"{'channels_last' if channels_last else 'NCHW'} {precision}": {
            "device": device,
            "precision": precision,
            "channels_last": channels_last,
            "compile": compiled,
        }
        for precision in precisions()
        for compiled in (False, True)
        for channels_last in (True, False)
    }


def timed(contender: Callable[[int], None], updates: int) -> float:
    """Seconds of one turn; a first update wakes what slept."""
    contender(1)
    started = time.perf_counter()
    contender(updates)
    return time.perf_counter() - started


class Process:
    """A contender in a process of its own, called for a turn."""

    def __init__(self, contender: dict[str, Any]):
        # Not a pipe: that fills where nobody reads it.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives as long as this
        command = [sys.executable, "-m", "experiments.speed.contenders", json.dumps(contender)]
        self._process = subprocess.Popen(
            [*command, *["--quick"] * harness.quick()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.facts = self._answer()

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout:  # torch and jax may print, too
            if line.startswith("{"):
                return json.loads(line)
        self._errors.seek(0)
        raise RuntimeError(self._errors.read().strip()[-300:])

    def __call__(self, updates: int) -> float:
        self._process.stdin.write(f"{updates}\n")
        self._process.stdin.flush()
        return self._answer()["seconds"]

    def end(self) -> dict[str, Any]:
        """Ends it; what it says of its memory."""
        self._process.stdin.close()
        facts = self._answer()
        self._process.wait()
        return facts


def main(argv: list[str]) -> None:
    """Is one contender: a line of JSON when it is ready, after every turn, and at the end."""
    contender = json.loads(argv[1])
    started = time.perf_counter()
    if contender.pop("keep"):
        keep_freed_memory(one_heap="form" not in contender)
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # as our commands do
    if "form" in contender:
        turn: Any = Ours(**contender)
        turn.compile()
        turn.begin(batch_of(contender["size"]))
    else:
        turn = Theirs(**contender)
    turn(1)
    facts = {"seconds_to_first": time.perf_counter() - started}
    if "form" in contender:
        facts["temporary_bytes"] = turn.temporary_bytes
    print(json.dumps(facts), flush=True)
    for updates in sys.stdin:
        print(json.dumps({"seconds": timed(turn, int(updates))}), flush=True)
    facts = {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if "form" not in contender:
        facts["device_bytes"] = turn.device_bytes
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    app.run(main)
