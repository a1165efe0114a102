"""A shard that is missing, unreadable, cut, changed or swapped is named, with what to do."""

import hashlib
import json

import numpy as np
import pytest

from alexnet_jax.data.sets import open_dataset
from tests.data.conftest import png, write_dataset

FIRST, SECOND = (f"photos-train.array_record-{i:05d}-of-00002" for i in range(2))


@pytest.fixture
def prepared(tmp_path):
    """The folder of a data set of two shards of one size, with a manifest."""
    pictures = [png(np.full((4, 4, 3), value, np.uint8)) for value in range(100, 140)]
    path = write_dataset(tmp_path, "photos", pictures, [0] * 40, shards=2)
    manifest = {
        shard.name: {
            "sha256": hashlib.sha256(shard.read_bytes()).hexdigest(),
            "bytes": shard.stat().st_size,
            "records": 20,
        }
        for shard in (path / FIRST, path / SECOND)
    }
    assert manifest[FIRST]["bytes"] == manifest[SECOND]["bytes"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "label.labels.txt").write_text("0\n1\n2\n")  # as prepare writes it
    return path


def open_photos(path, **options):
    return open_dataset("photos", "train", data_dir=str(path.parents[1]), **options)


def swap(path):
    (path / FIRST).rename(path / "third")
    (path / SECOND).rename(path / FIRST)
    (path / "third").rename(path / SECOND)


def test_whole_shards_pass(prepared):
    assert len(open_photos(prepared, verify=True)) == 40


def test_a_missing_shard_is_named(prepared):
    (prepared / SECOND).unlink()
    with pytest.raises(
        ValueError, match=f"{SECOND} is missing; copy it again, or delete {prepared} and p"
    ):
        open_photos(prepared)


def test_an_unreadable_shard_is_named(prepared):
    (prepared / SECOND).unlink()
    (prepared / SECOND).mkdir()
    with pytest.raises(ValueError, match=f"{SECOND} cannot be read .*; give permission to read it"):
        open_photos(prepared)


def test_a_cut_shard_is_named_without_reading_it(prepared):
    data = (prepared / SECOND).read_bytes()
    (prepared / SECOND).write_bytes(data[:-100])
    with pytest.raises(ValueError, match=rf"{SECOND} has [\d,]+ bytes where [\d,]+ were written"):
        open_photos(prepared)


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: bytes(len(data))]
)
def test_a_damaged_shard_without_a_manifest_is_named(prepared, damage):
    (prepared / "manifest.json").unlink()
    (prepared / SECOND).write_bytes(damage((prepared / SECOND).read_bytes()))
    with pytest.raises(
        ValueError, match=rf"^shard {prepared / SECOND} is damaged \(.*copy"
    ) as error:
        open_photos(prepared)
    assert "\n" not in str(error.value)


def test_swapped_shards_are_named(prepared):
    swap(prepared)
    with pytest.raises(ValueError, match=f"{FIRST} holds the data of {SECOND}"):
        open_photos(prepared, verify=True)


def test_a_changed_shard_is_named(prepared):
    data = bytearray((prepared / FIRST).read_bytes())
    data[-1] ^= 1
    (prepared / FIRST).write_bytes(data)
    with pytest.raises(ValueError, match=f"{FIRST} is not what was written"):
        open_photos(prepared, verify=True)


def test_a_shard_that_nobody_wrote_is_named(prepared):
    (prepared / "manifest.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=rf"{FIRST} is not in manifest\.json"):
        open_photos(prepared)


def test_verifying_without_a_manifest_says_so(prepared):
    (prepared / "manifest.json").unlink()
    assert len(open_photos(prepared)) == 40
    with pytest.raises(ValueError, match=r"has no manifest\.json to verify"):
        open_photos(prepared, verify=True)
