"""The traps' table names code and tests that are there."""

import ast
from pathlib import Path

import pytest

from experiments.traps import TRAPS

ROOT = Path(__file__).parents[1]


def names_in(path):
    """Functions, classes and variables of a module."""
    names = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                names.add(target.id)
    return names


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.trap[:40])
def test_code_and_test_of_a_trap_are_there(trap):
    path, _, name = trap.code.partition(":")
    assert name in names_in(path)
    path, _, name = trap.test.partition("::")
    assert name in names_in(path)
    assert trap.choice
