"""The train and evaluation steps: the library's public heart (sections 3.2, 4, 5).

Everything is state in, state out. The mesh decides where the arrays lie; model and step are the
same on one device, on two towers, on many hosts.
"""

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax import augment, parallel
from alexnet_jax.augment import Augmentation
from alexnet_jax.models.layers import Network
from alexnet_jax.optimizer import update_rule

Batch = Mapping[str, Any]

METRICS = ("loss", "top1_error", "top5_error")  # nats, and shares of the images


class TrainState(flax.struct.PyTreeNode):
    """All that changes in training; every leaf is a `jax.Array`.

    Fields:
      step: int32 number of updates done.
      params: layer -> {"kernel", "bias"}, float32.
      opt_state: the velocity, shaped as the parameters.
      key: the run's PRNG key, never changed: draws fold in the step.
    """

    step: jax.Array
    params: dict[str, dict[str, jax.Array]]
    opt_state: optax.OptState
    key: jax.Array


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False)
class Hyperparameters:
    """What a sweep varies without compiling again; the defaults are the paper's.

    However a number is written (Python, NumPy or JAX, integer or float), it becomes a float32
    `jax.Array`. `jax.vmap(Hyperparameters)(rates)` is a stack of them, one a rate, to `vmap` over.

    Fields:
      learning_rate: ε.
      momentum: 0.9.
      weight_decay: 0.0005, of kernels.
      color_strength: standard deviation of the colour shift.
      rate_multipliers: factors on the rate, a tree with the parameters' names or a part of it,
        such as `{"conv1": 0.1, "fc8": {"bias": 2.0}}`; 0 freezes. A tree of another structure
        compiles again, other values do not.
      decay_multipliers: the same for the decay, which biases have none of by default.
    """

    learning_rate: Any = 0.01
    momentum: Any = 0.9
    weight_decay: Any = 5e-4
    color_strength: Any = 0.1
    rate_multipliers: Any = None
    decay_multipliers: Any = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    def replace(self, **changes: Any) -> "Hyperparameters":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def tree_flatten_with_keys(self):
        """For jax: fields are the children."""
        names = [field.name for field in dataclasses.fields(self)]
        keys = map(jax.tree_util.GetAttrKey, names)
        return [(key, getattr(self, name)) for key, name in zip(keys, names, strict=True)], names

    @classmethod
    def tree_unflatten(cls, names, children):
        """For jax: takes any children as they are, since jax puts placeholders into trees."""
        self = object.__new__(cls)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(self, name, child)
        return self


def create_train_state(model: Network, key: jax.Array, *, mesh: Mesh | None = None) -> TrainState:
    """Initialises parameters and velocity, the same on every mesh, and places them.

    Args:
      model: the network.
      key: PRNG key of the run; initialisation and all later draws come from it.
      mesh: where to place the state; None is the default device.

    Raises:
      ValueError: the model cannot be split over the mesh.
    """
    parallel.check_mesh(model, mesh)

    def create(key):
        images = jnp.zeros((1, model.image_size, model.image_size, 3), jnp.float32)
        init_key, run_key = jax.random.split(key)
        params = model.init(init_key, images)["params"]
        opt_state = update_rule(learning_rate=0.0).init(params)
        return TrainState(jnp.int32(0), params, opt_state, run_key)

    if mesh is None:
        return jax.jit(create)(key)
    placed = parallel.shardings(jax.eval_shape(create, key), model, mesh)
    return jax.jit(create, out_shardings=placed)(key)


def state_template(model: Network, mesh: Mesh | None) -> TrainState:
    """The shapes, dtypes and placement of a train state; computes nothing."""
    state = jax.eval_shape(lambda: create_train_state(model, jax.random.key(0)))
    if mesh is None:
        placed = jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), state)
    else:
        placed = parallel.shardings(state, model, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        placed,
    )


def make_train_step(
    model: Network,
    augmentation: Augmentation | None = None,
    *,
    mesh: Mesh | None = None,
    max_traces: int | None = None,
):
    """Builds the jitted step `(state, batch, hparams) -> (state, metrics)`; the state is donated.

    `batch` is {"image": uint8 [B, S, S, 3], "label": int32 [B]}, NumPy or JAX; float32 images
    [B, s, s, 3] are taken as augmented already (by `data.host.host_augment`). The metrics are
    the batch's mean "loss" (nats) and "top1_error" and "top5_error" (shares), float32 scalars of
    the augmented images before the update.

    Args:
      model: the network.
      augmentation: what is done to the images; None takes ImageNet's constants.
      mesh: devices to run on, from `make_mesh`; None is one device.
      max_traces: raise AssertionError where the step is compiled more often than this. chex
        counts by the function's name: `chex.clear_trace_counter()` comes before another model.

    Raises:
      ValueError: the model cannot be split over the mesh; or, at a call, the images do not have
        three channels, are too small, or do not divide over the mesh.
    """
    train_step = _train_step(model, augmentation, mesh)
    if max_traces is not None:
        train_step = chex.assert_max_traces(train_step, n=max_traces)
    return jax.jit(train_step, donate_argnums=0, compiler_options=compiler_options())


def make_train_steps(
    model: Network, augmentation: Augmentation | None = None, *, mesh: Mesh | None = None
):
    """Builds jitted updates in one call, `(state, data, indices, hparams) -> (state, metrics)`.

    The same updates as those of `make_train_step`, one after the other. `data` is a whole split,
    {"image": uint8 [N, S, S, 3], "label": int32 [N]}, on every device; `indices` int32 [T, B] are
    the images of each update, a leaf of `hparams` is float32 [T], a metric float32 [T]. The state
    is donated. Arguments and errors as in `make_train_step`. Slow on CPU, where XLA does not take
    its fast convolutions inside a loop.
    """
    train_step = _train_step(model, augmentation, mesh)
    rows = None if mesh is None else NamedSharding(mesh, parallel.batch_spec(mesh))

    def train_steps(state, data, indices, hparams):
        def one(state, update):
            chosen, hparams = update
            batch = {name: jnp.take(array, chosen, axis=0) for name, array in data.items()}
            if rows is not None:
                batch = jax.lax.with_sharding_constraint(batch, rows)
            return train_step(state, batch, hparams)

        return jax.lax.scan(one, state, (indices, hparams))

    return jax.jit(train_steps, donate_argnums=0, compiler_options=compiler_options())


def _train_step(model, augmentation, mesh):
    """The function that `make_train_step` compiles."""
    parallel.check_mesh(model, mesh)
    augmentation = augmentation or Augmentation()
    axes = parallel.axes_of(mesh)
    net = model.split(axes.towers)

    def local_step(state: TrainState, batch: Batch, hparams: Hyperparameters):
        labels = batch["label"]
        count = len(labels) * axes.shards
        keys = augment.example_keys(state.key, state.step, axes.positions(len(labels)))
        images = batch["image"]
        if images.dtype != jnp.float32:  # float32: the host has augmented them
            images = augment.augment(
                images, keys, augmentation, model.image_size, hparams.color_strength
            )

        def mean_loss(params):
            variables = {"params": axes.replicate(params)}
            logits = net.apply(variables, images, train=True, dropout_keys=keys)
            losses = image_scores(jax.nn.log_softmax(logits), labels)
            return losses["loss"].sum() / count, losses

        gradients, scores = jax.grad(mean_loss, has_aux=True)(state.params)
        rule = update_rule(
            hparams.learning_rate,
            hparams.momentum,
            hparams.weight_decay,
            hparams.rate_multipliers,
            hparams.decay_multipliers,
        )
        updates, opt_state = rule.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = axes.sum({name: score.sum() / count for name, score in scores.items()})
        return TrainState(state.step + 1, params, opt_state, state.key), metrics

    def train_step(state, batch, hparams):
        return _on_mesh(local_step, model, mesh)(state, batch, hparams)

    return train_step


def make_eval_step(
    model: Network,
    augmentation: Augmentation | None = None,
    *,
    views: str = "center",
    mesh: Mesh | None = None,
):
    """Builds the jitted `(state, batch) -> sums` over the images of a batch.

    The sums are "loss" (nats), "top1_error", "top5_error" and "count", float32 scalars.
    `batch["mask"]` (float or bool [B], optional) says which images count.

    Args:
      model: the network.
      augmentation: its mean is subtracted; None takes ImageNet's.
      views: "center" crop, or "ten" views whose probabilities are averaged.
      mesh: as in `make_train_step`.

    Raises:
      ValueError: as in `make_train_step`, or for unknown views.

    Source: AlexNet §4.1; ties are scored as the authors' code does.
    """
    predict = _predictor(model, augmentation, views, mesh)
    axes = parallel.axes_of(mesh)

    def local_step(state: TrainState, batch: Batch):
        scores = image_scores(predict(state.params, batch["image"]), batch["label"])
        scores["count"] = jnp.ones_like(scores["loss"])
        mask = batch.get("mask", scores["count"])
        return axes.sum({name: jnp.where(mask, score, 0).sum() for name, score in scores.items()})

    def eval_step(state, batch):
        return _on_mesh(local_step, model, mesh)(state, batch)

    return jax.jit(eval_step, compiler_options=compiler_options())


def make_predict_step(
    model: Network,
    augmentation: Augmentation | None = None,
    *,
    views: str = "center",
    mesh: Mesh | None = None,
):
    """Builds the jitted `(state, batch) -> log-probabilities` float32 [B, num_classes].

    Arguments as in `make_eval_step`; only `batch["image"]` is read.
    """
    predict = _predictor(model, augmentation, views, mesh)

    def local_step(state: TrainState, batch: Batch):
        return predict(state.params, batch["image"])

    def predict_step(state, batch):
        images = {"image": batch["image"]}
        return _on_mesh(local_step, model, mesh, out_specs=parallel.batch_spec(mesh))(state, images)

    return jax.jit(predict_step, compiler_options=compiler_options())


def _predictor(model, augmentation, views, mesh):
    """The function (params, images) -> log of the views' mean probabilities [B, num_classes]."""
    parallel.check_mesh(model, mesh)
    augmentation = augmentation or Augmentation()
    net = model.split(parallel.axes_of(mesh).towers)
    cut = {"center": augment.center_view, "ten": augment.ten_views}
    if views not in cut:
        raise ValueError(f"views={views!r}; use 'center' or 'ten'")

    def predict(params, images):
        crops = cut[views](images, augmentation, model.image_size)
        logits = net.apply({"params": params}, crops.reshape(-1, *crops.shape[2:]))
        log_probs = jax.nn.log_softmax(logits).reshape(*crops.shape[:2], -1)
        return jax.nn.logsumexp(log_probs, axis=0) - np.log(len(crops))

    return predict


def _on_mesh(step, model, mesh, out_specs=None):
    """`step` itself, or mapped over the mesh: the state by its specs, the batch by its rows."""
    if mesh is None:
        return step

    def mapped(state, batch, *rest):
        parallel.check_batch(batch, mesh)
        specs = parallel.partition_specs(state, model, mesh)
        out = out_specs if out_specs is not None else ((specs, P()) if rest else P())
        over = (specs, parallel.batch_spec(mesh), *(P() for _ in rest))
        return jax.shard_map(step, mesh=mesh, in_specs=over, out_specs=out)(state, batch, *rest)

    return mapped


def image_scores(log_probs: Any, labels: Any) -> dict[str, Any]:
    """ "loss" and "top1_error", "top5_error" of each image, float [B]; NumPy or JAX.

    Of the classes tied with the label, those that still fit into the k share the credit.

    Args:
      log_probs: float [B, K].
      labels: int [B].

    Source: the authors' 2012 code.
    """
    xp = log_probs.__array_namespace__()
    own = xp.take_along_axis(log_probs, labels[:, None], axis=-1)
    above = (~(log_probs <= own)).sum(-1)  # so that NaN is an error, not a tie
    tied = xp.maximum((log_probs == own).sum(-1), 1)
    return {
        "loss": -own[:, 0],
        **{f"top{k}_error": 1 - xp.clip((k - above) / tied, 0, 1) for k in (1, 5)},
    }


@cache
def compiler_options() -> dict[str, Any] | None:
    """XLA options that make the step faster on CPU, where this jaxlib knows them; else None.

    Convolutions are left to Eigen, which uses all cores for few channels, and products to
    YNNPACK. The names are experimental, so each is tried on a trivial program first.
    """
    if jax.default_backend() != "cpu":
        return None
    known = {}
    for name, value in (
        ("xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"),
        ("xla_cpu_copy_insertion_use_region_analysis", True),
    ):
        try:
            jax.jit(jnp.negative, compiler_options={name: value}).lower(0.0).compile()
            known[name] = value
        except Exception:  # jaxlib has raised several types for an unknown option
            continue
    return known or None
