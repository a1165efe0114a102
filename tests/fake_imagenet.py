"""Tiny ImageNet archives in the layouts of the real ones."""

import io
import tarfile
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

WNIDS_2010 = ["n02119789", "n02100735", "n02096294"]  # by ILSVRC2010_ID, not sorted
VALIDATION_2010 = [3, 1, 2, 2]
TEST_2010 = [2, 3, 1]


def image_bytes(
    color: tuple[int, ...], *, size: tuple[int, int] = (40, 30), mode="RGB", format="JPEG"
) -> bytes:
    """An image file of one colour."""
    file = io.BytesIO()
    Image.new(mode, size, color if len(color) > 1 else color[0]).save(file, format, quality=95)
    return file.getvalue()


def color_of(number: int) -> tuple[int, int, int]:
    """Colours far apart for small numbers."""
    return (40 * number % 251, 90 * number % 241, (200 + 70 * number) % 239)


def make_tar(path: Path, files: dict[str, bytes]) -> bytes:
    """Writes a tar of `files` and returns its bytes."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path.read_bytes()


def make_synset_tars(folder: Path, wnids: list[str], images: int) -> dict[str, bytes]:
    """`<wnid>.tar` of `images` images each, coloured by class, as the inner tars of a release."""
    return {
        f"{wnid}.tar": make_tar(
            folder / f"{wnid}.tar",
            {f"{wnid}_{i}.JPEG": image_bytes(color_of(label)) for i in range(images)},
        )
        for label, wnid in enumerate(wnids)
    }


def make_2012(folder: Path, wnids: list[str], *, validation: list[int], test: int = 0) -> None:
    """ILSVRC-2012: `wnids` of 2 training images, the validation images of these numbers."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    make_tar(folder / "ILSVRC2012_img_train.tar", make_synset_tars(scratch, wnids, 2))
    for split, numbers in (("val", validation), ("test", range(1, test + 1))):
        files = {
            f"ILSVRC2012_{split}_{number:08d}.JPEG": image_bytes(color_of(number))
            for number in numbers
        }
        if files:
            make_tar(folder / f"ILSVRC2012_img_{split}.tar", files)


def make_2010(folder: Path) -> None:
    """ILSVRC-2010 with three classes, its development kit and the public test labels."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    make_tar(folder / "ILSVRC2010_images_train.tar", make_synset_tars(scratch, WNIDS_2010, 2))
    for split, labels in (("val", VALIDATION_2010), ("test", TEST_2010)):
        files = {
            f"{split}/ILSVRC2010_{split}_{number:08d}.JPEG": image_bytes(color_of(label - 1))
            for number, label in enumerate(labels, start=1)
        }
        make_tar(folder / f"ILSVRC2010_images_{split}.tar", files)
    inner = ("n00000001", 4, 2)  # a node of the hierarchy that is no class
    rows = [(wnid, i, 0) for i, wnid in enumerate(WNIDS_2010, start=1)] + [inner]
    synsets = np.zeros(
        (len(rows), 1), [(f, "O") for f in ("WNID", "ILSVRC2010_ID", "num_children")]
    )
    for row, values in enumerate(reversed(rows)):  # the order in the file must not matter
        synsets[row, 0] = values
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    truth = "\n".join(map(str, VALIDATION_2010)).encode()
    files = {
        "devkit-1.0/data/meta.mat": meta.getvalue(),
        "devkit-1.0/data/ILSVRC2010_validation_ground_truth.txt": truth,
    }
    with tarfile.open(folder / "devkit-1.0.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    (folder / "ILSVRC2010_test_ground_truth.txt").write_text("\n".join(map(str, TEST_2010)))


def make_folder(folder: Path, classes: list[str], images: int, **kwargs) -> None:
    """`folder/<class>/<number>.jpg`, coloured by class."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(images):
            content = image_bytes(color_of(label), **kwargs)
            (folder / name / f"{number}.jpg").write_bytes(content)


ODD = ["longname", "pax", "sparse"]


def odd_tar(path, kind):
    """A tar whose headers tarfile stumbles over."""
    with tarfile.open(path, "w") as tar:
        if kind == "sparse":
            entry = tarfile.TarInfo("a.jpg")
            entry.pax_headers = {"GNU.sparse.map": "abc"}
            tar.addfile(entry)
    if kind != "sparse":
        names = tarfile.TarInfo("././@LongLink")
        names.type = {"longname": tarfile.GNUTYPE_LONGNAME, "pax": tarfile.XHDTYPE}[kind]
        names.size = 20
        text = b"20 comment=12345678\n" if kind == "pax" else b"x"
        path.write_bytes((names.tobuf() + text.ljust(512, b"\0")) * 2000 + bytes(1024))
