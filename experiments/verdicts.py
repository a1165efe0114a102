"""How results decide on a claim: the interval of a difference, and the words for what it says."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.tables import spread

REPRODUCED, PARTLY, NOT, SPREAD, NOTHING, NOT_RUN, UNTESTED = (
    "reproduced",
    "partly",
    "not",
    "inside the spread",
    "nothing to compare",
    "not run yet",
    "not testable here",
)
OF_ONE_RUN = {
    REPRODUCED: "one run: for it",
    PARTLY: "one run: partly for it",
    NOT: "one run: against it",
}
CUT_SHORT = {REPRODUCED: "cut short: for it", NOT: "cut short: against it"}
INTERVAL = (
    "A difference is given in points of top-1 error with its 95% interval. Two things make it "
    "wide, and both are counted: runs differ from seed to seed (paired by seed, Student's t; two "
    "seeds alone make it very wide), and the images are a sample. Where a result says how many "
    "images each net alone got wrong, the nets are compared image by image; where it does not, as "
    "if each had images of its own (binomial), which makes the interval wider than needed. With "
    "one seed, how runs differ is not known and only the images are counted: such an interval is "
    "too narrow. A ratio of epochs has the interval of its seeds alone."
)
MEANINGS = {
    REPRODUCED: "several seeds, and the interval lies on the paper's side of nought.",
    NOT: "several seeds, and it lies on the other side.",
    SPREAD: "it holds nought, so the results do not decide.",
    "one run: for it, partly for it, against it": (
        f"{REPRODUCED}, {PARTLY} and {NOT}, but from one seed (or one mean of several nets, or one "
        "pre-trained net): another could turn it."
    ),
    "cut short: for it, against it": (
        f"{REPRODUCED} and {NOT}, but by nets that were still learning when they ended: of one at "
        "least the training error was over half the test error. So it says which learns sooner."
    ),
    PARTLY: "only where a row names a rule of its own, which says when.",
    NOTHING: "a run diverged or never got there, or no seed was run with both nets.",
    NOT_RUN: "there is no result.",
    UNTESTED: "the claim is about data that are not here.",
}


class Errors(NamedTuple):
    """An error of two nets: `theirs`, and `ours` that is compared with it, by seed."""

    theirs: Mapping[Any, float | None]  # None: it diverged
    ours: Mapping[Any, float | None]
    images: int  # on which each was counted
    sign: int = 1  # -1: it is subtracted
    pairs: Mapping[Any, Sequence[int]] | None = None  # images only theirs got wrong, only ours


class Judged(NamedTuple):
    """A comparison."""

    text: str
    verdict: str
    seeds: int  # that were compared


def judge(*errors: Errors, claimed: int = 1) -> Judged:
    """How much larger the sum of the errors is of `ours` than of `theirs`.

    Args:
      errors: what is summed, each of the same nets.
      claimed: 1 where the paper says larger, -1 where it says smaller.
    """
    seeds = [seed for seed in errors[0].ours if seed in errors[0].theirs]
    if not seeds:
        return Judged("no seed was run with both nets", NOTHING, 0)
    values = np.array(  # [errors, nets, seeds]
        [[[net[seed] for seed in seeds] for net in one[:2]] for one in errors], float
    )
    if not np.isfinite(values).all():
        return Judged("a run diverged", NOTHING, len(seeds))
    theirs, ours = np.tensordot([one.sign for one in errors], values, 1)
    variance = sum(variance_of_images(one, seeds) for one in errors)
    mean, half = interval(ours - theirs, variance)
    points = round(100 * mean, 2) + 0.0  # no -0.00
    text = (
        f"{points:+.2f} ± {100 * half:.2f} points "
        f"({percent(theirs.mean())} → {percent(ours.mean())}%)"
    )
    return Judged(text, verdict(claimed * mean, half, len(seeds)), len(seeds))


def variance_of_images(errors: Errors, seeds: Sequence[Any]) -> float:
    """How far other images would move the difference of the errors, squared.

    All seeds share the images, so more seeds do not help.
    """
    if errors.pairs and all(seed in errors.pairs for seed in seeds):  # as McNemar's test has it
        apart = np.array([errors.pairs[seed] for seed in seeds]) / errors.images
        each = apart.sum(1) - (apart[:, 0] - apart[:, 1]) ** 2
    else:
        shares = np.array([[net[seed] for net in errors[:2]] for seed in seeds]).mean(0)
        each = (shares * (1 - shares)).sum()
    return float(np.mean(each)) / errors.images


def interval(differences: np.ndarray, variance: float) -> tuple[float, float]:
    """Mean of the differences, one a seed, and half the width of its 95% interval.

    Args:
      differences: by seed.
      variance: as `variance_of_images`.
    """
    of_images = 1.96 * math.sqrt(variance)
    of_seeds = spread(differences.tolist())["interval"] or 0.0  # None with one seed
    return float(differences.mean()), math.hypot(of_seeds, of_images)


def verdict(mean: float, half: float, seeds: int) -> str:
    """Of a difference claimed to be above nought, and half the width of its interval."""
    word = SPREAD if abs(mean) <= half else REPRODUCED if mean > 0 else NOT
    return capped(word, seeds)


def capped(word: str, seeds: int) -> str:
    """The verdict, or what it may be called with one seed."""
    return OF_ONE_RUN.get(word, word) if seeds == 1 else word


def still_learning(*nets: tuple[float | None, float | None], more: str = "") -> str:
    """In words, where one of the nets compared had not finished; empty where all had.

    Args:
      nets: training and test error of each, both of the same views.
      more: what else is told of them.
    """
    errors = [error for net in nets for error in net]
    if None in errors or all(train <= test / 2 for train, test in nets):
        return ""
    trained = " and ".join(percent(train, 1) for train, _ in nets)
    return f", still learning when they ended (training error {trained}%{more})"


def sooner(
    fast: Mapping[Any, float | None], slow: Mapping[Any, float | None], enough: float
) -> Judged:
    """How many times as many epochs the slow net takes, by seed; None are nets that never arrive.

    See `rule_of_sooner`. Seeds with which neither arrives say nothing.
    """
    pairs = {
        seed: tuple(math.inf if one is None else one for one in (fast[seed], slow[seed]))
        for seed in fast
        if seed in slow and (fast[seed], slow[seed]) != (None, None)
    }
    if not pairs:
        return Judged("an unknown number of epochs", NOTHING, 0)
    ratios = [b / a for a, b in pairs.values() if math.isfinite(a) and math.isfinite(b)]
    mean, half = interval(np.array(ratios), variance=0) if ratios else (math.nan, 0)
    always = all(a < b for a, b in pairs.values())
    word = REPRODUCED if always and mean >= enough else PARTLY if always else NOT
    times = f"{mean:.1f} ± {half:.1f}" if len(ratios) > 1 else f"{mean:.1f}"
    text = f"{times} times as many epochs" if ratios else "an unknown number of epochs"
    return Judged(text, capped(word, len(pairs)), len(pairs))


def rule_of_sooner(enough: float) -> str:
    """The rule of `sooner` in words."""
    return (
        f"{REPRODUCED}: more epochs with every seed, in the mean {enough:g} times as many or more; "
        f"{PARTLY}: more with every seed; else {NOT}"
    )


def mean_of(values: Iterable[float | None]) -> float | None:
    """None where there are no values, or one of them is of a run that diverged."""
    found = [*values]
    return None if None in found or not found else float(np.mean(found))


def percent(share: float | None, digits: int = 2) -> str:
    """A share in per cent."""
    return "diverged" if share is None or math.isnan(share) else f"{100 * share:.{digits}f}"


def seeds_in_words(number: int) -> str:
    """How many seeds."""
    return f"{number} seed{'s' * (number != 1)}"
