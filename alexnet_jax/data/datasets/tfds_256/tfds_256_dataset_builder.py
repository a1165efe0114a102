"""Any image classification set that tfds can read, stored again at 256x256 (section 2)."""

import contextlib
import dataclasses
import functools
import importlib.util
import re
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from alexnet_jax.data.archives import Member, PrepareError, Report
from alexnet_jax.data.names import prepared_name
from alexnet_jax.data.preparation import PreparedBuilder
from alexnet_jax.data.shards import check_shards
from alexnet_jax.files import local_path
from alexnet_jax.machine import allow_open_files
from alexnet_jax.wording import first_line

ARRAY_RECORD = "array_record"
SLOW_TO_FAIL = ("tensorflow", "apache_beam")  # missed by tfds only after minutes of downloading
TFDS_NEEDS = "which needs tensorflow, apache-beam and mlcroissant installed"  # tfds 4.9.10


class Builder(PreparedBuilder):
    """The tfds set `source` ("imagenette/160px-v2") in `source_dir`; tfds writes it if need be.

    It needs the features `image` and `label`. The name defaults to `imagenette_160px_v2_256`.
    """

    def __init__(
        self,
        *,
        source: str,
        source_dir: epath.PathLike | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        self.name = name or prepared_name(source)
        folder = source_dir or kwargs.get("data_dir")
        self._source = Source(source, str(local_path(folder)) if folder else None)
        super().__init__(**kwargs)
        self._original_state |= {"source": source, "source_dir": source_dir, "name": name}

    def _options(self) -> dict[str, str]:
        return super()._options() | {"--dataset": self._source.name}

    def _inputs(self, manual_dir: Path) -> list[Path]:
        self._source.prepare()
        return self._source.shards()

    def _class_names(self, manual_dir: Path) -> list[str]:
        return self._source.info.features["label"].names

    def _index(
        self, manual_dir: Path, class_names: list[str], report: Report
    ) -> dict[str, Iterator[Member]]:
        return {split: self._source.members(split) for split in self._source.info.splits}

    def _read(self) -> Callable[[Member], bytes]:
        return self._source


@dataclasses.dataclass(frozen=True)
class Source:
    """A tfds set: its images by position, still encoded. Picklable."""

    name: str
    data_dir: str | None

    def __reduce__(self) -> tuple[type["Source"], tuple[str, str | None]]:
        return Source, (self.name, self.data_dir)  # every process opens the set itself

    @functools.cached_property
    def _builder(self) -> tfds.core.DatasetBuilder:
        try:
            builder = tfds.builder(self.name, data_dir=self.data_dir)
            if builder.is_prepared():  # its files, unlike its code, know of formats added later
                builder = tfds.builder_from_directory(builder.data_dir)
        except Exception as error:  # a wrong name, configuration and version raise three kinds
            raise PrepareError(
                f"tfds cannot open {self.name} in {self.data_dir} ({first_line(error)}); "
                "check the name, and --manual_dir"
            ) from error
        features = dict(builder.info.features.items())
        if not isinstance(features.get("image"), tfds.features.Image) or not isinstance(
            features.get("label"), tfds.features.ClassLabel
        ):
            raise PrepareError(
                f"{self.name} has the features {', '.join(features)}; an image and a class label "
                'named "image" and "label" are needed'
            )
        return builder

    @property
    def info(self) -> tfds.core.DatasetInfo:
        """What tfds says of the set. Raises PrepareError where it is not there."""
        return self._builder.info

    def prepare(self) -> None:
        """Has tfds download and write the set, unless it lies in `data_dir` already.

        Raises PrepareError where tfds cannot, or where the set lies there in another format.
        """
        builder = self._builder
        if not builder.is_prepared():
            if missing := _missing_package(type(builder)):
                raise self._cannot_write(f"No module named {missing!r}", missing)
            if host := _unknown_host(builder.url_infos or ()):
                raise self._cannot_write(f"the name {host} is not known from here")
            try:
                builder.download_and_prepare(file_format=ARRAY_RECORD)
            except Exception as error:  # each builder, and each site, fails in its own way
                found = re.search(r"No module named '(\w+)", str(error))
                problem = found[0] + "'" if found else first_line(error)
                raise self._cannot_write(problem, found[1] if found else None) from error
        formats = sorted(format.value for format in builder.info.available_file_formats())
        if ARRAY_RECORD not in formats:
            raise PrepareError(
                f"{builder.data_dir} is stored as {formats[0]}; add ArrayRecord to it: "
                f"tfds convert_format --dataset_version_dir={builder.data_dir} "
                f"--out_file_format={ARRAY_RECORD} ({TFDS_NEEDS})"
            )

    def _cannot_write(self, problem: str, package: str | None = None) -> PrepareError:
        advice = f"pip install {package.replace('_', '-')}" if package else "put that right"
        return PrepareError(
            f"tfds cannot write {self.name} ({problem}); {advice} and start again, or write it "
            f"elsewhere: tfds build {self.name} --file_format={ARRAY_RECORD} "
            f"--data_dir={self._builder.data_dir_root} ({TFDS_NEEDS})"
        )

    @functools.cached_property
    def _splits(self) -> dict[str, Sequence[dict[str, Any]]]:
        if not self._builder.is_prepared():
            raise PrepareError(
                f"{self._builder.data_dir} is gone, or not seen from this machine; put it back"
            )
        allow_open_files()
        return self._builder.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})

    def shards(self) -> list[Path]:
        """The files of the prepared set. Raises PrepareError where one is missing."""
        files = [
            Path(file).absolute()
            for split in self._splits  # opened first, which chooses the format of the files
            for file in self.info.splits[split].filepaths
        ]
        try:
            check_shards(files)
        except ValueError as error:
            raise PrepareError(f"{self.name}: {error}") from error
        return files

    def members(self, split: str) -> Iterator[Member]:
        """Yields every image of `split`; its offset is its position there."""
        for position in range(len(self._splits[split])):
            example = self._example(split, position)
            name = example.get("file_name", example.get("id", f"{split}_{position:08d}"))
            name = name.decode() if isinstance(name, bytes) else str(name)
            yield Member(name, int(example["label"]), split, position, len(example["image"]))

    def __call__(self, member: Member) -> bytes:
        """The encoded image of `member`. Raises PrepareError where its shard is damaged."""
        return self._example(member.path, member.offset)["image"]

    def _example(self, split: str, position: int) -> dict[str, Any]:
        examples = self._splits[split]
        try:
            return examples[position]
        except Exception as error:  # ArrayRecord raises many kinds for a damaged shard
            raise PrepareError(
                f"image {position} of {self.name} {split} cannot be read ({first_line(error)}); "
                f"delete {self._builder.data_dir} and start again: tfds writes it anew"
            ) from error


def _missing_package(builder: type) -> str | None:
    """A package that the module of a tfds builder would import once it writes, and is not there."""
    values = vars(sys.modules[builder.__module__]).values()
    lazy = {getattr(value, "module_name", None) for value in values}
    needed = [name for name in SLOW_TO_FAIL if name in lazy]
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)


def _unknown_host(urls: Iterable[str]) -> str | None:
    """A host of `urls`, where no host of them is known: tfds would try each for minutes."""
    hosts = {host for url in urls if (host := urllib.parse.urlsplit(url).hostname)}
    if urllib.request.getproxies():  # they know the names, this machine need not
        return None
    for host in hosts:
        with contextlib.suppress(OSError):
            socket.getaddrinfo(host, None)
            return None
    return min(hosts, default=None)
