"""What the classic baselines share: the splits of our net, the linear classifiers, the record.

As the entries of 2010 did, a classifier is trained on each kind of descriptor, and the predicted
probabilities are averaged.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
from absl import flags
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from alexnet_jax import open_dataset
from alexnet_jax.configs import imagenette
from alexnet_jax.machine import cores
from experiments import harness
from experiments.baselines.descriptors import KINDS, PLACES, SIDE

FLAGS = flags.FLAGS
PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)  # C, their inverse; chosen on validation images
PACKAGES = ("opencv-python-headless", "scikit-image", "scikit-learn")
Encode = Callable[[np.ndarray], np.ndarray]


def measure(
    name: str, learn: Callable[[np.ndarray], Encode], *, whiten: bool, **facts: Any
) -> None:
    """Trains and tests a method, and writes results/baseline_`name`.

    Args:
      name: of the method.
      learn: is given descriptors of the training images, float32[M, 66]: 64 principal axes, then
        the place (y, x); returns what makes float32[F] of those of one image [P, 66].
      whiten: whether the principal axes are scaled to unit variance.
      facts: of the method, for the record.
    """
    config = imagenette.get_config()
    names = ("train", "validation", "test")
    splits = [config[f"{name}_split"] for name in names]
    if harness.quick():
        splits = ["train[:128]", "train[-64:]", "validation[:64]"]
    data = {key: _read(config.dataset, split) for key, split in zip(names, splits, strict=True)}
    labels = {key: label for key, (_, label) in data.items()}
    probabilities, rows = [], {}
    for kind, describe in KINDS.items():
        sample = _sample(describe, data["train"][0])
        pca = PCA(64, whiten=whiten, random_state=FLAGS.seed).fit(sample[:, :-2])

        def project(values: np.ndarray, pca: PCA = pca) -> np.ndarray:
            return np.concatenate([pca.transform(values[:, :-2]), values[:, -2:]], 1)

        encode = learn(project(sample))

        def features(image: np.ndarray, describe=describe, project=project, encode=encode):
            return encode(project(_placed(describe(image))))

        found = {key: _each(features, part[0], f"{kind}, {key}") for key, part in data.items()}
        chosen, penalty = _classifier(found, labels)
        probabilities.append(chosen.predict_proba(found["test"]))
        rows[kind] = {"C": penalty, "features": found["test"].shape[1]}
        rows[kind] |= _errors(probabilities[-1], labels["test"])
        print(f"{kind}: {100 * rows[kind]['top1_error']:.2f}%", flush=True)
    together = _errors(np.mean(probabilities, axis=0), labels["test"])
    result = {
        "claim": "AlexNet table 1: the net is better",
        "data": f"{config.dataset}: {', '.join(splits)}",
        "training images": len(labels["train"]),
        "seed": FLAGS.seed,
        "penalties": PENALTIES,
        **together,
        "kinds": rows,
        **facts,
        "versions": {package: version(package) for package in PACKAGES},
    }
    print(f"{name}: {100 * together['top1_error']:.2f}% of {together['of']:,} test images wrong")
    harness.record(f"baseline_{name}", result, _draw(name, result))


def _read(dataset: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8[N, S, S, 3] and labels int[N]."""
    source = open_dataset(dataset, split, stored_size=SIDE).source
    blocks = np.array_split(np.arange(len(source)), max(1, len(source) // 64))
    batches = [source.read(rows) for rows in tqdm(blocks, desc=f"reading {split}", disable=None)]
    images, labels = (
        np.concatenate([batch[key] for batch in batches]) for key in ("image", "label")
    )
    return images, labels


def _placed(descriptors: np.ndarray) -> np.ndarray:
    return np.concatenate([descriptors, PLACES], 1)


def _sample(describe: Encode, images: np.ndarray, of_images: int = 1000, each: int = 100) -> Any:
    """Descriptors with their places of some images, float32[M, D + 2]."""
    draw = np.random.default_rng(FLAGS.seed)
    chosen = images[draw.permutation(len(images))[:of_images]]
    rows = [draw.choice(len(PLACES), each, replace=False) for _ in chosen]
    return np.concatenate([_placed(describe(x))[r] for x, r in zip(chosen, rows, strict=True)])


def _each(function: Encode, images: np.ndarray, what: str) -> np.ndarray:
    """float32[N, F]: what a function makes of every image, on all cores."""
    cv2.setNumThreads(1)
    with threadpool_limits(1), ThreadPoolExecutor(cores()) as pool:
        found = tqdm(pool.map(function, images), total=len(images), desc=what, disable=None)
        return np.stack([value.astype(np.float32) for value in found])


def _classifier(features: dict, labels: dict) -> tuple[LogisticRegression, float]:
    """Logistic regression with the penalty whose validation error is least."""
    fitted = []
    for penalty in tqdm(PENALTIES, desc="classifier", disable=None):
        model = LogisticRegression(C=penalty, max_iter=200)
        model.fit(features["train"], labels["train"])
        right = model.score(features["validation"], labels["validation"])
        fitted.append((right, -penalty, model))
    right, penalty, model = max(fitted, key=lambda row: row[:2])
    return model, -penalty


def _errors(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    right = [top_k_accuracy_score(labels, probabilities, k=k, labels=range(10)) for k in (1, 5)]
    wrong = round((1 - right[0]) * len(labels))
    errors = {"top1_error": 1 - right[0], "top5_error": 1 - right[1]}
    return harness.rounded(errors) | {"wrong": wrong, "of": len(labels)}


def _draw(name: str, result: dict) -> Figure:
    """Top-1 errors: each kind, both together, and our net's."""
    lines = (harness.RESULTS / "imagenette_224.jsonl").read_text().splitlines()[-2:]
    center, ten = (json.loads(line)["top1_error"] for line in lines)
    errors = {kind: row["top1_error"] for kind, row in result["kinds"].items()}
    errors |= {"both": result["top1_error"], "net, centre": center, "net, ten views": ten}
    figure = Figure(figsize=(5, 2.4), layout="constrained")
    axes = figure.subplots()
    colors = ["#cc6644"] * (len(errors) - 2) + ["#225588"] * 2
    bars = axes.barh(list(errors), [100 * error for error in errors.values()], color=colors)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="test error (%)", title=name.replace("_", " "))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
