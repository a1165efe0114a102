"""Any image classification set that tfds can read, stored again at 256x256 (section 2)."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from alexnet_jax.data.archives import Member, PrepareError, Report
from alexnet_jax.data.preparation import PreparedBuilder


class Builder(PreparedBuilder):
    """The tfds set `source` ("imagenette/160px-v2"), as it lies prepared in `source_dir`.

    It needs the features `image` and `label`. The name defaults to `imagenette_160px_v2_256`.
    """

    def __init__(
        self, *, source: str, source_dir: str | None = None, name: str | None = None, **kwargs: Any
    ):
        self.name = name or re.sub(r"\W", "_", source) + "_256"
        self._source = Source(source, source_dir or kwargs.get("data_dir"))
        super().__init__(**kwargs)
        self._original_state |= {"source": source, "source_dir": source_dir, "name": name}

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
    """A prepared tfds set: its images by position, still encoded. Picklable."""

    name: str
    data_dir: str | None

    def __reduce__(self) -> tuple[type["Source"], tuple[str, str | None]]:
        return Source, (self.name, self.data_dir)  # every process opens the set itself

    @functools.cached_property
    def _builder(self) -> tfds.core.DatasetBuilder:
        try:
            builder = tfds.builder(self.name, data_dir=self.data_dir)
        except tfds.core.DatasetNotFoundError as error:
            raise PrepareError(
                f"tfds knows no {self.name} in {self.data_dir}; check the name, and --manual_dir"
            ) from error
        if not builder.is_prepared() or not builder.info.file_format.value == "array_record":
            raise PrepareError(
                f"{self.name} does not lie in {builder.data_dir} as ArrayRecord; write it there "
                f"first: tfds build {self.name} --file_format=array_record"
            )
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

    @functools.cached_property
    def _splits(self) -> dict[str, Sequence[dict[str, Any]]]:
        return self._builder.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})

    def members(self, split: str) -> Iterator[Member]:
        """Yields every image of `split`; its offset is its position there."""
        for position, example in enumerate(self._splits[split]):
            name = example.get("file_name", example.get("id", f"{split}_{position:08d}"))
            name = name.decode() if isinstance(name, bytes) else str(name)
            yield Member(name, int(example["label"]), split, position, len(example["image"]))

    def __call__(self, member: Member) -> bytes:
        """The encoded image of `member`."""
        return self._splits[member.path][member.offset]["image"]
