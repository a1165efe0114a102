"""Whether a run is well: numbers that are not finite, and the plateau of a slow start."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

# A validation loss within 2% of ln K after so many steps is no slow start but the plateau.
PLATEAU_STEPS = 300


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """bool: every floating-point value of a tree is a number."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


def not_finite(fact: str, step: int, kept: int | None, workdir: Path) -> FloatingPointError:
    """The error that ends a run whose numbers are not finite, with what its user can do.

    Args:
      fact: what is not finite.
      step: where.
      kept: the last good checkpoint, if there is one.
      workdir: of the run.
    """
    remedy = "lower --config.learning_rate, or add --config.schedule.warmup_epochs"
    if kept is None:
        return FloatingPointError(f"{fact} at step {step}, before any checkpoint; {remedy}")
    return FloatingPointError(
        f"{fact} at step {step}; checkpoint {kept} is kept; start another --workdir and {remedy} "
        f"(--config.init_from={workdir} starts from the best weights here)"
    )


def plateau_warning(step: int, loss: float, num_classes: int, initialization: str) -> str | None:
    """What to say of a validation loss (nats) that sits at chance; None where it does not."""
    chance = math.log(num_classes)
    if step < PLATEAU_STEPS or abs(loss - chance) >= 0.02 * chance:
        return None
    remedies = ["a larger --config.learning_rate"]
    if initialization != "original":
        remedies.insert(0, "--config.model.initialization=original")
    return (
        f"warning: the validation loss sits at ln {num_classes} = {chance:.3f}, chance level: the "
        f"known plateau of small initial weights. If it stays, start another --workdir with "
        f"{' or '.join(remedies)}; check that pixels are 0-255 with the mean subtracted."
    )
