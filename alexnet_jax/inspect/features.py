"""What layers say of images: features of a split or of a user's files, kept (section 6.1)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from tqdm import tqdm

from alexnet_jax.activations import Outputs
from alexnet_jax.data.batches import eval_batches, padded_batches
from alexnet_jax.data.images import ImageError
from alexnet_jax.data.names import name_bytes
from alexnet_jax.data.records import Batch
from alexnet_jax.data.sets import Dataset
from alexnet_jax.files import reserve, whole_file
from alexnet_jax.inspect.files import read_images
from alexnet_jax.runs.workdir import Run

BATCH_SIZE = 64
HDF5 = (".h5", ".hdf5")
_BOOKKEEPING = 2**20  # bytes that HDF5 adds to a batch at most: trees of chunks, heads
Names = Mapping[str, np.ndarray]


def extract_features(
    run: Run, images: np.ndarray | Iterable[Batch], *, layer: str = "", batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """A layer's output for the centre crop of every image, float32 [N, D], in order.

    The output is what the next layer reads: after ReLU and, of fc6 and fc7, after dropout's x 0.5
    at test, which changes no ranking by distance. Maps are flattened in [H, W, C] order.

    Args:
      run: from `load_run`.
      images: uint8 [N, S, S, 3], or batches with a "mask", such as `eval_batches` gives.
      layer: a name in `activations.known_outputs`; "" is the last before the head, fc7.
      batch_size: images at a time, where `images` is an array.

    Raises:
      ValueError: the network has no such layer.

    Source: AlexNet §6.1 (fc7).
    """
    batches = padded_batches(images, batch_size) if isinstance(images, np.ndarray) else images
    parts = run.features_of_batches(batches, [layer] if layer else [])
    return np.concatenate([_flat(output) for part in parts for output in part.values()])


def file_batches(
    files: Sequence[Path], size: int, names: list[str], problems: list[ImageError]
) -> Iterator[Batch]:
    """Batches of what can be read, in order; `names` and `problems` grow with them.

    Raises:
      ValueError: no file can be read.
    """
    bar = tqdm(total=len(files), unit=" images", disable=None)
    for batch in read_images(files, size, batch_size=BATCH_SIZE):
        good = [(file, image) for file, image in batch if not isinstance(image, ImageError)]
        problems += [image for _, image in batch if isinstance(image, ImageError)]
        names += [str(file) for file, _ in good]
        if good:
            yield from padded_batches(np.stack([image for _, image in good]), BATCH_SIZE)
        bar.update(len(batch))
    bar.close()
    if not names:
        raise ValueError(f"none of {len(files)} images could be read, the first: {problems[0]}")


def split_batches(dataset: Dataset, labels: list[np.ndarray]) -> Iterator[Batch]:
    """The batches of a split, in order; `labels` grows with them."""
    total = -(-len(dataset) // BATCH_SIZE)
    batches = eval_batches(dataset, batch_size=BATCH_SIZE)
    for batch in tqdm(batches, total=total, unit=" batches", disable=None):
        labels.append(batch["label"][batch["mask"] > 0])
        yield batch


def write_features(
    path: Path, run: Run, parts: Iterator[Outputs], names: Callable[[], Names]
) -> dict[str, tuple[int, ...]]:
    """Writes layers' outputs as they come, whole or not at all; with the weights' digest.

    An HDF5 file holds a data set [N, H, W, C] or [N, D] a layer, written batch by batch. An `.npz`
    is gathered in memory: [N, HWC] a layer (one alone is called "features"), and its shape.

    Args:
      path: ends in one of `HDF5`, or is an `.npz`.
      run: whose features they are.
      parts: layer -> rows, batch by batch; at least one.
      names: called at the end: what the rows are, by name.

    Returns:
      Layer -> its shape in the end, rows first.

    Raises:
      ValueError: HDF5 is wanted and h5py is not installed.
    """
    write = _write_hdf5 if path.suffix.lower() in HDF5 else _write_npz
    return write(path, run, parts, names)


def _write_npz(
    path: Path, run: Run, parts: Iterator[Outputs], names: Callable[[], Names]
) -> dict[str, tuple[int, ...]]:
    gathered: dict[str, list[np.ndarray]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for part in parts:
        for layer, rows in part.items():
            gathered.setdefault(layer, []).append(_flat(rows))
            shapes[layer] = (shapes.get(layer, (0,))[0] + len(rows), *rows.shape[1:])
    arrays: dict[str, np.ndarray] = {}
    for layer, flat in gathered.items():
        name = layer if len(gathered) > 1 else "features"
        arrays |= {name: np.concatenate(flat), f"{name}.shape": np.array(shapes[layer][1:])}
    with whole_file(path, "wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            **arrays,  # type: ignore[arg-type]
            **names(),  # type: ignore[arg-type]
            weights=np.array(run.weights_digest),
        )
    return shapes


def _write_hdf5(
    path: Path, run: Run, parts: Iterator[Outputs], names: Callable[[], Names]
) -> dict[str, tuple[int, ...]]:
    h5py = hdf5()
    with whole_file(path, "w+b") as raw:
        reserve(raw.fileno(), 0, _BOOKKEEPING)  # so that it can be closed, whatever happens
        with h5py.File(raw.name, "w") as file:

            def make_room(size: int) -> None:  # where a write of HDF5 fails the process crashes
                reserve(raw.fileno(), file.id.get_filesize(), size + _BOOKKEEPING)

            for part in parts:
                for layer, rows in part.items():
                    if layer not in file:
                        empty = (0, *rows.shape[1:])
                        file.create_dataset(
                            layer, empty, rows.dtype, maxshape=(None, *empty[1:]), chunks=rows.shape
                        )
                    start, chunk = len(file[layer]), file[layer].chunks[0]
                    end = start + len(rows)
                    make_room((-(-end // chunk) - -(-start // chunk)) * chunk * rows[0].nbytes)
                    file[layer].resize(end, 0)
                    file[layer][start:] = rows
            shapes = {layer: dataset.shape for layer, dataset in file.items()}
            for name, values in names().items():
                make_room(values.nbytes + 64 * len(values))
                if values.dtype.kind == "U":
                    values = np.array([name_bytes(text) for text in values], h5py.string_dtype())
                file[name] = values
            file.attrs["weights"] = run.weights_digest
            file.attrs["preset"] = run.config.preset
            workdir = name_bytes(str(run.workdir))
            file.attrs.create("workdir", workdir, dtype=h5py.string_dtype())
            whole = file.id.get_filesize()
        raw.truncate(whole)
    return shapes


def hdf5() -> ModuleType:
    """The package h5py. Raises ValueError where it is not installed."""
    try:
        import h5py  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            "writing HDF5 wants the package h5py: pip install 'alexnet-jax[interop]', or let "
            "--output end in .npz"
        ) from error
    return h5py


def _flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1)
