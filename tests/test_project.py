"""What stands in two places of the project is the same in both."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _yaml(path):
    return yaml.safe_load((ROOT / path).read_text())


def test_version_and_authors_are_those_to_be_cited():
    cited = _yaml("CITATION.cff")
    assert str(cited["version"]) == PROJECT["version"]
    assert [author["name"] for author in cited["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == PROJECT["version"]


def test_commits_are_checked_as_make_lint_checks():
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in lint[1].splitlines()]
    hooks = _yaml(".pre-commit-config.yaml")["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == commands


def test_every_python_that_is_promised_is_tested():
    jobs = _yaml(".github/workflows/ci.yml")["jobs"]
    tested = set(jobs["test"]["strategy"]["matrix"]["python"])
    promised = re.findall(r"Python :: (\d\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tested == set(promised) and PROJECT["requires-python"] == f">={min(tested)}"


def test_targets_that_the_documents_name_are_there():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    texts = [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    texts += [path.read_text() for path in (ROOT / ".github").rglob("*.yml")]
    named = re.findall(r"(?:`|run: )make ([a-z-]+)", "\n".join(texts))
    assert len(named) > 8 and set(named) <= set(targets)
