"""A run as one program (StableHLO): pixels in, probabilities out, in any process that has jax."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export

from alexnet_jax.files import local_path, whole_file
from alexnet_jax.interop.exported import Facts
from alexnet_jax.interop.own import params_in, write_weights
from alexnet_jax.interop.tensors import read_tensors
from alexnet_jax.runs.workdir import Run
from alexnet_jax.step import make_predictor

PLATFORMS = ("cpu", "cuda")


def write_program(
    run: Run,
    path: str | Path,
    facts: Facts | None = None,
    *,
    parameters: str = "inside",
    platforms: tuple[str, ...] = PLATFORMS,
) -> None:
    """Writes the test-time network with its preprocessing, for any number of images.

    `jax.export.deserialize(bytes).call(images)` gives the mean probabilities float32 [B, K] of the
    views that the run is tested with, of uint8 RGB images [B, S, S, 3], S being `stored_size`. With
    parameters "beside" the call takes them first, {"conv1.kernel": …}, as
    `NAME.stablehlo.safetensors` beside the program holds them.

    Args:
      run: from `load_run`.
      path: of the program, such as net.stablehlo.
      facts: as of `write_weights`.
      parameters: "inside" or "beside".
      platforms: where it is to run.

    Raises:
      ValueError: `parameters` is neither, or the package flatbuffers is not installed.
    """
    if parameters not in ("inside", "beside"):
        raise ValueError(f"parameters={parameters!r}; use 'inside' or 'beside'")
    path = local_path(path)
    predict = make_predictor(run.model, run.augmentation, run.views)
    flat = jax.tree.map(np.asarray, flatten_dict(run.params, sep="."))
    size = run.config.stored_size
    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)

    def probabilities(params: Any, images: Any) -> jax.Array:
        return jnp.exp(predict(unflatten_dict(params, sep="."), images))

    if parameters == "inside":
        exported = export.export(
            jax.jit(lambda images: probabilities(flat, images)), platforms=platforms
        )(images)
    else:
        shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flat.items()}
        exported = export.export(jax.jit(probabilities), platforms=platforms)(shapes, images)
        write_weights(run, _beside(path), facts)
    try:
        content = exported.serialize()
    except ImportError as error:
        raise ValueError(
            "writing a program wants the package flatbuffers: pip install 'alexnet-jax[interop]'"
        ) from error
    with whole_file(path, "wb") as file:
        file.write(content)


def read_program(path: str | Path) -> Any:
    """The function uint8 [B, S, S, 3] -> probabilities [B, K] in a file of `write_program`.

    Raises:
      ValueError: the file is damaged, or its parameters are not beside it.
    """
    path = local_path(path)
    try:
        exported = export.deserialize(bytearray(path.read_bytes()))
        beside = len(exported.in_avals) > 1
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # flatbuffers and MLIR raise what they like
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is no program of jax.export ({reason})") from error
    if not beside:
        return exported.call
    arrays = params_in(read_tensors(_beside(path)))
    return lambda images: exported.call(arrays, images)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.safetensors")  # net.safetensors may be there already
