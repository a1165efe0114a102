"""Is your run of a recipe, statistically, one of ours?

    python -m experiments.check_run RUN

Compares the log of a finished run with those of our runs of the same recipe over seeds, kept in
results/reference_RECIPE.json. It is "one of ours", or not and the exit status is 1, by

- its whole curve: how far each logged loss and error lies from our mean, in deviations of ours,
  squared, on average. It is to be within the one-sided 99% interval for one more run, by the
  distances of our runs from each other;
- where it ends: the last validation and the test are to lie in the 99.5% interval for one more run.

Of runs like ours 1 in 50 fails by chance (drawn with the means and covariances of ours, 8 seeds).
Each of our own passes against the others, and none where all its training losses are a third
larger, its validation errors 5 points higher, or its errors on the test 2 points
(tests/test_check_run.py). A run of another recipe, or whose log lacks a tenth of our points, is
refused.

A reference is made from finished runs, at least three and each of another seed:

    python -m alexnet_jax.main --workdir=runs/reference --config=digits --config.ensemble=8
    python -m experiments.check_run runs/reference/seed_* --record=digits
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from scipy import stats

from alexnet_jax.files import json_object, local_path, naming
from alexnet_jax.runs.configuration import load_config, members, name_a_member
from alexnet_jax.runs.metrics_log import VITALS, read_metrics
from experiments import harness
from experiments.settings import COMPUTES_NOTHING, flat, usual

FLAGS = flags.FLAGS
flags.DEFINE_string("record", None, "name of the recipe whose reference the runs become")
flags.DEFINE_string("recipe", None, "name of the reference; by default the nearest of the data set")
WHOLE, END = 0.99, 0.995  # levels of the two intervals
LEAST = 0.9  # of our points
_FREE = (*COMPUTES_NOTHING, "seed", "ensemble", "augment")  # or change as the seed does
Curves = Mapping[str, float]


class Outcome(NamedTuple):
    """What a comparison came to: a line for each number that decides."""

    ours: bool
    lines: list[str]


def curves(workdir: Path) -> dict[str, float]:
    """The log of a run: "split metric step" -> value, loss and top-1 error."""
    found = {}
    for row in read_metrics(workdir):
        if row["split"] == VITALS:
            continue
        step = f" {row['step']}" if row["split"] in ("train", "validation") else ""
        for metric in ("loss", "top1_error"):
            found[f"{row['split']} {metric}{step}"] = float(row[metric])
    return found


def settings(workdir: Path) -> dict[str, Any]:
    """The fields of a run's configuration that decide what comes out."""
    return flat(load_config(workdir), _FREE)


def compare(run: Curves, reference: Sequence[Curves]) -> Outcome:
    """Compares a run with at least three others.

    Raises:
      ValueError: there are fewer others, it lacks a tenth of their points, or it has not come to
        its test.
    """
    _check_count(len(reference))
    points = [name for name in reference[0] if all(name in other for other in reference)]
    if untested := [name for name in points if name.startswith("test") and name not in run]:
        raise ValueError(f"this run has no {min(untested)}, as ours have: let it come to its end")
    shared = [name for name in points if name in run]
    if not shared or len(shared) < LEAST * len(points):
        raise ValueError(
            f"this run has {len(shared)} of the {len(points)} logged points of ours: was it as "
            "long, and did it log as often?"
        )
    ends = [_last(shared, "validation loss"), _last(shared, "validation top1_error")]
    ends += [name for name in shared if name.startswith("test")]
    judged = {
        name: (run[name], *interval([other[name] for other in reference], name))
        for name in ends
        if name
    }
    curve = [name for name in shared if not name.startswith("test")]
    judged["whole curve"] = (distance(run, reference, curve), *usual_distance(reference, curve))
    lines, ours = [], True
    for name, (value, low, middle, high) in judged.items():
        inside = low <= value <= high
        ours &= inside
        mark = "" if inside else "   OUTSIDE"
        lines.append(f"{name:26} {value:.4f}   ours {middle:.4f}, {low:.4f} to {high:.4f}{mark}")
    return Outcome(ours, lines)


def interval(values: Sequence[float], name: str) -> tuple[float, float, float]:
    """Where one more value of a point is to be expected, and the middle: Student's t."""
    array = _scaled(values, name)
    count = len(values)
    half = _quantile((1 + END) / 2, count) * float(_deviation(array, name))
    found = np.array([array.mean() - half, array.mean(), array.mean() + half])
    low, middle, high = np.maximum(found, 0) if "error" in name else np.exp(found)
    return float(low), float(middle), float(high)


def distance(run: Curves, others: Sequence[Curves], names: Sequence[str]) -> float:
    """The mean over points of the squared distance from the others' mean, in their deviations."""
    squares = []
    for name in names:
        array = _scaled([other[name] for other in others], name)
        apart = _scaled([run[name]], name)[0] - array.mean()
        squares.append((apart / _deviation(array, name)) ** 2)
    return float(np.mean(squares)) / (1 + 1 / len(others))


def usual_distance(runs: Sequence[Curves], names: Sequence[str]) -> tuple[float, float, float]:
    """0, and the middle and the upper bound of one more run's distance, by that of each of these.

    By their logarithms, as a distance is never below nought and has a long tail.
    """
    own = [distance(run, [one for one in runs if one is not run], names) for run in runs]
    logs = np.log(np.maximum(own, 1e-12))
    bound = logs.mean() + _quantile(WHOLE, len(runs)) * logs.std(ddof=1)
    return 0.0, float(np.exp(logs.mean())), float(np.exp(bound))


def _scaled(values: Sequence[float], name: str) -> np.ndarray:
    """Losses by their logarithms: a few test images that go wrong make long tails."""
    array = np.array(values)
    return array if "error" in name else np.log(np.maximum(array, 1e-12))


def _deviation(array: np.ndarray, name: str) -> float:
    """Of errors it is at least a quarter of a point, of losses 2%."""
    return max(float(array.std(ddof=1)), 2.5e-3 if "error" in name else 0.02)


def _quantile(level: float, count: int) -> float:
    """Of one more value, in deviations of so many."""
    return float(stats.t.ppf(level, count - 1)) * (1 + 1 / count) ** 0.5


def _last(names: Sequence[str], prefix: str) -> str | None:
    of_split = [name for name in names if name.startswith(prefix)]
    return max(of_split, key=lambda name: int(name.split()[-1]), default=None)


def differences(run: Mapping[str, Any], reference: Mapping[str, Any]) -> Iterator[str]:
    """The fields in which a run's recipe is another than the reference's.

    One that the reference lacks came later: it was at its default.
    """
    for name in sorted({*run, *reference}):
        ours = reference.get(name, usual().get(name))
        if run.get(name) != ours:
            yield f"{name} {run.get(name)!r}, ours {ours!r}"


def record(workdirs: Sequence[Path], recipe: str) -> None:
    """Makes runs the reference of a recipe.

    Raises:
      ValueError: the name is not a plain one, there are fewer than three, two are of one seed, or
        they are not of one recipe, at their end, and logged at the same updates.
    """
    if not re.fullmatch(r"[\w-]+", recipe):
        raise ValueError(f"--record={recipe} is no plain name; take letters, digits, _ and -")
    _check_count(len(workdirs))
    first, runs = settings(workdirs[0]), {}
    for workdir in workdirs:
        for difference in differences(settings(workdir), first):
            raise ValueError(f"{workdir} is of another recipe than {workdirs[0]}: {difference}")
        seed, log = load_config(workdir).seed, harness.rounded(curves(workdir))
        if seed in runs:
            raise ValueError(f"{workdir} is a second run of seed {seed}; give one of each seed")
        if None in log.values():
            raise ValueError(f"{workdir} has diverged; leave it out")
        if not any(name.startswith("test") for name in log):
            raise ValueError(f"{workdir} has logged no test; let it come to its end")
        runs[seed] = {"seed": seed, "log": log}
        if others := log.keys() ^ next(iter(runs.values()))["log"].keys():
            raise ValueError(
                f"one of {workdirs[0]} and {workdir} has no {min(others)}; give runs that logged "
                "at the same updates"
            )
    content = {"recipe": recipe, "settings": first, "runs": [*runs.values()]}
    harness.record(f"reference_{recipe}", content)


def _check_count(runs: int) -> None:
    if runs < 3:
        raise ValueError(f"{runs} runs are no reference; at least three are")


def reference(recipe: str) -> dict[str, Any]:
    """The "settings" and the "runs" of a reference. Raises ValueError where it is damaged."""
    path = harness.RESULTS / f"reference_{recipe}.json"
    try:
        with naming(path, " is no reference"):
            content = json_object(path.read_bytes(), path)["result"]
            _check_count(len(content["runs"]))
            for part in (content["settings"], *(run["log"] for run in content["runs"])):
                if not isinstance(part, dict):
                    raise ValueError(f"{part!r:.40} where an object {{…}} is wanted")
    except ValueError as error:
        raise ValueError(f"{error}; restore it, or make it again with --record") from error
    return content


def nearest(run: Mapping[str, Any], recipe: str | None = None) -> tuple[str, dict[str, Any]]:
    """Name and content of the reference that differs in the fewest fields from a run's settings.

    Args:
      run: its `settings`.
      recipe: the name, where it is given.

    Raises:
      ValueError: there is none of this name, or of the run's data set, or one is damaged.
    """
    names = sorted(path.stem[10:] for path in harness.RESULTS.glob("reference_*.json"))
    known = {name: reference(name) for name in names if recipe in (None, name)}
    if recipe is None:
        of = run["dataset"]
        known = {name: one for name, one in known.items() if one["settings"].get("dataset") == of}
    if not known:
        what = f"of {run['dataset']}" if recipe is None else f"called {recipe!r}"
        raise ValueError(f"no reference is {what}; those there are: {', '.join(names)}")
    apart = {name: len([*differences(run, one["settings"])]) for name, one in known.items()}
    found = min(apart, key=apart.__getitem__)
    return found, known[found]


def main(argv: Sequence[str]) -> None:
    """Compares or records; exits with 1 where a run is not one of ours.

    Raises:
      ValueError: a run is of another recipe, or cannot be compared.
    """
    workdirs = [local_path(path) for path in argv[1:]]
    if not workdirs:
        raise app.UsageError("the run's folder is missing: python -m experiments.check_run RUN")
    for workdir in workdirs:
        if runs := members(workdir):
            raise ValueError(name_a_member(workdir, runs))
    if FLAGS.record:
        record(workdirs, FLAGS.record)
        return
    every = []
    for workdir in workdirs:
        recipe, content = nearest(settings(workdir), FLAGS.recipe)
        if others := [*differences(settings(workdir), content["settings"])]:
            raise ValueError(
                f"{workdir} is of another recipe than ours of {recipe}: {'; '.join(others)}"
            )
        outcome = compare(curves(workdir), [run["log"] for run in content["runs"]])
        print(*outcome.lines, sep="\n")
        print(f"{workdir}: " + ("one of ours" if outcome.ours else "NOT one of ours"))
        every.append(outcome.ours)
    if not all(every):
        sys.exit(1)


if __name__ == "__main__":
    harness.run(main, arguments=True)
