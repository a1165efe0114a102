"""The ledger: its pages are those of the results, and its verdicts those of the intervals."""

import pytest

from experiments import claims, ledger


@pytest.mark.parametrize("template", ledger.PAGES)
def test_pages_are_those_of_the_results(template):
    assert ledger.PAGES[template].read_text() == ledger.render(template), (
        "the results or the ledger changed: run `python -m experiments.ledger`"
    )


@pytest.mark.parametrize(
    ("mean", "half", "word"),
    [
        (0.02, 0.01, "reproduced"),
        (-0.02, 0.01, "not"),
        (0.01, 0.02, "inside the spread"),
        (-0.01, 0.02, "inside the spread"),
    ],
)
def test_a_verdict_follows_from_the_interval(mean, half, word):
    assert claims.verdict(mean, half) == word


def test_seeds_are_paired():
    """The differences are 1, 2 and 3 points: 2 ± 4.30 / sqrt(3); the errors differ far more."""
    ours = {"seeds": [0, 1, 2], "test": {"values": [0.11, 0.22, 0.33]}}
    theirs = {"seeds": [2, 0, 1], "test": {"values": [0.30, 0.10, 0.20]}}
    mean, half = claims._difference(ours, theirs, "test", 1000)
    assert mean == pytest.approx(0.02)
    assert half == pytest.approx(0.01 * 4.30265 / 3**0.5, rel=1e-3)


def test_one_seed_is_judged_by_the_number_of_images():
    rows = [{"seeds": [0], "test": {"mean": error}} for error in (0.2, 0.1)]
    mean, half = claims._difference(*rows, "test", 1000)
    assert mean == pytest.approx(0.1)
    assert half == pytest.approx(1.96 * (0.16 / 1000 + 0.09 / 1000) ** 0.5)


def _row(seeds, **values):
    return {"seeds": seeds, **{name: {"values": found, "mean": sum(found) / len(found)}
                               for name, found in values.items()}}  # fmt: skip


def test_a_single_shared_seed_is_compared_with_itself():
    ours = _row([1], test_ten=[0.3])
    theirs = _row([0, 1, 2], test_ten=[0.1, 0.2, 0.1])
    mean, half = claims._difference(ours, theirs, "test_ten", 1000)
    assert mean == pytest.approx(0.1)
    assert half == pytest.approx(1.96 * (0.3 * 0.7 / 1000 + 0.2 * 0.8 / 1000) ** 0.5)


def test_a_gap_has_the_spread_of_both_errors():
    ours = _row([0], gap=[-0.02], test_center=[0.3], train=[0.32])
    theirs = _row([0], gap=[0.05], test_center=[0.25], train=[0.2])
    mean, half = claims._difference(ours, theirs, "gap", 1000)
    assert mean == pytest.approx(-0.07)
    shares = (0.3, 0.25, 0.32, 0.2)
    assert half == pytest.approx(1.96 * sum(e * (1 - e) / 1000 for e in shares) ** 0.5)
