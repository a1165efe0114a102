"""Is your run of a recipe, statistically, one of ours?

    python -m experiments.check_run RUN

Compares the log of a finished run with those of our runs of the same recipe over seeds, kept in
results/reference_RECIPE.json: at every logged update the loss and the error are to lie in the 99%
prediction interval for one more run (Student's t over our seeds). Of the points of a run like ours
1 in 100 lies outside by chance, in clusters, as neighbours go together; the verdict is "one of
ours" where at most 1 in 10 does, and the last validation and the test lie in the 99.9% interval.
Each of our own runs passes against the others (tests/test_check_run.py).

A reference is made from finished runs:

    python -m alexnet_jax.main --workdir=runs/reference --config=digits --config.ensemble=8
    python -m experiments.check_run runs/reference/seed_* --record=digits
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from flax.traverse_util import flatten_dict
from scipy import stats

from alexnet_jax.files import json_object, local_path
from alexnet_jax.runs.configuration import load_config, members, name_a_member
from alexnet_jax.runs.metrics_log import VITALS, read_metrics
from experiments import harness

FLAGS = flags.FLAGS
flags.DEFINE_string("record", None, "name of the recipe whose reference the runs become")
flags.DEFINE_string("recipe", None, "name of the reference; by default the one of the data set")
LEVEL, SURE = 0.99, 0.999  # of a point of the curves, and of those that decide
# Fields that do not change what is computed, or only as the seed does.
_FREE = ("seed", "ensemble", "data_dir", "cache", "augment", "read_workers", "verify_data", "mesh")
_FREE += ("steps_per_call", "log_every_steps", "checkpoint_every_steps", "eval_batch_size")
_FREE += ("watch_every_steps", "keep_every_epochs")
Curves = Mapping[str, float]


class Outcome(NamedTuple):
    """What a comparison came to."""

    points: int
    outside: list[str]
    decisive: list[str]  # those outside among the last validation and the test
    lines: list[str]

    @property
    def ours(self) -> bool:
        """Whether the run is one of ours."""
        return not self.decisive and len(self.outside) <= self.points / 10


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
    flat = flatten_dict(load_config(workdir).to_dict(), sep=".")
    kept = {name: value for name, value in flat.items() if name.partition(".")[0] not in _FREE}
    return json.loads(json.dumps(kept, default=str))


def compare(run: Curves, reference: Sequence[Curves]) -> Outcome:
    """Compares a run with at least three others.

    Raises:
      ValueError: there are fewer others, they have no logged update in common, or the run has not
        come to its test.
    """
    if len(reference) < 3:
        raise ValueError(f"{len(reference)} runs are no reference; at least three are")
    untested = {n for n in set.intersection(*map(set, reference)) if n.startswith("test")} - {*run}
    if untested:
        raise ValueError(f"this run has no {min(untested)}, as ours have: let it come to its end")
    shared = [name for name in run if all(name in other for other in reference)]
    if not shared:
        raise ValueError("this run and ours have no logged update in common: were they as long?")
    outside, lines = [], []
    decisive = {_last(shared, "validation loss"), _last(shared, "validation top1_error")}
    decisive |= {name for name in shared if name.startswith("test")}
    for name in shared:
        low, middle, high = interval(
            [other[name] for other in reference],
            SURE if name in decisive else LEVEL,
            is_error="error" in name,
        )
        inside = low <= run[name] <= high
        if not inside:
            outside.append(name)
        if name in decisive:
            mark = "" if inside else "   OUTSIDE"
            lines.append(
                f"{name:26} {run[name]:.4f}   ours {middle:.4f}, {low:.4f} to {high:.4f}{mark}"
            )
    return Outcome(len(shared), outside, sorted(decisive & set(outside)), lines)


def interval(values: Sequence[float], level: float, is_error: bool) -> tuple[float, float, float]:
    """Where one more value is to be expected, and the middle: Student's t.

    Losses are compared by their logarithms: a few test images that go wrong make long tails. The
    spread of errors is at least half a point, that of losses 2%.
    """
    array, least = np.array(values), 5e-3
    if not is_error:
        array, least = np.log(np.maximum(array, 1e-12)), 0.02
    count = len(values)
    factor = float(stats.t.ppf((1 + level) / 2, count - 1)) * (1 + 1 / count) ** 0.5
    half = factor * max(float(array.std(ddof=1)), least)
    found = np.array([array.mean() - half, array.mean(), array.mean() + half])
    low, middle, high = np.maximum(found, 0) if is_error else np.exp(found)
    return float(low), float(middle), float(high)


def _last(names: Sequence[str], prefix: str) -> str | None:
    of_split = [name for name in names if name.startswith(prefix)]
    return max(of_split, key=lambda name: int(name.split()[-1]), default=None)


def differences(run: Mapping[str, Any], reference: Mapping[str, Any]) -> Iterator[str]:
    """The fields in which a run's recipe is another than the reference's."""
    for name in sorted({*run, *reference}):
        if run.get(name) != reference.get(name):
            yield f"{name} {run.get(name)!r}, ours {reference.get(name)!r}"


def record(workdirs: Sequence[Path], recipe: str) -> None:
    """Makes runs the reference of a recipe. Raises ValueError where they are not of one recipe."""
    first = settings(workdirs[0])
    for workdir in workdirs[1:]:
        for difference in differences(settings(workdir), first):
            raise ValueError(f"{workdir} is of another recipe than {workdirs[0]}: {difference}")
    runs = [
        {"seed": load_config(workdir).seed, "log": harness.rounded(curves(workdir))}
        for workdir in workdirs
    ]
    harness.record(f"reference_{recipe}", {"recipe": recipe, "settings": first, "runs": runs})


def reference(recipe: str) -> dict[str, Any]:
    """The "settings" and the "runs" of a reference. Raises ValueError where it is damaged."""
    path = harness.RESULTS / f"reference_{recipe}.json"
    try:
        content = json_object(path.read_bytes(), path).get("result")
        if not isinstance(content, dict) or {"settings", "runs"} - content.keys():
            raise ValueError(f"{path} is no reference")
    except ValueError as error:
        raise ValueError(f"{error}; restore it, or make it again with --record") from error
    return content


def main(argv: Sequence[str]) -> None:
    """Compares or records."""
    workdirs = [local_path(path) for path in argv[1:]]
    if not workdirs:
        raise app.UsageError("the run's folder is missing: python -m experiments.check_run RUN")
    for workdir in workdirs:
        if runs := members(workdir):
            raise ValueError(name_a_member(workdir, runs))
    if FLAGS.record:
        record(workdirs, FLAGS.record)
        return
    known = sorted(path.stem[10:] for path in harness.RESULTS.glob("reference_*.json"))
    for workdir in workdirs:
        recipe = FLAGS.recipe or load_config(workdir).dataset
        if recipe not in known:
            raise ValueError(f"no reference of {recipe!r}; --recipe= is one of {', '.join(known)}")
        content = reference(recipe)
        for difference in differences(settings(workdir), content["settings"]):
            print(f"another recipe than ours: {difference}")
        outcome = compare(curves(workdir), [run["log"] for run in content["runs"]])
        print(*outcome.lines, sep="\n")
        print(
            f"{workdir}: {len(outcome.outside)} of {outcome.points} points outside the "
            f"{100 * LEVEL:g}% interval of {len(content['runs'])} seeds: "
            + ("one of ours" if outcome.ours else "NOT one of ours")
        )


if __name__ == "__main__":
    harness.run(main, arguments=True)
