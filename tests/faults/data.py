"""Damage of a prepared data set: named before the first update, or of no consequence."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from alexnet_jax.data.sets import open_dataset
from tests.faults.base import Row, Scale, ended, last_line, make_photographs, start, train


def faults(scale: Scale) -> Iterator[Row]:
    """Each damage in this process, then a few through the command."""
    images, data = scale.new("images"), scale.new("data")
    make_photographs(images, classes=3, each=60)
    flags = ("--dataset=folder", "--name=mine", "--validation_share=0.2", f"--folder={images}")
    status, _, errors = ended(start("prepare", *flags, f"--data_dir={data}"))
    assert status == 0, errors
    whole = _contents(data)
    for name, damage in DAMAGES.items():
        for verify in (False, True):
            yield _damaged(scale, data, whole, name, damage, verify)
    yield _through_the_command(scale, data)


def _contents(data: Path, verify: bool = False) -> dict[str, np.ndarray]:
    """All that training would read, and what it is called."""
    found = {}
    for split in ("train", "validation"):
        dataset = open_dataset("mine/raw", split, data_dir=data, stored_size=256, verify=verify)
        batch = dataset.source.read(np.arange(len(dataset)))
        found |= {f"{split} {name}": array for name, array in batch.items()}
        found[f"{split} classes"] = np.array(dataset.class_names)
    return found


def _damaged(
    scale: Scale, data: Path, whole: dict, name: str, damage: Callable, verify: bool
) -> Row:
    row = Row(f"prepared data: {name}" + (", with `verify_data`" if verify else ""))
    rng, outcomes = scale.rng(f"{name} {verify}"), {"told": 0, "read equal": 0, "unseen": 0}
    for _ in range(scale.times(20)):
        copy = Path(shutil.copytree(data, scale.new("data")))
        damage(copy / "mine" / "raw" / "1.0.0", rng)
        row.tried += 1
        try:
            found = _contents(copy, verify)
        except ValueError as error:
            outcomes["told"] += 1
            named = str(copy) in str(error) and "\n" not in str(error)
            row.check(named, f"{name}: {error}")
        except Exception as error:
            row.fail(f"{name}: {type(error).__name__}: {error}")
        else:
            equal = all(np.array_equal(found[key], whole[key]) for key in whole)
            outcomes["read equal" if equal else "unseen"] += 1
            # Without digests a shard that was swapped for another of its size cannot be told.
            row.check(equal or (name in UNSEEN and not verify), f"{name}: other images, unseen")
        shutil.rmtree(copy)
    row.note = ", ".join(f"{number} {what}" for what, number in outcomes.items() if number)
    return row


def _shard(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(folder.glob("*array_record*")))


def _truncate(folder: Path, rng: random.Random) -> None:
    shard = _shard(folder, rng)
    content = shard.read_bytes()
    shard.write_bytes(content[: rng.randrange(len(content))])


def _flip(folder: Path, rng: random.Random) -> None:
    shard = _shard(folder, rng)
    content = bytearray(shard.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    shard.write_bytes(content)


def _remove(folder: Path, rng: random.Random) -> None:
    _shard(folder, rng).unlink()


def _swap(folder: Path, rng: random.Random) -> None:
    one, other = rng.sample(sorted(folder.glob("*train*array_record*")), 2)
    content = one.read_bytes()
    shutil.copyfile(other, one)
    other.write_bytes(content)


def _stale_counts(folder: Path, rng: random.Random) -> None:
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    lengths = rng.choice(info["splits"])["shardLengths"]
    lengths[0] = str(int(lengths[0]) + rng.choice((-1, 1, 7)))
    path.write_text(json.dumps(info))


def _foreign_features(folder: Path, rng: random.Random) -> None:
    path = folder / "features.json"
    text = path.read_text()
    words = ("image", "label", "uint8", "256", "raw", "Tensor", "{")
    word = rng.choice([word for word in words if word in text])
    path.write_text(text.replace(word, "" if word == "{" else "other", 1))


def _no_manifest(folder: Path, rng: random.Random) -> None:
    (folder / "manifest.json").unlink()


def _damaged_json(folder: Path, rng: random.Random) -> None:
    path = rng.choice(sorted(folder.glob("*.json")))
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def _other_classes(folder: Path, rng: random.Random) -> None:
    path = folder / "label.labels.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[: rng.randrange(len(lines))]))


DAMAGES = {
    "a shard cut off": _truncate,
    "a bit of a shard flipped": _flip,
    "a shard missing": _remove,
    "two shards swapped": _swap,
    "stale counts": _stale_counts,
    "foreign features": _foreign_features,
    "no manifest": _no_manifest,
    "a description cut off": _damaged_json,
    "classes missing": _other_classes,
}
UNSEEN = ("two shards swapped",)


def _through_the_command(scale: Scale, data: Path) -> Row:
    """The command ends in one line that names the file, before its first update."""
    row, rng = Row("prepared data damaged, then trained on"), scale.rng("command")
    flags = ("--config.dataset=mine/raw", "--config.stored_size=256", "--config.test_split=")
    flags += ("--config.batch_size=16", "--config.num_epochs=1", "--config.verify_data=True")
    for name in ("a shard cut off", "a bit of a shard flipped", "a shard missing"):
        copy = Path(shutil.copytree(data, scale.new("data")))
        DAMAGES[name](copy / "mine" / "raw" / "1.0.0", rng)
        workdir = scale.new("run")
        status, _, errors = ended(train(workdir, *flags, f"--data_dir={copy}"))
        row.tried += 1
        line = last_line(errors)
        row.check(status == 1 and line.startswith("error: ") and str(copy) in line, errors[-300:])
        row.check(not (workdir / "checkpoints").exists(), "a checkpoint")
    row.note = "one line that names the shard; nothing is written"
    return row
