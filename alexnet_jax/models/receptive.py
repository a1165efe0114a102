"""Which pixels a unit sees: receptive fields, from the rows of a network alone."""

from typing import NamedTuple

from alexnet_jax.models.layers import AveragePool, MaxPool, Operation, WithinMapNorm
from alexnet_jax.models.network import LayeredNetwork, sown_name


class ReceptiveField(NamedTuple):
    """What the units of a map see of the network's input, alike on both axes.

    The unit at place i sees the pixels from `start + i * stride` on, `size` of them; where the
    field reaches past the image there are zeros.

    Fields:
      size: side in pixels.
      stride: pixels between the fields of neighbours.
      start: first pixel of the first unit's field; below 0 where it begins outside.
    """

    size: int
    stride: int
    start: int

    def pixels(self, place: int, side: int) -> slice:
        """The pixels on an axis of an image of `side` that the unit at `place` sees."""
        first = self.start + place * self.stride
        return slice(max(first, 0), min(first + self.size, side))

    def behind(self, window: int, stride: int, before: int) -> "ReceptiveField":
        """The field of what slides a window over such units, `before` of it ahead of the map."""
        return ReceptiveField(
            self.size + (window - 1) * self.stride,
            self.stride * stride,
            self.start - before * self.stride,
        )


def receptive_fields(model: LayeredNetwork) -> dict[str, ReceptiveField]:
    """Layer -> the field of its output's units; "conv1.linear", "conv1.pool" … of what is between.

    Names are those of `activations.known_outputs`. A full connection sees the whole image.
    """
    field = ReceptiveField(1, 1, 0)
    found = {}
    for row in model.layers:
        if row.kernel_size:
            field = field.behind(row.kernel_size, row.stride, row.padding[0])
        else:
            field = ReceptiveField(model.image_size, 0, 0)
        found[f"{row.name}.linear"] = field
        for operation in row.operations:
            field = _after(operation, field)
            found[f"{row.name}.{sown_name(operation)}"] = field
        found[row.name] = field
    return found


def _after(operation: Operation, field: ReceptiveField) -> ReceptiveField:
    """Of what follows an operation; one that is not known here looks at its own place alone."""
    if isinstance(operation, MaxPool | AveragePool):
        return field.behind(operation.size, operation.stride, 0)
    if isinstance(operation, WithinMapNorm):
        return field.behind(operation.size, 1, operation.size // 2)
    return field
