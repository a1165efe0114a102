"""metrics.jsonl and TensorBoard: cut where a run goes on, honest about what is missing."""

import json
import math

import pytest
from tensorboardX.proto import event_pb2

from alexnet_jax.runs.metrics_log import MetricsLog, read_metrics

MEANS = {"loss": 1.0, "top1_error": 0.5, "top5_error": 0.1}


def write(workdir, measured, begin=(0, 0), lines=None, checksum=None):
    with MetricsLog(workdir, writes=True) as log:
        warning = log.begin(*begin, lines, checksum)
        for step, split in measured:
            log.write(step, step / 5, split, MEANS, 0.01, images_per_second=100.0)
        return warning, log.lines


def written(workdir):
    return [(row["step"], row["split"]) for row in read_metrics(workdir)]


def board_points(workdir):
    """(step, tag) of what TensorBoard shows: later starts purge earlier events from their step."""
    points = []
    for path in sorted(workdir.glob("events.out.*"), key=lambda p: p.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            if event.session_log.status == event_pb2.SessionLog.START:
                points = [point for point in points if point[0] < event.step]
            points += [(event.step, value.tag) for value in event.summary.value]
    return points


def test_what_was_measured_after_the_checkpoint_is_measured_again(tmp_path):
    write(tmp_path, [(5, "train"), (5, "validation"), (10, "train"), (10, "validation")])
    warning, lines = write(tmp_path, [(10, "validation"), (15, "train")], begin=(10, 5), lines=3)
    assert (warning, lines) == ("", 5)
    assert written(tmp_path) == [
        (5, "train"), (5, "validation"), (10, "train"), (10, "validation"), (15, "train")
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["removed", "halved", "flipped"])
def test_lost_lines_are_told(tmp_path, damage):
    write(tmp_path, [(step, "train") for step in (5, 10, 15)])
    path = tmp_path / "metrics.jsonl"
    if damage == "removed":
        path.unlink()
    elif damage == "halved":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        content = bytearray(path.read_bytes())
        content[3] ^= 0x80
        path.write_bytes(content)
    left = {"removed": 0, "halved": 1, "flipped": 2}[damage]
    warning, lines = write(tmp_path, [], begin=(15, 15), lines=3)
    assert f"holds {left} of the 3 lines written up to step 15" in warning
    assert lines == left
    assert write(tmp_path, [], begin=(15, 15), lines=None)[0] == ""  # an earlier version's run


def test_lines_of_another_run_are_told(tmp_path):
    with MetricsLog(tmp_path, writes=True) as log:
        log.begin(0, validated=0)
        log.write(5, 1.0, "train", MEANS, 1 / 3, images_per_second=1e-7 / 3)
        log.write_vitals(5, 1.0, {"loss_spread": 1 / 3, "layers": {"conv1": {"dead": math.inf}}})
        log.write(5, 1.0, "test", MEANS, None)  # not counted
        noted = {"begin": (5, 5), "lines": log.lines, "checksum": log.checksum}
    with MetricsLog(tmp_path, writes=True) as log:  # all that is read is written as it was
        assert log.begin(5, 5, noted["lines"], noted["checksum"]) == ""
        assert log.checksum == noted["checksum"]
    write(tmp_path, [(6, "train")], **noted)  # what came later goes
    assert write(tmp_path, [], **noted)[0] == ""
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace("0.5", "0.25"))
    told = f"warning: {path} holds other lines than those written up to step 5: it was changed"
    assert write(tmp_path, [], **noted)[0].startswith(told)
    assert write(tmp_path, [], **noted | {"checksum": None})[0] == ""  # an earlier version's run


@pytest.mark.parametrize(
    ("rows", "saved"),
    [
        ([], None),
        ([(5, "train"), (10, "train"), (10, "validation"), (15, "train")], None),  # killed early
        ([(10, "validation"), (20, "train"), (20, "validation")], None),  # the first just failed
        ([(10, "validation"), (20, "train"), (20, "validation"), (25, "train")], 25),
        ([(10, "validation"), (10, "test")], 10),
        ([(0, "validation"), (0, "test")], 0),
    ],
)
def test_a_log_tells_whether_a_checkpoint_must_have_been_there(tmp_path, rows, saved):
    write(tmp_path, rows)
    assert MetricsLog(tmp_path, writes=True).of_saved_run() == saved


def test_a_damaged_line_in_the_middle_is_named_and_one_cut_off_at_the_end_is_left_out(tmp_path):
    write(tmp_path, [(5, "train"), (10, "train")])
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole[:20])
    assert written(tmp_path) == [(5, "train"), (10, "train")]
    path.write_text(whole[:20] + "\n" + whole)
    with pytest.raises(ValueError, match=r"line 1 of .*metrics\.jsonl is damaged"):
        read_metrics(tmp_path)


def test_tensorboard_shows_every_point_once_after_a_kill_before_any_checkpoint(tmp_path):
    write(tmp_path, [(5, "train"), (10, "train")])
    write(tmp_path, [(5, "train"), (10, "train")])
    points = board_points(tmp_path)
    assert sorted(set(points)) == sorted(points)
    assert (10, "train/loss") in points


def test_a_finished_run_started_again_shows_its_tests_once(tmp_path):
    write(tmp_path, [(5, "train"), (5, "validation"), (5, "test")])
    write(tmp_path, [(5, "test")], begin=(5, 5))
    assert written(tmp_path) == [(5, "train"), (5, "validation"), (5, "test")]
    points = board_points(tmp_path)
    assert points.count((5, "test/loss")) == 1
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["loss"] == 1.0


def test_vital_signs_are_lines_and_points_and_what_is_no_number_is_null(tmp_path):
    signs = {"loss_spread": 0.123456789, "layers": {"conv1": {"dead": 0.5, "update": math.inf}}}
    with MetricsLog(tmp_path, writes=True) as log:
        log.begin(0, validated=0)
        log.write_vitals(5, 1.0, signs)
        log.write_vitals(10, 2.0, signs)
        assert log.lines == 2
    with MetricsLog(tmp_path, writes=True) as log:  # what came after the checkpoint goes
        log.begin(5, validated=0, lines=1)
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name)) == {
        "step": 5,
        "epoch": 1.0,
        "split": "vitals",
        "loss_spread": 0.123457,
        "layers": {"conv1": {"dead": 0.5, "update": None}},
    }
    assert board_points(tmp_path) == [(5, "vitals/loss_spread"), (5, "vitals/layers/conv1/dead")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("step", value) for value in ("abc", 1.5, None)],
        *[("split", []), ("loss", None), ("top1_error", "0.5"), ("epoch", 10**400)],
        *[(name, ...) for name in ("step", "epoch", "loss", "learning_rate", "images_per_second")],
    ],
)
def test_a_line_of_other_values_is_damaged(tmp_path, field, value):
    write(tmp_path, [(5, "train"), (10, "train")])
    path = tmp_path / "metrics.jsonl"
    first, second = path.read_text().splitlines()
    row = {**json.loads(first), field: value}
    if value is ...:
        del row[field]
    path.write_text(f"{json.dumps(row)}\n{second}\n")
    with pytest.raises(ValueError, match=r"line 1 of .*metrics\.jsonl is damaged"):
        read_metrics(tmp_path)


def test_a_disk_that_is_full_is_told_with_the_path(tmp_path):
    with MetricsLog(tmp_path, writes=True) as log:
        log.begin(0, validated=0)
        (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
            log.write(5, 1, "train", MEANS, 0.01, images_per_second=100.0)
