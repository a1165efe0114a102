"""Data sets: found, checked and opened, or what to do in one line."""

import copy
import json
import multiprocessing
import os
import pickle
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import flags

from alexnet_jax import prepare
from alexnet_jax.data.builders import ORIGINAL, make_builder
from alexnet_jax.data.sets import match_classes, open_dataset
from tests.data.conftest import grey, png, write_dataset


@pytest.fixture
def digits():
    return open_dataset("digits", "train", stored_size=8)


def test_splits_may_be_sliced(digits):
    half = open_dataset("digits", "train[50%:]", stored_size=8)
    assert len(half) == 676
    np.testing.assert_array_equal(half.source[0]["image"], digits.source[676]["image"])


def _open_digits(folder, barrier, queue):
    os.environ["TFDS_DATA_DIR"] = folder
    barrier.wait()
    queue.put(len(open_dataset("digits", "train")))


@pytest.mark.slow
def test_two_processes_may_prepare_digits_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    arguments = (str(tmp_path), barrier, queue)
    processes = [context.Process(target=_open_digits, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [1352, 1352]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_data_dir_is_looked_in_first_and_never_written(tmp_path, monkeypatch):
    pictures = [png(np.full((4, 4, 3), value, np.uint8)) for value in (1, 2, 3)]
    write_dataset(tmp_path / "a", "photos", pictures[:1], [0])
    write_dataset(tmp_path / "b", "photos", pictures[:2], [0, 0])
    monkeypatch.setenv("ALEXNET_DATA_DIR", str(tmp_path / "b"))
    assert len(open_dataset("photos", "train", data_dir=str(tmp_path / "a"))) == 1
    assert len(open_dataset("photos", "train")) == 2
    open_dataset("digits", "test", data_dir=str(tmp_path / "a"))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["photos"]
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["photos"]


def test_an_unprepared_set_says_what_to_run(digits, user_folder):
    with pytest.raises(ValueError, match=r"alexnet_jax\.prepare --dataset=imagenet2012") as error:
        open_dataset("imagenet2012", "train")
    assert str(user_folder) in str(error.value) and "there: digits" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("imagenet2012_256/raw", "--dataset=imagenet2012_256 --encoding=raw --manual_dir=TARS"),
        ("imagenet_fall2011_256", "--dataset=imagenet_fall2011_256 --manual_dir=TARS"),
        ("imagenet2010", "--dataset=imagenet2010_256 --manual_dir=TARS"),
        ("imagenette/160px-v2", "--dataset=imagenette/160px-v2 --encoding=original --data_dir=DIR"),
        ("imagenette_160px_v2_256/jpeg", "--dataset=imagenette/160px-v2 --encoding=jpeg"),
        ("cifar10_256", "--dataset=cifar10 --data_dir=DIR"),
        ("imagenet2012_real", "--dataset=imagenet2012_real --encoding=original --data_dir=DIR"),
        ("cifar10:3.0.2", "--dataset=cifar10:3.0.2 --encoding=original"),
        ("Cifar10", "--dataset=cifar10 --encoding=original"),
        (
            "my_photos/jpeg",
            "--dataset=folder --folder=PHOTOGRAPHS --name=my_photos --encoding=jpeg",
        ),
        ("Photos", "--dataset=folder --folder=PHOTOGRAPHS --name=photos"),
        ("föhn", "--dataset=folder --folder=PHOTOGRAPHS --name=f_hn"),
    ],
)
def test_the_command_that_prepares_a_set_is_one_that_prepare_takes(digits, name, command):
    with pytest.raises(ValueError) as error:
        open_dataset(name, "train")
    advised = str(error.value).partition("`")[2].partition("`")[0]
    assert advised.startswith(f"python -m alexnet_jax.prepare {command}")
    values = flags.FlagValues()
    prepare.define_flags(values)
    values(advised.split()[2:])
    if values.encoding == ORIGINAL:
        return
    make_builder(
        values.dataset,
        data_dir=values.data_dir,
        encoding=values.encoding,
        manual_dir=values.manual_dir,
        folder=values.folder,
        name=values.name,
    )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("digits/raw", "take --config.dataset=digits"),
        ("digits:9.0.0", "take --config.dataset=digits"),
        ("cifar10/raw", "cifar10 has no configurations: take --config.dataset=cifar10"),
        ("cifar10:9.0.0", "cifar10 has no version 9.0.0: take --config.dataset=cifar10"),
        (
            "imagenette/160px-v3",
            "imagenette has no configuration '160px-v3' (did you mean '160px-v2'?): take another",
        ),
    ],
)
def test_of_a_set_that_is_known_what_there_is_is_advised(digits, name, advice):
    with pytest.raises(ValueError, match=f"; {re.escape(advice)}, or name the folder"):
        open_dataset(name, "train")


def test_a_set_that_lies_there_at_256_is_advised(tmp_path):
    write_dataset(tmp_path / "cifar10_256", "raw", grey(1), [0])
    with pytest.raises(
        ValueError, match=r"; its images .* --config.dataset=cifar10_256/raw, or na"
    ):
        open_dataset("cifar10", "train", data_dir=tmp_path)


def test_a_folder_that_was_given_and_is_not_there_is_named(digits, tmp_path, monkeypatch):
    message = rf"^there is no folder {tmp_path}/gone; give that of the prepared data sets with "
    with pytest.raises(ValueError, match=f"{message}--data_dir$"):
        open_dataset("digits", "train", data_dir=tmp_path / "gone")
    monkeypatch.setenv("ALEXNET_DATA_DIR", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=f"{message}ALEXNET_DATA_DIR$"):
        open_dataset("digits", "train")


@pytest.mark.parametrize("name", ["foo bar", "", "a/b/c/d"])
def test_a_name_that_is_none_says_so(name):
    with pytest.raises(ValueError, match="is not the name of a data set"):
        open_dataset(name, "train")


def test_an_unknown_split_names_those_there_are(digits):
    with pytest.raises(ValueError, match="no split 'val'; it has test, train, validation"):
        open_dataset("digits", "val")


def test_what_is_no_name_or_size_is_told(digits):
    """And no file of the set is blamed for it."""
    for name, split in (("digits", ["test"]), (3, "test")):
        with pytest.raises(ValueError, match=rf"data set {name!r}, split .*: give both as text"):
            open_dataset(name, split, data_dir=digits)
    for size in (0, -4, 72.5, "72"):
        with pytest.raises(ValueError, match=r"stored_size=.*; give a side in pixels from 1"):
            open_dataset("digits", "test", data_dir=digits, stored_size=size)


def test_a_missing_shard_is_named(tmp_path):
    path = write_dataset(tmp_path, "bad", grey(), [0, 1, 2, 0], shards=2)
    (path / "bad-train.array_record-00001-of-00002").unlink()
    with pytest.raises(ValueError, match=r"00001-of-00002 is missing; copy it again"):
        open_dataset("bad", "train", data_dir=str(tmp_path))


def test_images_without_three_channels_are_refused(tmp_path):
    feature = tfds.features.Tensor(shape=(4, 4, 4), dtype=np.uint8, encoding="bytes")
    write_dataset(tmp_path, "bad", [bytes(64)], [0], image=feature)
    with pytest.raises(ValueError, match=r"shape \(4, 4, 4\), not three channels"):
        open_dataset("bad", "train", data_dir=str(tmp_path))


DESCRIBED = ("dataset_info.json", "features.json", "manifest.json")


@pytest.fixture
def described(tmp_path):
    """The folder of a data set of two shards with a manifest, as `prepare` leaves it."""
    path = write_dataset(tmp_path, "photos", grey(40), [0, 1] * 20, num_classes=2, shards=2)
    (path / "label.labels.txt").write_text("cat\ndog\n")
    entries = {
        file.name: {"sha256": "0", "bytes": file.stat().st_size, "records": 20}
        for file in path.glob("*array_record*")
    }
    (path / "manifest.json").write_text(json.dumps(entries))
    return path


def refusal(path, split="train", **how):
    """The one line that opening the set in `path` ends with."""
    with pytest.raises(ValueError) as error:
        open_dataset("photos", split, data_dir=path.parents[1], **how)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_set_that_is_whole_opens(described):
    assert open_dataset("photos", "train", data_dir=described.parents[1]).class_names == (
        "cat",
        "dog",
    )


@pytest.mark.parametrize("content", [b"", b'{"a"', b"[]", b"null", b"\xff\xfe\x00", b'{"a": 1}'])
@pytest.mark.parametrize("name", DESCRIBED)
def test_a_damaged_description_is_named(described, name, content):
    (described / name).write_bytes(content)
    message = refusal(described)
    assert (
        str(described / name) in message
        and f"copy it again, or delete {described} and prepare" in message
    )


IMAGE = "tensorflow_datasets.core.features.image_feature.Image"


def name_another_class(path, where):
    """Puts `evil.Image` into the description of the set in `path`."""
    features = json.loads((path / "features.json").read_text().replace(IMAGE, "evil.Image"))
    if where == "json in json":
        old = {"type": "evil.Image", "content": {}}
        features = {
            "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
            "jsonFeature": {"json": json.dumps({"image": old})},
        }
    if where == "dataset_info":
        info = json.loads((path / "dataset_info.json").read_text()) | {"features": features}
        (path / "dataset_info.json").write_text(json.dumps(info))
    else:
        (path / "features.json").write_text(json.dumps(features))


@pytest.mark.parametrize("where", ["features", "json in json", "dataset_info"])
def test_a_data_set_runs_no_code(described, where, monkeypatch):
    """tfds would import the module of a class that a description names, from here."""
    (described / "evil.py").write_text("raise SystemExit('code of a data set was run')")
    monkeypatch.syspath_prepend(described)
    name_another_class(described, where)
    message = refusal(described)
    assert re.search(
        r"(features|dataset_info)\.json is damaged \(it names the class evil\.Image, w", message
    )


@pytest.mark.parametrize("change", ["gone", None, "x", {}])
@pytest.mark.parametrize("field", ["sha256", "bytes", "records"])
def test_a_manifest_whose_entry_lacks_a_field_is_named(described, field, change):
    path = described / "manifest.json"
    entries = json.loads(path.read_text())
    first = next(iter(entries.values()))
    if change == "gone":
        del first[field]
    else:
        first[field] = 7 if (field, change) == ("sha256", "x") else change
    path.write_text(json.dumps(entries))
    assert refusal(described).startswith(f"{path} is damaged")


def test_a_missing_description_of_the_features_is_named(described):
    (described / "features.json").unlink()
    assert refusal(described).startswith(f"{described} has no features.json; copy it again")


@pytest.mark.parametrize("manifest", [True, False])
def test_counts_that_are_stale_are_named(described, manifest):
    if not manifest:
        (described / "manifest.json").unlink()
    path = described / "dataset_info.json"
    path.write_text(path.read_text().replace('"20"', '"19"', 1))
    message = refusal(described)
    assert message.startswith(f"{path} counts 19 records in photos-train.array_record-00000-of")
    assert "which has 20" in message


@pytest.mark.parametrize("names", ["", "cat\n", "cat\ncat\n", "cat\ndog\ncow\n", None])
def test_class_names_that_are_fewer_or_more_or_twice_are_refused(described, names):
    path = described / "label.labels.txt"
    if names is None:
        path.unlink()
    else:
        path.write_text(names)
    assert str(path) in refusal(described)


@pytest.mark.parametrize("content", [b"", b"caf\xe9\nant\nbee\n"])
def test_class_names_of_tfds_that_cannot_be_read_are_not_made_up(tmp_path, content):
    path = write_dataset(tmp_path, "photos", grey(2), [0, 1])
    assert open_dataset("photos", "train", data_dir=tmp_path).class_names == ("0", "1", "2")
    (path / "label.labels.txt").write_bytes(content)
    assert refusal(path).startswith(f"{path}/label.labels.txt names 0 classes and ")


@pytest.mark.parametrize(
    ("split", "flag", "message"),
    [
        ("", "", "no split of photos/1.0.0 is named; set the field .* to one of train; only"),
        (None, "", "no split of photos/1.0.0 is named"),
        ("valid", "", "^photos/1.0.0 has no split 'valid'; it has train$"),
        ("train+valid", "--split", "^--split: photos/1.0.0 has no split 'valid'; it has train$"),
        ("all[:75%]", "", r"no split 'all\[:75%\]'; it has train$"),
        ("None", "--test_split", "'None'; it has train; --test_split= with nothing behind it"),
        ("validation", "--validation_split", "; --validation_split= with nothing behind it names"),
        (
            "test",
            "--config.test_split",
            "; --config.test_split= with nothing behind it names none$",
        ),
        ("test", "--config.train_split", "no split 'test'; it has train$"),
        (
            "validation",
            "--config.validation_split",
            r"it has train; train with .*\[:90%\]' --config.validation_split='train\[",
        ),
        ("train[7:7]", "--split", r"^--split: split 'train\[7:7\]' of photos/1.0.0 is empty"),
    ],
)
def test_a_split_that_is_not_named_says_how_it_is(described, split, flag, message):
    assert re.search(message, refusal(described, split, flag=flag))


@pytest.mark.parametrize(
    ("split", "part", "instead"),
    [
        ("train[20:10]", "train[20:10]", "train[10:20]"),
        ("train[-5:-10]", "train[-5:-10]", "train[-10:-5]"),
        ("train[60%:20%]", "train[60%:20%]", "train[20%:60%]"),
        ("train[2shard:1shard]", "train[2shard:1shard]", "train[1shard:2shard]"),
        ("train[10:5]+train[:20]", "train[10:5]", "train[5:10]"),
        ("train + train[30:-20]", "train[30:-20]", "train[-20:30]"),
    ],
)
def test_a_slice_that_ends_before_it_begins_is_turned_round(described, split, part, instead):
    """tfds takes it for a negative number of images, and away from the other parts of a sum."""
    told = f"--x: split {part!r} of photos/1.0.0 ends before it begins; write {instead}"
    assert refusal(described, split, flag="--x") == told
    assert len(open_dataset("photos", instead, data_dir=described.parents[1]))


@pytest.mark.parametrize(
    "part", ["[30:50]", "[5]", "[::2]", "[:200%]", "[-41:]", "[a:b]", "[1.5:]"]
)
def test_what_is_no_slice_is_told_how_one_looks(described, part):
    assert refusal(described, f"train[:3]+train{part}") == (
        f"'train{part}' is no slice of photos/1.0.0: train has 40 images; write train[:20] "
        "or train[50%:], say"
    )


def test_paths_are_expanded_and_urls_refused(described, monkeypatch):
    monkeypatch.setenv("HOME", str(described.parents[1]))
    assert len(open_dataset("photos", "train", data_dir="~")) == 40
    monkeypatch.setenv("ALEXNET_DATA_DIR", "~")
    assert len(open_dataset("photos", "train")) == 40
    with pytest.raises(ValueError, match=r"^gs://bucket/x is a URL"):
        open_dataset("photos", "train", data_dir="gs://bucket/x")


@pytest.mark.parametrize("home", ["a file", "none", "an empty variable"])
def test_digits_without_a_home_to_write_to_say_what_to_set(tmp_path, monkeypatch, home):
    (tmp_path / "file").touch()
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    if home == "an empty variable":
        monkeypatch.setenv("TFDS_DATA_DIR", "")
    if home == "none":
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"set TFDS_DATA_DIR to a folder that can be written to$"):
        open_dataset("digits", "train")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def animals(tmp_path):
    """Six images of three classes, each grey as bright as its label."""
    images = [png(np.full((4, 4, 3), label, np.uint8)) for label in (0, 1, 2, 0, 1, 2)]
    path = write_dataset(tmp_path, "animals", images, [0, 1, 2, 0, 1, 2])
    (path / "label.labels.txt").write_text("ant\nbee\ncow\n")
    return open_dataset("animals", "train", data_dir=tmp_path, stored_size=4)


def test_classes_in_another_order_are_matched_by_name(animals):
    matched, note = match_classes(animals, ["cow", "ant", "bee"], owner="runs/a")
    assert note == (
        "classes of animals/1.0.0 train are in another order than in runs/a: matched by name"
    )
    batch = matched.source.read(np.arange(6))
    names = [matched.class_names[label] for label in batch["label"]]
    assert names == [animals.class_names[pixels[0, 0, 0]] for pixels in batch["image"]]
    assert matched.source[2]["label"] == 0 and batch["label"].dtype == np.int32
    assert matched.source.file_name(2) == "2.png" and len(matched) == 6


def test_matched_classes_can_be_read_by_other_processes(animals):
    matched, _ = match_classes(animals, ["cow", "ant", "bee"], owner="runs/a")
    sent = pickle.loads(pickle.dumps(matched))
    for source in (sent.source, copy.copy(matched.source)):
        np.testing.assert_array_equal(source.read(np.arange(3))["label"], [1, 2, 0])
    assert not hasattr(matched.source, "read_all")  # of the old numbers


def test_the_same_classes_are_left_as_they_are(animals):
    assert match_classes(animals, ("ant", "bee", "cow"), owner="runs/a") == (animals, "")


def test_images_without_a_label_keep_none_when_classes_are_matched(tmp_path):
    write_dataset(tmp_path, "unknown", grey(2), [-1, 1])
    unknown = open_dataset("unknown", "train", data_dir=tmp_path, stored_size=4, labels=False)
    matched, _ = match_classes(unknown, ["2", "1", "0"], owner="runs/a")
    assert matched.source.read(np.arange(2))["label"].tolist() == [-1, 1]
    assert matched.source[0]["label"] == -1


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["ant", "bee", "dog"], r"'cow' is only in animals/1.0.0 train\).*; --classes_by_position"),
        (["ant", "bee"], r"has 3 classes and runs/a 2, or others \('cow' is only in animals[^;]*"),
        (["ant", "bee", "cow", "dog"], r"\('dog' is only in runs/a\); give[^;]*$"),
        (["ant", "ant", "bee", "cow"], r"\(a name stands twice\)"),
    ],
)
def test_other_classes_are_refused_by_name(animals, wanted, message):
    with pytest.raises(ValueError, match=message):
        match_classes(animals, wanted, owner="runs/a")


def test_classes_are_taken_by_position_where_that_is_asked_for(animals):
    matched, note = match_classes(animals, ["1", "2", "3"], owner="runs/a", by_position=True)
    assert matched.class_names == ("1", "2", "3") and "matched with those of runs/a by pos" in note
    assert matched.source.read(np.arange(6))["label"].tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(ValueError, match="has 3 classes and runs/a 2"):
        match_classes(animals, ["1", "2"], owner="runs/a", by_position=True)
