"""How results decide on a claim: the interval of a difference, and the words for what it says."""

import math
from collections.abc import Mapping
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
INTERVAL = (
    "A difference is given in points of top-1 error with its 95% interval. Two things make it "
    "wide, and both are counted: runs differ from seed to seed (paired by seed, Student's t; two "
    "seeds alone make it very wide), and the images are a sample (binomial). The nets saw the same "
    "images, but the results do not say which image which net got wrong: the interval does not "
    "use this pairing and is therefore wider than needed. With one seed, how runs differ is not "
    "known and only the images are counted: such an interval is too narrow."
)
MEANINGS = {
    REPRODUCED: "several seeds, and the interval lies on the paper's side of nought.",
    NOT: "several seeds, and it lies on the other side.",
    SPREAD: "it holds nought, so the results do not decide.",
    "one run: for it, partly for it, against it": (
        f"{REPRODUCED}, {PARTLY} and {NOT}, but from one seed (or one mean of several nets): "
        "another could turn it."
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
    signs, images = (np.array([getattr(one, of) for one in errors]) for of in ("sign", "images"))
    theirs, ours = np.tensordot(signs, values, 1)
    mean, half = interval(ours - theirs, values.mean(-1), images[:, None])
    points = round(100 * mean, 2) + 0.0  # no -0.00
    text = (
        f"{points:+.2f} ± {100 * half:.2f} points "
        f"({percent(theirs.mean())} → {percent(ours.mean())}%)"
    )
    return Judged(text, verdict(claimed * mean, half, len(seeds)), len(seeds))


def interval(differences: np.ndarray, errors: np.ndarray, images: Any) -> tuple[float, float]:
    """Mean of the differences, and half the width of its 95% interval.

    Args:
      differences: one a seed.
      errors: the mean errors that they are made of.
      images: on which each error was counted; all seeds share them, so more seeds do not help.
    """
    of_images = 1.96 * math.sqrt((errors * (1 - errors) / images).sum())
    of_seeds = spread(differences.tolist())["interval"] or 0.0  # None with one seed
    return float(differences.mean()), math.hypot(of_seeds, of_images)


def verdict(mean: float, half: float, seeds: int) -> str:
    """Of a difference claimed to be above nought, and half the width of its interval."""
    word = SPREAD if abs(mean) <= half else REPRODUCED if mean > 0 else NOT
    return capped(word, seeds)


def capped(word: str, seeds: int) -> str:
    """The verdict, or what it may be called with one seed."""
    return OF_ONE_RUN.get(word, word) if seeds == 1 else word


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
    mean = float(np.mean(ratios)) if ratios else math.nan
    always = all(a < b for a, b in pairs.values())
    word = REPRODUCED if always and mean >= enough else PARTLY if always else NOT
    text = f"{mean:.1f} times as many epochs" if ratios else "an unknown number of epochs"
    return Judged(text, capped(word, len(pairs)), len(pairs))


def rule_of_sooner(enough: float) -> str:
    """The rule of `sooner` in words."""
    return (
        f"{REPRODUCED}: more epochs with every seed, in the mean {enough:g} times as many or more; "
        f"{PARTLY}: more with every seed; else {NOT}"
    )


def percent(share: float | None, digits: int = 2) -> str:
    """A share in per cent."""
    return "diverged" if share is None or math.isnan(share) else f"{100 * share:.{digits}f}"


def seeds_in_words(number: int) -> str:
    """How many seeds."""
    return f"{number} seed{'s' * (number != 1)}"
