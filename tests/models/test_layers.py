"""A network of one's own from the shared rows: what the package knows of it is the protocol."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import (
    Augmentation,
    Hyperparameters,
    alexnet,
    create_train_state,
    make_eval_step,
    make_mesh,
    make_predict_step,
    make_train_step,
)
from alexnet_jax.models.layer_table import format_table, layer_table
from alexnet_jax.models.layers import (
    Activation,
    Dropout,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Towers,
)
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.step import state_template

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Plain(LayeredNetwork):
    """A convolution and a full connection; no towers."""

    image_size: int = 16
    features: int = 8

    @property
    def layers(self):
        after = (Activation("tanh"), MaxPool(2, 2), LocalResponseNorm(3), Dropout(0.5))
        return (
            Layer("front1", self.features, 5, 2, (2, 1), after, stddev=0.1, reads="image"),
            Layer("back2", self.num_classes, stddev=0.1),
        )


class Narrow(Plain):
    """Its last layer has not its number of classes."""

    @property
    def layers(self):
        return (*Plain.layers.fget(self)[:-1], Layer("back2", 3, stddev=0.1))


PLAIN = Plain(num_classes=5)
PLAIN_AUGMENTATION = Augmentation(mean=np.full(3, 127.0, np.float32))


def batch(images=8):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (images, 20, 20, 3), np.uint8),
        "label": (np.arange(images) % 5).astype(np.int32),
    }


def trained(mesh):
    """Losses and parameters of ten steps."""
    state = create_train_state(PLAIN, jax.random.key(0), mesh=mesh)
    step = make_train_step(PLAIN, PLAIN_AUGMENTATION, mesh=mesh)
    losses = []
    for _ in range(10):
        state, metrics = step(state, batch(), Hyperparameters(learning_rate=1e-4))
        losses.append(float(metrics["loss"]))
    sums = make_eval_step(PLAIN, PLAIN_AUGMENTATION, views="ten", mesh=mesh)(state, batch())
    assert sums["count"] == 8
    return losses, jax.device_get(state.params)


def test_a_plain_net_trains_on_one_device_and_on_two():
    losses, params = trained(None)
    assert losses[-1] < losses[0]
    assert {name: leaf["kernel"].shape for name, leaf in params.items()} == {
        "front1": (5, 5, 3, 8),
        "back2": (4 * 4 * 8, 5),
    }
    other, other_params = trained(make_mesh(2, 1))
    assert other == pytest.approx(losses, rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params, other_params)


def test_a_plain_net_is_refused_where_towers_are_split():
    message = "a net of 1 tower cannot be split over model=2; use model=1 or a preset with 2 towers"
    for make in (make_train_step, make_eval_step):
        with pytest.raises(ValueError, match=re.escape(message)):
            make(PLAIN, mesh=make_mesh(1, 2))
    with pytest.raises(ValueError, match=re.escape(message)):
        create_train_state(PLAIN, jax.random.key(0), mesh=make_mesh(2, 2))


def test_a_plain_net_is_summarised():
    rows = layer_table(PLAIN)
    assert [row.name for row in rows] == ["front1", "pool1", "back2"]
    front, pool, back = rows
    assert (front.output, front.window, front.reads) == ((8, 8, 8), "5 / 2 / (2, 1)", "image")
    assert front.then == "tanh, pool, LRN, dropout"
    assert (pool.output, pool.window) == ((4, 4, 8), "2 / 2 / 0")
    assert (back.reads, back.parameters, back.macs) == ("all", 128 * 5 + 5, 128 * 5)
    assert format_table(rows).splitlines()[-1].split()[0] == "total"
    assert PLAIN.head == "back2"


def test_the_last_pooling_has_a_row_too():
    class Ends(Plain):
        @property
        def layers(self):
            return (Layer("conv1", 5, 3, 2, operations=(MaxPool(),), reads="image"),)

    assert [row.output for row in layer_table(Ends())] == [(7, 7, 5), (3, 3, 5)]


def test_draws_of_layers_differ_by_their_number():
    units = jnp.ones((4, 256))
    keys = jax.random.split(jax.random.key(0), 4)
    numbers = [layer.number for layer in PLAIN.layers]
    assert numbers == [1, 2]
    fold = jax.vmap(jax.random.fold_in, (0, None))
    kept = [np.asarray(Dropout()(units, Towers(2), fold(keys, number))) != 0 for number in numbers]
    assert 0.4 < np.mean(kept[0] == kept[1]) < 0.6
    assert 0.4 < np.mean(kept[0][:, :128] == kept[0][:, 128:]) < 0.6  # and of towers


def test_a_layer_without_a_number_is_refused():
    with pytest.raises(ValueError, match="layer 'head' has no number"):
        Layer("head", 5)
    assert Layer("head", 5, number=8).number == 8


def test_a_layer_reads_and_joins_in_known_ways():
    with pytest.raises(ValueError, match="layer 'fc1' has reads='boht'; did you mean 'both'"):
        Layer("fc1", 5, reads="boht")
    with pytest.raises(ValueError, match="layer 'fc1' has join='add'; use one of gather, sum"):
        Layer("fc1", 5, join="add")


def test_two_layers_that_would_draw_alike_are_refused():
    class Twice(Plain):
        @property
        def layers(self):
            drop = (Dropout(),)
            return (
                Layer("conv1", 4, 3, operations=drop, reads="image"),
                Layer("fc1", 5, operations=drop),
            )

    with pytest.raises(ValueError, match="layers 'conv1' and 'fc1' draw with the same number 1"):
        Twice().init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


# --- names in the compiled program ----------------------------------------------------------------


def test_every_operation_of_the_net_carries_its_layer_forward_and_backward():
    model = alexnet(
        "original",
        image_size=64,
        conv_features=(4, 4, 4, 4, 4),
        fc_features=(8, 8),
        num_classes=4,
    )
    batch = {
        "image": jax.ShapeDtypeStruct((4, 72, 72, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((4,), np.int32),
    }
    step = make_train_step(model)
    lowered = step.lower(state_template(model, None), batch, Hyperparameters())
    # Not the compiled text: the compilation cache may give a program with the names of another.
    paths = set(re.findall(r'loc\("(jit[^"]*)"', lowered.as_text(debug_info=True)))
    of_net = {path for path in paths if "AlexNet" in path}
    names = [layer.name for layer in model.layers]
    for path in of_net:
        assert any(f"/{name}/" in path for name in names), path
    for name in names:
        assert any(f"jvp(AlexNet)/{name}/" in path for path in of_net), name
        assert any(f"transpose(jvp(AlexNet))/{name}/" in path for path in of_net), name
    assert any(path.endswith("jvp(AlexNet)/conv1/rsqrt") for path in of_net)  # of the norm
    assert any(path.endswith("jvp(AlexNet)/conv1/max") for path in of_net)  # of the pooling
    assert any(path.endswith("transpose(jvp(AlexNet))/conv1/eq") for path in of_net)  # its gradient


def test_a_network_of_fewer_outputs_than_classes_is_refused():
    """Labels beyond its outputs would add nothing to the loss."""
    model = Narrow(num_classes=5)
    state = state_template(model, None)
    told = r"the network gives \[8, 3\] where \[8, 5\] is wanted: its num_classes is 5"
    with pytest.raises(ValueError, match=told):
        make_train_step(model, PLAIN_AUGMENTATION).eval_shape(state, batch(), Hyperparameters())
    for step in (make_eval_step, make_predict_step):
        with pytest.raises(ValueError, match=told):
            step(model, PLAIN_AUGMENTATION).eval_shape(state, batch())
