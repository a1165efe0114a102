"""What is left to `make test-slow`."""

import pytest


def slow(*values):
    """Values of a parameter that only the slow tier takes."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def slow_rows(*rows):
    """The same for several parameters at once."""
    return [pytest.param(*row, marks=pytest.mark.slow) for row in rows]
