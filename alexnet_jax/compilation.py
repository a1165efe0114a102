"""How a step is compiled: with the options that make it fast, alone or inside other programs."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import cache, lru_cache, update_wrapper, wraps
from typing import Any, Generic, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.files import cache_folder

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result", covariant=True)


class Compiled(jax.stages.Wrapped, Generic[Parameters, Result]):
    """What `jax.jit` makes of a function, with XLA options wherever jax takes them.

    jax takes compiler options on the outermost program alone. So the function has them where it
    is called by itself or under `jax.vmap`, and does without, and donates nothing, where it becomes
    a part of another program (`jit`, `scan`, `make_jaxpr` …) or of a derivative.

    A call reads arguments on the host as `reads` says, by name, before jax sees them.
    """

    def __init__(
        self,
        function: Callable[Parameters, Result],
        options: dict[str, Any] | None,
        donate_argnums: int | tuple[int, ...] = (),
        reads: Mapping[str, Callable[[Any], Any]] | None = None,
        **how: Any,
    ):
        update_wrapper(self, function)
        self._reads = reads or {}
        self._signature = inspect.signature(function)
        # Both share one trace of the function. A derivative goes back over what the part was given,
        # so that donates nothing.
        self._part: Any = jax.jit(function, **how)
        self._whole: Any = (
            self._part
            if options is None and donate_argnums == ()
            else jax.jit(function, compiler_options=options, donate_argnums=donate_argnums, **how)
        )

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        """Runs the function, compiled for these shapes."""
        given = self._signature.bind(*args, **kwargs)
        for name, read in self._reads.items():
            given.arguments[name] = read(given.arguments[name])
        try:
            result: Result = self._fitting(given.arguments)(*given.args, **given.kwargs)
        except (RuntimeError, ValueError) as error:
            if str(error).startswith("Received incompatible devices"):
                raise ValueError(
                    "the state, or the batch, lies on other devices than this step runs on; make "
                    "both with one mesh, or move the state: jax.device_put(state, "
                    "alexnet_jax.parallel.shardings(state, model, mesh))"
                ) from error
            if "has been deleted" in str(error):
                raise ValueError(_deleted(given.arguments)) from error
            raise
        return result

    def trace(self, *args: Any, **kwargs: Any) -> jax.stages.Traced:
        """As the method of a function from `jax.jit`."""
        traced: jax.stages.Traced = self._fitting((args, kwargs)).trace(*args, **kwargs)
        return traced

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """As the method of a function from `jax.jit`."""
        lowered: jax.stages.Lowered = self._fitting((args, kwargs)).lower(*args, **kwargs)
        return lowered

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """As the method of a function from `jax.jit`."""
        return self._part.eval_shape(*args, **kwargs)

    def clear_cache(self) -> None:
        """As the method of a function from `jax.jit`."""
        self._part.clear_cache()
        self._whole.clear_cache()

    def _cache_size(self) -> int:
        """As the method of a function from `jax.jit`: as many as there are programs, or more."""
        return int(self._whole._cache_size())

    def _fitting(self, arguments: Any) -> Any:
        """The form that jax takes here."""
        nested = self._whole is not self._part and (_staged() or _differentiated(arguments))
        return self._part if nested else self._whole


def compiled(
    function: Callable[Parameters, Result], *, runs: str = "often", **how: Any
) -> Compiled[Parameters, Result]:
    """`jax.jit(function)` with `compiler_options`, which may stand inside other programs too.

    Args:
      function: a pure function of arrays.
      runs: "often", or "once": then it is compiled in half the time, to slower code.
      how: arguments of `jax.jit`, as `donate_argnums`; and `reads`, name of an argument -> what a
        call makes of it on the host, for jax.
    """
    return Compiled(function, compiler_options(runs), **how)


def made_once(
    maxsize: int,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """`functools.lru_cache` for what makes a program of a network, among other arguments.

    A network with lists or dicts among its fields has no hash to find its program by: that is made
    again at every call.
    """

    def decorate(make: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        kept = lru_cache(maxsize)(make)

        @wraps(make)
        def made(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            try:
                hash(args)
            except TypeError:
                return make(*args, **kwargs)
            return kept(*args, **kwargs)  # type: ignore[arg-type]

        return made

    return decorate


def keep_programs() -> None:
    """Keeps compiled programs in the user's cache folder, where later processes find them.

    They are code that will be run, so the folder is the user's alone. Without a folder, or with
    one that `JAX_COMPILATION_CACHE_DIR` names, this does nothing.
    """
    cache = cache_folder()
    if cache is None or jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = cache / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # fails on another user's folder
    except OSError:
        return
    # Where the disk is full the program is compiled again, and nothing is lost.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _deleted(arguments: Mapping[str, Any]) -> str:
    """What to say where an argument is on no device any more; the first of them is the state."""
    for name, value in list(arguments.items())[1:]:
        for path, leaf in jax.tree.leaves_with_path(value):
            concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
            if concrete and leaf.is_deleted():
                return f"{name}{jax.tree_util.keystr(path)} was deleted; make it again"
    return "this state was donated to an earlier step; go on with the state that step returned"


@jax.jit
def _zero() -> jax.Array:
    return np.int32(0)  # type: ignore[return-value]  # jax makes it an array


def _staged() -> bool:
    """Whether operations are being recorded for another program, not run. Some 4 µs."""
    return isinstance(_zero(), jax.core.Tracer)


def _differentiated(arguments: Any) -> bool:
    """Whether a derivative by any of the arguments is being taken, whatever else surrounds it."""
    traced = [
        leaf
        for leaf in jax.tree.leaves(arguments)
        if isinstance(leaf, jax.core.Tracer) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    if not traced:  # as in an ordinary call, which this is to cost little
        return False
    found = False

    @jax.custom_jvp
    def same(leaves: list[jax.Array]) -> list[jax.Array]:
        return leaves

    @same.defjvp
    def same_jvp(
        primals: Any, tangents: Any
    ) -> Any:  # jax asks for it only where there is a derivative
        nonlocal found
        found = True
        return primals[0], tangents[0]

    same(traced)
    return found


@cache
def compiler_options(runs: str = "often") -> dict[str, Any] | None:
    """XLA options that make the step faster on CPU, where this jaxlib knows them; else None.

    Convolutions are left to Eigen, which uses all cores for few channels, and products to
    YNNPACK. The names are experimental, so each is tried on a trivial program first.

    Args:
      runs: as for `compiled`; "once" gives options that compile sooner, to the same numbers.
    """
    if jax.default_backend() != "cpu":
        return None
    options: dict[str, Any] = {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
        "xla_cpu_copy_insertion_use_region_analysis": True,
    }
    if runs == "once":
        options = {"xla_backend_optimization_level": 1}
    known = {}
    for name, value in options.items():
        try:
            jax.jit(jnp.negative, compiler_options={name: value}).lower(0.0).compile()
            known[name] = value
        except Exception:  # jaxlib has raised several types for an unknown option
            continue
    return known or None
