"""The handwritten digits that scikit-learn carries, as a tfds data set (for the default run)."""

import io
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

# The split of an image is its place among the images of its class, modulo 8.
SPLITS = {"train": (0, 1, 2, 4, 5, 6), "validation": (3,), "test": (7,)}


class Builder(tfds.core.GeneratorBasedBuilder):
    """1,797 images of 8x8 pixels, ten classes, split 1,352 / 226 / 219 with equal class shares."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (tfds's own convention)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                    "id": tfds.features.Text(),  # the position in scikit-learn's array
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager  # the images come with scikit-learn
        return {split: self._generate_examples(places) for split, places in SPLITS.items()}

    def _generate_examples(self, places: tuple[int, ...]) -> Iterator[tuple[int, dict]]:
        digits = load_digits()
        seen = [0] * 10
        for index, (levels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            place = seen[label] % 8
            seen[label] += 1
            if place in places:
                png = io.BytesIO()  # tfds would encode an array through TensorFlow
                Image.fromarray(np.round(levels * 255 / 16).astype(np.uint8)).save(png, "PNG")
                png.seek(0)
                yield index, {"image": png, "label": int(label), "id": f"{index:04d}"}
