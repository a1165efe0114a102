"""`report` and `explore` as their user sees them; the pages are tested in inspect/."""

from functools import partial

import pytest

from tests.commands import run_command
from tests.tiny_run import write_run

report = partial(run_command, "alexnet_jax.report")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--workdir={}/none", "{}/none holds no run (no config.json)"),
        ("--output={}/none/report.html", "folder {}/none is not there; make it"),
        ("--output={}", "{} is a folder; name a file in it with --output"),
        ("--output=gs://bucket/page.html", "gs://bucket/page.html is a URL and only"),
    ],
)
def test_what_is_not_there_is_told_in_one_line_before_the_work(flag, message, tmp_path):
    done = report(f"--workdir={write_run(tmp_path / 'run')}", flag.format(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: " + message.format(tmp_path))


@pytest.mark.slow
def test_the_page_is_written_where_it_is_said(tmp_path):
    workdir = write_run(tmp_path / "run")
    done = report(f"--workdir={workdir}", "--images=12", "--gallery=16")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{workdir / 'report.html'}: ")
    assert "AlexNet on digits" in (workdir / "report.html").read_text(encoding="utf-8")


def test_the_explorer_is_written_where_it_is_said(tmp_path):
    workdir = write_run(tmp_path / "run")
    output = tmp_path / "walk.html"
    flags = [f"--workdir={workdir}", f"--output={output}", "--examples=12", "--units=2"]
    flags += ["--visualised=0"]
    done = run_command("alexnet_jax.explore", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{output}: ")
    assert "Inside AlexNet on digits" in output.read_text(encoding="utf-8")
