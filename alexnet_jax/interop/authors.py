"""The authors' 2012 code: its checkpoints, and `layers-*.cfg` with `layer-params-*.cfg`.

Source: the authors' `gpumodel.py`, `util.py`, `layers-145.cfg`.
"""

import configparser
import io
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from alexnet_jax.augment import IMAGENET_MEAN
from alexnet_jax.configs import imagenet2012_original
from alexnet_jax.files import local_path, naming, text_of
from alexnet_jax.interop.authors_fields import fields_of, rates_of
from alexnet_jax.interop.authors_graph import Graph
from alexnet_jax.interop.imported import Imported, read_mean
from alexnet_jax.interop.pickled import load_arrays
from alexnet_jax.models.presets import alexnet
from alexnet_jax.runs.checks import check
from alexnet_jax.runs.recipe import build_model
from alexnet_jax.wording import first_line

PRESET = "original"
# A compressed checkpoint that grows more than this is none: weights hardly shrink.
_LARGEST_GROWTH = 20


def read_authors(path: str | Path, *, mean: str | Path | None = None) -> Imported:
    """Reads a checkpoint: towers joined, kernels and rows in this library's order.

    Args:
      path: a folder `ConvNet__…`, whose last checkpoint is taken, or the file of one.
      mean: the `batches.meta` of their data, or a `.npy` file of [3] or [3, S, S], RGB; None is
        ImageNet's colour.

    Raises:
      ValueError: the file is damaged, holds no checkpoint, or a net that is not expressed here; the
        message names the first layer that does not fit.
    """
    path = _checkpoint(local_path(path))
    content = _unpickled(path)
    values = read_mean(mean, _mean_of_their_data, usual=IMAGENET_MEAN)
    with naming(path, " holds no net that is read here"):
        graph = Graph(path, _layers(content, path))
        fields = fields_of(graph, trained=True)
        params, done = graph.params()
        if size := int(graph.number(graph.stages[0][0], "imgSize", 0)):
            fields["image_size"] = size
        return Imported(path, PRESET, _differing(fields), params, values, done)


def read_recipe(
    layers: str | Path, params: str | Path, *, image_size: int = 224, dataset: str | None = None
) -> ConfigDict:
    """Reads a net and its recipe from their two files.

    Args:
      layers: `layers-*.cfg`, the net.
      params: `layer-params-*.cfg`, rates and constants; as their last runs left it.
      image_size: side of the crops in pixels, which their data provider knows and no file.
      dataset: prepared data set; None keeps ILSVRC-2012.

    Returns:
      `imagenet2012_original`, changed to what the files say. The number of classes is the data
      set's.

    Raises:
      ValueError: a file cannot be read, or says what is not expressed here: the layer, and what.
    """
    layers, params = local_path(layers), local_path(params)
    net, constants = _read_cfg(layers), _read_cfg(params)
    for name, values in constants.items():
        if name in net:
            net[name] = {**net[name], **values}
    with naming(layers, f" and {params.name} hold no recipe that is read here"):
        graph = Graph(layers, net)
        fields = _differing(fields_of(graph, trained=False) | {"image_size": image_size})
        config = imagenet2012_original.get_config()
        config.model.update({name: fields[name] for name in fields if name != "num_classes"})
        config.update(rates_of(graph))
        # Theirs were turned by hand while it ran, and the files hold the last.
        config.schedule.name, config.hand_changes = "constant", ()
        if dataset:
            config.dataset = dataset
        check(config)
        build_model(config, fields.get("num_classes", 1000))
    return config


def _layers(content: Any, path: Path) -> dict[str, dict[str, Any]]:
    """Name -> settings of each layer of a checkpoint."""
    state = content.get("model_state", content) if isinstance(content, dict) else {}
    layers = state.get("layers") if isinstance(state, dict) else None
    if isinstance(layers, list) and all(isinstance(x, dict) and "name" in x for x in layers):
        name, times = Counter(layer["name"] for layer in layers).most_common(1)[0]
        if times > 1:
            raise ValueError(f"{path} has the layer {name!r} {times} times")
        layers = {layer["name"]: layer for layer in layers}
    if not (isinstance(layers, dict) and all(isinstance(x, dict) for x in layers.values())):
        raise ValueError(f"{path} holds no model_state with layers; is it a checkpoint of theirs?")
    return layers


def _differing(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those that differ from the preset's."""
    net = alexnet(PRESET)
    return {name: value for name, value in fields.items() if getattr(net, name) != value}


# --- files ----------------------------------------------------------------------------------------


def _checkpoint(path: Path) -> Path:
    """The file, or the last of a folder: they are named EPOCH.BATCH."""
    if not path.is_dir():
        return path
    found = [x for x in path.iterdir() if re.fullmatch(r"\d+\.\d+", x.name)]
    if not found:
        raise ValueError(f"{path} holds no checkpoint (a file EPOCH.BATCH)")
    return max(found, key=lambda x: tuple(map(int, x.name.split("."))))


def _unpickled(path: Path) -> Any:
    """What a checkpoint holds; their options are not looked at."""
    try:
        data = path.read_bytes()
        if zipfile.is_zipfile(io.BytesIO(data)):  # saved with --zip-save
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                size = archive.getinfo("data").file_size
                if size > _LARGEST_GROWTH * len(data):
                    raise ValueError(f"{len(data):,} bytes that say they hold {size:,}")
                data = archive.read("data")
        return load_arrays(io.BytesIO(data), ignore=("options",))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged pickle raises as many kinds as there are
        reason = first_line(error)
        raise ValueError(f"{path} is no pickle of arrays ({reason})") from error


def _mean_of_their_data(path: Path) -> Any:
    """The plane-by-plane mean image of a `batches.meta`."""
    content = _unpickled(path)
    mean = content.get("data_mean") if isinstance(content, dict) else None
    if mean is None:
        raise ValueError(f"{path} holds no data_mean")
    return mean


def _read_cfg(path: Path) -> dict[str, dict[str, str]]:
    """Section -> setting -> text."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(text_of(path.read_bytes(), path), source=str(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    except configparser.Error as error:
        raise ValueError(" ".join(str(error).split())) from error
    return {name: dict(parser[name]) for name in parser.sections()}
