"""What the user can mend ends in one line that says how, and exit status 1."""

import ast
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import alexnet
from alexnet_jax.configs import digits
from alexnet_jax.data.sets import Dataset
from alexnet_jax.main import with_config_paths
from alexnet_jax.runs import recipe as recipe_module
from alexnet_jax.runs import saved_config
from alexnet_jax.runs.checkpoint import Checkpointer, CheckpointError
from alexnet_jax.runs.configuration import load_config, save_config
from alexnet_jax.runs.health import Health
from alexnet_jax.runs.launch import train
from alexnet_jax.runs.lock import locked
from alexnet_jax.runs.metrics_log import CLOCKED, MetricsLog
from alexnet_jax.runs.workdir import load_run
from alexnet_jax.scores import METRICS
from tests.commands import run_command
from tests.small import SMALL
from tests.tiers import slow
from tests.tiny_run import write_run

run = partial(run_command, "alexnet_jax.main")

pytestmark = pytest.mark.usefixtures("quick_compilation")


def error_of(*flags):
    """The one line a failing command prints, without `error: `."""
    done = run(*flags)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if "img/s" not in line]  # progress bars
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize(
    "flag, message",
    [
        (
            "--config.learning_rat=1",
            "unknown config field 'learning_rat'; did you mean 'learning_rate'?",
        ),
        ("--config.model.lrn=maybe", "--config.model.lrn=maybe: 'maybe' is not true or false"),
        ("--config.batch_size=x", "flag --config.batch_size=x: 'x' is no whole number"),
        (
            "--config.schedule.learning_rate=1",
            "unknown config field 'learning_rate' there; most recipes have --config.learning_rate",
        ),
        ("--config.model.lnr=1", "unknown config field 'lnr'; did you mean 'lrn'?"),
        (
            "--config.foo.bar=1",
            "unknown config field 'foo'; alexnet_jax/configs/default.py lists them",
        ),
        ("--config=digit", "no config 'digit' and no such file; did you mean 'digits'?"),
    ],
)
def test_a_mistake_in_a_flag_is_one_line(tmp_path, flag, message):
    assert message in error_of(f"--workdir={tmp_path}", flag)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("preset", "papr", "did you mean 'paper'"),
        ("schedule.name", "plato", "'constant'; did you mean 'plateau'?"),
        ("dataset", "imagenet2012", "python -m alexnet_jax.prepare --dataset=imagenet2012"),
        ("mesh.model", 3, "mesh.model=3; it is 1, or 2"),
    ],
)
def test_a_field_that_cannot_be_used_is_one_line(tmp_path, field, value, message):
    config = digits.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError) as error:
        train(config, tmp_path / "run")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lerning_rate": 1.0}, "did you mean 'learning_rate'"),
        ({"ensemble": 2, "lerning_rate": 1.0}, "did you mean 'learning_rate'"),
        ({"rate_multipliers": {"fc9": 2.0}}, "multiplier of 'fc9': no such parameter; there are"),
        ({"hand_changes": ((9, {"decay_multipliers": {"fc9": 2.0}}),)}, "multiplier of 'fc9'"),
        ({"rate_multipliers": {"fc6": {"kernle": 2.0}}}, "multiplier of 'fc6/kernle'"),
    ],
)
def test_a_misspelt_name_in_ones_own_configuration_leaves_no_run(tmp_path, changes, message):
    config = small()
    config.update(changes)
    with pytest.raises(ValueError) as error:
        train(config, tmp_path / "run")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ensemble", [1, *slow(2)])
def test_a_run_of_another_version_goes_on_with_its_fields(tmp_path, ensemble):
    config = small()
    config.model.update({"conv_features": (4,) * 5, "fc_features": (4, 4)})
    config.num_epochs = 0
    config.test_split = None
    config.ensemble = ensemble
    config.field_of_another_version = 3
    save_config(config, tmp_path, resumes=False)
    train(load_config(tmp_path), tmp_path)
    assert load_config(tmp_path).field_of_another_version == 3


def test_another_runs_checkpoint_or_configuration_is_not_taken_for_its_own(tmp_path):
    config = small()
    config.model.update({"conv_features": (4,) * 5, "fc_features": (4, 4)})
    config.num_epochs = 0
    config.test_split = None
    for seed in (0, 3):
        config.seed = seed
        train(config, tmp_path / f"{seed}")
        train(config, tmp_path / f"{seed}")  # its own is taken
    for name in ("checkpoints", "config.json"):
        for seed in ("0", "3"):
            (tmp_path / seed / name).rename(tmp_path / f"{name} of {seed}")
        (tmp_path / f"{name} of 0").rename(tmp_path / "3" / name)
        for given in (0, 3):
            config.seed = given
            with pytest.raises(
                ValueError, match=r"checkpoint 0 in .* is of another run than its c"
            ):
                train(config, tmp_path / "3")
        (tmp_path / "3" / name).rename(tmp_path / "0" / name)
        (tmp_path / f"{name} of 3").rename(tmp_path / "3" / name)


def test_weights_to_start_from_that_are_not_there_leave_no_configuration(tmp_path):
    config = digits.get_config()
    config.init_from = str(tmp_path / "weights.npz")
    with pytest.raises(ValueError, match=r"weights\.npz"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_ensemble_of_more_seeds_than_there_are_is_refused(tmp_path):
    config = digits.get_config()
    config.seed, config.ensemble = 2**31 - 1, 2
    with pytest.raises(ValueError, match="2,147,483,647 is the largest; use a lower seed"):
        train(config, tmp_path / "run")


def test_numbers_of_processes_without_an_address_are_refused(tmp_path):
    ended = run_command("alexnet_jax.main", f"--workdir={tmp_path / 'run'}", "--num_processes=2")
    assert ended.returncode == 1 and "give --coordinator_address" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_an_error_from_inside_the_step_is_one_line(tmp_path):
    message = error_of(f"--workdir={tmp_path}", *SMALL, "--config.stored_size=60")
    assert message.startswith("stored images of 60 pixels are smaller than image_size=64; ")


def test_a_checkpoint_of_another_net_is_one_line(tmp_path):
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        state = {"params": {"fc8": {"bias": jnp.zeros(7)}}}
        checkpointer.save(1, state, arrays={}, metadata={}, best_metric=None)
    save_config(small(), tmp_path, resumes=False)
    message = error_of(f"--workdir={tmp_path}", *SMALL)
    assert "params/fc8/bias is float32[7] in the checkpoint, float32[10] in the model" in message


def test_another_configuration_in_the_same_workdir_names_the_fields(tmp_path):
    config = digits.get_config()
    save_config(config, tmp_path, resumes=False)
    config.weight_decay = 0.1
    del config.model.fc_features
    said = r": model.fc_features was \[.*\] and is not set, weight_decay was 0.0005 and is 0.1; "
    with pytest.raises(ValueError, match=said):
        save_config(config, tmp_path, resumes=True)


def test_a_run_whose_configuration_is_gone_is_not_taken_for_another(tmp_path):
    with pytest.raises(ValueError, match=r"holds a run and no config.json, .*; put it back, or"):
        save_config(digits.get_config(), tmp_path, resumes=True)
    assert not (tmp_path / "config.json").exists()


def test_checkpoints_behind_a_link_to_nowhere_are_told_although_there_is_a_log(tmp_path):
    save_config(small(), tmp_path, resumes=False)
    with MetricsLog(tmp_path, writes=True) as log:
        log.begin(0, validated=0)
        log.write(5, 1.0, "test", dict.fromkeys(METRICS, 0.5), 0.01)
    (tmp_path / "checkpoints").symlink_to("/nonexistent/x")
    with pytest.raises(CheckpointError, match="checkpoints is a link to /nonexistent/x, which is"):
        train(small(), tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_it_can_be_mended(tmp_path):
    message = error_of(f"--workdir={tmp_path}", *SMALL, "--config.learning_rate=1e9")
    assert "at step " in message and "before any checkpoint; lower --config.learning" in message
    assert not any((tmp_path / "checkpoints").iterdir())
    save_config(small(), tmp_path, resumes=False)  # as the next run would, with another rate


def small():
    """The configuration of `SMALL`."""
    config = digits.get_config()
    flags = dict(flag.removeprefix("--config.").split("=") for flag in SMALL)
    for field, value in flags.items():
        with contextlib.suppress(ValueError, SyntaxError):  # a word stays one
            value = ast.literal_eval(value)
        config.update_from_flattened_dict({field: value})
    return config


@pytest.mark.slow
def test_the_last_good_checkpoint_outlives_a_loss_that_is_no_number(tmp_path):
    config = small()
    config.hand_changes = ((1.5, {"weight_decay": 1e30}),)  # the weights burst at step 15
    with pytest.raises(FloatingPointError, match=r"at step 1[67]; checkpoint 15 is kept; start an"):
        train(config, tmp_path)
    assert load_run(tmp_path, which="last").step == 15
    assert load_run(tmp_path, which="best").step == 10


def log_and_biases(workdir, **changes):
    """Of an epoch: the log without wall-clock, and the biases of fc8, which begin at 0."""
    config = small()
    config.num_epochs = 1
    config.augmentation.color = "std"
    config.hand_changes = ((0.5, {"color_strength": 0.5}),)
    config.update(changes)
    train(config, workdir)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) | dict.fromkeys(CLOCKED, 0) for line in lines]
    return rows, np.asarray(load_run(workdir, which="last").state.params["fc8"]["bias"])


@pytest.fixture(scope="module")
def read_on_the_host(tmp_path_factory, quick_compilation):
    return log_and_biases(tmp_path_factory.mktemp("host"))


@pytest.mark.parametrize(
    "changes",
    slow({"cache": "device"}, {"cache": "none"}, {"cache": "none", "read_workers": 1}),
)
def test_where_the_images_are_kept_changes_no_run(tmp_path, read_on_the_host, changes):
    rows, biases = log_and_biases(tmp_path, **changes)
    assert rows == read_on_the_host[0]
    np.testing.assert_array_equal(biases, read_on_the_host[1])


@pytest.mark.parametrize(
    "changes", slow({"augment": "host"}, {"cache": "device", "steps_per_call": 4})
)
def test_other_programs_change_a_run_by_rounding_alone(tmp_path, read_on_the_host, changes):
    rows, biases = log_and_biases(tmp_path, **changes)
    assert [row["step"] for row in rows] == [row["step"] for row in read_on_the_host[0]]
    np.testing.assert_allclose(biases, read_on_the_host[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("best_metric", "accuracy", "best_metric='accuracy'; it is one of 'loss', 'top1_error'"),
        (
            "final_views",
            ("center", "five"),
            "final_views=('center', 'five'); it is a tuple of 'center', 'ten'",
        ),
        ("test_split", "tset", "no split 'tset'"),
        ("steps_per_call", 4, "steps_per_call=4 with cache='host'; it is 1, or more with"),
    ],
)
def test_what_is_needed_at_the_end_is_checked_at_the_beginning(tmp_path, field, value, message):
    config = small()
    config[field] = value
    with pytest.raises(ValueError) as error:
        train(config, tmp_path)
    assert message in str(error.value)
    assert not (tmp_path / "config.json").exists()


def test_a_resumed_run_wants_the_classes_and_the_images_it_began_with(tmp_path):
    config = small()
    config.num_epochs = 1
    train(config, tmp_path)
    names = tuple("abcdefghij")
    with pytest.MonkeyPatch.context() as patch:
        opened = recipe_module.open_dataset
        patch.setattr(
            recipe_module,
            "open_dataset",
            lambda *a, **k: dataclasses.replace(opened(*a, **k), class_names=names),
        )
        with pytest.raises(ValueError, match=r"began with the classes of digits/1\.0\.0"):
            train(config, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        digest = Dataset.digest
        patch.setattr(
            Dataset, "digest", lambda self: digest(self) + "x" * self.split.startswith("train")
        )
        told = r"began with other images than those of digits/1\.0\.0 in .* \(train differ\)"
        with pytest.raises(ValueError, match=told):
            train(config, tmp_path)


def test_a_config_is_a_shipped_name_or_a_file_of_ones_own(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("from alexnet_jax.configs import digits\nget_config = digits.get_config\n")
    shipped = with_config_paths(["main", "--config=cifar10"])[1]
    assert shipped.endswith("configs/cifar10.py") and Path(shipped.partition("=")[2]).is_file()
    assert with_config_paths(["main", f"--config={own}"])[1] == f"--config={own}"
    assert with_config_paths(["main", "--config", str(own)])[2] == str(own)


@pytest.mark.parametrize(
    ("step", "loss", "initialization", "expected"),
    [
        (300, 2.30, "paper", ["ln 10 = 2.303", "--config.model.initialization=original"]),
        (300, 2.30, "original", ["ln 10 = 2.303", "a larger --config.learning_rate"]),
        (299, 2.30, "paper", None),
        (300, 2.2, "paper", None),
    ],
)
def test_the_plateau_is_told_with_its_mends(step, loss, initialization, expected):
    model = alexnet("paper", num_classes=10, initialization=initialization)
    warning = Health().of_loss(step, loss, model)
    if expected is None:
        assert warning is None
    else:
        assert all(part in warning for part in expected)
        assert ("initialization=original" in warning) == (initialization == "paper")


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["--config.a.b=(1,2)", "--x=1", "--config.a.b=(3,)"], ["--x=1", "--config.a.b=(3,)"]),
        (["--config.a.b", "(1,2)", "-config.a.b=(3,)"], ["-config.a.b=(3,)"]),
        (["--config.a=1", "--config.a", "-2", "--x", "3"], ["--config.a", "-2", "--x", "3"]),
        (
            ["--config.a", "--config.b", "--config.a", "stray"],
            ["--config.b", "--config.a", "stray"],
        ),
        (["--x=1", "--x=2", "stray", "stray"], ["--x=1", "--x=2", "stray", "stray"]),
    ],
)
def test_of_a_field_given_twice_the_last_stays(given, left):
    assert with_config_paths(["main", "--config=cifar10", *given])[2:] == left


def test_of_two_configurations_the_last_stays(tmp_path):
    """In a process, since a field defined twice is met only where the flags are parsed."""
    twice = ["--config=digits", "--config.seed=-1", "--config", "cifar10"]
    message = error_of(f"--workdir={tmp_path}", *twice)
    assert message.startswith("seed=-1; ")
    assert with_config_paths(["main", *twice])[2].endswith("configs/cifar10.py")


def test_a_tuple_given_twice_is_replaced(tmp_path):
    drops = "--config.schedule.drops"
    message = error_of(f"--workdir={tmp_path}", f"{drops}=(0.6,0.85)", f"{drops}=('a',)")
    assert message.startswith("schedule.drops=('a',); it is a tuple of epochs")


def test_a_flag_file_may_name_the_config(tmp_path):
    file = tmp_path / "flags"
    file.write_text("--config=cifar10\n--config.seed=3\n")
    found = with_config_paths(["main", f"--flagfile={file}"])
    assert found[1].endswith("configs/cifar10.py") and found[2] == "--config.seed=3"


def test_a_workdir_alone_goes_on_with_its_own_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = small()
    config.weight_decay = 0.125
    save_config(config, tmp_path, resumes=False)
    for flags in (["--workdir=~"], ["--workdir", str(tmp_path)]):
        found = with_config_paths(["main", *flags])[1]
        assert found.endswith(f"saved_config.py:{tmp_path}")
    assert saved_config.get_config(str(tmp_path)).weight_decay == 0.125
    for before in ([], [f"--workdir={tmp_path}"]):  # of two the last is meant
        new = with_config_paths(["main", *before, f"--workdir={tmp_path / 'new'}"])[1]
        assert new.endswith("configs/digits.py")


@pytest.mark.parametrize("flags", [["--workdir="], ["--workdir", ""], ["--workdir"]])
def test_an_empty_workdir_is_not_this_folder(flags, tmp_path, monkeypatch):
    save_config(small(), tmp_path, resumes=False)
    monkeypatch.chdir(tmp_path)
    assert with_config_paths(["main", *flags])[1].endswith("configs/digits.py")
    with pytest.raises(ValueError, match="no config '' and no such file; use one of"):
        with_config_paths(["main", "--config="])


def test_a_url_is_no_workdir(tmp_path):
    message = error_of("--workdir=gs://bucket/runs")
    assert message.startswith("gs://bucket/runs is a URL")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("JAX_PLATFORMS", "cuda", "JAX_PLATFORMS asks for cuda, which is not to be had here"),
        ("JAX_NUM_CPU_DEVICES", "0", "JAX_NUM_CPU_DEVICES=0; give 1 or more, or unset it"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(tmp_path, name, value, told):
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, "-m", "alexnet_jax.main", f"--workdir={tmp_path}"],
        env={**environment, name: value},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {told}")


def test_training_in_a_thread_with_a_path_as_text(tmp_path):
    config = small()
    config.num_epochs = 0
    config.test_split = None
    errors = []

    def work():
        try:
            train(config, str(tmp_path / "run"))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert load_run(tmp_path / "run").step == 0  # no epoch saves its beginning


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("gone", ["the folder", "what it held"])
def test_a_log_without_its_checkpoints_is_kept_and_the_run_refused(tmp_path, gone, ensemble):
    run = write_run(tmp_path / "seed_0" if ensemble else tmp_path)
    config = load_config(run)
    if ensemble:
        config.ensemble = 2
        save_config(config, tmp_path, resumes=False)
    shutil.rmtree(run / "checkpoints")
    if gone == "what it held":
        (run / "checkpoints").mkdir()
    files = [tmp_path / "config.json", run / "config.json", run / "metrics.jsonl"]
    before = [path.read_bytes() for path in files]
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"the log of a run up to step 42 and no checkpoint; p"
        ):
            train(config, tmp_path)
    if ensemble:
        config.learning_rate = 0.5
        with pytest.raises(ValueError, match=r"learning_rate was 0\.01 and is 0\.5"):
            train(config, tmp_path)
    assert [path.read_bytes() for path in files] == before


def test_a_batch_that_does_not_divide_names_the_nearest_sizes(tmp_path):
    config = small()
    config.batch_size = 130
    with pytest.raises(ValueError, match=r"batch_size=130 does not divide .*; use 128 or 136"):
        train(config, tmp_path)


def test_a_second_run_in_the_workdir_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        train(small(), tmp_path)


@pytest.mark.parametrize(
    ("given", "dispatches"), [((), False), (("--coordinator_address=localhost:1",), True)]
)
def test_steps_are_computed_in_turn_unless_with_other_hosts(tmp_path, given, dispatches):
    code = f"""
import runpy, sys
import jax
from alexnet_jax import hosts
from alexnet_jax.runs import launch
hosts.initialize = lambda *_: None
launch.train = lambda *_, **__: print(jax.config.values["jax_cpu_enable_async_dispatch"])
sys.argv = ["main", "--workdir={tmp_path}", *{given}]
runpy.run_module("alexnet_jax.main", run_name="__main__")
"""
    done = run_command("-c", code)
    assert done.stdout == f"{dispatches}\n", done.stderr
