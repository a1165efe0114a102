"""The training command's flags."""

import pytest

from tests.commands import run_command

OWN = """from alexnet_jax.configs import digits
def get_config(c=digits.get_config()):
    """


@pytest.mark.parametrize("config", [[], ["--config=digits"], ["--config", "digits"]])
def test_overrides_hold_with_and_without_a_named_config(config, tmp_path):
    argv = [*config, "--config.seed=3", "--config.dataset=nothing"]
    done = run_command("alexnet_jax.main", f"--workdir={tmp_path}/run", *argv)
    assert done.returncode == 1
    assert "data set 'nothing' is not prepared" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ('def get_config(): raise ValueError("my own mistake")', "error: my own mistake"),
        ("def get_config(): return {}['x']", "{file} line 1: KeyError: 'x'"),
        ("def get_config(): return 1 + 'a'", "{file} line 1: TypeError: unsupported operand"),
        ("def get_config()", "{file} line 1: expected ':'"),
        (OWN + "c.batch_size = 64.5", "{file} line 3: batch_size=64.5; it is a whole number"),
        (OWN + "c.learning_rate = 'a'", "{file} line 3: learning_rate=a; it is a number"),
        (OWN + "c.model.lrn = 'maybe'", "{file} line 3: lrn=maybe; it is True or False"),
        (OWN + "c.schedule.drops = 0.5", "{file} line 3: drops=0.5; it is a tuple, such as"),
        (
            OWN + "c.schedule = 'plateau'",
            "{file} line 3: schedule=plateau; it is a group of fields",
        ),
        ("import nosuchmodule", "{file} line 1: ModuleNotFoundError: No module named 'nosuch"),
    ],
)
def test_a_mistake_in_ones_own_configuration_is_one_line(code, message, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(code + "\n")
    done = run_command("alexnet_jax.main", f"--workdir={tmp_path}/run", f"--config={file}")
    assert done.returncode == 1
    assert message.format(file=file) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_workdir_that_no_system_takes_and_a_damaged_configuration_are_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 0,')
    for workdir, message in ((tmp_path / ("x" * 300), "name too long"), (tmp_path, "is damaged")):
        done = run_command("alexnet_jax.main", f"--workdir={workdir}", "--config.seed=1")
        assert done.returncode == 1 and message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
