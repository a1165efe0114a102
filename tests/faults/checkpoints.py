"""Each file of a checkpoint, damaged in each way: told, or of no consequence; never unseen."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from alexnet_jax.runs.checkpoint import Checkpointer, CheckpointError
from alexnet_jax.runs.workdir import load_run
from alexnet_jax.step import state_template
from tests.faults.base import Row, Scale, ended, last_line, train

BIG = 4096  # bytes from which a file has its bits flipped in 20 places, one after the other


def faults(scale: Scale) -> Iterator[Row]:
    """Damage of the last checkpoint, then of the configuration."""
    run = scale.new("run")
    status, _, errors = ended(train(run, "--config.num_epochs=2"))
    assert status == 0, errors
    yield from _checkpoint(scale, run)
    yield _resumes(scale, run)
    yield _configuration(scale, run)


def _checkpoint(scale: Scale, run: Path) -> Iterator[Row]:
    """Restores a copy of the run's checkpoints after each damage."""
    model = load_run(run).model
    template = state_template(model, None)
    directory = run / "checkpoints"
    steps = sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())
    assert len(steps) == 2, steps
    whole = {}
    with Checkpointer(directory, read_only=True) as checkpoints:
        for step in steps:
            whole[step] = jax.device_get(checkpoints.restore(template, step=step).state.params)
    older, last = steps
    files = sorted(p.relative_to(directory) for p in (directory / str(last)).rglob("*"))
    files = [file for file in files if (directory / file).is_file()]
    for damage in (remove, halve, empty, flip, swap):
        row, outcomes = Row(f"a file of the last checkpoint {damage.__name__}"), Counter()
        rng = scale.rng(damage.__name__)
        for file in scale.some(files, damage.__name__):
            size = (directory / file).stat().st_size
            places = scale.times(20) if damage is flip and size > BIG else 1
            for _ in range(places):
                copy = shutil.copytree(directory, scale.new("checkpoints"))
                other = copy / str(older) / file.relative_to(str(last))
                if not damage(copy / file, other, rng):
                    continue
                row.tried += 1
                outcomes[_restored(copy, template, whole, last, row, f"{file}")] += 1
                shutil.rmtree(copy)
        row.note = ", ".join(f"{number} {what}" for what, number in outcomes.most_common())
        yield row


def _restored(copy: Path, template, whole, last: int, row: Row, file: str) -> str:
    """What became of a damaged checkpoint, in words; counts what went unseen."""
    try:
        with Checkpointer(copy) as checkpoints:
            restored, problems = checkpoints.restore_newest(template)
    except CheckpointError as error:
        row.fail(f"{file}: refused, although an older one is whole: {error}")
        return "refused"
    except Exception as error:
        row.fail(f"{file}: {type(error).__name__}: {error}")
        return "a traceback"
    found = jax.tree.leaves(jax.device_get(restored.state.params))
    expected = jax.tree.leaves(whole[restored.step])
    row.check(all(map(np.array_equal, found, expected)), f"{file}: other weights, unseen")
    if restored.step == last:
        return "restored equal"
    row.check(problems and str(copy) in problems[0], f"{file}: the older one, unsaid")
    row.check(all("\n" not in problem for problem in problems), f"{file}: {problems}")
    return "the older one taken, and said"


def remove(path: Path, other: Path, rng: random.Random) -> bool:
    """Each damage says whether there was anything to do."""
    path.unlink()
    return True


def halve(path: Path, other: Path, rng: random.Random) -> bool:
    """Half of it is gone."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return bool(content)


def empty(path: Path, other: Path, rng: random.Random) -> bool:
    """All of it is gone but the name."""
    was = path.stat().st_size
    path.write_bytes(b"")
    return was > 0


def flip(path: Path, other: Path, rng: random.Random) -> bool:
    """One bit is another one."""
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    return bool(content)


def swap(path: Path, other: Path, rng: random.Random) -> bool:
    """Another step's file stands in its place."""
    if not other.exists() or other.read_bytes() == path.read_bytes():
        return False
    shutil.copyfile(other, path)
    return True


def _resumes(scale: Scale, run: Path) -> Row:
    """The command goes on from the older checkpoint, and says so; with --strict it stops."""
    row, rng = Row("the last checkpoint damaged, the run given again"), scale.rng("resume")
    for _ in range(scale.times(5)):
        copy = Path(shutil.copytree(run, scale.new("run")))
        last = max(int(p.name) for p in (copy / "checkpoints").iterdir() if p.name.isdecimal())
        data = max(
            (copy / "checkpoints" / str(last) / "state").rglob("*"),
            key=lambda path: path.stat().st_size if path.is_file() else 0,
        )
        halve(data, data, rng)
        row.tried += 1
        status, _, errors = ended(train(copy, "--config.num_epochs=2", "--strict"))
        row.check(status == 1 and errors.count("\n") == 1, f"--strict: {status} {errors}")
        status, output, errors = ended(train(copy, "--config.num_epochs=2"))
        row.check(status == 0, last_line(errors))
        row.check("warning: " in output and str(last) in output, f"unsaid: {output}")
    row.note = "goes on from the older one and says so; `--strict` refuses in one line"
    return row


def _configuration(scale: Scale, run: Path) -> Row:
    """Bits of config.json: a damaged one is told, or means what it meant."""
    row, rng = Row("a bit of config.json flipped"), scale.rng("config")
    text = (run / "config.json").read_bytes()
    expected = load_run(run).config.to_json()
    copy = Path(shutil.copytree(run, scale.new("run")))
    for _ in range(scale.times(300)):
        damaged = bytearray(text)
        damaged[rng.randrange(len(text))] ^= 1 << rng.randrange(8)
        (copy / "config.json").write_bytes(damaged)
        row.tried += 1
        try:
            found = load_run(copy).config.to_json()
        except ValueError as error:
            row.check("\n" not in str(error) and "config.json" in str(error), str(error))
        except Exception as error:
            row.fail(f"{type(error).__name__}: {error}")
        else:
            row.check(json.loads(found) == json.loads(expected), f"unseen: {bytes(damaged)!r}")
    row.note = "told in one line"
    return row
