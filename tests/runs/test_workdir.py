"""A run is loaded with what it takes to use it, and no more; wrong folders say what to do."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from alexnet_jax.files import whole_file
from alexnet_jax.parallel import make_mesh
from alexnet_jax.runs.checkpoint import Checkpointer, CheckpointError, DamagedCheckpoint
from alexnet_jax.runs.configuration import load_config, members, noted
from alexnet_jax.runs.digest import crc
from alexnet_jax.runs.workdir import load_run
from alexnet_jax.step import state_template
from tests.tiny_run import write_run

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("workdir") / "run")


@pytest.fixture(scope="module")
def run(workdir):
    return load_run(workdir)


def images(count, size=72):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def test_no_velocities_are_loaded(run):
    assert run.state.opt_state == ()
    assert run.params["fc8"]["kernel"].shape == (32, 10)


def test_it_predicts_images_of_any_size_in_batches_of_any(run):
    few = run.predict(images(5), views="center")
    assert few.shape == (5, 10)
    np.testing.assert_allclose(few.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(run.predict(images(5), views="center", batch_size=2), few, atol=1e-6)
    assert run.predict([*images(1, 100), *images(2, 50)]).shape == (3, 10)
    assert run.predict([]).shape == (0, 10)
    with pytest.raises(ValueError, match="it is uint8"):
        run.predict(images(1).astype(np.float32))
    with pytest.raises(ValueError, match=r"an image of uint8 \[0, 5, 3\]; it is uint8"):
        run.predict([np.zeros((0, 5, 3), np.uint8)])
    for ask in (run.predict, run.features):
        for size in (0, 2.0, "2"):
            told = f"batch_size={size!r}; give at least 1 image at a time"
            with pytest.raises(ValueError, match=told):
                ask(images(1), batch_size=size)


def test_it_predicts_the_same_on_a_mesh(workdir, run):
    with pytest.raises(ValueError, match=r"mesh is a str; give one that alexnet_jax\.make_mesh"):
        load_run(workdir, mesh="2x2")
    mesh = make_mesh(data=2, model=2)
    found = load_run(workdir, mesh=mesh).predict(images(3), views="center")
    np.testing.assert_allclose(found, run.predict(images(3), views="center"), atol=1e-5)


def test_its_classes_can_be_put_in_another_order(run):
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    other = run.with_classes([run.class_names[n] for n in order])
    np.testing.assert_allclose(
        other.predict(images(2), views="center"),
        run.predict(images(2), views="center")[:, order],
        atol=1e-6,
    )
    assert run.with_classes(run.class_names) is run
    with pytest.raises(ValueError, match="10 are wanted; '0' is not in both; use runs on the same"):
        run.with_classes(["a"] * 10)
    twice = dataclasses.replace(run, class_names=("crane", "crane", *run.class_names[2:]))
    with pytest.raises(ValueError, match="class 'crane' stands twice"):
        twice.with_classes(twice.class_names[::-1])


def test_an_ensemble_names_its_members(workdir, tmp_path):
    for seed in (10, 9):
        write_run(tmp_path / f"seed_{seed}")
    assert [path.name for path in members(tmp_path)] == ["seed_9", "seed_10"]
    with pytest.raises(ValueError, match=r"an ensemble of 2 runs; name one of them, such as .*_9"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    with pytest.raises(ValueError, match="an ensemble of 2 runs"):
        load_run(tmp_path)


def test_a_configuration_of_an_earlier_version_has_the_new_fields(workdir, tmp_path):
    saved = json.loads((workdir / "config.json").read_text())
    del saved["augmentation"]["scale_with_color"], saved["read_workers"], saved["digest"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    config = load_config(tmp_path)
    assert config.read_workers == 0 and config.augmentation.scale_with_color is False
    assert config.model.fc_features == (32, 32)  # a tuple again


DEEP = b'{"a": ' * 100_000


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xfe", b"[]", b'{"seed": "x"}', DEEP], ids=range(5)
)
def test_a_damaged_configuration_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is damaged") as error:
        load_config(tmp_path)
    assert "\n" not in str(error.value)


def test_a_configuration_with_one_digit_changed_is_damaged(workdir, tmp_path):
    text = (workdir / "config.json").read_text()
    assert '"momentum": 0.9' in text
    (tmp_path / "config.json").write_text(text.replace('"momentum": 0.9', '"momentum": 0.8'))
    with pytest.raises(ValueError, match=r"damaged \(its fields are not those that were saved"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text(text.replace('"digest"', '"digesu"'))
    with pytest.raises(ValueError, match=r"damaged \(unknown config field 'digesu'"):
        load_config(tmp_path)


def two_checkpoints(folder, run):
    with Checkpointer(folder) as checkpoints:
        for step, metric in ((1, 0.2), (2, 0.4)):
            state = dataclasses.replace(run.state, step=run.state.step * 0 + step)
            checkpoints.save(step, state, arrays={}, metadata={"n": step}, best_metric=metric)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_last_checkpoint_gives_way_to_the_older_one_and_is_set_aside(run, tmp_path):
    two_checkpoints(tmp_path, run)
    flip(tmp_path / "2" / "manifest" / "metadata")
    template = state_template(run.model, None).replace(opt_state=())
    with Checkpointer(tmp_path) as checkpoints:
        restored, problems = checkpoints.restore_newest(template)
        assert (restored.step, restored.metadata) == (1, {"n": 1})
        assert len(problems) == 1 and "checkpoint" in problems[0] and "damaged" in problems[0]
        assert checkpoints.latest_step == 1
    assert (tmp_path / "2.damaged").is_dir()
    flip(tmp_path / "1" / "manifest" / "metadata")
    with Checkpointer(tmp_path) as checkpoints, pytest.raises(DamagedCheckpoint):
        checkpoints.restore_newest(template)


def test_a_checkpoint_that_a_training_removes_meanwhile_gives_way_to_a_newer_one(
    tmp_path, monkeypatch
):
    folder = write_run(tmp_path / "run", kept=(21,)) / "checkpoints"
    newest = load_run(tmp_path / "run", which="last").step
    shutil.move(folder / str(newest), tmp_path / "newer")
    restore = Checkpointer.restore

    def replaced(self, *arguments, **how):
        if (tmp_path / "newer").exists():
            shutil.rmtree(folder / "21")
            shutil.move(tmp_path / "newer", folder / str(newest))
        return restore(self, *arguments, **how)

    monkeypatch.setattr(Checkpointer, "restore", replaced)
    assert load_run(tmp_path / "run").step == newest


@pytest.mark.parametrize("left", ["checkpoints/42", "metrics.jsonl"])
def test_where_only_the_configuration_is_gone_it_is_to_be_put_back(tmp_path, left):
    (tmp_path / "checkpoints").mkdir()  # of a run that failed before it began
    with pytest.raises(ValueError, match=r"holds no run \(no config\.json\); train one with"):
        load_run(tmp_path)
    (tmp_path / left).mkdir()
    with pytest.raises(ValueError, match=r"holds a run and no config\.json, .*; put it back, or"):
        load_run(tmp_path)


def test_what_is_in_place_of_the_checkpoints_is_told(workdir, tmp_path):
    shutil.copy(workdir / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="has no checkpoint yet; let the training save one"):
        load_run(tmp_path)
    (tmp_path / "checkpoints").touch()
    with pytest.raises(CheckpointError, match="/checkpoints is a file, not a folder; put the"):
        load_run(tmp_path)
    (tmp_path / "checkpoints").unlink()
    (tmp_path / "checkpoints").symlink_to("/nonexistent/x")
    with pytest.raises(CheckpointError, match="/checkpoints is a link to /nonexistent/x, which is"):
        load_run(tmp_path)


def test_a_file_in_place_of_a_run_is_told_what_makes_one_of_it(tmp_path):
    path = tmp_path / "net.safetensors"
    path.touch()
    with pytest.raises(
        ValueError, match=f"{path} is a file, and a run .*--weights {path} --workdir"
    ):
        load_run(path)


def test_a_step_is_any_whole_number_and_no_truth(tmp_path):
    write_run(tmp_path / "run", kept=(21,))
    assert load_run(tmp_path / "run", which=np.int64(21)).step == 21
    for which in (True, np.bool_(True), 21.0, None):
        with pytest.raises(ValueError, match="use 'best', 'last' or the number of a step"):
            load_run(tmp_path / "run", which=which)


@pytest.mark.parametrize("damage", ["removed", "changed", "garbage"])
def test_what_is_best_is_what_was_saved_as_best(run, tmp_path, damage):
    two_checkpoints(tmp_path, run)
    metrics = tmp_path / "1" / "metrics" / "metrics"
    if damage == "removed":
        metrics.unlink()
    else:
        with whole_file(metrics) as file:
            file.write('{"value": 0.9, "step": 1}' if damage == "changed" else "{")
    if damage == "garbage":
        with pytest.raises(DamagedCheckpoint, match=r"metrics/metrics .* the command that trains"):
            Checkpointer(tmp_path, read_only=True)
    else:
        with Checkpointer(tmp_path, read_only=True) as checkpoints:
            assert checkpoints.best_step == 1
    with Checkpointer(tmp_path) as checkpoints:
        assert checkpoints.best_step == 1
        state = dataclasses.replace(run.state, step=run.state.step * 0 + 3)
        checkpoints.save(3, state, arrays={}, metadata={}, best_metric=0.5)
        checkpoints.wait()
        assert checkpoints.best_step == 1
    assert (tmp_path / "1").is_dir() and not (tmp_path / "2").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("stored_size", None, "stored_size=None; it is a whole number"),
        ("stored_size", 100_000, "stored_size=100000; it is"),
        ("stored_size", -5, "stored_size=-5; it is"),
        ("preset", "papper", "did you mean 'paper'"),
        ("model", None, ""),
        ("model", {"conv_features": [1, 2]}, "conv_features"),
        ("model", {"fc_features": ["a", 2]}, ""),
    ],
)
def test_a_configuration_that_makes_no_run_names_its_file(workdir, tmp_path, field, value, message):
    saved = json.loads((workdir / "config.json").read_text())
    del saved["digest"]
    (tmp_path / "config.json").write_text(json.dumps(saved | {field: value}))
    (tmp_path / "checkpoints").symlink_to(workdir / "checkpoints")
    with pytest.raises(ValueError, match=rf"config\.json is damaged .*{message}") as error:
        load_run(tmp_path)
    assert "\n" not in str(error.value)


def change_metadata(workdir, change):
    """Of checkpoint 42, whose digest is made anew."""
    path = workdir / "checkpoints" / "42" / "manifest" / "metadata"
    content = json.loads(json.loads(path.read_text())["content"])
    change(content["metadata"])
    text = json.dumps(content)
    path.write_text(json.dumps({"crc32": crc(text.encode()), "content": text}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda fields: fields.update(seed=3),
            "42 in .*: seed was 3 there and is 0 in config.json",
        ),
        (lambda fields: fields["model"].update(activation="tanh"), r"model\.activation was 'tanh'"),
        (lambda fields: fields.pop("batch_size"), r"batch_size was \d+ there and is 64"),
        (lambda fields: fields.update(num_epochs=7.0), None),  # may change
        (lambda fields: fields.pop("watch_every_steps"), None),  # of a version that had it not yet
        (lambda fields: fields["augmentation"].pop("scale_with_color"), None),
        (lambda fields: fields.update(seed="x"), "/42: its metadata is damaged"),
    ],
)
def test_a_checkpoint_of_another_run_is_told(workdir, tmp_path, change, message):
    shutil.copytree(workdir, tmp_path / "run")
    config = noted(load_config(workdir))
    change_metadata(tmp_path / "run", lambda metadata: metadata.update(config=config))
    assert load_run(tmp_path / "run").step == 42
    change(config)
    change_metadata(tmp_path / "run", lambda metadata: metadata.update(config=config))
    if message is None:
        assert load_run(tmp_path / "run").step == 42
        return
    with pytest.raises(ValueError, match=message) as error:
        load_run(tmp_path / "run")
    assert "\n" not in str(error.value)


def without(name):
    def change(metadata):
        del metadata[name]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("class_names"), "it lacks 'class_names'"),
        (lambda metadata: metadata.update(class_names="0123456789"), "class_names is '0123456789'"),
        (lambda metadata: metadata.update(class_names=[1] * 10), r"class_names is \[1, 1"),
        (lambda metadata: metadata.update(augmentation=None), ""),
        (lambda metadata: metadata.update(augmentation={}), "it lacks 'crop'"),
        (lambda metadata: metadata["augmentation"].update(color="red"), "color='red'"),
        (lambda metadata: metadata["augmentation"].update(hue=1), "hue"),
        (lambda metadata: metadata["augmentation"].update(image_size="x"), "image_size is 'x'"),
    ],
)
def test_metadata_that_make_no_run_name_the_checkpoint(workdir, tmp_path, change, message):
    shutil.copytree(workdir, tmp_path / "run")
    change_metadata(tmp_path / "run", change)
    with pytest.raises(ValueError, match=f"/42: its metadata is damaged .*{message}") as error:
        load_run(tmp_path / "run")
    assert "\n" not in str(error.value)
