"""What `experiments.paper.ablations` found: the paper's net against one that differs once."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from experiments import harness
from experiments.found import Find, Found, command, counted, listed, result, size, size_flags
from experiments.verdicts import (
    CUT_SHORT,
    Errors,
    Judged,
    judge,
    mean_of,
    percent,
    rule_of_sooner,
    seeds_in_words,
    sooner,
    still_learning,
)

ABLATIONS = ("ablations_128", "ablations_64_width_0.5", "ablations_64_width_0.5_20_epochs")
# What a claim says grows without a part of the net -> in words, and what is summed, by its sign.
# The gap is that of centre crops, training and test alike: nets trained without crops or flips saw
# no others, and ten views would lower their test error alone.
MEASURES: dict[str, tuple[str, dict[str, int]]] = {
    "error": ("test error, ten views", {"test_ten": 1}),
    "overfitting": (
        "gap from training to test error, centre crops",
        {"test_center": 1, "train": -1},
    ),
    "training error": ("training error, centre crops", {"train": 1}),
}


def ablation(variant: str, grows: str = "error") -> Find:
    """What becomes larger without a part of the net, by `experiments.paper.ablations`.

    The table with most seeds is judged; what the others say stands beside it.

    Args:
      variant: the net without it.
      grows: what the claim says grows, of `MEASURES`.
    """

    def find() -> Found | None:
        if not (tables := _tables_with(variant)):
            return None
        name = next(iter(tables))
        found, *others = (_judged(table, variant, grows) for table in tables.values())
        elsewhere = "".join(
            f"; with {size(tables[other])}, {seeds_in_words(one.seeds)}: {one.text}"
            f"{_still_learning(tables[other], variant)}"
            for other, one in zip([*tables][1:], others, strict=True)
            if one.seeds
        )
        learning = _still_learning(tables[name], variant) if found.seeds else ""
        return Found(
            f"{MEASURES[grows][0]}: {found.text}{learning}{elsewhere}{_unlearned(variant)}",
            f"{_scale(tables[name])}, {seeds_in_words(found.seeds)}",
            CUT_SHORT.get(found.verdict, found.verdict) if learning else found.verdict,
            _command(tables[name], variant),
            f"{name}.png",
        )

    return find


def _judged(table: dict, variant: str, grows: str) -> Judged:
    """Of one table: what grows without a part of the net, seed by seed and image by image."""
    images = table["runs"][0]["images"]
    pairs = _pairs(_row(table, variant))
    return judge(
        *(
            Errors(
                *(_by_seed(_row(table, net), part) for net in ("paper", variant)),
                images["train" if part == "train" else "test"],
                sign,
                pairs.get(part),
            )
            for part, sign in MEASURES[grows][1].items()
        )
    )


def _still_learning(table: dict, variant: str) -> str:
    """In words, where one of the nets compared had not finished; empty where both had."""
    rows = [_row(table, net) for net in ("paper", variant)]
    shared = sorted(set.intersection(*(set(_learned(row)) for row in rows)))
    nets = [
        tuple(
            mean_of(_by_seed(row, part)[seed] for seed in shared)
            for part in ("train", "test_center")
        )
        for row in rows
    ]
    left = [mean_of(_epochs_on_the_plateau(row)[seed] for seed in shared) for row in rows]
    return still_learning(
        *nets, more=", off the plateau in epoch {:.1f} and {:.1f}".format(*left) if shared else ""
    )


def _epochs_on_the_plateau(row: dict) -> dict[int, int | None]:
    """By seed; None where a net stayed on it."""
    return dict(zip(row["seeds"], row["left_the_plateau"], strict=True))


def _unlearned(variant: str) -> str:
    """Runs that never learned, in words: their errors say nothing of what a part is worth."""
    texts = []
    for table in filter(None, map(result, ABLATIONS)):
        for row in table["variants"]:
            seeds, learned = len(row["seeds"]), len(_learned(row))
            if row["variant"] in ("paper", variant) and learned < seeds:
                texts.append(
                    f"; with {size(table)}, {seeds - learned} of {seeds_in_words(seeds)} of "
                    f"{row['variant']} never left the plateau and are not counted"
                )
    return "".join(texts)


def _learned(row: dict) -> list[int]:
    """The seeds with which a net left the plateau at its start."""
    return [seed for seed, epoch in _epochs_on_the_plateau(row).items() if epoch is not None]


def _tables_with(variant: str) -> dict[str, dict]:
    """The tables with this net and the paper's by name, that with most seeds of both first.

    Seeds with which one of them never left the plateau are not counted.
    """
    tables = {
        name: table
        for name in ABLATIONS
        if (table := result(name))
        and {"paper", variant} <= {row["variant"] for row in table["variants"]}
    }

    def shared(name: str) -> int:
        rows = (_row(tables[name], net) for net in ("paper", variant))
        return len(set.intersection(*(set(_learned(row)) for row in rows)))

    return {name: tables[name] for name in sorted(tables, key=shared, reverse=True)}


def _row(table: dict, variant: str) -> dict:
    return next(row for row in table["variants"] if row["variant"] == variant)


def _by_seed(row: dict, part: str) -> dict[int, float | None]:
    learned = _learned(row)
    pairs = zip(row["seeds"], row[part]["values"], strict=True)
    return {seed: value for seed, value in pairs if seed in learned}


def _pairs(row: dict) -> dict[str, dict[int, list[int]]]:
    """Measure -> seed -> images that only the paper's net got wrong, only this one."""
    found = row.get("pairs", {})
    return {
        part: {int(seed): counts[part] for seed, counts in found.items()}
        for part in next(iter(found.values()), {})
    }


def _scale(table: dict) -> str:
    images = table["runs"][0]["images"]
    return f"Imagenette, {size(table)}, {counted(images)}"


def _command(table: dict, variant: str) -> str:
    """Trains the paper's net and this one with the seeds that both have; other rows stay."""
    seeds = (_row(table, net)["seeds"] for net in ("paper", variant))
    return command(
        "paper.ablations",
        **size_flags(table),
        precision=table["precision"],
        seed=sorted(set.intersection(*map(set, seeds))),
        variant=["paper", variant],
    )


ENOUGH_OF_DROPOUT, TARGET = 1.5, 0.3
FIRST_DROP = 0.6  # of the epochs, in `experiments.paper.ablations`
EPOCHS_TOGETHER = 5  # a validation split of some hundred images is a point off now and then


def dropout_slows() -> Found | None:
    """Epochs until the validation error is down to 30%, before the learning rate falls.

    It is the median of the last five epochs that must be, so that a lucky one does not decide.
    Beside them those of the training error, which is that of the images as they were trained on:
    cropped at random and, with dropout, by half of the units.
    """
    if not (tables := _tables_with("no dropout")):
        return None
    name, table = next(iter(tables.items()))
    falls = round(FIRST_DROP * table["epochs"])
    without, with_it, trained_without, trained_with = (
        {
            run["seed"]: harness.epochs_to(_steadied(run["epochs"][:falls], split), TARGET)
            for run in table["runs"]
            if run["variant"] == variant
        }
        for split in ("validation", "train")
        for variant in ("no dropout", "paper")
    )
    found = sooner(without, with_it, ENOUGH_OF_DROPOUT)
    return Found(
        f"dropout takes {found.text} (to {percent(TARGET, 0)}% validation error, the median of "
        f"{EPOCHS_TOGETHER} epochs: with dropout {listed(with_it)}; without {listed(without)}; to "
        f"as much training error: {listed(trained_with)}; {listed(trained_without)}; the rate "
        f"falls after epoch {falls})",
        f"{_scale(table)}, {seeds_in_words(found.seeds)}",
        found.verdict,
        _command(table, "no dropout"),
        f"{name}.png",
        rule_of_sooner(ENOUGH_OF_DROPOUT),
    )


def _steadied(epochs: list[dict], split: str) -> list[float]:
    """The top-1 error after each epoch: the median of the last few, guesses before the first."""
    errors = [0.9] * (EPOCHS_TOGETHER - 1)
    errors += [0.9 if (one := line[split]["top1_error"]) is None else one for line in epochs]
    return np.median(sliding_window_view(errors, EPOCHS_TOGETHER), axis=1).tolist()
