"""Another augmentation is one object: in training, in both evaluations, and on the host."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import (
    AlreadyAugmented,
    Hyperparameters,
    create_train_state,
    make_eval_step,
    make_predict_step,
    make_train_step,
)
from alexnet_jax.augment import sized
from alexnet_jax.data.host import host_augment
from alexnet_jax.step import state_template
from tests.models.test_alexnet import small_model

pytestmark = pytest.mark.usefixtures("quick_compilation")


MODEL = small_model("paper")


@dataclasses.dataclass(frozen=True)
class Grey:
    """Grey images of the network's size, each of its own brightness."""

    image_size: int | None = None

    def train(self, images, keys, strength):
        noise = jax.vmap(lambda key: jax.random.normal(key, (1, 1, 1)))(keys)
        return self.views(images)["center"][0] + 100 * strength * noise

    def views(self, images):
        assert images.shape[1] == self.image_size
        grey = jnp.asarray(images).astype(jnp.float32).mean(-1, keepdims=True) - 127
        return {"center": jnp.broadcast_to(grey, images.shape)[None]}


def batch_of():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (4, 64, 64, 3), np.uint8),
        "label": rng.integers(0, MODEL.num_classes, 4).astype(np.int32),
    }


def lively_state():
    state = create_train_state(MODEL, jax.random.key(0))
    return state.replace(params=jax.tree.map(lambda x: 4 * x, state.params))


def test_training_takes_it_in_the_step_and_on_the_host():
    still = Hyperparameters(learning_rate=0.0, color_strength=0.5)
    state, batch = lively_state(), batch_of()
    host = host_augment(Grey(), state.key, image_size=64, color_strength=0.5)
    image = host(0, batch)["image"]
    assert np.ptp(image, axis=-1).max() == 0
    expected = batch["image"].astype(np.float32).mean(-1) - 127
    brightness = (image[..., 0] - expected).mean((1, 2))
    assert len(set(brightness.round(3))) == 4
    told = make_train_step(MODEL, AlreadyAugmented(Grey()))
    plain = make_train_step(MODEL, Grey())
    state, on_device = plain(state, batch, still)
    assert int(state.step) == 1
    _, on_host = told(lively_state(), host(0, batch), still)
    np.testing.assert_allclose(on_host["loss"], on_device["loss"], rtol=1e-5)


def test_evaluation_and_prediction_take_its_views():
    state, batch = lively_state(), batch_of()
    grey = batch["image"].astype(np.float32).mean(-1, keepdims=True).repeat(3, -1) - 127
    expected = jax.nn.log_softmax(MODEL.apply({"params": state.params}, grey))
    found = make_predict_step(MODEL, Grey())(state, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    sums = make_eval_step(MODEL, Grey())(state, batch)
    loss = -np.take_along_axis(np.asarray(expected), batch["label"][:, None], 1).sum()
    assert float(sums["loss"]) == pytest.approx(loss, rel=1e-4)


def test_views_that_it_does_not_have_are_named():
    with pytest.raises(ValueError, match="views='ten'; use one of center"):
        make_eval_step(MODEL, Grey(), views="ten")(lively_state(), batch_of())


@dataclasses.dataclass
class Darker:
    """Fields, but no `image_size` among them."""

    by: float = 2.0

    def train(self, images, keys, strength):
        return images[:, 4:68, 4:68].astype(jnp.float32) / self.by

    def views(self, images):
        return {"center": self.train(images, None, 0)[None]}


def test_fields_of_ones_own_need_no_image_size():
    assert sized(Darker(), 64) == Darker()
    state = create_train_state(small_model("paper"), jax.random.key(0))
    images = np.zeros((2, 72, 72, 3), np.uint8)
    step = make_predict_step(small_model("paper"), Darker())
    assert step(state, {"image": images}).shape == (2, small_model("paper").num_classes)


def test_views_of_another_shape_are_refused():
    """Of [B, V] instead of [V, B] the mean would be over the images."""
    state, batch = state_template(MODEL, None), batch_of()

    @dataclasses.dataclass(frozen=True)
    class Wrong(Grey):
        make: Callable = None

        def views(self, images):
            return self.make(super().views(images)["center"])

    for make, told in (
        (
            lambda x: {"center": jnp.swapaxes(x, 0, 1)},
            r"'center' of shape \[4, 1, 64, 64, 3\] for 4",
        ),
        (
            lambda x: {"center": x[0]},
            r"'center' of shape \[4, 64, 64, 3\] for 4 images; let it give",
        ),
        (lambda x: [x], "gives a list; let it give a dict of"),
    ):
        for step in (make_eval_step, make_predict_step):
            with pytest.raises(ValueError, match=told):
                step(MODEL, Wrong(make=make)).eval_shape(state, batch)
