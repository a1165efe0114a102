"""A run as one program (StableHLO): pixels in, probabilities out, in any process that has jax."""

import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export

from alexnet_jax.eval_step import make_predictor
from alexnet_jax.files import local_path, naming, whole_file
from alexnet_jax.interop.exported import Facts, Predict
from alexnet_jax.interop.own import read_weights, write_weights
from alexnet_jax.interop.tensors import safetensors
from alexnet_jax.runs.workdir import Run
from alexnet_jax.wording import first_line

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
    check_packages(parameters)
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
    content = exported.serialize()
    with whole_file(path, "wb") as file:
        file.write(content)


def check_packages(parameters: str) -> None:
    """Raises ValueError where a package that writes a program is not installed."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise ValueError(
            "writing a program wants the package flatbuffers: pip install 'alexnet-jax[interop]'"
        )
    if parameters == "beside":
        safetensors()


def read_program(path: str | Path, facts: Facts | None = None) -> Predict:
    """The function uint8 [B, S, S, 3] -> probabilities [B, K] in a file of `write_program`.

    Args:
      path: of the program.
      facts: those on its card, whose weights the parameters beside it must be.

    Raises:
      ValueError: the file is damaged, or its parameters are not beside it, or are others. So does
        the function, where it is none of images.
    """
    path = local_path(path)
    try:
        exported = export.deserialize(bytearray(path.read_bytes()))
        beside = len(exported.in_avals) > 1
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # flatbuffers and MLIR raise what they like
        reason = first_line(error)
        raise ValueError(f"{path} is no program of jax.export ({reason})") from error
    arguments: tuple[Any, ...] = ()
    if beside:
        run = read_weights(_beside(path))
        if facts and run.weights_digest != facts["weights"]:
            raise ValueError(f"{_beside(path)} has other weights than the card of {path.name}")
        arguments = (flatten_dict(run.params, sep="."),)

    def predict(images: np.ndarray) -> np.ndarray:
        with naming(path, " predicts nothing of these images"):
            found = exported.call(*arguments, images)
            shape = getattr(found, "shape", None)
            classes = len(facts["class_names"]) if facts else (shape or [0])[-1]
            if shape != (len(images), classes):
                what = f"the shape {shape}" if shape is not None else f"a {type(found).__name__}"
                raise ValueError(f"it gives {what}; probabilities are [images, classes]")
            return np.asarray(found)

    return predict


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.safetensors")  # net.safetensors may be there already
