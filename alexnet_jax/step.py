"""The train step, and with those of `eval_step` the library's public heart (sections 3.2, 5).

Everything is state in, state out. The mesh decides where the arrays lie; model and step are the
same on one device, on two towers, on many hosts.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from alexnet_jax import augment, parallel, vitals
from alexnet_jax.arguments import (
    check_hparams,
    check_logits,
    check_network,
    check_opt_state,
    check_rule,
    check_state,
    check_updates,
    check_watch_every,
    read_training_batch,
)
from alexnet_jax.augment import Augmentation, AugmentationProtocol, sized, threefry
from alexnet_jax.compilation import Compiled, compiled, compiler_options, made_once
from alexnet_jax.eval_step import EvalStep, PredictStep, make_eval_step, make_predict_step
from alexnet_jax.models.layers import Network
from alexnet_jax.optimizer import update_rule
from alexnet_jax.scores import METRICS, Metrics, float32_scores, image_scores, in_32_bits, is_class
from alexnet_jax.state import Batch, Hyperparameters, TrainState, run_key
from alexnet_jax.wording import first_line

__all__ = [
    "METRICS",
    "Batch",
    "EvalStep",
    "Hyperparameters",
    "Metrics",
    "PredictStep",
    "Rule",
    "TrainState",
    "TrainStep",
    "TrainSteps",
    "compiled",
    "compiler_options",
    "create_train_state",
    "image_scores",
    "make_eval_step",
    "make_predict_step",
    "make_train_step",
    "make_train_steps",
    "run_key",
    "state_template",
]

Rule = Callable[..., optax.GradientTransformation]  # of fields of `Hyperparameters`, by name


class TrainStep(jax.stages.Wrapped, Protocol):
    """What `make_train_step` makes: one update. It has the methods of a `jax.jit` function."""

    def __call__(
        self, state: TrainState, batch: Batch, hparams: Hyperparameters
    ) -> tuple[TrainState, Metrics]:
        """The state after the update, and the metrics of the batch before it."""
        ...


class TrainSteps(jax.stages.Wrapped, Protocol):
    """What `make_train_steps` makes: several updates."""

    def __call__(
        self, state: TrainState, data: Batch, indices: Any, hparams: Hyperparameters
    ) -> tuple[TrainState, Metrics]:
        """The state after the updates, and the metrics of each."""
        ...


def create_train_state(
    model: Network, key: jax.Array, *, rule: Rule = update_rule, mesh: Mesh | None = None
) -> TrainState:
    """Initialises parameters and the rule's state, the same on every mesh, and places them.

    Compiled once for a network, rule and mesh, whatever the seed.

    Args:
      model: the network.
      key: PRNG key of the run; initialisation and all later draws come from it. One that is not
        threefry (`run_key`) is made into the threefry key of the same seed; raw words are taken.
      rule: as given to `make_train_step`.
      mesh: where to place the state; None is the default device.

    Raises:
      ValueError: the model cannot be split over the mesh.
    """
    check_network(model)
    parallel.check_mesh(model, mesh)
    check_rule(rule)

    key = threefry(key)
    if mesh is not None and not isinstance(key, jax.core.Tracer) and key.committed:
        key = jax.device_put(key, NamedSharding(mesh, PartitionSpec()))
    return _compiled_creation(model, rule, mesh)(key)


@made_once(32)  # many seeds of one network are one program
def _compiled_creation(
    model: Network, rule: Rule, mesh: Mesh | None
) -> Compiled[[jax.Array], TrainState]:
    def create(key: jax.Array) -> TrainState:
        images = jnp.zeros((1, model.image_size, model.image_size, 3), jnp.float32)
        init_key, kept_key = jax.random.split(key)
        params = model.init(init_key, images)["params"]
        opt_state = _rule_at(rule, Hyperparameters()).init(params)
        return TrainState(jnp.int32(0), params, opt_state, kept_key)

    if mesh is None:
        return compiled(create, runs="once")
    placed = parallel.shardings(jax.eval_shape(create, run_key(0)), model, mesh)
    return compiled(create, runs="once", out_shardings=placed)


def state_template(model: Network, mesh: Mesh | None, rule: Rule = update_rule) -> TrainState:
    """The shapes, dtypes and placement of a train state; computes none of it."""
    state = jax.eval_shape(lambda: create_train_state(model, run_key(0), rule=rule))
    if mesh is None:
        (device,) = jnp.zeros(()).devices()  # the default one, of this process
        placed = jax.tree.map(lambda _: SingleDeviceSharding(device), state)
    else:
        placed = parallel.shardings(state, model, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        placed,
    )


def make_train_step(
    model: Network,
    augmentation: AugmentationProtocol | None = None,
    *,
    rule: Rule = update_rule,
    mesh: Mesh | None = None,
    max_traces: int | None = None,
    watch_every: int = 0,
) -> TrainStep:
    """Builds the jitted step `(state, batch, hparams) -> (state, metrics)`; the state is donated.

    `batch` is {"image": uint8 [B, S, S, 3], "label": int32 [B]}, NumPy or JAX. The metrics are
    the batch's mean "loss" (nats) and "top1_error" and "top5_error" (shares), float32 scalars of
    the augmented images before the update. A label outside 0 to num_classes - 1 makes the loss
    and the update NaN. The step may stand inside `jit`, `scan`, `vmap`, `grad` and the like, but
    forward mode (`jax.jvp`, `jacfwd`, `hessian`) does not pass the gradients of `alexnet_jax.ops`.

    Args:
      model: the network. Its parameters alone are trained: networks that keep statistics of
        batches (mutable collections) are out of scope.
      augmentation: what is done to the images; None takes the paper's with ImageNet's constants.
        `AlreadyAugmented` is for images that the host augments.
      rule: makes the Optax transform of the update, from the fields of `Hyperparameters` that
        its signature names: `optax.adam`, `optax.adamw` … What a `functools.partial` has given by
        name stays: `partial(optax.adamw, weight_decay=0.1)`. Under a mesh with model=2 it sees the
        parameters of one tower, so it should treat each value by itself: no norm over all
        (`clip_by_global_norm`, `apply_if_finite`, `adafactor`: refused) or over a layer (`lamb`,
        `lars`, `muon`: another update than on one device), no draws (`add_noise`: the same for both
        towers). The state is to be created with the same rule.
      mesh: devices to run on, from `make_mesh`; None is one device.
      max_traces: raise AssertionError where the step is compiled more often than this. chex
        counts by the function's name: `chex.clear_trace_counter()` comes before another model.
      watch_every: take the network's vital signs (`alexnet_jax.vitals`) at the first update and
        at every one whose number this divides: metric "vitals", zeros at the others. 0: never,
        and the metric is not there.

    Raises:
      ValueError: the model cannot be split over the mesh; or, at a call, the images do not have
        three channels, are too small, or do not divide over the mesh, the batch has a "mask", a
        hyper-parameter is no scalar, multipliers are given that the rule does not take, or the
        rule mixes both towers; or an argument is none such.
    """
    train_step = _train_step(model, augmentation, rule, mesh, watch_every)
    if max_traces is not None:
        train_step = chex.assert_max_traces(train_step, n=max_traces)
    return compiled(train_step, donate_argnums=0, reads={"batch": read_training_batch})


def make_train_steps(
    model: Network,
    augmentation: AugmentationProtocol | None = None,
    *,
    rule: Rule = update_rule,
    mesh: Mesh | None = None,
    watch_every: int = 0,
) -> TrainSteps:
    """Builds jitted updates in one call, `(state, data, indices, hparams) -> (state, metrics)`.

    The same updates as those of `make_train_step`, one after the other. `data` is a whole split,
    {"image": uint8 [N, S, S, 3], "label": int32 [N]}, on every device; `indices` int32 [T, B] are
    the images of each update, a leaf of `hparams` is float32 [T], a metric float32 [T]. An index
    outside 0 to N - 1 makes the loss and the update NaN. The state is donated. Arguments and errors
    as in `make_train_step`. Slow on CPU, where XLA does not take its fast convolutions inside a
    loop.
    """
    train_step = _train_step(model, augmentation, rule, mesh, watch_every)
    rows = None if mesh is None else NamedSharding(mesh, parallel.batch_spec(mesh))

    def train_steps(
        state: TrainState, data: Batch, indices: Any, hparams: Hyperparameters
    ) -> tuple[TrainState, Metrics]:
        data = read_training_batch(data)
        # For an index outside, `take` fills in a class of unsigned labels, but none of signed ones.
        data["label"] = jnp.asarray(data["label"]).astype(jnp.int32)
        check_updates(indices, hparams)
        indices = in_32_bits(jnp.asarray(indices))
        indices = indices.astype(jnp.uint32)  # so that -1 is not the last image

        def one(state: TrainState, update: Any) -> tuple[TrainState, Metrics]:
            chosen, hparams = update
            batch = {name: jnp.take(array, chosen, axis=0) for name, array in data.items()}
            if rows is not None:
                batch = jax.lax.with_sharding_constraint(batch, rows)
            return train_step(state, batch, hparams)

        return jax.lax.scan(one, state, (indices, hparams))

    reads = {"data": read_training_batch, "indices": in_32_bits}
    return compiled(train_steps, donate_argnums=0, reads=reads)


def _rule_at(rule: Rule, hparams: Hyperparameters) -> optax.GradientTransformation:
    """The transform that `rule` makes of the hyper-parameters that its signature names.

    Raises ValueError for one that is set, where None is usual, and that the rule does not take.
    """
    parameters = inspect.signature(rule).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    bound = _bound(rule)
    values = {}
    for field in dataclasses.fields(hparams):
        value = getattr(hparams, field.name)
        if field.name not in bound and (takes_all or field.name in parameters):
            values[field.name] = value
        elif field.default is None and jax.tree.leaves(value):
            raise ValueError(
                f"{field.name} are given and the update rule does not take them; leave them out, "
                "or give a rule whose signature names them, as update_rule's does"
            )
    return rule(**values)


def _updated(transform: Any, gradients: Any, state: TrainState) -> tuple[Any, Any]:
    """The rule's updates and its next state. Raises ValueError where it asks for more."""
    try:
        found: tuple[Any, Any] = transform.update(gradients, state.opt_state, state.params)
    except TypeError as error:
        raise ValueError(
            "the update rule fails with gradients, state and parameters, which are all that a step "
            f"gives it: {first_line(error)}; give another rule"
        ) from error
    return found


def _bound(rule: Any) -> frozenset[str]:
    """What a `functools.partial`, or one of one, has given already by name."""
    if not isinstance(rule, functools.partial):
        return frozenset()
    return _bound(rule.func) | rule.keywords.keys()


def _train_step(
    model: Any,
    augmentation: AugmentationProtocol | None,
    rule: Rule,
    mesh: Mesh | None,
    watch_every: int,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The function that `make_train_step` compiles."""
    check_network(model)
    parallel.check_mesh(model, mesh)
    check_rule(rule)
    check_watch_every(watch_every)
    augmentation = sized(augmentation or Augmentation(), model.image_size)
    axes = parallel.axes_of(mesh)
    net = model.split(axes.towers)

    def local_step(
        state: TrainState, batch: Batch, hparams: Hyperparameters
    ) -> tuple[TrainState, Metrics]:
        labels = batch["label"]
        here = labels.shape[0]
        count = here * axes.shards
        keys = augment.example_keys(state.key, state.step, axes.positions(here))
        with jax.named_scope("augmentation"):
            images = augmentation.train(batch["image"], keys, hparams.color_strength)

        def forward(params: Any, **more: Any) -> Any:
            variables = {"params": axes.replicate(params)}
            return net.apply(variables, images, train=True, dropout_keys=keys, **more)

        def mean_loss(params: Any) -> tuple[jax.Array, Metrics]:
            logits = forward(params)
            check_logits(logits, here, model.num_classes)
            with jax.named_scope("loss"):
                scores = float32_scores(jax.nn.log_softmax(logits), labels)
                # A factor of all losses, so that the whole gradient is NaN too.
                usable = is_class(labels, model.num_classes).all()
                scores["loss"] *= jnp.where(usable, 1.0, jnp.nan)
                return scores["loss"].sum() / count, scores

        gradients, scores = jax.grad(mean_loss, has_aux=True)(state.params)
        transform = _rule_at(rule, hparams)
        check_opt_state(transform, state)
        with jax.named_scope("update"):
            updates, opt_state = _updated(transform, gradients, state)
        metrics: Metrics = axes.sum({name: score.sum() / count for name, score in scores.items()})
        if watch_every:
            metrics["vitals"], updates = vitals.vitals_if(
                vitals.due(state.step + 1, int(watch_every)),
                net,
                axes,
                lambda: forward(state.params, mutable=["intermediates"])[1]["intermediates"],
                scores["loss"],
                gradients,
                updates,
                state.params,
            )
        with jax.named_scope("update"):
            params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state, state.key), metrics

    def train_step(
        state: TrainState, batch: Batch, hparams: Hyperparameters
    ) -> tuple[TrainState, Metrics]:
        check_state(state, model)
        batch = read_training_batch(batch)
        check_hparams(hparams)
        return parallel.on_mesh(local_step, model, mesh)(state, batch, hparams)

    return train_step
