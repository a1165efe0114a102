"""The command: what it says, how it stops and continues, and that a real set goes through."""

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from absl import flags

from alexnet_jax import prepare as prepare_command
from alexnet_jax.data import folders, workers
from alexnet_jax.data.datasets.image_folder import image_folder_dataset_builder as image_folder
from alexnet_jax.data.sets import open_dataset
from tests.commands import run_command
from tests.data.datasets.test_tfds_256 import TinyDots
from tests.fake_imagenet import make_2012, make_folder
from tests.tiers import slow


@pytest.fixture
def prepare(capsys):
    """Runs the command in this process: (exit status, standard output, standard error)."""

    def run(*arguments):
        options = flags.FlagValues()
        prepare_command.define_flags(options)
        options(["prepare", *arguments])
        try:
            prepare_command.run(options)
        except ValueError as error:
            return 1, capsys.readouterr().out, str(error)
        return 0, *capsys.readouterr()

    return run


def processes_below(pid):
    """Process ids of the children of `pid`."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_says_what_it_writes_and_how_to_use_it(tmp_path, prepare):
    make_2012(tmp_path / "tars", ["n01440764"], validation=[1, 2], test=1)
    options = [
        "--dataset=imagenet2012_256",
        f"--manual_dir={tmp_path}/tars",
        f"--data_dir={tmp_path}/out",
        "--num_workers=0",
    ]
    status, output, progress = prepare(*options)
    assert status == 0
    assert "train 2 images in 1 shards, validation 2 images in 1 shards, test 1" in output
    assert re.search(r"raw, about 984kB, to .*/imagenet2012_256/raw/1.0.0 \(.* free\)", output)
    assert output.endswith(
        "train on them with\npython -m alexnet_jax.main --workdir runs/imagenet2012_256 --config="
        f"imagenet2012 --config.dataset=imagenet2012_256/raw --data_dir={tmp_path}/out "
        "--config.batch_size=2\n"
    )
    assert re.search(r"Preparing: 100%.*5/5 .*img/s", progress)
    assert "--config.test_split" not in output
    assert "prepared already" in prepare(*options)[1]
    assert "tensorflow" not in sys.modules


def test_a_tfds_set_is_written_as_it_is_where_asked(tmp_path, prepare):
    options = [f"--dataset={TinyDots.name}", "--encoding=original", f"--data_dir={tmp_path}"]
    told = (
        "train on it with\npython -m alexnet_jax.main --workdir runs/tiny_dots "
        f"--config=imagenet2012 --config.dataset=tiny_dots --data_dir={tmp_path} "
    )
    for _ in range(2):
        status, output, _ = prepare(*options)
        assert status == 0 and told in output
    assert not (tmp_path / "tiny_dots_256").exists()
    assert len(open_dataset("tiny_dots", "train", data_dir=tmp_path)) == 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset=folder"], "--dataset=folder needs --folder=DIR and --name"),
        (["--dataset=imagenet2010_256"], "--dataset=imagenet2010_256 needs --manual_dir"),
        (["--dataset=imagenet2012_256", "--manual_dir=/"], "/ lacks ILSVRC2012_img_train.tar, "),
        (["--dataset=imagenet2012"], "--dataset=imagenet2012_256 is the one"),
        (["--dataset=cifar10", "--data_dir="], "--data_dir is empty; give the folder"),
        (["--dataset=cifar10", "--folder=/"], "--folder goes with --dataset=folder"),
        (["--dataset=cifar10", "--encoding=original", "--name=x"], "--name has no part in --enc"),
        (["--dataset=folder", "--encoding=original"], "--encoding=original is for tfds sets; "),
        (["--dataset=imagenet2012", "--encoding=original"], "take raw or jpeg for --dataset=imag"),
        (["--dataset=imagenet2012_256", "--manual_dir=s3://a"], "s3://a is a URL and only folders"),
        (["--dataset=folder", "--folder=https://a/b", "--name=a"], "https://a/b is a URL and only"),
        (["--dataset=no_such_set"], "tfds cannot open no_such_set in"),
        (["--dataset=folder", "--folder=/nowhere", "--name=a"], "/nowhere is not a folder"),
        (["--dataset=folder", "--folder=/", "--name=My-Set"], 'name="My-Set": take small letters'),
        (["--dataset=cifar10", "--name=Bad-Name"], 'name="Bad-Name": take small letters'),
        (["--dataset=cifar10", "--name=a/b"], 'name="a/b": take small letters, digits and _'),
        (["--dataset=cifar10", "--name=1cats"], "small letters, digits and _, a letter first"),
        (["--dataset=cifar10", "--name=x\ny"], r'name="x\ny": take small letters'),
        (
            ["--dataset=folder", "--folder=/", "--name=digits"],
            "--name=digits is another data set's",
        ),
        (["--dataset=cifar10", "--name=imagenet2012_256"], "another data set's; give another --na"),
        (["--dataset=cifar10", "--validation_share=1"], "--validation_share=1 is not from 0 to be"),
        (
            ["--dataset=folder", "--folder=/", "--name=a", "--manual_dir=/nowhere"],
            "--manual_dir has no part in --dataset=folder; leave it out",
        ),
        (["--dataset=cifar10/none"], "tfds cannot open cifar10/none in"),
        (["--dataset=cifar10:9.9.9"], "only: 3.0.2.); check the name, and --manual_dir"),
    ],
)
def test_wrong_flags_give_one_line_that_says_what_to_do(tmp_path, prepare, options, message):
    status, _, error = prepare(f"--data_dir={tmp_path}", *options)
    assert status == 1
    assert message in error
    assert error.count("\n") == 0, error


def test_bad_image_is_named_with_both_ways_out(tmp_path, prepare):
    make_folder(tmp_path / "photos", ["ant", "bee"], 3)
    (tmp_path / "photos" / "ant" / "1.jpg").write_bytes(b"\xff\xd8\xff")
    options = ["--dataset=folder", f"--folder={tmp_path}/photos", "--name=photos"]
    options += [f"--data_dir={tmp_path}/out", "--validation_share=0", "--num_workers=0"]
    status, _, error = prepare(*options)
    assert status == 1 and "ant/1.jpg" in error and "--on_error=skip" in error
    status, output, _ = prepare(*options, "--on_error=skip")
    assert status == 0 and "skipped 1, listed in" in output
    assert "prepared 5 images" in output


def test_the_command_ends_in_one_line_and_leaves_nothing(tmp_path):
    """Nothing that tfds logs, and no folder, of a set that cannot be made; and that at once."""
    make_folder(tmp_path / "photos" / "train", ["ant"], 1)
    make_folder(tmp_path / "photos", ["Training"], 1)
    for options in (["folder", f"--folder={tmp_path}/photos", "--name=photos"], ["no_such_set"]):
        options = [f"--dataset={options[0]}", *options[1:], f"--data_dir={tmp_path}/out"]
        done = run_command("alexnet_jax.prepare", *options)
        assert done.returncode == 1 and not done.stdout
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert not (tmp_path / "out").exists()


def test_what_is_left_out_is_said_and_paths_are_expanded(tmp_path, prepare, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_folder(tmp_path / "photos", ["ant", "bee"], 2)
    (tmp_path / "photos" / "bee" / "0.jpg").rename(tmp_path / "photos" / "bee" / "0.heic")
    (tmp_path / "photos" / "bee" / "1.jpg").write_bytes(b"")
    (tmp_path / "photos" / "notes.txt").touch()
    options = ["--dataset=folder", "--folder=~/photos", "--name=photos", "--data_dir=~/out"]
    options += ["--validation_share=0", "--num_workers=0", "--on_error=skip"]
    status, output, _ = prepare(*options)
    assert status == 0
    assert (
        f"left out files: 1 beside the class folders (such as {tmp_path}/photos/notes.txt), "
        f"1 without an image's suffix (such as {tmp_path}/photos/bee/0.heic)\n"
    ) in output
    assert "warning: class 'bee' has no training images; it keeps its number" in output
    assert f"--config.dataset=photos/raw --data_dir={tmp_path}/out" in output


class NoBeam:
    def __getattr__(self, name):
        raise ModuleNotFoundError("No module named 'apache_beam'")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam_options=a=b"], "--beam_options need a runner, as in --beam_runner=DirectRunner"),
        (
            ["--beam_runner=DirectRunner", "--beam_options=streaming,c=d", "--beam_options=a=b"],
            "--beam_options has streaming; write name=value",
        ),
        (["--beam_runner=DirectRunner"], "pip install 'alexnet-jax[prepare]' in an environment"),
    ],
)
def test_wrong_beam_flags_are_told_before_the_index(
    tmp_path, prepare, monkeypatch, options, message
):
    monkeypatch.setattr(workers, "beam", NoBeam())
    make_folder(tmp_path / "photos", ["ant", "bee"], 3)
    photos = ["--dataset=folder", f"--folder={tmp_path}/photos", "--name=photos"]
    status, output, error = prepare(*photos, f"--data_dir={tmp_path}/out", *options)
    assert status == 1 and message in error and "\n" not in error
    assert not output and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("problem", "advice"),
    [
        (errno.ENOSPC, "make room there, or choose another --data_dir"),
        (errno.EDQUOT, "make room there, or choose another --data_dir"),
        (errno.EACCES, "give permission to read or write there"),
    ],
)
def test_refusal_of_the_system_is_one_line(tmp_path, prepare, monkeypatch, problem, advice):
    def refuse(self, manual_dir):
        raise OSError(problem, os.strerror(problem), "/some/file")

    monkeypatch.setattr(image_folder.Builder, "plan", refuse)
    photos = ["--dataset=folder", f"--folder={tmp_path}/photos", "--name=photos"]
    status, _, error = prepare(*photos, f"--data_dir={tmp_path}/out")
    assert status == 1
    assert error.startswith(f"{os.strerror(problem)}: /some/file; {advice}")


@pytest.mark.slow  # races the signal against the last shard on a busy machine
def test_killed_preparation_continues_and_leaves_no_worker(tmp_path, prepare):
    make_folder(tmp_path / "photos", ["ant", "bee"], 200, size=(1600, 1200))
    options = ["--dataset=folder", f"--folder={tmp_path}/photos", "--name=photos"]
    options += [f"--data_dir={tmp_path}/out", "--num_workers=1", "--validation_share=0"]
    command = [sys.executable, "-m", "alexnet_jax.prepare", *options]
    partial = tmp_path / "out/photos/raw/1.0.0.partial"
    shards = "photos-train.array_record-?????-of-00007"

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(partial.glob(shards)):
        assert process.poll() is None
        time.sleep(0.01)
    workers = processes_below(process.pid)
    process.kill()
    process.wait()
    deadline = time.time() + 20
    while any(alive(pid) for pid in workers):
        assert time.time() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
    first = {path.name: path.stat().st_mtime_ns for path in partial.glob(shards)}
    assert 0 < len(first) < 7 and not partial.with_name("1.0.0").exists()

    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while len(list(partial.glob(shards))) == len(first):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "Stopped. The same command continues" in process.communicate()[1]
    assert process.returncode == 130

    assert prepare(*options, "--num_workers=0")[0] == 0
    final = partial.with_name("1.0.0")
    now = {path.name: path.stat().st_mtime_ns for path in final.glob(shards)}
    assert len(now) == 7 and first.items() <= now.items()  # nothing was written twice
    assert len(tfds.data_source("photos", data_dir=tmp_path / "out", split="train")) == 400


TINY = (  # in place of the recipe's, so that it takes seconds
    *("--config.model.conv_features=(4,8,8,8,8)", "--config.model.fc_features=(8,8)"),
    *("--config.num_epochs=1", "--config.final_views=('center',)"),
)


def train_as_told(output):
    """Runs the command that is the last line of `output`, for one epoch of a narrow net."""
    python, _, module, *flags = shlex.split(output.splitlines()[-1])
    assert (python, module) == ("python", "alexnet_jax.main")
    done = run_command(module, *flags, *TINY)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("share", ["0", "0.5"])
def test_the_command_that_is_printed_trains_on_a_folder(tmp_path, prepare, share, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "my photos", ["ant", "bee"], 2 if share == "0" else 20)
    source = ["--dataset=folder", f"--folder={tmp_path}/my photos", "--name=photos"]
    target = ["--data_dir=my out", f"--validation_share={share}", "--num_workers=0"]
    status, output, _ = prepare(*source, *target)
    assert status == 0
    assert ("warning: no image is set aside for validation" in output) == (share == "0")
    assert ("train[-1:]" in output) == (share == "0")
    if share == "0":  # the other is trained on below
        train_as_told(output)


@pytest.mark.parametrize("labelled", [*slow(True), False])
def test_the_command_that_is_printed_tests_where_there_are_labels(
    tmp_path, prepare, labelled, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val", "test"):
        make_folder(tmp_path / "photos" / split, ["ant", "bee"], 3)
    if not labelled:
        monkeypatch.setattr(image_folder, "folder_images", without_test_labels)
    source = ["--dataset=folder", f"--folder={tmp_path}/photos", "--name=photos"]
    _, output, _ = prepare(*source, "--data_dir=out", "--num_workers=0", "--encoding=jpeg")
    assert ("--config.test_split=test" in output) == labelled
    assert output.endswith("--config.batch_size=4\n")
    if labelled:
        train_as_told(output)


def without_test_labels(folder, *arguments):
    for member in folders.folder_images(folder, *arguments):
        yield member._replace(label=-1) if folder.name == "test" else member


@pytest.mark.parametrize("name", sorted(prepare_command._RECIPES))
def test_the_recipe_of_a_set_is_one_of_ours_and_reads_it(name):
    config = import_module(f"alexnet_jax.configs.{prepare_command._RECIPES[name]}").get_config()
    assert config.dataset.split("/")[0] == name


def test_another_set_of_a_name_that_is_taken_is_refused(tmp_path, prepare):
    for name in ("photos", "others"):
        make_folder(tmp_path / name, ["ant", "bee"], 3)
    made = ["--name=photos", f"--data_dir={tmp_path}/out", "--num_workers=0"]
    first = ["--dataset=folder", f"--folder={tmp_path}/photos", *made]
    assert prepare(*first)[0] == 0
    assert "prepared already" in prepare(*first)[1]
    for other, message in (
        (
            ["--dataset=folder", f"--folder={tmp_path}/others"],
            f"--folder was {tmp_path}/photos and",
        ),
        (["--dataset=folder", f"--folder={tmp_path}/none"], f"is {tmp_path}/none; go back to that"),
        ([f"--dataset={TinyDots.name}"], "/photos and is not there; go back to that, give"),
        ([*first[:2], "--validation_share=0.2"], "--validation_share was the default and is 0.2"),
    ):
        status, _, error = prepare(*other, *made)
        assert status == 1 and message in error and "\n" not in error, error
