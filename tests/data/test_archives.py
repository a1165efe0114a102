"""The index of tars finds every image, and names what is damaged."""

import io
import itertools
import os
import tarfile
import tracemalloc

import numpy as np
import pytest

from alexnet_jax.data.archives import (
    Member,
    PrepareError,
    numbered_tar,
    read_member,
    synset_tars,
    tar_files,
)
from alexnet_jax.data.images import ImageError
from tests.fake_imagenet import ODD, make_tar, odd_tar


class Reports(list):
    def __call__(self, file, problem):
        self.append((file, problem))


def stop(file, problem):
    raise PrepareError(f"{file}: {problem}")


@pytest.fixture
def nested(tmp_path):
    """A tar of two class tars, and the bytes of each image."""
    contents, inner = {}, {}
    for wnid in ("n01", "n02"):
        files = {f"{wnid}_{i}.JPEG": np.random.default_rng(i).bytes(700 * i) for i in range(4)}
        contents |= files
        inner[f"{wnid}.tar"] = make_tar(tmp_path / "inner.tar", files)
    make_tar(tmp_path / "outer.tar", inner)
    return tmp_path / "outer.tar", contents


def test_images_of_a_tar_of_tars_are_read_where_they_lie(nested):
    path, contents = nested
    members = list(synset_tars(path, {"n01": 0, "n02": 1}, stop))
    assert {member.name: read_member(member) for member in members} == contents
    assert [member.label for member in members] == [0] * 4 + [1] * 4


@pytest.mark.slow
def test_index_of_a_long_tar_takes_no_memory(tmp_path):
    with open(tmp_path / "long.tar", "wb") as file:
        for number in range(20_000):
            file.write(tarfile.TarInfo(f"{number}.JPEG").tobuf())
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    tracemalloc.start()
    try:
        assert sum(1 for _ in tar_files(tmp_path / "long.tar", stop)) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000  # bytes; with every member kept it is 20 times that


def test_a_size_below_nought_ends_the_reading(tmp_path):
    """As two bytes of base 256, it led older Pythons back to the same member for ever."""
    path, reports = tmp_path / "loop.tar", Reports()
    header = bytearray(tarfile.TarInfo("1.JPEG").tobuf())
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(tarfile.TarInfo("0.JPEG").tobuf() + bytes(header) + bytes(10_240))
    assert len(list(itertools.islice(tar_files(path, reports), 5))) == 1
    ((_, problem),) = reports
    assert "not a whole tar file" in problem


def test_unknown_class_is_reported(nested):
    reports = Reports()
    members = list(synset_tars(nested[0], {"n01": 0}, reports))
    assert len(members) == 4
    ((file, problem),) = reports
    assert file.endswith("outer.tar: n02.tar") and "unknown class" in problem


@pytest.mark.parametrize("cut", [700, 5_000, -2048 * 5, -10_240])
def test_cut_off_tar_is_reported(nested, cut):
    path, _ = nested
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(PrepareError, match=r"outer\.tar: not a whole tar file .* again"):
        list(synset_tars(path, {"n01": 0, "n02": 1}, stop))


def test_damaged_header_is_reported(tmp_path):
    path = tmp_path / "a.tar"
    content = bytearray(make_tar(path, {"a": b"1", "b": b"2"}))
    content[1024] ^= 255
    path.write_bytes(content)
    with pytest.raises(PrepareError, match="not a whole tar"):
        list(tar_files(path, stop))


def test_member_that_points_outside_is_reported(tmp_path):
    path = tmp_path / "evil.tar"
    link = tarfile.TarInfo("link.JPEG")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(path, "w") as tar:
        for name in ("/etc/cron.d/x.JPEG", "../x.JPEG", "good.JPEG"):
            entry = tarfile.TarInfo(name)
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"abc"))
        tar.addfile(link)
    reports = Reports()
    assert [name for name, *_ in tar_files(path, reports)] == ["good.JPEG"]
    assert [file.split(": ")[1] for file, _ in reports] == [
        "/etc/cron.d/x.JPEG",
        "../x.JPEG",
        "link.JPEG",
    ]
    assert all("points outside" in problem for _, problem in reports)


def test_what_archivers_add_is_passed_over(tmp_path):
    names = [
        "./a.JPEG",
        "./._a.JPEG",
        "__MACOSX/._b.JPEG",
        ".ipynb_checkpoints/c.JPEG",
        "Thumbs.db",
    ]
    make_tar(tmp_path / "a.tar", dict.fromkeys(names, b"abc"))
    assert [name for name, *_ in tar_files(tmp_path / "a.tar", stop)] == ["./a.JPEG"]


def test_label_goes_by_the_number_in_the_name(tmp_path):
    make_tar(
        tmp_path / "val.tar", {f"val/X_{n:08d}.JPEG": b"x" for n in (3, 1)} | {"odd.JPEG": b""}
    )
    reports = Reports()
    members = list(numbered_tar(tmp_path / "val.tar", [10, 11, 12], reports))
    assert [(member.name, member.label) for member in members] == [
        ("X_00000003.JPEG", 12),
        ("X_00000001.JPEG", 10),
    ]
    assert len(reports) == 1 and "no number from 1 to 3" in reports[0][1]


@pytest.mark.parametrize("size", [-1, 2 * 10**11])
def test_a_file_that_no_image_fills_is_named(tmp_path, size):
    (tmp_path / "a.jpg").touch()
    os.truncate(tmp_path / "a.jpg", 2 * 10**11)
    with pytest.raises(ImageError, match=r"^a\.jpg \(.*\) has 200,000,000,000 bytes, and an image"):
        read_member(Member("a.jpg", 0, str(tmp_path / "a.jpg"), 0, size))


@pytest.mark.parametrize("kind", ODD)
def test_headers_made_to_harm_are_reported(tmp_path, kind):
    odd_tar(tmp_path / "odd.tar", kind)
    with pytest.raises(PrepareError, match=r"^\S*odd\.tar: not a whole tar file \(.*again$"):
        list(tar_files(tmp_path / "odd.tar", stop))


def test_unreadable_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"^a\.jpg \(.*\) cannot be read: Is a directory; give"):
        read_member(Member("a.jpg", 0, str(tmp_path), 0, 10))
    with pytest.raises(ImageError, match=r"^a\.jpg \(/proc/self/mem\) .*: Input/output error; .*"):
        read_member(Member("a.jpg", 0, "/proc/self/mem", 0, 10))


def test_unreadable_tar_is_reported(tmp_path):
    reports = Reports()
    assert not list(tar_files(tmp_path, reports))
    assert not list(tar_files(tmp_path / "gone.tar", reports))
    assert [file for file, _ in reports] == [str(tmp_path), str(tmp_path / "gone.tar")]
    assert "cannot be read (Is a directory); give permission" in reports[0][1]
    assert "cannot be read (No such file" in reports[1][1]


def test_vanished_file_is_named():
    with pytest.raises(PrepareError, match=r"/nowhere/a\.jpg is gone"):
        read_member(Member("a.jpg", 0, "/nowhere/a.jpg", 0, 10))
