"""The evaluation and prediction steps: views of images in, scores out (section 4.1)."""

import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alexnet_jax import augment, parallel
from alexnet_jax.arguments import check_cuts, check_logits, check_network, check_state, read_batch
from alexnet_jax.augment import Augmentation, AugmentationProtocol, sized
from alexnet_jax.compilation import compiled
from alexnet_jax.models.layers import Network
from alexnet_jax.scores import Metrics, float32_scores
from alexnet_jax.state import Batch, TrainState
from alexnet_jax.wording import suggestion


class EvalStep(jax.stages.Wrapped, Protocol):
    """What `make_eval_step` makes."""

    def __call__(self, state: TrainState, batch: Batch) -> Metrics:
        """Sums over the images of the batch."""
        ...


class PredictStep(jax.stages.Wrapped, Protocol):
    """What `make_predict_step` makes."""

    def __call__(self, state: TrainState, batch: Batch) -> jax.Array:
        """Log-probabilities float32 [B, num_classes]."""
        ...


def make_eval_step(
    model: Network,
    augmentation: AugmentationProtocol | None = None,
    *,
    views: str = "center",
    mesh: Mesh | None = None,
) -> EvalStep:
    """Builds the jitted `(state, batch) -> sums` over the images of a batch.

    The sums are "loss" (nats), "top1_error", "top5_error" and "count", float32 scalars.
    `batch["mask"]` (float, integer or bool [B], optional) says which images count: those where it
    is not 0, each alike, since it holds no weights. A label outside 0 to num_classes - 1 is never
    predicted rightly and adds nothing to the loss.

    Args:
      model: the network.
      augmentation: its `views` are looked at; None takes the paper's with ImageNet's mean.
      views: "center" crop, or "ten" views whose probabilities are averaged.
      mesh: as in `make_train_step`.

    Raises:
      ValueError: as in `make_train_step`, or for views that the augmentation does not have.

    Source: AlexNet §4.1; ties are scored as the authors' code does.
    """
    predict = make_predictor(model, augmentation, views, mesh)
    axes = parallel.axes_of(mesh)
    read = partial(read_batch, names=("image", "label"), optional=("mask",))

    def local_step(state: TrainState, batch: Batch) -> Metrics:
        scores = float32_scores(predict(state.params, batch["image"]), batch["label"])
        scores["count"] = jnp.ones_like(scores["loss"])
        mask = batch.get("mask", scores["count"])
        return axes.sum({name: jnp.where(mask, score, 0).sum() for name, score in scores.items()})

    def eval_step(state: TrainState, batch: Batch) -> Metrics:
        check_state(state, model)
        return parallel.on_mesh(local_step, model, mesh)(state, read(batch))

    return compiled(eval_step, reads={"batch": read})


def make_predict_step(
    model: Network,
    augmentation: AugmentationProtocol | None = None,
    *,
    views: str = "center",
    mesh: Mesh | None = None,
) -> PredictStep:
    """Builds the jitted `(state, batch) -> log-probabilities` float32 [B, num_classes].

    Arguments as in `make_eval_step`; only `batch["image"]` is read.
    """
    predict = make_predictor(model, augmentation, views, mesh)
    read = partial(read_batch, names=("image",))

    def local_step(state: TrainState, batch: Batch) -> jax.Array:
        return predict(state.params, batch["image"])

    def predict_step(state: TrainState, batch: Batch) -> jax.Array:
        check_state(state, model)
        out = parallel.batch_spec(mesh)
        return parallel.on_mesh(local_step, model, mesh, out_specs=out)(state, read(batch))

    return compiled(predict_step, reads={"batch": read})


def make_predictor(
    model: Any,
    augmentation: AugmentationProtocol | None,
    views: str = "center",
    mesh: Mesh | None = None,
) -> Callable[[Any, Any], jax.Array]:
    """The function (params, images) -> log of the views' mean probabilities [B, num_classes]."""
    check_network(model)
    parallel.check_mesh(model, mesh)
    augmentation = sized(augmentation or Augmentation(), model.image_size)
    axes = parallel.axes_of(mesh)
    net = model.split(axes.towers)
    if isinstance(augmentation, Augmentation):  # others tell their views when they see images
        _check_views(views, augment.VIEWS)

    def predict(params: Any, images: Any) -> jax.Array:
        cuts = augmentation.views(images)
        check_cuts(cuts, images.shape[0])
        _check_views(views, cuts)
        crops = cuts[views]
        count, batch = crops.shape[:2]
        variables = {"params": axes.replicate(params)}
        logits = net.apply(variables, crops.reshape(count * batch, *crops.shape[2:]))
        check_logits(logits, count * batch, model.num_classes)
        log_probs = jax.nn.log_softmax(logits).reshape(count, batch, logits.shape[-1])
        return jax.nn.logsumexp(log_probs, axis=0) - math.log(count)

    return predict


def _check_views(views: str, known: Collection[str]) -> None:
    if views not in known:
        raise ValueError(f"views={views!r}; {suggestion(views, known)}")
