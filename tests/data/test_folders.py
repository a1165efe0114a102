"""Folders of images: their layout is known or refused, nothing is left out without a word."""

import errno
import os

import pytest

from alexnet_jax.data.archives import PrepareError
from alexnet_jax.data.folders import LeftOut, class_folders, find_splits, folder_images, note_beside
from tests.data.test_archives import Reports, stop
from tests.fake_imagenet import make_folder


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names_of(folder, classes, report=stop, left_out=None):
    labels = {name: label for label, name in enumerate(classes)}
    return [member.name for member in folder_images(folder, labels, report, left_out)]


def test_folder_images_are_named_by_class_and_file(tmp_path):
    make_folder(tmp_path, ["cat", "dog"], 2)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    members = list(folder_images(tmp_path, {"cat": 0, "dog": 1, "cow": 2}, stop))
    assert [member.name for member in members] == [
        "cat/0.jpg",
        "cat/1.jpg",
        "dog/0.jpg",
        "dog/1.jpg",
    ]
    assert [member.label for member in members] == [0, 0, 1, 1]


def test_unreadable_folder_is_reported(tmp_path, monkeypatch):
    def scandir(path):
        if "dog" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    real = os.scandir
    make_folder(tmp_path, ["cat", "dog"], 2)
    monkeypatch.setattr(os, "scandir", scandir)
    reports = Reports()
    assert len(list(folder_images(tmp_path, {"cat": 0, "dog": 1}, reports))) == 2
    ((file, problem),) = reports
    assert file == str(tmp_path / "dog") and "cannot be read (Permission denied)" in problem


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Train", "valid", "Testing"),
        ("TRAINING", "Validation", None),
        ("training", "DEV", "TEST"),
        ("train", None, None),
    ],
)
def test_the_usual_names_of_splits_are_taken_in_any_case(tmp_path, train, validation, test):
    folders = {"train": train, "validation": validation, "test": test}
    wanted = {split: tmp_path / name for split, name in folders.items() if name}
    for folder in wanted.values():
        make_folder(folder, ["cat", "dog"], 1)
    touch(tmp_path, "__MACOSX/train/cat/._0.jpg", ".git/train/x", "@eaDir/cat/0.jpg")
    assert find_splits(tmp_path) == wanted


def test_folders_of_classes_are_the_training_split(tmp_path):
    make_folder(tmp_path, ["cat", "training set", "trains"], 1)
    assert find_splits(tmp_path) == {"train": tmp_path}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["train/cat/0.jpg", "val/cat/0.jpg", "Valid/cat/0.jpg"],
            "for split validation, Valid and",
        ),
        (["train/cat/0.jpg", "Train/cat/0.jpg"], "two folders for split train, Train and train"),
        (["train/cat/0.jpg", "dog/0.jpg"], r"folders of splits \(train\) beside others \(dog\)"),
        (["test/cat/0.jpg", "val/cat/0.jpg"], "has test, val and no folder of training images"),
        (["train/cat/0.jpg", "val/1.JPEG", "val/2.JPEG"], "val has 2 images and no class folders"),
        (["train/0.jpg"], "train has 1 image and no class folders; .* as train/CLASS/IMAGE"),
        (["train/cat/0.jpg", "test/.keep"], "test has no folders of classes"),
        (["0.jpg"], "has 1 image and no class folders; .* as CLASS/IMAGE"),
        ([".hidden/cat/0.jpg"], "has no folders of classes"),
        (
            ["flowers/train/a/0.jpg", "flowers/val/a/0.jpg"],
            "flowers has folders of splits .* give it",
        ),
        (["cat/Train/0.jpg", "dog/Train/0.jpg"], "cat has folders of splits .* above the classes"),
        (
            ["photos/cat/0.jpg", "photos/dog/0.jpg", "0.jpg"],
            r"has one class alone, photos; if its folders \(cat, dog\) are .*/photos as --folder",
        ),
        (["train/cat/0.jpg", "val/cat/0.jpg"], "train has one class alone, cat; put the images of"),
    ],
)
def test_a_layout_that_could_mean_two_things_is_refused(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(PrepareError, match=message) as error:
        find_splits(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_hidden_files_and_litter_are_passed_over_at_any_depth(tmp_path):
    litter = [".DS_Store", "._0.jpg", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/0.jpg"]
    litter += ["__MACOSX/0.jpg", "@eaDir/0.jpg/thumb.jpg"]
    touch(tmp_path, "cat/0.jpg", "cat/deep/er/1.jpg")
    touch(tmp_path, *litter, *(f"cat/{x}" for x in litter), *(f"cat/deep/er/{x}" for x in litter))
    left_out = LeftOut()
    assert class_folders(tmp_path) == ["cat"]
    note_beside(tmp_path, stop, left_out)
    assert names_of(tmp_path, ["cat"], stop, left_out) == ["cat/0.jpg", "cat/deep/er/1.jpg"]
    assert str(left_out) == ""


def test_every_suffix_of_an_image_is_taken_and_others_are_counted(tmp_path):
    images = ["a.JPG", "b.jfif", "c.jpe", "d.Jpeg", "e.PNG", "f.webp", "g.TIFF", "h.gif"]
    touch(tmp_path, *(f"cat/{name}" for name in images))
    touch(tmp_path, "cat/i.heic", "cat/notes.txt", "readme", "0.jpg", "list.csv")
    os.mkfifo(tmp_path / "cat/pipe.jpg")
    left_out = LeftOut()
    note_beside(tmp_path, stop, left_out)
    assert names_of(tmp_path, ["cat"], stop, left_out) == [f"cat/{name}" for name in images]
    assert str(left_out) == (
        f"left out files: 3 beside the class folders (such as {tmp_path}/0.jpg), "
        f"3 without an image's suffix (such as {tmp_path}/cat/i.heic)"
    )


def test_links_are_followed_and_broken_and_circular_ones_reported(tmp_path):
    touch(tmp_path, "elsewhere/dogs/0.jpg", "elsewhere/1.jpg", "photos/cat/0.jpg")
    photos = tmp_path / "photos"
    (photos / "dog").symlink_to(tmp_path / "elsewhere/dogs")
    (photos / "cat/1.jpg").symlink_to(tmp_path / "elsewhere/1.jpg")
    (photos / "cat/more").symlink_to(tmp_path / "elsewhere/dogs", target_is_directory=True)
    (photos / "cat/again").symlink_to(photos / "cat")
    (photos / "cat/up").symlink_to("..")
    (photos / "cat/self.jpg").symlink_to("self.jpg")
    (photos / "cat/gone.jpg").symlink_to("nowhere.jpg")
    (photos / "cow").symlink_to("nowhere")
    assert class_folders(photos) == ["cat", "dog"]
    reports = Reports()
    note_beside(photos, reports, LeftOut())
    found = names_of(photos, ["cat", "dog"], reports)
    assert found == [
        "cat/0.jpg",
        "cat/1.jpg",
        "cat/more/0.jpg",
        "dog/0.jpg",
    ]
    problems = {file.removeprefix(f"{photos}/"): problem for file, problem in reports}
    assert {"cow", "cat/gone.jpg", "cat/self.jpg", "cat/again", "cat/up"} == problems.keys()
    assert "leads nowhere" in problems["cow"] and "leads nowhere" in problems["cat/gone.jpg"]
    assert "a folder that it lies in" in problems["cat/again"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_of_classes_is_named(tmp_path):
    (tmp_path / "train").mkdir(0o000)
    with pytest.raises(PrepareError, match=r"train cannot be read \(Permission denied\)"):
        find_splits(tmp_path)
