"""The rates are the paper's and the authors', in epochs, and survive a stop at any moment."""

import json

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax.optimizer import update_rule
from alexnet_jax.schedules import (
    ORIGINAL_CHANGES,
    Drops,
    ExponentialStages,
    Plateau,
    Schedule,
    WarmUp,
    hyperparameters_at,
    make_schedule,
)

STEPS = 10_010  # an epoch of ILSVRC-2012 in batches of 128


def rate(schedule, epoch, state=None):
    state = schedule.initial_state() if state is None else state
    return schedule.learning_rate(round(epoch * STEPS), state)


def test_the_paper_divides_by_ten_after_23_50_and_80_of_90_epochs():
    schedule = make_schedule("drops", 0.01, num_epochs=90, steps_per_epoch=STEPS)
    for epoch, expected in [(0, 1e-2), (23, 1e-3), (50, 1e-4), (80, 1e-5), (90, 1e-5)]:
        assert rate(schedule, epoch) == pytest.approx(expected)
    for epoch in (23, 50, 80):  # the last step of the epoch still has the rate before
        before = schedule.learning_rate(epoch * STEPS - 1, {})
        assert before == pytest.approx(10 * schedule.learning_rate(epoch * STEPS, {}))


def test_drops_equal_optax():
    schedule = make_schedule(
        "drops", 0.02, num_epochs=10, steps_per_epoch=7, drops=(2, 0.5, 8.5), factor=4
    )
    reference = optax.piecewise_constant_schedule(0.02, {14: 0.25, 35: 0.25, 60: 0.25})
    for step in range(70):
        # Optax keeps the old rate on the boundary itself.
        assert schedule.learning_rate(step, {}) == pytest.approx(float(reference(step + 1e-3)))


def test_the_first_update_has_the_whole_rate_however_short_the_run():
    schedule = make_schedule("drops", 1, num_epochs=2, steps_per_epoch=1, drops=(0.2, 0.3, 0.4))
    assert [schedule.learning_rate(step, {}) for step in (0, 1)] == pytest.approx([1, 1e-3])


def test_shares_are_of_the_run():
    shares = make_schedule("drops", 1, num_epochs=60, steps_per_epoch=22, drops=(0.6, 0.85))
    epochs = make_schedule("drops", 1, num_epochs=60, steps_per_epoch=22, drops=(36, 51))
    assert shares == epochs


def test_dexp_is_the_original_codes_four_quarters():
    schedule = make_schedule("dexp", 0.01, num_epochs=95, steps_per_epoch=STEPS)
    for quarter, expected in enumerate([0.01, 1.587e-3, 2.52e-4, 4e-5]):
        assert rate(schedule, 95 * (quarter + 0.01) / 4) == pytest.approx(expected, rel=1e-3)
        assert rate(schedule, 95 * (quarter + 0.99) / 4) == pytest.approx(expected, rel=1e-3)
    assert rate(schedule, 200) == pytest.approx(4e-5)


def test_plateau_divides_three_times_and_then_ends_the_run():
    for stop in (True, False):
        schedule = Plateau(0.01, patience=2, stop=stop)
        state = schedule.initial_state()
        rates = []
        for error in [0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.6, 0.6, 0.61, 0.6, 0.6]:
            state = schedule.update(state, error)
            rates.append(round(schedule.learning_rate(0, state), 8))
        assert rates == [1e-2] * 3 + [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 3
        assert schedule.finished(state) == stop


REDUCE_ON_PLATEAU = {
    patience: optax.contrib.reduce_on_plateau(factor=0.1, patience=patience, rtol=0.0, atol=0.125)
    for patience in (1, 2, 4)
}
UPDATE = {patience: jax.jit(rule.update) for patience, rule in REDUCE_ON_PLATEAU.items()}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 64), max_size=60), st.sampled_from([1, 2, 4]))
def test_plateau_equals_optax(errors, patience):
    schedule = Plateau(1.0, patience=patience, max_drops=10**6, min_delta=0.125)
    state, expected = schedule.initial_state(), REDUCE_ON_PLATEAU[patience].init(None)
    for error in errors:
        state = schedule.update(state, error / 64)
        _, expected = UPDATE[patience](jnp.zeros(()), expected, value=error / 64)
        assert 0.1 ** state["drops"] == pytest.approx(float(expected.scale), rel=1e-4)


@given(
    st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=40),
    st.sampled_from(["drops", "plateau", "dexp", "constant"]),
    st.sampled_from([0, 1.5]),
)
def test_a_state_that_went_through_json_gives_the_same_rates(errors, name, warmup):
    schedule = make_schedule(
        name, 0.01, num_epochs=90, steps_per_epoch=10, patience=2, warmup_epochs=warmup
    )
    kept = reread = schedule.initial_state()
    previous = float("inf")
    for epoch, error in enumerate(errors):
        before = json.dumps(kept)
        updated = schedule.update(kept, error)
        assert json.dumps(kept) == before  # states are values
        kept, reread = updated, json.loads(json.dumps(schedule.update(reread, error)))
        assert schedule.learning_rate(epoch * 10, kept) == schedule.learning_rate(
            epoch * 10, reread
        )
        assert schedule.finished(kept) == schedule.finished(reread)
        if epoch >= 2:
            assert schedule.learning_rate(epoch * 10, kept) <= previous
            previous = schedule.learning_rate(epoch * 10, kept)


def test_warm_up_rises_in_a_line_on_top_of_any_schedule():
    plain = make_schedule("drops", 0.08, num_epochs=8, steps_per_epoch=4, drops=(4,))
    warm = make_schedule(
        "drops", 0.08, num_epochs=8, steps_per_epoch=4, drops=(4,), warmup_epochs=2
    )
    assert [warm.learning_rate(step, {}) for step in range(8)] == pytest.approx(
        [0.01 * (step + 1) for step in range(8)]
    )
    for step in range(8, 32):
        assert warm.learning_rate(step, {}) == plain.learning_rate(step, {})


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("plato", {}, "unknown schedule 'plato'; did you mean 'plateau'?"),
        ("x", {}, "unknown schedule 'x'; use one of drops, plateau, dexp, constant"),
        ("drops", {"drops": (50, 23)}, "drops (50, 23) are not in order; give rising epochs"),
        ("drops", {"drops": (0, 23)}, "drops (0, 23) are not in order"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with pytest.raises(ValueError) as error:
        make_schedule(name, 0.01, num_epochs=90, steps_per_epoch=10, **options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Drops(0.1, (3,), factor=0), "factor=0; give a number above 0"),
        (lambda: Plateau(0.1, factor=0.0), "factor=0.0; give a number above 0"),
        (lambda: ExponentialStages(0.1, 100, stages=0), "stages=0; give a whole number from 1"),
        (lambda: ExponentialStages(0.1, 100, ratio=0.0), "ratio=0.0; give a number above 0"),
        (lambda: WarmUp(Schedule(0.1), 0), "steps=0; give a whole number from 1"),
    ],
)
def test_what_makes_no_schedule_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_multipliers": 0.0}, "rate_multipliers=0.0; give factors by layer"),
        ({"learning_rate": 0}, "bias_learning_rate is beside a learning_rate of 0"),
    ],
)
def test_changes_by_hand_that_say_nothing_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        hyperparameters_at(1, [(0, change)], layers=("conv1",), bias_learning_rate=0.02)


def test_the_authors_hand_schedule():
    both = {"kernel": 1.0, "bias": 1.0}
    assert hyperparameters_at(66, ORIGINAL_CHANGES) == {"rate_multipliers": {"conv1": both}}
    for epoch, factor in [(67, 0.1), (71, 0.1), (72, 0.0), (90, 0.0)]:
        assert hyperparameters_at(epoch, ORIGINAL_CHANGES) == {
            "color_strength": 0.0,
            "rate_multipliers": {"conv1": {"kernel": factor, "bias": factor}},
        }
    assert hyperparameters_at(90, ()) == {}


def test_multipliers_of_a_run_hold_until_a_change_by_hand():
    changes = ((0, {"rate_multipliers": {"fc8": {"bias": 2.0}, "conv1": 0.5}}), *ORIGINAL_CHANGES)
    fields = [hyperparameters_at(epoch, changes)["rate_multipliers"] for epoch in (0, 72)]
    assert [rates["fc8"] for rates in fields] == [{"kernel": 1.0, "bias": 2.0}] * 2
    assert [rates["conv1"]["kernel"] for rates in fields] == [0.5, 0.0]
    rates = hyperparameters_at(
        0, changes, layers=("fc8", "fc7"), learning_rate=0.01, bias_learning_rate=0.02
    )["rate_multipliers"]
    assert rates == {
        "fc8": {"kernel": 1.0, "bias": 4.0},
        "fc7": {"kernel": 1.0, "bias": 2.0},
        "conv1": {"kernel": 0.5, "bias": 1.0},
    }


def test_biases_may_keep_their_rate():
    for learning_rate in (0.01, 1e-5):
        fields = hyperparameters_at(
            70,
            ORIGINAL_CHANGES,
            layers=("conv1", "fc8"),
            learning_rate=learning_rate,
            bias_learning_rate=0.02,
        )
        assert learning_rate * fields["rate_multipliers"]["fc8"]["bias"] == pytest.approx(0.02)
        assert fields["rate_multipliers"]["fc8"]["kernel"] == 1
        assert fields["rate_multipliers"]["conv1"]["kernel"] == 0.1


def test_multipliers_are_of_whatever_parameters_a_network_has():
    params = {"norm": {"scale": 0, "shift": 0}, "block": {"conv": {"kernel": 0, "bias": 0}}}
    changes = (
        (0, {"rate_multipliers": {"norm": {"scale": 2.0}}}),
        (3, {"rate_multipliers": {"norm": 0.5, "block": {"conv": {"bias": 4.0}}}}),
    )
    found = [
        hyperparameters_at(epoch, changes, layers=params)["rate_multipliers"] for epoch in (0, 3)
    ]
    assert found == [
        {"norm": {"scale": 2.0, "shift": 1.0}, "block": {"conv": {"kernel": 1.0, "bias": 1.0}}},
        {"norm": {"scale": 0.5, "shift": 0.5}, "block": {"conv": {"kernel": 1.0, "bias": 4.0}}},
    ]
    rates = hyperparameters_at(
        0, changes, layers=params, learning_rate=0.01, bias_learning_rate=0.02
    )["rate_multipliers"]
    assert rates["block"] == {"conv": {"kernel": 1.0, "bias": 2.0}}
    # Without the parameters: what the changes name.
    assert hyperparameters_at(0, changes[:1]) == {"rate_multipliers": {"norm": {"scale": 2.0}}}


def test_decays_change_by_hand_as_rates_do_and_biases_stay_undecayed():
    changes = (
        (0, {"decay_multipliers": {"fc6": 3.0}}),
        (2, {"decay_multipliers": {"fc8": {"bias": 1.0}, "fc6": {"kernel": 0.5}}}),
    )
    found = [hyperparameters_at(epoch, changes)["decay_multipliers"] for epoch in (0, 2)]
    assert found == [
        {"fc6": {"kernel": 3.0, "bias": 0.0}, "fc8": {"kernel": 1.0, "bias": 0.0}},
        {"fc6": {"kernel": 0.5, "bias": 0.0}, "fc8": {"kernel": 1.0, "bias": 1.0}},
    ]


@pytest.mark.parametrize("field", ["rate_multipliers", "decay_multipliers"])
@pytest.mark.parametrize("change", [{}, 3.0, {"kernel": 3.0}, {"bias": 3.0}, {"bias": 0.0}])
def test_what_a_change_by_hand_does_not_name_is_as_the_rule_has_it(field, change):
    """Both know that biases are not decayed unless they are named."""
    params = {name: {"kernel": jnp.ones(2), "bias": jnp.ones(2)} for name in ("conv1", "fc8")}

    def update(multipliers):
        rule = update_rule(0.5, 0.0, 0.25, **{field: multipliers})
        return rule.update(params, rule.init(params), params)[0]

    named = {"fc8": change}
    filled = hyperparameters_at(1, [(0, {field: named})], layers=params)[field]
    assert set(filled["fc8"]) == {"kernel", "bias"}
    chex.assert_trees_all_equal(update(filled), update(named))


def test_biases_keep_their_rate_where_the_rate_is_changed_by_hand():
    fields = hyperparameters_at(
        1,
        ((1, {"learning_rate": 0.001}),),
        layers=("fc8",),
        learning_rate=0.01,
        bias_learning_rate=0.02,
    )
    assert fields["learning_rate"] * fields["rate_multipliers"]["fc8"]["bias"] == pytest.approx(
        0.02
    )


def test_a_run_of_no_epochs_has_a_schedule_too():
    dexp = make_schedule("dexp", 0.01, num_epochs=0, steps_per_epoch=10)
    assert dexp.learning_rate(0, dexp.initial_state()) > 0
    schedule = make_schedule("drops", 0.01, num_epochs=0, steps_per_epoch=10, drops=(0.6, 0.85))
    assert schedule.learning_rate(0, schedule.initial_state()) == 0.01
