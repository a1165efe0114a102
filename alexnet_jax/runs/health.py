"""Whether a run is well: numbers that are not finite, layers that cannot learn, hungry updates."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from alexnet_jax.models.layers import Network
from alexnet_jax.vitals import Vitals

# A validation loss within 2% of ln K after so many steps is no slow start but the plateau.
PLATEAU_STEPS = 300
# A layer with this share of dead units, or an update of this many times its weights, is unwell.
DEAD, LARGEST_UPDATE = 0.9, 1.0
# A layer with this part of the last one's gradient starves, as do updates that wait this share.
STARVED, STARVING = 1e-3, 0.5
LEAST_SECONDS = 5.0


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """bool: every floating-point value of a tree is a number."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


def not_finite(fact: str, step: int, kept: int | None, workdir: Path) -> FloatingPointError:
    """The error that ends a run whose numbers are not finite, with what its user can do.

    Args:
      fact: what is not finite: "the loss …" of an update, which is that before it, or another.
      step: where.
      kept: the last good checkpoint, if there is one.
      workdir: of the run.
    """
    if step == 0 or (step == 1 and fact.startswith("the loss")):  # no rate is to blame
        return FloatingPointError(
            f"{fact} at step {step}, before the weights were changed; look at the images, at "
            "--config.augmentation, --config.color_strength and the data's mean, or at the weights "
            "of --config.init_from"
        )
    remedy = "lower --config.learning_rate, or add --config.schedule.warmup_epochs"
    if kept is None:
        return FloatingPointError(f"{fact} at step {step}, before any checkpoint; {remedy}")
    return FloatingPointError(
        f"{fact} at step {step}; checkpoint {kept} is kept; start another --workdir and {remedy} "
        f"(--config.init_from={workdir} starts from the best weights here)"
    )


class Health:
    """What to say of a run that is not well; the same thing of the same layer once."""

    def __init__(self, *, biases: bool = True) -> None:
        """`biases`: the network has a field for those that hidden layers begin with."""
        self._remedies = "lower --config.learning_rate"
        if biases:
            self._remedies += ", or begin with larger biases (--config.model.hidden_bias)"
        self._said: set[tuple[str, str]] = set()
        self._signs: Vitals | None = None

    def of_vitals(self, step: int, signs: Vitals) -> list[str]:
        """Warnings about the vital signs of update `step`."""
        self._signs = signs
        found = []
        for layer, values in signs["layers"].items():
            if values.get("dead", 0) >= DEAD and self._first("dead", layer):
                found.append(
                    f"warning: at step {step:,} {values['dead']:.0%} of {layer}'s units are zero "
                    f"for every image of the batch, and learn no more: {self._remedies}"
                )
            if not values["update"] < LARGEST_UPDATE and self._first("update", layer):
                found.append(
                    f"warning: update {step:,} changes {layer} by {values['update']:.3g} times its "
                    "own size; lower --config.learning_rate, or add "
                    "--config.schedule.warmup_epochs"
                )
        return found

    def of_input(self, waited: float, seconds: float, images_per_second: float) -> str | None:
        """A warning where updates wait for images most of the time, long enough to tell."""
        if seconds < LEAST_SECONDS or waited < STARVING or not self._first("input", ""):
            return None
        return (
            f"warning: {waited:.0%} of the time goes by waiting for images, which come at "
            f"{images_per_second:,.0f} a second; prepare them as raw pixels "
            "(python -m alexnet_jax.prepare --encoding=raw), keep them in memory "
            "(--config.cache=host) or read with more processes (--config.read_workers)"
        )

    def of_loss(self, step: int, loss: float, model: Network) -> str | None:
        """A warning where a validation loss (nats) sits at chance."""
        chance = math.log(model.num_classes)
        if step < PLATEAU_STEPS or abs(loss - chance) >= 0.02 * chance:
            return None
        remedies = ["a larger --config.learning_rate"]
        if getattr(model, "initialization", "original") != "original":
            remedies.insert(0, "--config.model.initialization=original")
        return (
            f"warning: the validation loss sits at ln {model.num_classes} = {chance:.3f}, chance "
            f"level: the known plateau of small initial weights{self._starving()}. If it stays, "
            f"start another --workdir with {' or '.join(remedies)}; check that pixels are 0-255 "
            "with the mean subtracted."
        )

    def _starving(self) -> str:
        """Which layers hardly any gradient reaches, in words."""
        if self._signs is None:
            return " (--config.watch_every_steps=100 shows which layers starve)"
        layers = self._signs["layers"]
        head = list(layers)[-1]
        least = STARVED * layers[head]["gradient"]
        starved = [name for name in layers if layers[name]["gradient"] < least]
        if not starved:
            return ""
        return f"; {', '.join(starved)} starve, with gradients below {STARVED:g} of {head}'s"

    def _first(self, what: str, layer: str) -> bool:
        new = (what, layer) not in self._said
        self._said.add((what, layer))
        return new
