"""Prepare a data set once at 256x256 (section 2): `python -m alexnet_jax.prepare --dataset=...`."""

import errno
import functools
import logging
import os
import shutil
import sys

import tensorflow_datasets as tfds
from absl import app, flags
from tensorflow_datasets.core.utils.lazy_imports_utils import apache_beam as beam
from tqdm import tqdm

from alexnet_jax.data.archives import PrepareError
from alexnet_jax.data.datasets.image_folder import image_folder_dataset_builder as image_folder
from alexnet_jax.data.datasets.imagenet2010_256 import (
    imagenet2010_256_dataset_builder as imagenet2010,
)
from alexnet_jax.data.datasets.imagenet2012_256 import (
    imagenet2012_256_dataset_builder as imagenet2012,
)
from alexnet_jax.data.datasets.imagenet_fall2011_256 import (
    imagenet_fall2011_256_dataset_builder as imagenet_fall2011,
)
from alexnet_jax.data.datasets.tfds_256 import tfds_256_dataset_builder as tfds_256
from alexnet_jax.data.images import ImageError
from alexnet_jax.data.preparation import Plan, PreparedBuilder

IMAGENET = {
    builder.name: builder
    for builder in (imagenet2012.Builder, imagenet2010.Builder, imagenet_fall2011.Builder)
}

OTHER_FOLDER = "or choose another --data_dir"
MENDS = {
    errno.ENOSPC: f"make room there, {OTHER_FOLDER}",
    errno.EDQUOT: f"make room there, {OTHER_FOLDER}",
    errno.EROFS: f"give leave to write there, {OTHER_FOLDER}",
    errno.EACCES: f"give leave to read or write there, {OTHER_FOLDER} if it is that one",
}


def define_flags(values: flags.FlagValues) -> None:
    """The command's options, among `values`."""
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    enum = functools.partial(flags.DEFINE_enum, flag_values=values)
    some = f"{', '.join(IMAGENET)}, folder, or a tfds set such as imagenette/160px-v2"
    string("dataset", None, some)
    string("data_dir", None, "tfds data_dir to write to")
    string("manual_dir", None, "folder of the tar files; of a tfds set its data_dir, if another")
    string("folder", None, "with --dataset=folder: the folder of class/image files")
    string("name", None, "with --dataset=folder or a tfds set: the prepared set's name")
    enum("encoding", "raw", ["raw", "jpeg"], "raw pixels (192 KiB an image) or JPEG q95")
    enum("on_error", "stop", ["stop", "skip"], "at an image that cannot be used")
    share = "part (0-1) of the training images to set aside, where there is no validation split"
    flags.DEFINE_float("validation_share", None, share, 0, 1, flag_values=values)
    workers = "processes (default: one a core; 0: this one)"
    flags.DEFINE_integer("num_workers", None, workers, 0, flag_values=values)
    string("beam_runner", None, "run on Apache Beam: DirectRunner, DataflowRunner, ...")
    options = "Beam pipeline options, as in project=mine,region=europe"
    flags.DEFINE_list("beam_options", [], options, flag_values=values)
    flags.mark_flags_as_required(["dataset", "data_dir"], values)


def make_builder(options: flags.FlagValues) -> PreparedBuilder:
    """The builder that the flags `options` describe. Raises PrepareError where flags do not fit."""
    kwargs = {
        "data_dir": options.data_dir,
        "config": options.encoding,
        "on_error": options.on_error,
        "num_workers": options.num_workers,
    }
    if options.validation_share is not None:
        kwargs["validation_share"] = options.validation_share
    if options.dataset == "folder":
        if not options.folder or not options.name:
            raise PrepareError("--dataset=folder needs --folder=DIR and --name=my_photos")
        return image_folder.Builder(folder=options.folder, name=options.name, **kwargs)
    if options.dataset in IMAGENET:
        if not options.manual_dir:
            raise PrepareError(f"--dataset={options.dataset} needs --manual_dir=TARS")
        return IMAGENET[options.dataset](**kwargs)
    if f"{options.dataset}_256" in IMAGENET:
        raise PrepareError(
            f"--dataset={options.dataset}_256 is the one that is prepared from the tar files"
        )
    return tfds_256.Builder(
        source=options.dataset, source_dir=options.manual_dir, name=options.name, **kwargs
    )


def make_config(options: flags.FlagValues) -> tfds.download.DownloadConfig:
    """Where the archives lie and what runs the work. Raises PrepareError where Beam cannot."""
    config = tfds.download.DownloadConfig(manual_dir=options.manual_dir)
    if not options.beam_runner:
        if options.beam_options:
            raise PrepareError("--beam_options need a runner, as in --beam_runner=DirectRunner")
        return config
    if wrong := [option for option in options.beam_options if "=" not in option]:
        raise PrepareError(f"--beam_options has {wrong[0]}; write name=value,name=value")
    try:
        pipeline_options = beam.options.pipeline_options.PipelineOptions
    except ImportError as error:
        raise PrepareError(
            f"--beam_runner needs Apache Beam ({error}); pip install 'alexnet-jax[prepare]' in an "
            "environment of its own"
        ) from error
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    beam_options = pipeline_options.from_dictionary(
        {"default_sdk_harness_log_level": "WARNING"}
        | dict(option.split("=", 1) for option in options.beam_options)
    )
    return config.replace(beam_runner=options.beam_runner, beam_options=beam_options)


def describe(plan: Plan, builder: PreparedBuilder) -> str:
    """What will be written, how large, where, and the space there."""
    free = shutil.disk_usage(plan.folder).free
    images = ", ".join(
        f"{split} {count:,} images in {plan.shards[split]:,} shards"
        for split, count in plan.images.items()
    )
    return (
        f"{builder.info.full_name}: {images}, {len(plan.class_names):,} classes\n"
        f"{builder.encoding}, about {tqdm.format_sizeof(plan.bytes, 'B')}, to {builder.data_dir} "
        f"({tqdm.format_sizeof(free, 'B')} free)"
    )


def run(options: flags.FlagValues) -> None:
    """Prepares what the flags `options` ask for; exits with one line where that cannot be."""
    try:
        builder = make_builder(options)
        if os.path.exists(builder.data_dir):
            print(f"{builder.data_dir} is prepared already")
            return
        config = make_config(options)
        print(describe(builder.plan(options.manual_dir), builder), flush=True)
        builder.download_and_prepare(download_config=config)
    except ImageError as error:
        sys.exit(f"prepare: {error}; or leave out all such images with --on_error=skip")
    except PrepareError as error:
        sys.exit(f"prepare: {error}")
    except OSError as error:
        if error.errno not in MENDS:
            raise
        where = error.filename or options.data_dir
        sys.exit(f"prepare: {error.strerror}: {where}; {MENDS[error.errno]}")
    except KeyboardInterrupt:
        sys.exit("prepare: stopped; the same command continues with the missing shards")
    skipped = builder.info.metadata["skipped"]
    if skipped["count"]:
        first = skipped["files"][0]["problem"]
        print(f"skipped {skipped['count']:,}, listed in {builder.data_dir}/metadata.json: {first}")
    splits = builder.info.splits
    total = sum(split.num_bytes for split in splits.values())
    print(
        f"prepared {sum(split.num_examples for split in splits.values()):,} images, "
        f"{tqdm.format_sizeof(total, 'B')}; train on them with "
        f"--config.dataset={builder.name}/{builder.encoding} --data_dir={options.data_dir}"
    )


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}; every option begins with --")
    run(flags.FLAGS)


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
