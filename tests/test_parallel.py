"""The two-GPU scheme: equal numbers on every mesh, and no exchange but the paper's."""

import functools
import math
import re
import socket
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from alexnet_jax import (
    Augmentation,
    Hyperparameters,
    alexnet,
    communication,
    create_train_state,
    make_eval_step,
    make_mesh,
    make_predict_step,
    make_train_step,
    parallel,
)
from alexnet_jax.communication import (
    QUICK,
    collectives,
    compile_train_step,
    device_bytes,
    format_bytes,
    format_collectives,
)
from alexnet_jax.hosts import initialize
from alexnet_jax.models.layer_table import towers_exchange
from alexnet_jax.step import state_template
from tests.tiers import slow

MESHES = [(1, 2), (2, 1), (2, 2), (4, 2)]
NARROW = {"conv_features": (8, 16, 16, 16, 8), "fc_features": (32, 32), "num_classes": 10}
WIRINGS = {
    "no exchange before fc8": ("fc8",),
    "exchange everywhere": ("conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"),
}
BATCH = 8


def narrow(preset="paper", **changes):
    """A net with few channels on the smallest image whose poolings leave something."""
    widths = NARROW | ({"conv6_features": 8} if preset == "six_conv" else {})
    geometry = changes.get("geometry", "ceil224")
    size = 67 if geometry == "caffe227" else 64
    return alexnet(preset, **({"image_size": size} | widths | changes))


def nets(build):
    """The nets that the issue names, with and without LRN."""
    kinds = {"paper": ("paper", {}), "six_conv": ("six_conv", {})}
    kinds["caffe227"] = ("paper", {"geometry": "caffe227"})
    return {
        f"{name}{'' if lrn else ' without LRN'}": functools.partial(
            build, preset, lrn=lrn, **changes
        )
        for name, (preset, changes) in kinds.items()
        for lrn in (True, False)
    }


def mesh_of(shape):
    return None if shape is None else make_mesh(*shape)


def awake(params, seed=0):
    """Weights of a size at which signals and gradients reach every layer."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        deviation = math.sqrt(2 / math.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.1
        return rng.normal(scale=deviation, size=leaf.shape)

    return jax.tree.map(draw, params)


def relative(found, expected):
    """‖difference‖ / ‖expected‖ of every leaf, by its path."""
    leaves = jax.tree.leaves_with_path(expected)
    pairs = zip(leaves, jax.tree.leaves(found), strict=True)
    return {
        jax.tree_util.keystr(path): np.linalg.norm(np.asarray(b) - np.asarray(a))
        / np.linalg.norm(np.asarray(a))
        for (path, a), b in pairs
    }


# --- the numbers ------------------------------------------------------------------------------


@functools.cache
def twenty_steps(shape):
    """A run on a mesh: its compiled step, losses, first gradients, and last state."""
    model, mesh = narrow(), mesh_of(shape)
    compiled = compile_train_step(model, mesh, BATCH, 72, AUGMENTATION)
    state = create_train_state(model, jax.random.key(0), mesh=mesh)
    placed = jax.tree.map(
        lambda x, like: jax.device_put(np.float32(x), like.sharding),
        awake(state.params),
        state.params,
    )
    state = state.replace(params=placed)
    rng = np.random.default_rng(1)
    batch = {
        "image": rng.integers(0, 256, (BATCH, 72, 72, 3), np.uint8),
        "label": np.arange(BATCH, dtype=np.int32),
    }
    batch = parallel.place_batch(batch, mesh)
    hparams = Hyperparameters(learning_rate=3e-4, weight_decay=0.0)
    curve, first = [], None
    for _ in range(20):
        state, metrics = compiled(state, batch, hparams)
        curve.append(jax.device_get(metrics))
        if first is None:  # the velocity is minus rate times gradient
            first = jax.device_get(state.opt_state)
    return compiled, curve, first, jax.device_get(state.params)


AUGMENTATION = Augmentation(mean=np.full(3, 127.0, np.float32), color="std")


def test_the_run_on_one_device_learns():
    losses = [metrics["loss"] for metrics in twenty_steps(None)[1]]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


@pytest.mark.parametrize("shape", [(1, 2), *slow((2, 1), (2, 2), (4, 2))], ids=str)
def test_twenty_steps_are_those_of_one_device(shape):
    _, expected, gradients, params = twenty_steps(None)
    _, found, found_gradients, found_params = twenty_steps(shape)
    errors = relative(found_gradients, gradients)
    assert max(errors.values()) <= 1e-5, errors
    # A rounding grows with every step, so each has its own bound; float64 is tested below.
    for step, (one, other) in enumerate(zip(found, expected, strict=True), start=1):
        for name in ("loss", "top1_error", "top5_error"):
            assert one[name] == pytest.approx(other[name], rel=step * 5e-5), (step, name)
    assert max(relative(found_params, params).values()) <= 1e-3


def loss_and_gradients(model, mesh, params, images, labels, *, quick=True):
    """The summed loss and its gradient, in the dtype of the arguments, with dropout."""
    axes = parallel.axes_of(mesh)
    net = model.split(axes.towers)

    def local(params, images, labels):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            jax.random.key(7), axes.positions(len(labels))
        )

        def loss(params):
            variables = {"params": axes.replicate(params)}
            logits = net.apply(variables, images, train=True, dropout_keys=keys)
            own = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
            return -own.sum()

        value, gradients = jax.value_and_grad(loss)(params)
        return axes.sum([value])[0], gradients

    function = local
    if mesh is not None:
        specs = parallel.partition_specs(params, model, mesh)
        rows = parallel.batch_spec(mesh)
        function = jax.shard_map(
            local, mesh=mesh, in_specs=(specs, rows, rows), out_specs=(P(), specs)
        )
    jitted = jax.jit(function, compiler_options=QUICK if quick else None)
    return jax.device_get(jitted(params, images, labels))


@functools.cache
def problem(build, dtype, batch=BATCH):
    """Net, parameters, images, labels, and their loss and gradients on one device."""
    model = build()
    params = jax.tree.map(dtype, awake(state_template(model, None).params))
    rng = np.random.default_rng(2)
    shape = (batch, model.image_size, model.image_size, 3)
    arguments = params, dtype(rng.normal(scale=50, size=shape)), rng.integers(0, 10, batch)
    return model, arguments, loss_and_gradients(model, None, *arguments)


def assert_equal_on(shape, build, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        model, arguments, (loss, gradients) = problem(build, dtype)
        found_loss, found = loss_and_gradients(model, make_mesh(*shape), *arguments)
    assert found_loss == pytest.approx(loss, rel=tolerance)
    errors = relative(found, gradients)
    assert max(errors.values()) <= tolerance, errors


NARROW_NETS = nets(narrow)
WITH_LRN = [name for name in NARROW_NETS if "without" not in name]


@pytest.mark.parametrize("shape", [(4, 2), *slow((1, 2), (2, 2))], ids=str)
@pytest.mark.parametrize("name", [*WITH_LRN, *slow(*sorted(NARROW_NETS.keys() - WITH_LRN))])
def test_gradients_equal_one_device_in_float64(name, shape):
    assert_equal_on(shape, NARROW_NETS[name], np.float64, 1e-10)


@pytest.mark.parametrize("name", slow(*sorted(NARROW_NETS)))
def test_gradients_equal_one_device_in_float32(name):
    assert_equal_on((2, 2), NARROW_NETS[name], np.float32, 1e-5)


WIRED_NETS = {
    name: functools.partial(narrow, exchange=exchange) for name, exchange in WIRINGS.items()
}


@pytest.mark.parametrize("name", slow("no exchange before fc8", "exchange everywhere"))
def test_other_wirings_equal_one_device(name):
    assert_equal_on((2, 2), WIRED_NETS[name], np.float64, 1e-10)


FULL_NETS = nets(alexnet)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (4, 2)], ids=str)
@pytest.mark.parametrize("name", FULL_NETS)
def test_full_width_gradients_equal_one_device(name, shape, sums_over_taps):
    assert_equal_on(shape, FULL_NETS[name], np.float32, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_NETS)
def test_full_width_gradients_equal_one_device_in_float64(name):
    assert_equal_on((2, 2), FULL_NETS[name], np.float64, 1e-10)


def test_parameters_are_drawn_the_same_on_every_mesh():
    model = narrow()
    expected = jax.device_get(create_train_state(model, jax.random.key(3)).params)
    key = jax.device_put(jax.random.key(3), jax.devices()[1])  # wherever it is
    for shape in ((1, 2), (4, 2)):
        state = create_train_state(model, key, mesh=make_mesh(*shape))
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), expected)


def test_evaluation_and_predictions_equal_one_device():
    model, mesh = narrow(), make_mesh(2, 2)
    rng = np.random.default_rng(4)
    batch = {
        "image": rng.integers(0, 256, (BATCH, 72, 72, 3), np.uint8),
        "label": np.arange(BATCH, dtype=np.int32),
        "mask": np.array([1, 1, 1, 1, 1, 1, 0, 1], np.float32),
    }
    found = []
    for place in (None, mesh):
        state = create_train_state(model, jax.random.key(0), mesh=place)
        state = state.replace(
            params=jax.tree.map(
                lambda x, like: jax.device_put(np.float32(x), like.sharding),
                awake(state.params),
                state.params,
            )
        )
        sums = make_eval_step(model, AUGMENTATION, mesh=place)(state, batch)
        log_probs = make_predict_step(model, AUGMENTATION, mesh=place)(state, batch)
        found.append((jax.device_get(sums), np.asarray(log_probs)))
    (expected, expected_log_probs), (sums, log_probs) = found
    assert expected["count"] == 7
    for name, value in expected.items():
        assert sums[name] == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(log_probs, expected_log_probs, rtol=1e-4, atol=1e-4)


def test_predictions_have_the_gradient_of_one_device(quick_compilation):
    model = narrow(remove=("conv3", "conv4"))
    batch = {"image": np.random.default_rng(4).integers(0, 256, (2, 64, 64, 3), np.uint8)}

    def gradients(mesh):
        step = make_predict_step(model, AUGMENTATION, mesh=mesh)
        state = create_train_state(model, jax.random.key(0), mesh=mesh)
        params = jax.tree.map(
            lambda x, like: jax.device_put(np.float32(x), like.sharding),
            awake(state.params),
            state.params,
        )
        return jax.grad(lambda p: step(state.replace(params=p), batch)[:, 0].sum())(params)

    errors = relative(gradients(make_mesh(2, 2)), gradients(None))
    assert max(errors.values()) <= 1e-4, errors


def test_a_state_of_another_mesh_is_named():
    model = narrow()
    state = create_train_state(model, jax.random.key(0), mesh=make_mesh(data=2, model=2))
    step = make_predict_step(model, AUGMENTATION, mesh=make_mesh(data=1, model=2))
    batch = {"image": np.zeros((2, 72, 72, 3), np.uint8)}
    with pytest.raises(ValueError, match="lies on other devices than this step runs on; make both"):
        step(state, batch)
    moved = jax.device_put(state, parallel.shardings(state, model, make_mesh(data=1, model=2)))
    assert step(moved, batch).shape == (2, model.num_classes)


# --- what is sent -----------------------------------------------------------------------------


def over_towers(found, images):
    """(pass, layer, collective, bytes per image) of what goes over `model`."""
    return [
        (one.direction, one.layer, one.kind, one.sent / images)
        for one in found
        if one.axis == "model"
    ]


def expected_over_towers(layers, model):
    """A gather of the other tower's half before each layer, the logits' sum, and the transposes."""
    half = {name: 4.0 * values for name, values in towers_exchange(model).items()}
    gathered = [name for name in layers if name != "fc8"]
    return [
        *(("forward", name, "all-gather", half[name]) for name in gathered),
        ("forward", "fc8", "all-reduce", 4.0 * model.num_classes),
        *(("backward", name, "reduce-scatter", half[name]) for name in reversed(gathered)),
    ]


def assert_one_crossing_over_data(found, model, mesh):
    """Each gradient leaf and the metrics cross `data` once; nothing else does."""
    crossed = [part for one in found if one.axis == "data" for part in one.parts]
    params = jax.tree.leaves(state_template(model, mesh).params)
    leaves = [("f32", leaf.sharding.shard_shape(leaf.shape)) for leaf in params]
    assert sorted(crossed) == sorted([*leaves, ("f32", (3,))])
    assert {one.kind for one in found if one.axis == "data"} <= {"all-reduce"}


@pytest.mark.parametrize(
    "text, groups",
    [
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("mesh['data'=2,'model'=2] {'model'}", [[0, 1], [2, 3]]),
        ("mesh['data'=2,'model'=2] {'data'}", [[0, 2], [1, 3]]),
        ("mesh['data'=2,'model'=2] {'data','model'}", [[0, 1, 2, 3]]),
        ("{}", [[0, 1, 2, 3]]),
    ],
)
def test_groups_are_read_as_every_jax_writes_them(text, groups):
    mesh = make_mesh(2, 2)
    assert communication._groups(f"%x), replica_groups={text}, dimensions={{0}}", mesh) == groups


@pytest.mark.parametrize("axis", ["data", "model"])
def test_a_permutation_sends_all_that_a_device_has_along_its_axis(axis):
    mesh = make_mesh(2, 2)
    both = P("data", "model")

    def swapped(x):
        return jax.lax.ppermute(x, axis, [(0, 1), (1, 0)])

    swap = jax.jit(jax.shard_map(swapped, mesh=mesh, in_specs=both, out_specs=both))
    program = swap.lower(jax.ShapeDtypeStruct((8, 6), np.float32)).compile()
    (found,) = collectives(program, mesh, narrow())
    assert (found.kind, found.axis, found.group) == ("collective-permute", axis, 2)
    assert found.sent == 4 * 3 * 4


def test_groups_in_another_form_are_told_and_not_taken_for_all_devices():
    with pytest.raises(ValueError, match=r"replica_groups=rows<2> is no form that is known"):
        communication._groups("%x), replica_groups=rows<2>, dimensions={0}", make_mesh(2, 2))


def test_towers_talk_where_the_papers_gpus_talk():
    model, mesh = narrow(), make_mesh(2, 2)
    found = collectives(twenty_steps((2, 2))[0], mesh, model)
    layers = ["conv3", "fc6", "fc7", "fc8"]
    assert over_towers(found, BATCH / 2) == expected_over_towers(layers, model)
    assert_one_crossing_over_data(found, model, mesh)
    assert {one.axis for one in found} == {"model", "data"}


@pytest.mark.slow
def test_the_sixth_convolution_also_reads_both_towers():
    model, mesh = narrow("six_conv"), make_mesh(2, 2)
    found = collectives(compile_train_step(model, mesh, BATCH, 72), mesh, model)
    layers = ["conv3", "conv6", "fc6", "fc7", "fc8"]
    assert over_towers(found, BATCH / 2) == expected_over_towers(layers, model)
    assert_one_crossing_over_data(found, model, mesh)


@pytest.mark.parametrize("name", ["no exchange before fc8", *slow("exchange everywhere")])
def test_the_exchange_field_decides_the_collectives(name):
    model, mesh = narrow(exchange=WIRINGS[name]), make_mesh(1, 2)
    found = collectives(compile_train_step(model, mesh, BATCH, 72), mesh, model)
    assert over_towers(found, BATCH) == expected_over_towers(WIRINGS[name], model)
    assert {one.axis for one in found} == {"model"}


def test_two_towers_alone_send_nothing_else():
    found = collectives(twenty_steps((1, 2))[0], make_mesh(1, 2), narrow())
    expected = expected_over_towers(["conv3", "fc6", "fc7", "fc8"], narrow())
    assert over_towers(found, BATCH) == expected
    assert len(found) == len(expected)


@pytest.mark.slow
def test_two_batches_send_the_gradients_alone():
    mesh = make_mesh(2, 1)
    found = collectives(twenty_steps((2, 1))[0], mesh, narrow())
    assert {one.axis for one in found} == {"data"}
    assert_one_crossing_over_data(found, narrow(), mesh)


def test_a_mesh_of_one_device_is_the_program_of_no_mesh():
    compiled = compile_train_step(narrow(), make_mesh(1, 1), BATCH, 72, AUGMENTATION)
    found, expected = (
        Counter(re.findall(r"= \S+ ([a-z][\w-]*)\(", program.as_text()))
        for program in (compiled, twenty_steps(None)[0])
    )
    assert found == expected
    assert collectives(compiled, make_mesh(1, 1), narrow()) == []


def test_evaluation_sends_the_layers_inputs_and_four_sums():
    model, mesh = narrow(), make_mesh(2, 2)
    batch = {
        "image": jax.ShapeDtypeStruct((BATCH, 72, 72, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((BATCH,), np.int32),
    }
    lowered = make_eval_step(model, mesh=mesh).lower(state_template(model, mesh), batch)
    found = collectives(lowered.compile(compiler_options=QUICK), mesh, model)
    layers = ["conv3", "fc6", "fc7", "fc8"]
    assert over_towers(found, BATCH / 2) == expected_over_towers(layers, model)[: len(layers)]
    assert [one.parts for one in found if one.axis == "data"] == [(("f32", (4,)),)]


def test_exchanged_values_are_those_of_the_paper():
    paper = {"conv3": 21_632, "fc6": 4_608, "fc7": 2_048, "fc8": 2_048}
    assert towers_exchange(alexnet("paper")) == paper
    valid = towers_exchange(alexnet("valid224"))
    assert (valid["conv3"], valid["fc6"]) == (18_432, 3_200)
    assert list(towers_exchange(alexnet("six_conv"))) == ["conv3", "conv6", "fc6", "fc7", "fc8"]


def test_a_device_holds_half_of_the_parameters_of_two_towers():
    model = narrow()
    whole = jax.tree.leaves(state_template(model, None).params)
    held = {
        shape: device_bytes(twenty_steps(shape)[0], model, make_mesh(*shape))
        for shape in ((2, 1), (1, 2), (2, 2))
    }
    everything = sum(leaf.size * 4 for leaf in whole)
    shared = 4 * model.num_classes  # the last bias
    assert held[2, 1].parameters == held[2, 1].velocity == everything
    assert held[1, 2].parameters == held[1, 2].velocity == (everything - shared) // 2 + shared
    assert held[2, 2].temporary < held[1, 2].temporary
    table = format_bytes({"1x2": held[1, 2]}).splitlines()
    assert table[2].split() == ["parameters", f"{held[1, 2].parameters:,}"]


def test_the_printed_collectives_stand_beside_the_papers():
    found = collectives(twenty_steps((2, 2))[0], make_mesh(2, 2), narrow())
    text = format_collectives(found, narrow(), 4)
    lines = {tuple(line.split()[:3]): line for line in text.splitlines()[2:]}
    assert lines["forward", "model", "conv3"].endswith("288  72 values each way")
    assert lines["forward", "model", "fc8"].endswith("40  16 values one way")
    assert ("backward", "data", "all") in lines


# --- bad meshes -------------------------------------------------------------------------------


def build_on(mesh, model):
    create_train_state(model, jax.random.key(0), mesh=mesh)


def trace_clipped_step(model, mesh):
    def rule(learning_rate):
        return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(learning_rate))

    side = model.image_size
    batch = {"image": np.zeros((2, side, side, 3), np.uint8), "label": np.zeros(2, np.int32)}
    state = state_template(model, mesh, rule)
    make_train_step(model, rule=rule, mesh=mesh).eval_shape(state, batch, Hyperparameters())


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: make_mesh(1, 3), "model=3: the net has two towers, so the model axis is 1 or 2"),
        (lambda: make_mesh(1, True), "model=True: the net has two towers"),
        (lambda: make_mesh(1, 2.0), "model=2.0: the net has two towers"),
        (lambda: make_mesh(1, np.float32(1)), "model=np.float32(1.0): the net has two towers"),
        (
            lambda: make_mesh(8, 2),
            "a mesh of data=8 x model=2 needs 16 devices and there are 8; use data=4 or less (or",
        ),
        (lambda: make_mesh(0, 1), "data=0: use a number of devices from 1, or None for all of"),
        (lambda: make_mesh(-1, 1), "data=-1: use a number"),
        (lambda: make_mesh(2.0, 1), "data=2.0: use a number"),
        (lambda: make_mesh(True, 1), "data=True: use a number"),
        (
            lambda: build_on(make_mesh(1, 2), narrow(towers=1)),
            "a net of 1 tower cannot be split over model=2; use model=1 or a preset with 2 towers",
        ),
        (
            lambda: build_on(make_mesh(1, 2), narrow(lrn_scope="all")),
            "lrn_scope='all' normalises across both towers",
        ),
        (
            lambda: make_train_step(narrow(towers=1), mesh=make_mesh(2, 2)),
            "a net of 1 tower cannot be split over model=2",
        ),
        (
            lambda: build_on(jax.make_mesh((2,), ("batch",)), narrow()),
            "the mesh has the axes ('batch',) where ('data', 'model') are wanted; make it with",
        ),
        (
            lambda: build_on(jax.make_mesh((2, 2), ("data", "model")), narrow()),
            "the mesh has the axis types (Explicit, Explicit) where Auto are wanted; make it with",
        ),
        (
            lambda: compile_train_step(narrow(), make_mesh(4, 2), 10),
            "a batch of 10 does not divide over data=4; use a multiple of 4, such as 8 or 12",
        ),
        (
            lambda: compile_train_step(narrow(), make_mesh(4, 2), 3),
            "a batch of 3 does not divide over data=4; use a multiple of 4, such as 4",
        ),
        (
            lambda: compile_train_step(narrow(), make_mesh(1, 2), 0),
            "a batch of no images; give at least one",
        ),
        (
            lambda: trace_clipped_step(narrow(), make_mesh(1, 2)),
            "the update rule, or the network, mixes values of both towers, which are on different",
        ),
    ],
)
def test_bad_meshes_give_one_clear_line(attempt, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        attempt()
    assert "\n" not in str(error.value)


# --- the documentation ------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[1] / "docs" / "parallel.md").read_text()


def test_the_documented_example_runs_as_it_stands(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    exec(compile(example, "docs/parallel.md", "exec"), {})
    shape, spec, loss = capsys.readouterr().out.splitlines()
    assert shape == "(11, 11, 3, 96)"
    assert "'model'" in spec
    assert math.isfinite(float(loss))


def test_the_documented_bytes_are_those_of_the_net():
    model = alexnet("paper")
    expected = expected_over_towers(["conv3", "fc6", "fc7", "fc8"], model)
    documented = re.findall(
        r"^(forward|backward) +model +(\w+) +([\w-]+) +1 +[\d,]+ +([\d,]+)", DOCUMENT, re.MULTILINE
    )
    rows = [(way, layer, kind, float(n.replace(",", ""))) for way, layer, kind, n in documented]
    assert rows == expected
    assert f"{sum(row[-1] for row in expected):,.0f} bytes" in DOCUMENT
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state_template(model, None).params))
    assert f"parameters           {4 * parameters:,}" in DOCUMENT


@pytest.mark.parametrize(
    ("result", "kind", "shapes"),
    [
        ("(f32[4]{0}, f32[2,3]{1,0}, f32[5]{0})", "all-reduce", [(4,), (2, 3), (5,)]),
        ("(f32[4]{0}, f32[8]{0})", "all-gather", [(8,)]),
    ],
)
def test_what_an_asynchronous_collective_gives_is_told_from_what_it_takes(result, kind, shapes):
    line = f"  %x = {result} {kind}-start(%a), replica_groups={{{{0,1}}}}, metadata={{}}"
    mesh = make_mesh(data=2)
    program = SimpleNamespace(as_text=lambda: line)
    (found,) = collectives(program, mesh, alexnet())
    assert [shape for _, shape in found.parts] == shapes


def test_a_process_without_a_device_in_the_mesh_is_named(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)  # of which the devices are of the first
    with pytest.raises(ValueError, match="data=1 x model=1 has no device of process 1; leave data"):
        make_mesh(1)


@pytest.mark.parametrize("address", ["localhost", "localhost:", "localhost:http", ""])
def test_an_address_without_a_port_is_named(address):
    with pytest.raises(ValueError, match="give host:port of process 0, such as node0:1234"):
        initialize(address, 1, 0)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of this machine cannot be taken"):
            initialize(f"localhost:{port}", 1, 0)
