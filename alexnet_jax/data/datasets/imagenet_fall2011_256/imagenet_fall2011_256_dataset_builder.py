"""The whole ImageNet of Fall 2011 at 256x256, for pre-training (section 6, Table 2)."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from alexnet_jax.data.archives import Member, PrepareError, Report, synset_tar
from alexnet_jax.data.preparation import PreparedBuilder


class Builder(PreparedBuilder):
    """A class for every `n01440764.tar` in the folder: 21,841 in the release, 15 million images.

    The release has no validation set; 2% of the images, chosen by a hash of the name, become one.
    """

    VALIDATION_SHARE = 0.02
    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder of synset tars: n01440764.tar, n01443537.tar, ..."

    def _inputs(self, manual_dir: Path) -> list[Path]:
        tars = sorted(manual_dir.glob("n*.tar"))
        if not tars:
            raise PrepareError(
                f"{manual_dir} has no synset tars (n01440764.tar, ...); unpack the release there, "
                "the tar of each synset left as it is"
            )
        return tars

    def _class_names(self, manual_dir: Path) -> list[str]:
        return [path.stem for path in self._inputs(manual_dir)]

    def _index(
        self, manual_dir: Path, class_names: list[str], report: Report
    ) -> dict[str, Iterator[Member]]:
        tars = enumerate(self._inputs(manual_dir))
        return {"train": chain.from_iterable(synset_tar(path, i, report) for i, path in tars)}
