"""Files to be written: refused before the work where they cannot be."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from alexnet_jax import files
from alexnet_jax.files import json_object, local_path, output_file, output_folder, whole_file


def test_a_file_in_a_folder_that_takes_it_is_given_back_and_nothing_written(tmp_path, monkeypatch):
    (tmp_path / "old.npz").write_text("old")
    assert output_file(tmp_path / "new.npz") == tmp_path / "new.npz"
    assert output_file(str(tmp_path / "old.npz")) == tmp_path / "old.npz"
    assert [path.name for path in tmp_path.iterdir()] == ["old.npz"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_file("~/new.npz") == tmp_path / "new.npz"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", r"folder is a folder; name a file in it with --output"),
        ("pipe", r"pipe is a device or a pipe; name a plain file"),
        ("none/new.npz", r"folder .*none is not there; make it, or change --output"),
        ("file/new.npz", r"file is a file, not a folder; change --output"),
    ],
)
def test_what_cannot_be_written_is_named(name, message, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=message):
        output_file(tmp_path / name)


@pytest.mark.parametrize("name", ["file", "file/runs/1"])
def test_a_file_in_the_place_of_a_folder_is_named(name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=rf"^{tmp_path}/file is a file, not a folder; change --w"):
        output_folder(tmp_path / name)
    assert output_folder(tmp_path / "a" / "b") == output_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"folder .* cannot be made \(File name too long\); chan"):
        output_folder(tmp_path / ("x" * 300), "--output")


def test_a_folder_that_is_read_only_is_told(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"nothing can be written in .* \(Read-only file system\)"):
        output_file(tmp_path / "new.npz")
    with pytest.raises(ValueError, match=r"\(Read-only file system\); change --workdir"):
        output_folder(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    full = Path("/dev/full").open("wb", 0)  # noqa: SIM115
    monkeypatch.setattr(files.tempfile, "TemporaryFile", lambda **how: full)
    with pytest.raises(ValueError, match=r"\(No space left on device\); change --workdir"):
        output_folder(tmp_path)


def test_a_home_that_is_not_known_is_told():
    with pytest.raises(ValueError, match=r"~nobody_at_all/x: no such home folder is known"):
        local_path("~nobody_at_all/x")


def test_an_empty_path_is_not_this_folder():
    with pytest.raises(ValueError, match=r"a path is empty .*; write \. for this folder"):
        local_path("")
    assert local_path(".") == local_path(Path("")) == Path(".")


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_kept(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = socket.gethostname()
    left, live, other = (
        tmp_path / f"page.html.{name}.part"
        for name in (f"{host}.{dead.pid}", f"{host}.{os.getppid()}", f"elsewhere.{dead.pid}")
    )
    for path in (left, live, other):
        path.touch()
    with whole_file(tmp_path / "page.html") as file:
        file.write("whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "page.html", live, other])


@pytest.mark.parametrize(
    "error",
    [OSError("raise the limit with `ulimit -n`"), PermissionError(13, "Permission denied", "log")],
)
def test_errors_of_what_is_to_be_written_are_told_as_they_are(error, tmp_path):
    with pytest.raises(OSError) as told, whole_file(tmp_path / "page.html"):
        raise error
    assert told.value is error
    assert not list(tmp_path.iterdir())


def test_errors_of_writing_name_the_file_and_not_its_part(tmp_path):
    with pytest.raises(OSError) as told, whole_file(tmp_path / "page.html"):
        raise OSError(28, "No space left on device")
    assert told.value.filename == str(tmp_path / "page.html")
    with pytest.raises(FileNotFoundError) as told, whole_file(tmp_path / "none" / "page.html"):
        pass
    assert told.value.filename == str(tmp_path / "none" / "page.html")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "is no JSON"),
        (b"\xff\xfe{}", "is no JSON"),
        ("[" * 200_000, "is no JSON"),
        ("[1]", r"holds \[1\] where an object"),
        ("null", "holds None where an object"),
    ],
)
def test_what_is_no_json_object_is_told_by_the_files_name(text, fact):
    with pytest.raises(ValueError, match=f"^x.json {fact}"):
        json_object(text, "x.json")
    assert json_object('{"a": 1}', "x.json") == {"a": 1}
