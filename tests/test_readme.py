"""The README's snippet runs as it stands, and its layer table is what the command prints."""

import re
from pathlib import Path

import numpy as np

from alexnet_jax import alexnet
from alexnet_jax.models.layer_table import format_table, layer_table

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_layer_table_is_the_commands():
    assert format_table(layer_table(alexnet("paper"))) in README


def test_snippet_runs_as_it_stands():
    snippet = re.search(r"```python\n(import jax\n.*?)```", README, re.DOTALL).group(1)
    generator = np.random.default_rng(0)
    names = {
        "batch": {
            "image": generator.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8),
            "label": np.array([3, 7], np.int32),
        }
    }
    exec(snippet, names)
    assert names["train_step"]._cache_size() == 1
    assert np.isfinite(names["metrics"]["loss"])
    assert names["sums"]["count"] == 2
    assert names["state"].step == 1
    assert sum(leaf.size for leaf in names["state"].params["fc8"].values()) == 40970
