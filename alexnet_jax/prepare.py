"""Prepare a data set once at 256x256 (section 2): `python -m alexnet_jax.prepare --dataset=...`."""

import errno
import functools
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from absl import app, flags, logging
from tqdm import tqdm

from alexnet_jax.data.archives import PrepareError
from alexnet_jax.data.builders import FROM_TARS, ORIGINAL, make_builder, write_original
from alexnet_jax.data.images import ImageError
from alexnet_jax.data.names import classes_without
from alexnet_jax.data.preparation import Plan, PreparedBuilder
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.data.workers import beam_options
from alexnet_jax.data.writing import ENCODINGS
from alexnet_jax.files import local_path
from alexnet_jax.wording import by_commas

OTHER_FOLDER = "or choose another --data_dir"
ADVICE = {
    errno.ENOSPC: f"make room there, {OTHER_FOLDER}",
    errno.EDQUOT: f"make room there, {OTHER_FOLDER}",
    errno.EFBIG: f"raise the limit of a file's size (ulimit -f), {OTHER_FOLDER}",
    errno.EROFS: f"give permission to write there, {OTHER_FOLDER}",
    errno.ENOTDIR: f"give a folder, {OTHER_FOLDER}",
    errno.ENOENT: "choose another --data_dir",
    errno.EACCES: f"give permission to read or write there, {OTHER_FOLDER} if it is that one",
}


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """The command's options, among `values`."""
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    enum = functools.partial(flags.DEFINE_enum, flag_values=values)
    some = f"{', '.join(FROM_TARS)}, folder, or a tfds set such as imagenette/160px-v2"
    string("dataset", None, some)
    string("data_dir", None, "tfds data_dir to write to")
    string("manual_dir", None, "folder of the tar files; of a tfds set its data_dir, if another")
    string("folder", None, "with --dataset=folder: the folder of class/image files")
    string("name", None, "with --dataset=folder or a tfds set: the prepared set's name")
    encodings = "raw pixels (192 KiB per image), JPEG q95, or a tfds set as it is, not at 256x256"
    enum("encoding", "raw", [*ENCODINGS, ORIGINAL], encodings)
    enum("on_error", "stop", ["stop", "skip"], "at an image that cannot be used")
    share = "part (0-1) of the training images to set aside, where there is no validation split"
    flags.DEFINE_float("validation_share", None, share, 0, 1, flag_values=values)
    workers = "processes (default: one per core; 0: this one)"
    flags.DEFINE_integer("num_workers", None, workers, 0, flag_values=values)
    string("beam_runner", None, "run on Apache Beam: DirectRunner, DataflowRunner, ...")
    options = "Beam pipeline options, as in project=mine,region=europe"
    flags.DEFINE_multi_string("beam_options", [], options, flag_values=values)
    flags.mark_flags_as_required(["dataset", "data_dir"], values)


def run(options: flags.FlagValues) -> None:
    """Prepares what the flags `options` ask for, and says what it does.

    Raises:
      ValueError: it cannot be done; the message is one line that says what to do.
    """
    try:
        prepare(options)
    except ImageError as error:
        raise ImageError(f"{error}; or leave out all such images with --on_error=skip") from error
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        where = error.filename or options.data_dir
        raise PrepareError(f"{error.strerror}: {where}; {ADVICE[error.errno]}") from error


def prepare(options: flags.FlagValues) -> None:
    """As `run`; raises OSError too."""
    if not options.data_dir:
        raise PrepareError("--data_dir is empty; give the folder to write to")
    if options.beam_options and not options.beam_runner:
        raise PrepareError("--beam_options need a runner, as in --beam_runner=DirectRunner")
    if options.encoding == ORIGINAL:
        for name in _OF_COPIES:
            if options[name].value != options[name].default:
                raise PrepareError(f"--{name} has no part in --encoding={ORIGINAL}; leave it out")
        info = write_original(options.dataset, options.data_dir)
        print(f"prepared {options.dataset} as tfds has it; train on it with")
        print(how_to_train(options.dataset, info, local_path(options.data_dir)))
        return
    manual_dir = local_path(options.manual_dir) if options.manual_dir else None
    builder = make_builder(
        options.dataset,
        data_dir=options.data_dir,
        encoding=options.encoding,
        manual_dir=options.manual_dir,
        folder=options.folder,
        name=options.name,
        on_error=options.on_error,
        num_workers=options.num_workers,
        validation_share=options.validation_share,
    )
    if builder.is_there():
        print(f"{builder.data_dir} is prepared already; to prepare it again, delete that folder")
        return
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    if options.beam_runner:
        beam = beam_options(by_commas(options.beam_options))
        config = config.replace(beam_runner=options.beam_runner, beam_options=beam)
    print(describe(builder.plan(manual_dir), builder), flush=True)
    builder.download_and_prepare(download_config=config)
    print(summarize(builder))


# Flags of copies at 256x256 alone.
_OF_COPIES = (
    *("manual_dir", "folder", "name", "on_error"),
    *("validation_share", "num_workers", "beam_runner", "beam_options"),
)


def describe(plan: Plan, builder: PreparedBuilder) -> str:
    """What will be written, how large, where, the space there, and what was left out."""
    free = shutil.disk_usage(plan.folder).free
    images = ", ".join(
        f"{split} {count:,} images in {plan.shards[split]:,} shards"
        for split, count in plan.images.items()
    )
    lines = (
        f"{builder.info.full_name}: {images}, {len(plan.class_names):,} classes",
        f"{builder.encoding}, about {tqdm.format_sizeof(plan.bytes, 'B')}, to {builder.data_dir} "
        f"({tqdm.format_sizeof(free, 'B')} free)",
        *plan.notes,
    )
    return "\n".join(lines)


def summarize(builder: PreparedBuilder) -> str:
    """What was written and skipped, and how to train on it."""
    info = builder.info
    lines = []
    if skipped := info.metadata["skipped"]["count"]:
        file, problem = info.metadata["skipped"]["files"][0].values()
        first = problem if problem.startswith(file) else f"{file}: {problem}"
        listed = f"{builder.data_dir}/metadata.json"
        lines.append(f"skipped {skipped:,}, listed in {listed}; the first: {first}")
    if untrained := info.metadata.get("classes_without_training_images"):
        kept = "they keep their numbers and are" if untrained[1:] else "it keeps its number and is"
        lines.append(f"warning: {classes_without(untrained)}; {kept} never learned")
    for split, count in info.metadata.get("also_in_training", {}).items():
        if count:
            part = f"{count:,} of {info.splits[split].num_examples:,} {split} images"
            lines.append(
                f"warning: {part} are training images, too; take them out of one of the two, or "
                "errors will be measured too low"
            )
    if "validation" not in info.splits:
        lines.append(
            "warning: no image is set aside for validation; the command below takes a tenth of the "
            "training images"
        )
    images = sum(split.num_examples for split in info.splits.values())
    total = sum(split.num_bytes for split in info.splits.values())
    lines.append(
        f"prepared {images:,} images, {tqdm.format_sizeof(total, 'B')}; train on them with"
    )
    folder = Path(builder.data_path.parent.parent.parent)
    lines.append(how_to_train(f"{builder.name}/{builder.encoding}", info, folder))
    return "\n".join(lines)


# The recipes made for one data set, by its name; those of two have splits of their own.
_OWN_SPLITS = ("cifar10", "imagenette")
_RECIPES = {name: name.removesuffix("_256") for name in (*FROM_TARS, *_OWN_SPLITS)}
_BATCH = 128  # of the recipes (section 5)


def how_to_train(dataset: str, info: tfds.core.DatasetInfo, data_dir: Path) -> str:
    """The command that trains on `dataset` in `data_dir`: by its own recipe, else the paper's."""
    recipe = _RECIPES.get(info.name)
    words = ["python", "-m", "alexnet_jax.main", "--workdir", f"runs/{info.name}"]
    words += [f"--config={recipe or 'imagenet2012'}", f"--config.dataset={dataset}"]
    words.append(f"--data_dir={data_dir}")
    if recipe in _OWN_SPLITS:
        return shlex.join(words)
    images = info.splits["train"].num_examples if "train" in info.splits else _BATCH
    if "validation" not in info.splits:
        aside = max(1, images // 10)
        words.append(f"--config.train_split=train[:-{aside}]")
        words.append(f"--config.validation_split=train[-{aside}:]")
        images -= aside
    if recipe is None and "test" in info.splits:
        test = open_dataset(dataset, "test", data_dir=data_dir, labels=False)
        if test.source[0]["label"] >= 0:  # else there is nothing to test by
            words.append("--config.test_split=test")
    if images < _BATCH:  # a power of 2 divides over devices
        words.append(f"--config.batch_size={1 << max(images, 1).bit_length() - 1}")
    return shlex.join(words)


def main(argv: Sequence[str]) -> None:
    """Prepares what the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}; every option begins with --")
    if not logging.vlog_is_on(1):
        logging.set_verbosity(logging.ERROR)  # tfds warns of every folder that it does not find
    try:
        run(flags.FLAGS)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The same command continues with the missing shards.") from None


if __name__ == "__main__":
    from alexnet_jax import command  # loads jax, which the processes that write do not need

    define_flags()
    command.run(main)
