"""The configuration in a run's folder: config.json, and what a resumed run may change of it."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from alexnet_jax.configs import default
from alexnet_jax.files import json_object, local_path, naming, whole_file
from alexnet_jax.runs.checks import check
from alexnet_jax.runs.digest import crc
from alexnet_jax.wording import first_line

# Fields that a resumed run may change: where it runs, how long, and its test at the end. An
# ensemble may have more networks, too.
MAY_CHANGE = (
    "data_dir",
    "cache",
    "steps_per_call",
    "read_workers",
    "verify_data",
    "mesh.data",
    "mesh.model",
    "num_epochs",
    "watch_every_steps",
    "keep_every_epochs",
    "eval_batch_size",
    "test_split",
    "final_views",
)
MAY_DIFFER = ("data_dir", "read_workers")  # between the hosts of a run
_DIGEST = "digest"  # the name of what config.json holds beside the fields


def save_config(config: ConfigDict, workdir: Path, *, resumes: bool) -> list[str]:
    """Writes the configuration, whole or not at all.

    Args:
      config: of the run that begins or goes on.
      workdir: its folder.
      resumes: the folder holds a run already, whose configuration this must be.

    Returns:
      What is different from the run so far, a line per field.

    Raises:
      ValueError: it `resumes` a run of another configuration, or one that has none.
    """
    path = workdir / "config.json"
    text = _as_text(config)
    changes = []
    if resumes and not path.exists():
        raise ValueError(_no_config(workdir))
    if resumes:
        saved = load_config(workdir)
        told = _differences(saved, config, "{} was {} and is {}")
        grows = 1 < saved.ensemble < config.get("ensemble", 1)
        allowed = (*MAY_CHANGE, "ensemble") if grows else MAY_CHANGE
        if refused := [line for field, line in told.items() if field not in allowed]:
            raise ValueError(
                f"{workdir} holds a run of another configuration: {_first(refused)}; "
                "give the same configuration, or another --workdir"
            )
        changes = [f"{line} from here on" for line in told.values()]
    with whole_file(path) as file:
        file.write(text)
    return changes


def facts(config: ConfigDict) -> dict[str, Any]:
    """Field -> value, of those in which all hosts of a run must agree."""
    return _flat(noted(config))


def noted(config: ConfigDict) -> dict[str, Any]:
    """What a checkpoint notes of its run's configuration: JSON, the same on all hosts."""
    fields = json.loads(config.to_json())
    return {name: value for name, value in fields.items() if name not in MAY_DIFFER}


def check_own(metadata: Mapping[str, Any], step: int, config: ConfigDict, workdir: Path) -> None:
    """Is a checkpoint of the run whose configuration stands beside it?

    Args:
      metadata: of the checkpoint; of an earlier version nothing can be told.
      step: of the checkpoint.
      config: of config.json.
      workdir: holds both.

    Raises:
      ValueError: it is of another run, or what it holds of its configuration is damaged.
    """
    if "config" not in metadata:
        return
    with naming(workdir / "checkpoints" / str(step), ": its metadata is damaged"):
        own = config_of(metadata["config"], unknown=True)
    told = _differences(own, config, "{} was {} there and is {} in config.json")
    if lines := [line for field, line in told.items() if field not in MAY_CHANGE]:
        raise ValueError(
            f"checkpoint {step} in {workdir} is of another run than its config.json: "
            f"{_first(lines)}; put the run's own back"
        )


def _differences(one: ConfigDict, other: ConfigDict, words: str) -> dict[str, str]:
    """Field -> `words` with its name and both values, of the fields that are not the same."""
    left, right = (_flat(json.loads(config.to_json())) for config in (one, other))
    return {
        field: words.format(field, _said(left, field), _said(right, field))
        for field in sorted(left.keys() | right.keys())
        if left.get(field) != right.get(field)
    }


def _first(lines: Sequence[str]) -> str:
    """A few of the lines, and how many more there are."""
    more = f", and {len(lines) - 3} more" if len(lines) > 3 else ""
    return f"{', '.join(lines[:3])}{more}"


def _said(fields: dict[str, Any], field: str) -> str:
    return "not set" if fields.get(field) is None else repr(fields[field])


def _as_text(config: ConfigDict) -> str:
    fields = json.loads(config.to_json())
    return json.dumps({**fields, _DIGEST: _digest(fields)}, indent=2, sort_keys=True) + "\n"


def _digest(fields: dict[str, Any]) -> int:
    """Of a configuration, so that a damaged or edited file is told."""
    return crc(json.dumps(fields, sort_keys=True).encode())


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    return flatten_dict(tree, keep_empty_nodes=True, sep=".")


def load_config(workdir: str | Path) -> ConfigDict:
    """The configuration saved in `workdir`; fields it lacks have their default.

    Raises:
      ValueError: there is none, it is damaged, or a field has a value that no run can have.
    """
    workdir = local_path(workdir)
    path = workdir / "config.json"
    try:
        saved = json_object(path.read_text(encoding="utf-8"), "it")
        digest = saved.pop(_DIGEST, None)
        if digest is not None and digest != _digest(saved):  # files of earlier versions have none
            raise ValueError(
                f"its fields are not those that were saved; if you changed them, take out the line "
                f'"{_DIGEST}"'
            )
        return config_of(saved, unknown=digest is not None)
    except (FileNotFoundError, NotADirectoryError):
        if runs := members(workdir):
            raise ValueError(name_a_member(workdir, runs)) from None
        if (workdir / "metrics.jsonl").exists() or any(workdir.glob("checkpoints/[0-9]*")):
            raise ValueError(_no_config(workdir)) from None
        raise ValueError(
            f"{workdir} holds no run (no config.json); train one with "
            f"`python -m alexnet_jax.main --workdir {workdir}`"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:  # not JSON, or of other types
        reason = first_line(error)
        raise ValueError(f"{path} is damaged ({reason}); restore it, or train again") from error


def _no_config(workdir: Path) -> str:
    """What to say where the rest of a run is there."""
    return (
        f"{workdir} holds a run and no config.json, which says of what configuration it is; put it "
        "back, or give another --workdir"
    )


def config_of(fields: Mapping[str, Any], *, unknown: bool = False) -> ConfigDict:
    """The configuration with these fields; those it lacks have their default.

    Raises:
      ValueError: a field is not known, unless `unknown` ones are taken, too, or has a value that no
        run can have.
      TypeError, AttributeError: a field is of another type.
    """
    config = default.get_config()
    with config.unlocked():
        config.update(dict(fields))
    check(config, besides=None if unknown else ())
    return config


def saved_fields(workdir: Path) -> Collection[str]:
    """Those of the configuration in `workdir`, groups as one; none where it cannot be read."""
    try:
        return json_object((workdir / "config.json").read_text(encoding="utf-8"), "it").keys()
    except (OSError, ValueError):
        return ()


def members(workdir: Path) -> list[Path]:
    """The runs of an ensemble, `seed_0`, `seed_1`, …, in order of the seeds; none of a run."""
    found = {}
    for path in workdir.glob("seed_*/config.json"):
        seed = path.parent.name.removeprefix("seed_")
        if seed.isdecimal():
            found[int(seed)] = path.parent
    return [found[seed] for seed in sorted(found)]


def name_a_member(workdir: Path, runs: Sequence[Path]) -> str:
    """What to say where one run is asked for and the folder is an ensemble's."""
    return (
        f"{workdir} holds an ensemble of {len(runs)} runs; name one of them, such as {runs[0]} "
        "(`evaluate` averages all of them)"
    )
