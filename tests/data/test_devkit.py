"""The classes of a development kit are read; one that is damaged or made to harm is one line."""

import gzip
import io
import tarfile

import numpy as np
import pytest
import scipy.io

from alexnet_jax.data import devkit
from alexnet_jax.data.archives import PrepareError
from alexnet_jax.data.devkit import kit_file, synset_numbers
from tests.fake_imagenet import ODD, make_tar, odd_tar


@pytest.mark.parametrize("kind", [*ODD, "empty", "cut", "bomb", "to itself", "to nothing"])
def test_a_kit_that_is_damaged_or_made_to_harm_is_one_line(tmp_path, kind, monkeypatch):
    kit = tmp_path / "kit.tar.gz"
    make_tar(tmp_path / "kit", {"data/meta.mat": bytes(5000)})
    if kind in ODD:
        odd_tar(tmp_path / "kit", kind)
    if kind.startswith("to"):
        link = tarfile.TarInfo("data/meta.mat")
        link.type = tarfile.LNKTYPE
        link.linkname = {"to itself": link.name, "to nothing": "gone"}[kind]
        with tarfile.open(tmp_path / "kit", "w") as tar:
            tar.addfile(link)
    if kind == "bomb":
        monkeypatch.setattr(devkit, "KIT_BYTES", 4000)
    content = gzip.compress((tmp_path / "kit").read_bytes())
    kit.write_bytes({"empty": b"", "cut": content[:-20]}.get(kind, content))
    message = "has no meta.mat" if kind.startswith("to") else "is damaged (more" * (kind == "bomb")
    with pytest.raises(PrepareError) as error:
        kit_file(kit, "meta.mat")
    assert str(error.value).startswith(f"{kit} {message or 'is damaged ('}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_kit_is_read_as_it_is_sent_and_as_browsers_unpack_it(tmp_path, pack):
    (tmp_path / "kit").write_bytes(pack(make_tar(tmp_path / "tar", {"data/meta.mat": b"meta"})))
    assert kit_file(tmp_path / "kit", "meta.mat") == b"meta"


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_that_unpack_to_more_than_a_kit_are_not_unpacked(tmp_path, monkeypatch, compressed):
    rows = np.zeros((2, 1), [(field, "O") for field in ("WNID", "ILSVRC2012_ID", "words")])
    rows[:, 0] = [("n01", 2, "a" * 2**16), ("n02", 1, "")]
    file = io.BytesIO()
    scipy.io.savemat(file, {"synsets": rows}, do_compression=compressed)
    kit = make_tar(tmp_path / "kit", {"data/meta.mat": file.getvalue()})
    assert synset_numbers(tmp_path / "kit", 2012) == {"n01": 2, "n02": 1}
    monkeypatch.setattr(devkit, "KIT_BYTES", len(kit) + 1)
    if compressed:
        monkeypatch.setattr(scipy.io, "loadmat", pytest.fail)
        with pytest.raises(PrepareError, match=r"meta\.mat is damaged .*\(more than .* unpacked\)"):
            synset_numbers(tmp_path / "kit", 2012)
    else:
        synset_numbers(tmp_path / "kit", 2012)
