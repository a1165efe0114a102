"""The paper's tables 1 and 2: errors in percent."""

from typing import NamedTuple


class Table1(NamedTuple):
    """ILSVRC-2010, test set."""

    model: str
    top1: float
    top5: float


class Table2(NamedTuple):
    """ILSVRC-2012, validation and test set; None: not reported. * pre-trained on Fall 2011."""

    model: str
    top1_validation: float | None
    top5_validation: float | None
    top5_test: float | None


TABLE_1 = (
    Table1("Sparse coding", 47.1, 28.2),
    Table1("SIFT + FVs", 45.7, 25.7),
    Table1("CNN", 37.5, 17.0),
)
TABLE_2 = (
    Table2("SIFT + FVs", None, None, 26.2),
    Table2("1 CNN", 40.7, 18.2, None),
    Table2("5 CNNs", 38.1, 16.4, 16.4),
    Table2("1 CNN*", 39.0, 16.6, None),
    Table2("7 CNNs*", 36.7, 15.4, 15.3),
)
