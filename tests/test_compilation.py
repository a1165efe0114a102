"""The steps stand inside other programs like any jitted function, under any setting of jax."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from alexnet_jax import (
    Augmentation,
    Hyperparameters,
    create_train_state,
    make_eval_step,
    make_mesh,
    make_predict_step,
    make_train_step,
    make_train_steps,
    network,
)
from alexnet_jax.compilation import Compiled, compiled, compiler_options, keep_programs
from alexnet_jax.data.host import host_augment
from alexnet_jax.models.layer_table import layer_table
from alexnet_jax.step import state_template
from tests.models.test_alexnet import small_model
from tests.tiers import slow

STORED, BATCH = 70, 2
pytestmark = pytest.mark.usefixtures("quick_compilation")


MODEL = small_model("paper")


def batch_of(seed=0, count=BATCH):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (count, STORED, STORED, 3), np.uint8)),
        "label": jnp.asarray(rng.integers(0, MODEL.num_classes, count).astype(np.int32)),
    }


def fresh_state():
    return create_train_state(MODEL, jax.random.key(0))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """An option, so that there is something that jax refuses inside; and one that costs little."""
    with pytest.MonkeyPatch.context() as patch:
        options = {"xla_backend_optimization_level": 0}
        patch.setattr("alexnet_jax.compilation.compiler_options", lambda runs: options)
        yield


@pytest.fixture(scope="module")
def steps(quick):
    """Name -> (the step, its arguments)."""
    state, batch, hparams = fresh_state(), batch_of(), Hyperparameters()
    indices = np.array([[0, 1], [1, 0]], np.int32)
    stacked = jax.vmap(Hyperparameters)(jnp.array([0.01, 0.02]))
    return {
        "train": (make_train_step(MODEL), (state, batch, hparams)),
        "train_steps": (make_train_steps(MODEL), (state, batch, indices, stacked)),
        "eval": (make_eval_step(MODEL, views="ten"), (state, batch)),
        "predict": (make_predict_step(MODEL), (state, batch)),
    }


NAMES = ("train", "train_steps", "eval", "predict")


def numbers(result):
    """The arrays of a result but its key."""
    return [
        np.asarray(leaf)
        for leaf in jax.tree.leaves(result)
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]


def copied(arguments):
    """Arguments of which the state may be donated."""
    return jax.tree.map(jnp.copy, arguments)


def assert_same(found, expected):
    for one, other in zip(numbers(found), numbers(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["train", "predict", *slow("train_steps", "eval")])
def test_a_step_is_the_same_inside_jit_and_scan(steps, name):
    step, arguments = steps[name]
    expected = step(*copied(arguments))

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def outer(arguments):
        def body(carry, _):
            return carry, step(*arguments)

        return step(*arguments), lax.scan(body, 0, length=1)[1]

    alone, scanned = outer(arguments)
    assert_same(alone, expected)
    assert_same(jax.tree.map(lambda x: x[0], scanned), expected)


@pytest.mark.parametrize("name", ["eval", *slow("train", "train_steps", "predict")])
def test_a_step_is_mapped_inside_jit_and_by_itself(steps, name):
    step, (state, *others) = steps[name]
    expected = step(jax.tree.map(jnp.copy, state), *others)
    states = jax.tree.map(lambda x: x[None], state)
    mapped = jax.vmap(step, in_axes=(0, *(None,) * len(others)))
    inside = jax.jit(mapped, compiler_options={"xla_backend_optimization_level": 0})
    for found in (inside(states, *others), mapped(copied(states), *others)):
        assert_same(jax.tree.map(lambda x: x[0], found), expected)


@pytest.mark.parametrize("name", ["predict", *slow("eval")])
def test_a_step_has_a_gradient_by_the_parameters(steps, name):
    step, (state, batch) = steps[name]

    def total(params):
        return sum(x.sum() for x in jax.tree.leaves(step(state.replace(params=params), batch)))

    def stacked(params):
        found = jax.vmap(lambda params: step(state.replace(params=params), batch))(params)
        return sum(x.sum() for x in jax.tree.leaves(found))

    gradients = jax.grad(total)(state.params)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    one = jax.tree.map(lambda x: x[None], state.params)
    mapped = jax.tree.map(lambda x: x[0], jax.grad(stacked)(one))
    assert_same(mapped, gradients)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_looked_at_like_any_jitted_function(steps, name):
    step, arguments = steps[name]
    shapes = step.eval_shape(*arguments)
    jaxpr, shaped = jax.make_jaxpr(step, return_shape=True)(*arguments)
    assert f"name={step.__name__}" in str(jaxpr)
    for found in (shaped, jax.eval_shape(step, *arguments), step.trace(*arguments).out_info):
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, shapes)
    assert "stablehlo" in step.lower(*arguments).as_text()
    step(*copied(arguments))
    assert step._cache_size() >= 1
    step.clear_cache()
    assert step._cache_size() == 0


@pytest.mark.parametrize("name", ["eval", *slow("predict")])
def test_a_step_is_exported_for_any_number_of_images(steps, name):
    step, (state, batch) = steps[name]
    (size,) = jax.export.symbolic_shape("b")
    any_size = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), batch)
    exported = jax.export.export(step)(state, any_size)
    for count in (2, 3):
        batch = batch_of(count=count)
        assert_same(exported.call(state, batch), step(state, batch))


@pytest.mark.parametrize("name", slow("train", "train_steps"))
def test_a_training_step_is_exported(steps, name):
    step, arguments = steps[name]
    assert_same(jax.export.export(step)(*arguments).call(*arguments), step(*copied(arguments)))


def test_options_stand_wherever_jax_takes_them(monkeypatch):
    """Without them a mapped convolution takes ten times as long on CPU."""
    used = []
    fitting = Compiled._fitting

    def record(self, arguments):
        used.append(fitting(self, arguments) is self._whole)
        return fitting(self, arguments)

    monkeypatch.setattr(Compiled, "_fitting", record)
    step, x = compiled(jnp.sin), jnp.arange(3.0)
    step(x)
    jax.vmap(step)(x)
    jax.vmap(jax.vmap(step))(x[None])
    assert used == [True] * 3
    used.clear()
    jax.jit(step)(x)
    jax.jit(lambda: step(x))()  # no argument tells
    jax.jit(jax.vmap(step))(x)
    lax.map(step, x)
    jax.vmap(jax.grad(step))(x)
    jax.grad(lambda x: jax.vmap(step)(x).sum())(x)
    jax.vjp(step, x)[1](x)
    jax.checkpoint(step)(x)
    assert used == [False] * 8


@pytest.mark.parametrize("options", [None, {"xla_backend_optimization_level": 0}])
def test_a_derivative_goes_back_over_updates_whose_state_is_donated(monkeypatch, options):
    monkeypatch.setattr("alexnet_jax.compilation.compiler_options", lambda runs: options)
    step = compiled(jnp.multiply, donate_argnums=0)
    assert jax.grad(lambda rate: step(step(jnp.ones(()), rate), rate))(3.0) == 6
    state = jnp.ones(())
    step(state, 3.0)
    assert state.is_deleted()
    for again in (step, compiled(jnp.add)):
        with pytest.raises(ValueError, match="state was donated to an earlier step; go on with"):
            again(state, 3.0)


def test_what_was_deleted_is_named():
    def add(state, batch, hparams):
        return state + batch["image"] + hparams.learning_rate

    def given():
        return jnp.ones(()), {"image": jnp.ones(())}, Hyperparameters()

    for lost, name in (
        (lambda state, batch, hparams: batch["image"], r"batch\['image'\]"),
        (lambda state, batch, hparams: hparams.learning_rate, r"hparams\.learning_rate"),
    ):
        arguments = given()
        lost(*arguments).delete()
        with pytest.raises(ValueError, match=f"^{name} was deleted; make it again"):
            compiled(add, donate_argnums=0)(*arguments)


def test_an_option_that_this_jaxlib_does_not_know_is_left_out(monkeypatch):
    compile_as_usual = jax.jit

    def jit(function, compiler_options):
        if "xla_cpu_copy_insertion_use_region_analysis" in compiler_options:
            raise RuntimeError("No such compile option")
        return compile_as_usual(function, compiler_options=compiler_options)

    compiler_options.cache_clear()
    monkeypatch.setattr(jax, "jit", jit)
    try:
        assert list(compiler_options()) == ["xla_cpu_experimental_ynn_fusion_type"]
    finally:
        compiler_options.cache_clear()


# --- settings of jax ----------------------------------------------------------------------------

SMALL_FIELDS = {"conv_features": (4, 4, 4, 4, 4), "fc_features": (8, 8)}
SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "strict_dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "strict_ranks": lambda: jax.numpy_rank_promotion("raise"),
    "rbg": lambda: jax.default_prng_impl("rbg"),
    "unsafe_rbg": lambda: jax.default_prng_impl("unsafe_rbg"),
}
MEAN = np.random.default_rng(1).uniform(100, 150, (STORED, STORED, 3)).astype(np.float32)
ALL = Augmentation(mean=MEAN, mean_at="center", scale_with_color=True)


def everything(mesh=None):
    """What a run computes: two updates, then all of evaluation; float32 whatever the setting."""
    model = small_model("original")
    layer_table(model)
    batch = jax.tree.map(np.asarray, batch_of())
    state = create_train_state(model, jax.random.key(7), mesh=mesh)
    results = [host_augment(ALL, state.key, image_size=64)(3, batch)["image"]]
    step = make_train_step(model, ALL, mesh=mesh)
    for _ in range(2):
        state, metrics = step(state, batch, Hyperparameters(learning_rate=0.01))
        results += [metrics]
    assert state.step.dtype == np.int32
    assert str(jax.random.key_impl(state.key)) == "threefry2x32"
    for views in ("center", "ten"):
        results += [make_eval_step(model, ALL, views=views, mesh=mesh)(state, batch)]
    results += [make_predict_step(model, Augmentation(), mesh=mesh)(state, batch)]
    results += [state.params, state.opt_state]
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {np.dtype(np.float32)}
    return jax.device_get(results)


@pytest.fixture(scope="module")
def expected(quick):
    return everything()


@pytest.mark.parametrize("name", slow("x64", "rbg", "strict_dtypes", "strict_ranks", "unsafe_rbg"))
def test_no_setting_of_jax_changes_a_number_or_a_draw(expected, name):
    with SETTINGS[name]():
        assert_same(everything(), expected)


@pytest.mark.parametrize("preset", ["paper", "original", "cifar10_18pct"])
def test_steps_promote_no_ranks(preset):
    fields = {} if preset.startswith("cifar10") else SMALL_FIELDS
    model = network(preset, **{"image_size": 64, **fields})
    state, batch = state_template(model, None), batch_of()
    with jax.numpy_rank_promotion("raise"):
        make_train_step(model).eval_shape(state, batch, Hyperparameters())
        for augmentation in (ALL, Augmentation(mean=MEAN), Augmentation()):
            for views in ("center", "ten"):
                make_eval_step(model, augmentation, views=views).eval_shape(state, batch)


@pytest.mark.slow
@pytest.mark.parametrize("impl", ["rbg", "threefry2x32"])
def test_no_mesh_changes_a_draw_under_any_generator(expected, impl):
    with jax.default_prng_impl(impl):
        assert_same(everything(make_mesh(data=2, model=1)), expected)


@pytest.mark.parametrize("form", ["raw", "numpy", "rbg", "unsafe_rbg", "threefry2x32"])
def test_any_key_of_a_seed_begins_the_same_run(form):
    expected = jax.random.key_data(create_train_state(MODEL, jax.random.key(3)).key)
    if form == "raw":
        key = jax.random.PRNGKey(3)
    elif form == "numpy":
        key = np.array([0, 3], np.uint32)
    else:
        key = jax.random.key(3, impl=form)
    state = create_train_state(MODEL, key)
    assert str(jax.random.key_impl(state.key)) == "threefry2x32"
    np.testing.assert_array_equal(jax.random.key_data(state.key), expected)


@pytest.mark.slow
def test_a_state_of_any_key_draws_the_same():
    step = make_train_step(MODEL, Augmentation())
    losses = []
    for impl in ("threefry2x32", "rbg"):
        state = fresh_state().replace(key=jax.random.key(5, impl=impl))
        _, metrics = step(state, batch_of(), Hyperparameters())
        losses.append(float(metrics["loss"]))
    assert losses[0] == losses[1]


# --- programs kept for later processes -----------------------------------------------------------

KEEP = """
import jax, jax.numpy as jnp
from alexnet_jax.compilation import keep_programs

keep_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
print(jax.jit(lambda x: jnp.sin(x) + 1)(0.0))
print("found" if "/jax/compilation_cache/cache_hits" in found else "compiled")
"""


def kept(cache):
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", KEEP], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_programs_are_kept_in_a_folder_of_the_users_alone(tmp_path):
    assert kept(tmp_path) == ["1.0", "compiled"]
    folder = tmp_path / "alexnet_jax" / "programs"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert kept(tmp_path) == ["1.0", "found"]
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:50])  # a process was killed while it wrote
    assert kept(tmp_path) == ["1.0", "compiled"]


def test_without_a_folder_programs_are_compiled(tmp_path):
    (tmp_path / "alexnet_jax").write_text("in the way")
    assert kept(tmp_path) == ["1.0", "compiled"]


def test_the_users_own_folder_of_programs_stays():
    before = jax.config.values["jax_compilation_cache_dir"]
    assert before  # the tests have one
    keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == before
