"""What first layers, retrieval and moved crops show (section 6.1); None where it was not run."""

import shlex
from collections.abc import Sequence

from alexnet_jax.configs import imagenette
from experiments.found import Found, command, result, size, size_flags
from experiments.settings import flat, usual
from experiments.verdicts import (
    NOT,
    NOTHING,
    PARTLY,
    REPRODUCED,
    capped,
    percent,
    seeds_in_words,
)

CHANCE = 0.05
SPECIALISED = ("specialisation_64_60_epochs", "specialisation_64", "specialisation_128")


def specialisation() -> Found | None:
    """Colour in one tower. The longest training is judged; what others say stands beside it."""
    tables = {name: table for name in SPECIALISED if (table := result(name))}
    tables = {name: table for name, table in tables.items() if "paper" in table["nets"]}
    if not tables:
        return None
    name = max(tables, key=lambda name: tables[name]["epochs"])
    table = tables.pop(name)
    row = table["nets"]["paper"]
    seeds = len(row["seeds"])
    told = row["seeds"] if name == SPECIALISED[0] else ()  # of these very runs
    if row["split"]["mean"] is None:  # "p" of such a run is no number either, or nought
        ours, word = "a run diverged", NOTHING
    else:
        ours, word = f"{_EXPLAINED}: {_colours(table)}", _specialised(row["p"])
    ours += "".join(
        f"; with {size(other)}, {seeds_in_words(len(other['nets']['paper']['seeds']))}: "
        f"{_colours(other)}"
        for other in tables.values()
    )
    return Found(
        f"{ours}{_colours_in('ablations_64_width_0.5', told)}{_colours_in('ablations_128')}",
        f"Imagenette, {size(table)}, {seeds_in_words(seeds)}",
        capped(word, seeds),
        command(
            "paper.specialisation",
            **size_flags(table),
            seed=row["seeds"],
            variant=[*table["nets"]],
        ),
        f"{name}.png",
        f"{REPRODUCED}: with every seed under {percent(CHANCE, 0)}% of random halves are split as "
        f"far; {PARTLY}: with at least half of the seeds; else {NOT}",
    )


_EXPLAINED = (
    "share of colour in the two towers by seed (and how many of random halves of their kernels are "
    "split as far)"
)


def _specialised(chances: list[float]) -> str:
    """The verdict from the share of random halves that are split as far, by seed."""
    split = sum(chance < CHANCE for chance in chances) / len(chances)
    return REPRODUCED if split == 1 else PARTLY if split >= 0.5 else NOT


def _colours(table: dict) -> str:
    """What a result says of the towers of its nets, in words; the paper's net is the first."""
    texts = []
    for name, row in table["nets"].items():
        shares = _shares(row["lower"]["values"], row["higher"]["values"])
        each = (f"{of} ({percent(p, 1)}%)" for of, p in zip(shares, row["p"], strict=True))
        texts.append(f"{'' if name == 'paper' else f'{name} '}{', '.join(each)}")
    return "; ".join(texts)


def _colours_in(name: str, seeds_told: Sequence[int] = ()) -> str:
    """What the ablations of a table saw of the same with other seeds, in words."""
    table = result(name) or {"variants": []}
    shares = {
        row["variant"]: [
            sorted(run)
            for seed, run in zip(row["seeds"], row["color_shares"], strict=True)
            if None not in run and seed not in seeds_told
        ]
        for row in table["variants"]
    }
    if not (paper := shares.get("paper")):
        return ""
    without = shares.get("no LRN")
    told = f"; no LRN {', '.join(_shares(*zip(*without, strict=True)))}" if without else ""
    return (
        f"; with {size(table)}, {seeds_in_words(len(paper))}{' more' if seeds_told else ''}: "
        f"{', '.join(_shares(*zip(*paper, strict=True)))}{told}"
    )


def _shares(lower: Sequence[float | None], higher: Sequence[float | None]) -> list[str]:
    pairs = zip(lower, higher, strict=True)
    return ["diverged" if None in pair else "{:.2f} and {:.2f}".format(*pair) for pair in pairs]


def retrieval() -> Found | None:
    """The training images nearest to a test image, by the last hidden layer and by pixels."""
    table = result("look_inside_imagenette")
    if not table:
        return None
    hidden, pixels = (
        [run[f"precision_of_{by}"] for run in table["runs"]] for by in ("fc7", "pixels")
    )
    better = all(a > b for a, b in zip(hidden, pixels, strict=True))
    texts = (f"{', '.join(percent(one, 1) for one in of)}%" for of in (hidden, pixels))
    return _looked_inside(
        table,
        f"of the {table['neighbors']} nearest of {table['runs'][0]['gallery']:,} training images "
        "are of the image's class: {} by fc7, {} by pixels".format(*texts),
        better,
        f"{REPRODUCED}: more by fc7 than by pixels in every run; else {NOT}",
    )


def off_center() -> Found | None:
    """Errors where the crop is moved, so that what is to be seen is not in the middle."""
    table = result("look_inside_imagenette")
    if not table:
        return None
    texts, known = [], []
    for run in table["runs"]:
        errors = {row["shift"]: row["top1_error"] for row in run["off_center"]}
        moved = ", ".join(f"{shift} pixels {percent(of, 1)}%" for shift, of in errors.items())
        texts.append(f"error with the crop moved by {moved}")
        quarter = min(errors, key=lambda shift: abs(shift - table["image_size"] / 4))
        known.append(errors[quarter] - errors[0] < (GUESSING - errors[0]) / 2)
    return _looked_inside(
        table,
        "; ".join(texts),
        all(known),
        f"{REPRODUCED}: moved by a quarter of its side, a crop loses less than half of what it is "
        f"recognised better than by guessing ({percent(GUESSING, 0)}% wrong), in every run; else "
        f"{NOT}",
    )


GUESSING = 0.9  # wrong of ten classes


def _looked_inside(table: dict, ours: str, holds: bool, rule: str) -> Found:
    runs = table["runs"]
    folders = [f"runs/inside_{number}" for number in range(len(runs))]
    trainings = map(_training, (run["configuration"] for run in runs), folders)
    return Found(
        ours,
        f"Imagenette, {table['image_size']} pixels, {table['conv_features'][0]} kernels in conv1, "
        f"{runs[0]['test_images']:,} test images, {seeds_in_words(len(runs))}",
        capped(REPRODUCED if holds else NOT, len(runs)),
        " && ".join([*trainings, command("paper.look_inside", workdir=folders)]),
        rule=rule,
    )


def _training(fields: dict, folder: str) -> str:
    """The command that trains a run of the recipe for Imagenette with other fields."""
    recipe = flat(imagenette.get_config())
    words = ["python", "-m", "alexnet_jax.main", f"--workdir={folder}", "--config=imagenette"]
    for field, value in recipe.items():
        if (own := fields.get(field, usual().get(field))) != value:
            words.append(f"--config.{field}={tuple(own) if isinstance(own, list) else own}")
    return shlex.join(words)
