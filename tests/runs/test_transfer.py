"""Starting from another run takes what fits, renews the rest, and says so."""

import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from alexnet_jax import Hyperparameters, alexnet, create_train_state, make_train_step
from alexnet_jax.runs import transfer
from alexnet_jax.runs.configuration import load_config
from alexnet_jax.runs.launch import train
from alexnet_jax.runs.transfer import Weights
from alexnet_jax.runs.workdir import load_run
from tests.tiny_run import write_run

pytestmark = pytest.mark.usefixtures("quick_compilation")


SMALL = {"image_size": 64, "conv_features": (4, 4, 4, 4, 4), "fc_features": (8, 8)}
OLD = tuple("abc")


def new_state(seed, preset="paper", **fields):
    """A train state with parameters of its own; compiles nothing."""
    model = alexnet(preset, **SMALL | fields)
    state = jax.eval_shape(lambda: create_train_state(model, jax.random.key(0)))
    draw = np.random.default_rng(seed).standard_normal
    return state.replace(
        params=jax.tree.map(lambda x: jnp.asarray(draw(x.shape), x.dtype), state.params)
    )


def fates(rows):
    return {row.layer: row.fate for row in rows}


@pytest.fixture(scope="module")
def old():
    return Weights(new_state(0, num_classes=3).params, OLD)


def test_layers_that_agree_are_taken_and_a_new_head_is_not(old):
    fresh = new_state(1, num_classes=5)
    state, rows = transfer.start_from(fresh, old, tuple("vwxyz"))
    assert fates(rows) == {layer: "taken" for layer in fresh.params} | {"fc8": "renewed"}
    for layer in fresh.params:
        source = fresh.params if layer == "fc8" else old.params
        for name, leaf in state.params[layer].items():
            np.testing.assert_array_equal(leaf, source[layer][name])
    assert "3 there" in transfer.format_rows(rows)
    assert sum(row.parameters for row in rows) == sum(x.size for x in jax.tree.leaves(state.params))


def test_a_head_of_as_many_other_classes_is_renewed(old):
    fresh = new_state(1, num_classes=3)
    state, rows = transfer.start_from(fresh, old, tuple("xyz"))
    assert fates(rows)["fc8"] == "renewed"
    np.testing.assert_array_equal(state.params["fc8"]["kernel"], fresh.params["fc8"]["kernel"])
    _, rows = transfer.start_from(fresh, old, OLD)
    assert fates(rows)["fc8"] == "taken"


def test_an_added_conv6_is_new_and_one_too_many_is_dropped(old):
    six = new_state(1, "six_conv", num_classes=3, conv6_features=4)
    state, rows = transfer.start_from(six, old, OLD)
    assert fates(rows)["conv6"] == "new"
    np.testing.assert_array_equal(state.params["conv6"]["kernel"], six.params["conv6"]["kernel"])
    _, rows = transfer.start_from(new_state(2, num_classes=3), Weights(six.params, OLD), OLD)
    assert fates(rows)["conv6"] == "dropped"
    assert "conv6" in transfer.format_rows(rows)


def test_a_file_of_weights_gives_the_same_start(old, tmp_path):
    file = tmp_path / "weights.npz"
    np.savez(file, **flatten_dict(old.params, sep="/"))
    fresh = new_state(1, num_classes=3)
    from_file, _ = transfer.start_from(fresh, transfer.load_weights(file), OLD)
    from_run, _ = transfer.start_from(fresh, old, OLD)
    jax.tree.map(np.testing.assert_array_equal, from_file.params, from_run.params)


def test_what_cannot_be_started_from_is_one_line(old, tmp_path):
    with pytest.raises(ValueError, match="no such folder or file"):
        transfer.load_weights(tmp_path / "nothing")
    (tmp_path / "torn.npz").write_bytes(b"PK\3\4 torn")
    with pytest.raises(ValueError, match=r"torn\.npz is not an \.npz file") as error:
        transfer.load_weights(tmp_path / "torn.npz")
    assert "\n" not in str(error.value)
    np.savez_compressed(tmp_path / "flipped.npz", kernel=np.arange(1000.0))
    content = bytearray((tmp_path / "flipped.npz").read_bytes())
    content[60:90] = bytes(30)  # within the compressed array: zlib's own error
    (tmp_path / "flipped.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped\.npz is not an \.npz file"):
        transfer.load_weights(tmp_path / "flipped.npz")
    assert "\n" not in str(error.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"holds no run"):
        transfer.load_weights(tmp_path / "folder")
    wide = new_state(1, num_classes=3, conv_features=(8, 8, 8, 8, 8), fc_features=(16, 16))
    with pytest.raises(ValueError, match="no layer to start from agrees"):
        transfer.start_from(wide, old, tuple("xyz"))


def test_freezing_a_layer_keeps_it_bit_for_bit_and_compiles_nothing_new():
    model = alexnet("paper", num_classes=3, **SMALL)
    step = make_train_step(model, max_traces=1)
    state = create_train_state(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (4, 72, 72, 3), np.uint8), "label": np.arange(4) % 3}
    before = jax.device_get(state.params)
    for rates in ({"conv1": 0.0, "fc8": 10.0}, {"conv1": 0.0, "fc8": 1.0}):
        state, _ = step(state, batch, Hyperparameters(rate_multipliers=rates))
    after = jax.device_get(state.params)
    np.testing.assert_array_equal(after["conv1"]["kernel"], before["conv1"]["kernel"])
    assert (after["fc8"]["kernel"] != before["fc8"]["kernel"]).any()


def test_a_run_starts_from_another_run_s_workdir(tmp_path, capsys):
    workdir = write_run(tmp_path / "old")
    config = load_config(workdir)
    config.init_from = str(workdir)
    config.train_split, config.num_epochs, config.final_views = "train[:64]", 1, ()  # one step
    config.schedule.name, config.learning_rate, config.mesh.data = "constant", 0.0, 1
    train(config, tmp_path / "new")
    output = capsys.readouterr().out
    assert output.count(" taken") == 8
    assert "the configuration names no views of the test images" in output.splitlines()[-1]
    found, expected = (load_run(f).state.params for f in (tmp_path / "new", workdir))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_head_of_the_same_classes_in_another_order_is_put_in_this_one(old):
    fresh = new_state(1, num_classes=3)
    state, rows = transfer.start_from(fresh, old, ("c", "a", "b"))
    assert fates(rows)["fc8"] == "taken"
    for name, leaf in state.params["fc8"].items():
        np.testing.assert_array_equal(leaf, old.params["fc8"][name][..., [2, 0, 1]])
    assert "in this run's order" in transfer.format_rows(rows)
    twice = old._replace(class_names=("a", "b", "a"))  # which of the two is not known
    assert fates(transfer.start_from(fresh, twice, ("a", "a", "b"))[1])["fc8"] == "renewed"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_of_another_precision_are_cast(old, tmp_path, dtype):
    flat = flatten_dict(old.params, sep="/")
    np.savez(
        tmp_path / "w.npz",
        **{f"params/{name}": np.asarray(value, dtype) for name, value in flat.items()},
        **{"conv1/scale": np.ones(4, dtype), "extra/kernel": np.ones(3, dtype)},
    )
    fresh = new_state(1, num_classes=3)
    state, rows = transfer.start_from(fresh, transfer.load_weights(tmp_path / "w.npz"), OLD)
    for found, expected in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(old.params), strict=True
    ):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)
    table = transfer.format_rows(rows)
    assert "without scale" in table
    assert fates(rows)["extra"] == "dropped"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1/kernel", np.ones((2, 2), np.int32), "'conv1/kernel' is of type int32"),
        ("conv1/kernel", np.ones((2, 2), bool), "is of type bool"),
        ("conv1/kernel", np.ones((2, 2), complex), "is of type complex128"),
        ("conv1/kernel", np.array(["a"]), "is of type <U1"),
        ("conv1/kernel", np.array([np.nan]), "holds values that are not finite"),
        ("conv1/kernel", np.full((11, 11, 3, 4), 1e300), "'conv1/kernel' .* finite as float32"),
        ("conv1", np.ones((2, 2)), "no layer to start from agrees"),
        ("a/b/c", np.ones((2, 2)), "no layer to start from agrees"),
    ],
)
def test_an_entry_that_is_no_weight_is_named(tmp_path, name, value, message):
    np.savez(tmp_path / "w.npz", **{name: value})
    with pytest.raises(ValueError, match=message) as error:
        weights = transfer.load_weights(tmp_path / "w.npz")
        transfer.start_from(new_state(1, num_classes=3), weights, OLD)
    assert "\n" not in str(error.value)


def as_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_small_file_that_shrank_well_is_read(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, **{"conv1/kernel": np.ones((11, 11, 3, 4))})
    assert path.stat().st_size * 20 < 11 * 11 * 3 * 4 * 8
    assert transfer.load_weights(path).params["conv1"]["kernel"].shape == (11, 11, 3, 4)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("conv1/kernel.npy", as_npy(np.ones(3))), ("README", b"text")], "'README' is of type"),
        ([("conv1/kernel.npy", as_npy(np.ones(3)))] * 2, "holds conv1/kernel twice"),
        (
            [(f"{start}conv1/bias.npy", as_npy(np.ones(3))) for start in ("", "params/")],
            "holds conv1/bias twice",
        ),
        (
            [("conv1/bias.npy", as_npy(np.ones(3))), ("foreign.npy", as_npy(np.zeros(3 * 10**6)))],
            r"bytes that say they hold 24,000,",
        ),
    ],
    ids=["text", "one name twice", "two names of one", "bomb"],
)
def test_an_archive_that_no_program_writes_is_refused(tmp_path, members, message):
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=message) as error:
        transfer.load_weights(tmp_path / "w.npz")
    assert "\n" not in str(error.value) and "w.npz" in str(error.value)
