"""Synset numbers become words."""

from alexnet_jax.inspect.names import readable_names


def test_synsets_get_names_and_others_stay():
    names = readable_names(["n01440764", "n03888257", "7", "n99999999"])
    assert names == ("tench", "parachute", "7", "n99999999")
