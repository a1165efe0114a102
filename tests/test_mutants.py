"""The list of mutants fits the code, and what runs them tells the killed from the others."""

import ast
from functools import cache

import pytest

from tests.mutants.__main__ import COPIED, ROOT, mutated, try_all
from tests.mutants.listed import MUTANTS, Mutant


@cache
def module(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def decorators_of(path, name):
    """The decorators of a module's function as text; None where there is no such function."""
    for node in module(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return [ast.unparse(decorator) for decorator in node.decorator_list]
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_and_its_test_is_there(mutant):
    old = module(mutant.path)
    assert ast.dump(ast.parse(mutated(mutant))) != ast.dump(old)
    path, _, name = mutant.test.partition("::")
    decorators = decorators_of(path, name.partition("[")[0])
    assert decorators is not None and "pytest.mark.slow" not in decorators


def test_names_are_unique():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_only_a_failed_assertion_kills(tmp_path, capsys):
    """A project of one line, changed so that its test fails, passes, and cannot run."""
    (tmp_path / "alexnet_jax").mkdir()
    (tmp_path / "alexnet_jax" / "one.py").write_text("one, two = 1, 2\n")
    (tmp_path / "tests").mkdir()
    text = "from alexnet_jax.one import one, two\ndef test_one():\n    assert one == 1\n"
    (tmp_path / "tests" / "test_one.py").write_text(text)
    for name in ("docs", "experiments"):
        (tmp_path / name).mkdir()
    for name in ("pyproject.toml", "README.md", "Makefile"):
        (tmp_path / name).touch()
    test = "tests/test_one.py::test_one"
    mutants = [
        Mutant("noticed", "one.py", "= 1,", "= 3,", test),
        Mutant("unnoticed", "one.py", ", 2", ", 3", test),
        Mutant("unusable", "one.py", "one, two", "one, three", test),
        Mutant("stale", "one.py", "four", "five", test),
    ]
    verdicts = try_all(mutants, jobs=1, root=tmp_path)
    assert [verdict.killed for verdict in verdicts.values()] == [True, False, False, False]
    hows = [verdict.how for verdict in verdicts.values()]
    assert hows[:2] == [test, "SURVIVED"]
    assert hows[2].startswith("BROKEN: ") and hows[3].startswith("STALE: one.py")
    assert "noticed: killed by tests/test_one.py::test_one" in capsys.readouterr().out
    (tmp_path / "alexnet_jax" / "one.py").write_text("one, two = 2, 1\n")
    with pytest.raises(SystemExit, match="the tests do not pass without a mutant"):
        try_all(mutants[:1], jobs=1, root=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(COPIED)
