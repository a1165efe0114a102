"""Tables 1 and 2 of the paper on Imagenette: the classic methods, one net, the mean of five."""

from typing import Any, NamedTuple

from experiments.found import log_of_one_net, result, size
from experiments.verdicts import percent

BASELINES = {"sparse_coding": "Sparse coding", "sift_fisher": "SIFT + Fisher vectors"}


class Row(NamedTuple):
    """A method and its test errors in per cent, top-1 and top-5."""

    method: str
    top1: str
    top5: str
    scale: str


def rows() -> list[Row]:
    """Of what there is a result, all on the same test images, nets by their ten views.

    Raises:
      ValueError: a result is damaged; the message names it.
    """
    found = [
        _row(method, table, "")
        for name, method in BASELINES.items()
        if (table := result(f"baseline_{name}"))
    ]
    if log := log_of_one_net():
        found.append(_row("1 CNN", log["test_ten_views"], "224 pixels, the paper's net, 1 seed"))
    if table := result("ensemble"):
        alone, *_, together = table["views"]["ten"]["means"]
        for nets, of in ((1, alone), (together["nets"], together)):
            means = {name: sum(of[name]) / len(of[name]) for name in ("top1_error", "top5_error")}
            scale = size(table) + (
                f", the mean of {len(table['seeds'])} seeds" if nets == 1 else ""
            )
            found.append(_row(f"{nets} CNN{'s' * (nets != 1)}", means, scale))
    return found


def _row(method: str, errors: dict[str, Any], scale: str) -> Row:
    return Row(method, percent(errors["top1_error"]), percent(errors["top5_error"]), scale)
