"""What is left to `make test-slow`."""

import pytest


def slow(*values):
    """Values of a parameter that only the slow tier takes."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
