"""The data sets that `prepare` makes: which builder, what it needs, and the command to advise.

The builders are imported when one is made, so that advice costs nothing.
"""

import contextlib
import importlib
import re
from typing import Any

import tensorflow_datasets as tfds

from alexnet_jax.data.archives import PrepareError
from alexnet_jax.data.names import prepared_name
from alexnet_jax.data.preparation import PreparedBuilder
from alexnet_jax.data.writing import ENCODINGS
from alexnet_jax.files import local_path
from alexnet_jax.wording import suggestion

FROM_TARS = ("imagenet2012_256", "imagenet2010_256", "imagenet_fall2011_256")
WITHOUT_DOWNLOAD = ("digits",)  # written on first use
ORIGINAL = "original"  # the encoding of a tfds set as tfds writes it, without a copy at 256x256


def builder_class(name: str) -> type[Any]:
    """The builder in `datasets/<name>`."""
    module = f"alexnet_jax.data.datasets.{name}.{name}_dataset_builder"
    return importlib.import_module(module).Builder


def make_builder(
    dataset: str,
    *,
    data_dir: str,
    encoding: str = "raw",
    manual_dir: str | None = None,
    folder: str | None = None,
    name: str | None = None,
    **options: Any,
) -> PreparedBuilder:
    """The builder of a set that `prepare` makes.

    Args:
      dataset: one of `FROM_TARS`, "folder", or a tfds set such as "imagenette/160px-v2".
      data_dir: where to write it.
      encoding: one of `ENCODINGS`.
      manual_dir: the folder of the tars; of a tfds set its data_dir, if another.
      folder: with "folder", that of class/image.
      name: of the prepared set; with "folder" it is needed.
      **options: as for `PreparedBuilder`.

    Raises:
      ValueError: they do not fit together, or a path is a URL.
    """
    options |= {"data_dir": data_dir, "config": encoding}
    if name in (*FROM_TARS, *WITHOUT_DOWNLOAD) and dataset not in FROM_TARS:
        raise PrepareError(f"--name={name} is another data set's; give another --name")
    if dataset == "folder":
        if not folder or not name:
            raise PrepareError("--dataset=folder needs --folder=DIR and --name=my_photos")
        if manual_dir:
            raise PrepareError("--manual_dir has no part in --dataset=folder; leave it out")
        return builder_class("image_folder")(folder=folder, name=name, **options)
    if folder:
        raise PrepareError(f"--folder goes with --dataset=folder, not with --dataset={dataset}")
    if dataset in FROM_TARS:
        if not manual_dir:
            raise PrepareError(f"--dataset={dataset} needs --manual_dir=TARS")
        if name:
            raise PrepareError(f"--dataset={dataset} has that name already; leave out --name")
        return builder_class(dataset)(**options)
    if f"{dataset}_256" in FROM_TARS:
        raise PrepareError(
            f"--dataset={dataset}_256 is the one that is prepared from the tar files"
        )
    source_dir = local_path(manual_dir) if manual_dir else None
    return builder_class("tfds_256")(source=dataset, source_dir=source_dir, name=name, **options)


def write_original(dataset: str, data_dir: str) -> tfds.core.DatasetInfo:
    """Has tfds download and write a set of its own to `data_dir`, unless it lies there.

    Returns:
      What tfds says of it.

    Raises:
      ValueError: tfds has no such set, or cannot write it.
    """
    if dataset == "folder" or {dataset, f"{dataset}_256"} & set(FROM_TARS):
        raise PrepareError(
            f"--encoding={ORIGINAL} is for tfds sets; take {' or '.join(ENCODINGS)} for "
            f"--dataset={dataset}"
        )
    module = importlib.import_module(builder_class("tfds_256").__module__)
    source = module.Source(dataset, str(local_path(data_dir)))
    source.prepare()
    return source.info


def how_to_prepare(name: str) -> str:
    """What to do to have data set `name`: the command that makes it in DIR, or another name."""
    parsed, options = tfds.core.naming.parse_builder_name_kwargs(name)
    bare, config, version = parsed.name, options.get("config"), options.get("version")
    encoding = f" --encoding={config}" if config in ENCODINGS else ""
    command = "run `python -m alexnet_jax.prepare --dataset="
    if bare in WITHOUT_DOWNLOAD:
        return f"take --config.dataset={bare}"
    if bare in FROM_TARS or f"{bare}_256" in FROM_TARS:
        dataset = bare.removesuffix("_256") + "_256"
        return f"{command}{dataset}{encoding} --manual_dir=TARS --data_dir=DIR`"
    known = tfds.list_builders(with_community_datasets=False)
    if bare in known:
        with contextlib.suppress(ImportError):  # a few sets want packages to be looked at
            if missing := _missing(bare, config, version):
                return missing
        source = bare + (f"/{config}" if config else "") + (f":{version}" if version else "")
        return f"{command}{source} --encoding={ORIGINAL} --data_dir=DIR`"
    if source := _source(bare, known):
        return f"{command}{source}{encoding} --data_dir=DIR`"
    own = re.sub(r"[^a-z0-9_]", "_", bare)  # the names that prepare takes
    return f"{command}folder --folder=PHOTOGRAPHS --name={own}{encoding} --data_dir=DIR`"


def _missing(bare: str, config: str | None, version: str | None) -> str | None:
    """What to take where the tfds set `bare` has no such configuration or version; else None."""
    configs = tfds.builder_cls(bare).builder_configs
    if config and not configs:
        return f"{bare} has no configurations: take --config.dataset={bare}"
    if config and config not in configs:
        return (
            f"{bare} has no configuration {config!r} ({suggestion(config, configs)}): take another"
        )
    source = f"{bare}/{config}" if config else bare
    try:
        if version:
            tfds.builder(f"{source}:{version}")
    except AssertionError:
        return f"{bare} has no version {version}: take --config.dataset={source}"
    return None


def _source(prepared: str, known: list[str]) -> str | None:
    """The tfds set that is called `prepared` at 256x256, or None."""
    for bare in known:
        if prepared.startswith(bare) and prepared.endswith("_256"):
            configs = tfds.builder_cls(bare).builder_configs
            for source in (bare, *(f"{bare}/{config}" for config in configs)):
                if prepared_name(source) == prepared:
                    return source
    return None
