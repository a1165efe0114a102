"""Runs evaluated alone and averaged, on any mesh; what does not fit is one line."""

import dataclasses
import errno
import io
import json
import os
import tarfile

import numpy as np
import pytest
import scipy.io

from alexnet_jax import evaluate
from alexnet_jax.data.sets import Dataset, open_dataset
from alexnet_jax.parallel import make_mesh
from alexnet_jax.runs import submission, tables
from alexnet_jax.runs.configuration import load_config, save_config
from alexnet_jax.runs.evaluation import predictions
from alexnet_jax.runs.workdir import load_run
from alexnet_jax.scores import image_scores
from tests.commands import run_command
from tests.data.conftest import png, write_dataset
from tests.tiny_run import write_run


@pytest.fixture(scope="module", autouse=True)
def user_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.getbasetemp() / "tensorflow_datasets"
        patch.setenv("TFDS_DATA_DIR", str(folder))
        patch.delenv("ALEXNET_DATA_DIR", raising=False)
        yield folder


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Two networks of different seeds, laid out as an ensemble."""
    folder = tmp_path_factory.mktemp("ensemble")
    for seed in (0, 1):
        write_run(folder / f"seed_{seed}", seed)
    return [folder / "seed_0", folder / "seed_1"]


def collect(workdir, mesh, batch_size):
    run = load_run(workdir, mesh=mesh)
    dataset = open_dataset("digits", "validation[:60]", stored_size=72)
    blocks = list(predictions([run], [dataset], views="ten", batch_size=batch_size, mesh=mesh))
    log_probs, labels = zip(*blocks, strict=True)
    return np.concatenate(log_probs, axis=1), np.concatenate(labels)


def test_every_mesh_gives_the_same_probabilities_and_errors(workdirs):
    expected, labels = collect(workdirs[0], None, 250)
    assert expected.shape == (1, 60, 10)
    scores = image_scores(expected[0], labels)
    for mesh in (make_mesh(2, 1), make_mesh(1, 2)):
        found, found_labels = collect(workdirs[0], mesh, 260)
        np.testing.assert_array_equal(found_labels, labels)
        np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-5)
        for error in ("top1_error", "top5_error"):
            np.testing.assert_array_equal(image_scores(found[0], labels)[error], scores[error])


def test_an_ensemble_is_found_averaged_and_written(workdirs, tmp_path, capsys):
    report = evaluate.evaluate_runs(
        [workdirs[0].parent],
        tmp_path,
        views=["center"],
        search=True,
        splits={"validation": "validation[:60]", "test": "test[:50]"},
        batch_size=32,
    )
    table = report["views"]["center"]
    assert [row["row"] for row in table["rows"]] == ["1 CNN", "1 CNN", "2 CNNs"]
    assert [row["test"]["images"] for row in table["rows"]] == [50] * 3
    assert sum(table["weights"]) == pytest.approx(1)
    alone = [row["validation"]["top5_error"] for row in table["rows"][:2]]
    assert table["rows"][2]["validation"]["top5_error"] <= max(alone)
    assert sum(row["images"] for row in table["classes"]["test"].values()) == 50
    assert json.loads((tmp_path / "evaluation.json").read_text()) == report
    assert (tmp_path / "confusion_test.png").stat().st_size > 1000
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{split}: {found}" for split, found in report["splits"].items()]
    assert report["splits"]["test"] == "digits/1.0.0 test[:50]"
    assert lines[2].split() == ["Centre", "crop", "validation", "test"]
    assert lines[6].startswith("2 CNNs    mean weighted ")  # with the weights that were found
    assert f"{tmp_path}/confusion_test.png: test[:50], centre crop: 50 images" in "\n".join(lines)


def test_an_ensemble_says_which_of_its_networks_are_not_there(workdirs, capsys):
    config = load_config(workdirs[0])
    config.ensemble = 3
    save_config(config, workdirs[0].parent, resumes=False)
    assert tables._networks(workdirs[0].parent) == workdirs
    assert "holds 2 of 3 networks: seed_2 not; the training" in capsys.readouterr().out
    (workdirs[0].parent / "config.json").unlink()
    assert tables._networks(workdirs[0].parent) == workdirs
    assert tables._networks(workdirs[0]) == [workdirs[0]]
    assert not capsys.readouterr().out


def test_the_results_of_an_ensemble_go_into_its_own_folder(workdirs):
    evaluate.evaluate_runs(
        [workdirs[0].parent], views=["center"], splits={"validation": "validation[:20]"}
    )
    assert (workdirs[0].parent / "evaluation.json").exists()
    assert not (workdirs[0] / "evaluation.json").exists()


def test_one_network_given_twice_is_no_ensemble(workdirs, tmp_path):
    copy = write_run(tmp_path / "copy")
    for given in ([workdirs[0], workdirs[0]], [workdirs[0].parent, workdirs[1]], [*workdirs, copy]):
        with pytest.raises(ValueError, match=r" holds the same network as .*seed_[01]; give"):
            evaluate.evaluate_runs(given, tmp_path, views=["center"])
    assert not (tmp_path / "evaluation.json").exists()


def test_no_room_for_what_a_search_of_weights_keeps_is_told(workdirs, tmp_path, monkeypatch):
    """Not by the process ending where the memory that stands for the file is written."""

    def full(file, start, size):
        assert (start, size) == (0, 4 * 2 * 226 * 10)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        OSError, match=r"the predictions take 0\.02 MB there; set TMPDIR to another"
    ):
        evaluate.evaluate_runs(workdirs, tmp_path, views=["center"], search=True)


def test_an_output_that_is_a_file_is_told_before_the_work(workdirs, tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    file.write_text("mine")
    monkeypatch.setattr(tables, "predictions", lambda *a, **k: pytest.fail("it began to work"))
    with pytest.raises(ValueError, match=r"results\.json is a file, not a folder"):
        evaluate.evaluate_runs(workdirs, file)
    assert file.read_text() == "mine"


def digits_renamed(folder, names, order):
    """The first 40 test digits, their classes in folders of these names, as a prepared set.

    `order` are the digits in the order of the set's classes.
    """
    digits = open_dataset("digits", "test[:40]", stored_size=8)
    batch = digits.source.read(np.arange(40))
    new = [order.index(label) for label in batch["label"]]
    path = write_dataset(folder, "renamed", [png(x) for x in batch["image"]], new, num_classes=10)
    (path / "label.labels.txt").write_text("\n".join(names[digit] for digit in order) + "\n")
    return folder


def errors(workdirs, data_dir, **options):
    report = evaluate.evaluate_runs(
        workdirs[:1],
        data_dir / "out",
        views=["center"],
        dataset="renamed",
        splits={"validation": "train", "test": "train"},
        data_dir=str(data_dir),
        **options,
    )
    return report["views"]["center"]["rows"][0]["validation"]


def test_classes_in_another_order_are_matched_by_name_and_others_refused(
    workdirs, tmp_path, capsys
):
    truth = evaluate.evaluate_runs(
        workdirs[:1], tmp_path, views=["center"], splits={"test": "test[:40]", "validation": None}
    )["views"]["center"]["rows"][0]["test"]
    reordered = tmp_path / "reordered"
    digits_renamed(reordered, list("0123456789"), order=[3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    assert errors(workdirs, reordered)["loss"] == pytest.approx(truth["loss"], rel=1e-5)
    assert "matched by name" in capsys.readouterr().out
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    digits_renamed(tmp_path / "words", words, order=list(range(10)))
    with pytest.raises(ValueError, match=r"has 10 classes and .* 10, or others"):
        errors(workdirs, tmp_path / "words")
    errors(workdirs, tmp_path / "words", classes_by_position=True)
    assert "by position" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": ["1"]}, "1 weights for 2 runs; give one for each"),
        ({"weights": ["0", "0"]}, "give 0 or more, one above 0"),
        ({"weights": ["a", "1"]}, "give numbers"),
        ({"weights": [1, 1], "search": True}, "leave out one of the two"),
        ({"labels": "labels.txt"}, "the test split has labels already; leave --labels out"),
        ({"devkit": "kit.tar.gz"}, "the test split has labels already; leave --devkit out"),
        ({"labels": "labels.txt", "splits": {"test": ""}}, "no test split is named; leave"),
        ({"dataset": "three", "splits": {"validation": "train", "test": "train"}}, "has 3 classes"),
        ({"splits": {"test": "test[20:10]"}}, r"^--test_split: split .*; write test\[10:20\]$"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, message, workdirs, tmp_path):
    write_dataset(tmp_path, "three", [png(np.zeros((8, 8, 3), np.uint8))], [0])
    with pytest.raises(ValueError, match=message) as error:
        evaluate.evaluate_runs(workdirs, data_dir=str(tmp_path), **arguments)
    assert "\n" not in str(error.value)


def test_the_command_names_a_folder_without_a_checkpoint(tmp_path):
    done = run_command("alexnet_jax.evaluate", f"--workdir={tmp_path}")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {tmp_path} holds no run")


class Numbered:
    """Test images whose stored order is not that of their names."""

    names = ("t_00000003.JPEG", "t_00000001.JPEG", "t_00000004.JPEG", "t_00000002.JPEG")

    def __len__(self):
        return len(self.names)

    def file_name(self, index):
        return self.names[index]


@pytest.fixture
def numbered(tmp_path):
    return Dataset("fake", "test", Numbered(), 3, ("a", "b", "c"), 8, tmp_path)


def test_the_server_s_file_has_a_line_an_image_by_number(numbered, tmp_path):
    order = submission.file_order(numbered)
    numbers = submission.class_numbers(numbered.class_names, None)
    top5 = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]])
    submission.write_top5(tmp_path / "top5.txt", top5, order, numbers)
    assert (tmp_path / "top5.txt").read_text() == "2 1 3\n1 3 2\n1 2 3\n3 2 1\n"
    (tmp_path / "labels.txt").write_text("2\n1\n1\n3\n")  # every first guess is right
    labels = submission.read_labels(tmp_path / "labels.txt", order, numbers)
    np.testing.assert_array_equal(labels, top5[:, 0])


def test_label_files_that_do_not_fit_are_one_line(numbered, tmp_path):
    order, numbers, file = submission.file_order(numbered), np.arange(1, 4), tmp_path / "labels"
    file.write_text("1\n2\n3\n")
    with pytest.raises(ValueError, match="has 3 labels and the split 4 images"):
        submission.read_labels(file, order, numbers)
    file.write_text("1\n2\n3\n4\n")
    with pytest.raises(ValueError, match="line 4: '4' is no label, they are 1 to 3"):
        submission.read_labels(file, order, numbers)
    file.write_bytes(b"\xef\xbb\xbf1\r\n2\r\n3\r\n1\r\n")  # as Windows writes them
    assert sorted(submission.read_labels(file, order, numbers)) == [0, 0, 1, 2]
    file.write_bytes(b"1\n2\xff\n")
    with pytest.raises(ValueError, match=rf"^{file} is no text in UTF-8 \(at byte 3\); save"):
        submission.read_labels(file, order, numbers)
    source = Numbered()
    source.names = ("t_00000003.JPEG", "t_00000001.JPEG")
    with pytest.raises(ValueError, match="lacks image number 2"):
        submission.file_order(dataclasses.replace(numbered, source=source))
    with pytest.raises(ValueError, match="--devkit="):
        submission.class_numbers(("n01440764", "n01443537"), None)


def devkit_of(path, names, identity="ILSVRC2012_ID", damage=False):
    """A kit whose meta.mat numbers the synsets from 11 on."""
    synsets = np.zeros((len(names), 1), [(field, "O") for field in ("WNID", identity)])
    for row, name in enumerate(names):
        synsets[row, 0] = (name, 11 + row)
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    content = meta.getvalue()[: 200 if damage else None]
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("data/meta.mat")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return path


def test_a_devkit_of_another_year_or_damaged_is_one_line(tmp_path):
    names = ("n01440764", "n01443537")
    kit = devkit_of(tmp_path / "kit.tar.gz", names)
    np.testing.assert_array_equal(submission.class_numbers(names, kit), [11, 12])
    for how in ({"identity": "ILSVRC2010_ID"}, {"damage": True}):
        kit = devkit_of(tmp_path / "kit.tar.gz", names, **how)
        with pytest.raises(ValueError, match=r"another year's .* of ILSVRC 2012$") as error:
            submission.class_numbers(names, kit)
        assert "\n" not in str(error.value)
    flipped = bytearray(devkit_of(tmp_path / "kit.tar.gz", names).read_bytes())
    flipped[len(flipped) // 2] ^= 0xFF
    (tmp_path / "kit.tar.gz").write_bytes(flipped)
    with pytest.raises(ValueError, match=r"kit\.tar\.gz"):
        submission.class_numbers(names, tmp_path / "kit.tar.gz")


def test_by_position_the_server_s_numbers_are_of_the_data_sets_own_classes(workdirs, tmp_path):
    synsets = [f"n0144076{n}" for n in range(10)]
    pixels = [png(np.full((72, 72, 3), n * 20, np.uint8)) for n in range(4)]
    path = write_dataset(tmp_path / "data", "bare", pixels, [0, 1, -1, -1], num_classes=10)
    (path / "label.labels.txt").write_text("\n".join(synsets) + "\n")
    asked = {
        "output": tmp_path,
        "dataset": "bare",
        "data_dir": str(tmp_path / "data"),
        "splits": {"validation": "train[:2]", "test": "train[2:]"},
        "classes_by_position": True,
        "views": ("center",),
    }
    with pytest.raises(ValueError, match="--devkit="):
        evaluate.evaluate_runs(workdirs[:1], **asked)
    kit = devkit_of(tmp_path / "kit.tar.gz", synsets)
    evaluate.evaluate_runs(workdirs[:1], devkit=kit, **asked)
    numbers = (tmp_path / "test_center.txt").read_text().split()
    assert len(numbers) == 10 and {int(number) for number in numbers} <= set(range(11, 21))


def test_a_split_without_labels_opens_only_where_none_are_needed(tmp_path):
    write_dataset(tmp_path, "bare", [png(np.zeros((8, 8, 3), np.uint8))] * 2, [-1, -1])
    with pytest.raises(ValueError, match="label -1"):
        open_dataset("bare", "train", data_dir=str(tmp_path), stored_size=8).source[0]
    bare = open_dataset("bare", "train", data_dir=str(tmp_path), stored_size=8, labels=False)
    assert bare.source[1]["label"] == -1
    assert bare.source.file_name(1) == "1.png"
