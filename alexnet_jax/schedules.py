"""Learning-rate schedules (section 5): pure functions of the step and of a small JSON state.

`schedule.learning_rate(step, state)` is the rate of update `step` (0 is the first);
`schedule.update(state, validation_error)` follows each validation. The state goes into the
checkpoint, so a resumed run takes the same rates. Epochs become steps once, when the schedule is
built. Plain Python: the rate is a number on the host, given to the step as a hyper-parameter.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alexnet_jax.kinds import is_kind
from alexnet_jax.ops.checks import check_counts
from alexnet_jax.wording import suggestion

State = dict[str, Any]  # numbers, booleans and None only

# Divided by 10 after these epochs of 90: the medians of the authors' logged runs, rounded.
PAPER_DROPS = (23.0, 50.0, 80.0)

# What the authors changed by hand in the ILSVRC-2012 run of the paper (their log `145`), besides
# the rate: conv1 slowed to a tenth, then frozen; colour shift off. (epoch, hyper-parameters).
ORIGINAL_CHANGES: tuple[tuple[float, Mapping[str, Any]], ...] = (
    (67, {"color_strength": 0.0, "rate_multipliers": {"conv1": 0.1}}),
    (72, {"rate_multipliers": {"conv1": 0.0}}),
)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A constant rate, and what every schedule can do."""

    base: float

    def initial_state(self) -> State:
        """The state before the first update, of JSON values."""
        return {}

    def learning_rate(self, step: int, state: State) -> float:
        """The rate of update `step`; 0 is the first."""
        return self.base

    def update(self, state: State, validation_error: float) -> State:
        """The state after a validation. validation_error: a share or a loss, lower is better."""
        return state

    def finished(self, state: State) -> bool:
        """Whether the rule asks to end the training."""
        return False


@dataclasses.dataclass(frozen=True)
class Drops(Schedule):
    """Divides by `factor` at each of the steps `drops`. Source: AlexNet §5, the rule in hindsight.

    Step `drops[0]` is the first at the lower rate.
    """

    drops: tuple[int, ...]
    factor: float = 10.0

    def __post_init__(self) -> None:
        _check_above_0(factor=self.factor)

    def learning_rate(self, step: int, state: State) -> float:
        return float(self.base / self.factor ** sum(step >= drop for drop in self.drops))


@dataclasses.dataclass(frozen=True)
class ExponentialStages(Schedule):
    """`stages` equal stages from the base rate down to base / `ratio`, in equal factors.

    At 0.01: 0.01, 1.587e-3, 2.52e-4, 4e-5, a quarter of the run each, as in the authors' later
    runs. Source: their 2012 code, `dexp`, log `170`.
    """

    num_steps: int
    stages: int = 4
    ratio: float = 250.0

    def __post_init__(self) -> None:
        check_counts(stages=self.stages)
        _check_above_0(ratio=self.ratio)

    def learning_rate(self, step: int, state: State) -> float:
        stage = min(step * self.stages // max(self.num_steps, 1), self.stages - 1)
        return self.base / self.ratio ** (stage / max(self.stages - 1, 1))


@dataclasses.dataclass(frozen=True)
class Plateau(Schedule):
    """Divides by `factor` when the validation error stops improving. Source: AlexNet §5.

    It has stopped when `patience` validations in a row were not lower than the best by more than
    `min_delta`. After `max_drops` divisions (the paper's three) the next such stop ends the
    training, if `stop` is set. A NaN counts as no improvement.
    """

    factor: float = 10.0
    patience: int = 5
    min_delta: float = 0.0
    max_drops: int = 3
    stop: bool = True

    def __post_init__(self) -> None:
        _check_above_0(factor=self.factor)

    def initial_state(self) -> State:
        return {"best": None, "stalled": 0, "drops": 0, "finished": False}

    def learning_rate(self, step: int, state: State) -> float:
        return float(self.base / self.factor ** state["drops"])

    def update(self, state: State, validation_error: float) -> State:
        best = state["best"]
        error = float(validation_error)
        if error < (float("inf") if best is None else best - self.min_delta):
            return state | {"best": error, "stalled": 0}
        if state["stalled"] + 1 < self.patience:
            return state | {"stalled": state["stalled"] + 1}
        if state["drops"] < self.max_drops:
            return state | {"stalled": 0, "drops": state["drops"] + 1}
        return state | {"stalled": state["stalled"] + 1, "finished": self.stop}

    def finished(self, state: State) -> bool:
        return bool(state["finished"])


@dataclasses.dataclass(frozen=True)
class WarmUp(Schedule):
    """Rises in a straight line to the rate of `then` over the first `steps` updates.

    The first update has 1/`steps` of the rate, update number `steps` all of it. Not in the paper.
    """

    base: float = dataclasses.field(init=False)  # that of `then`
    then: Schedule
    steps: int

    def __post_init__(self) -> None:
        check_counts(steps=self.steps)
        object.__setattr__(self, "base", self.then.base)

    def initial_state(self) -> State:
        return self.then.initial_state()

    def learning_rate(self, step: int, state: State) -> float:
        return self.then.learning_rate(step, state) * min(1.0, (step + 1) / self.steps)

    def update(self, state: State, validation_error: float) -> State:
        return self.then.update(state, validation_error)

    def finished(self, state: State) -> bool:
        return self.then.finished(state)


def _check_above_0(**numbers: Any) -> None:
    """Raises ValueError for what nothing can be divided by, or no rate is left of."""
    for name, value in numbers.items():
        if not (is_kind(value, like=1.0) and value > 0):
            raise ValueError(f"{name}={value!r}; give a number above 0")


def make_schedule(
    name: str,
    learning_rate: float,
    *,
    num_epochs: float,
    steps_per_epoch: int,
    drops: Sequence[float] = PAPER_DROPS,
    factor: float = 10.0,
    patience: int = 5,
    min_delta: float = 0.0,
    max_drops: int = 3,
    stop: bool = True,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """Builds a schedule by name, all in epochs: `drops`, `plateau`, `dexp` or `constant`.

    drops: epochs after which `drops` divides; those below 1 are shares of `num_epochs`.
    factor: what `drops` and `plateau` divide by. patience, min_delta (in units of the validation
    error), max_drops, stop: see `Plateau`. warmup_epochs: linear rise before any of them.
    Raises ValueError for an unknown name, drops that are out of order, or a factor of 0.
    """
    # A run of no epochs has no updates: any length puts its shares in order.
    epochs = [drop * (num_epochs or 1) if drop < 1 else drop for drop in drops]
    num_steps = round(num_epochs * steps_per_epoch)
    schedule: Schedule
    match name:
        case "constant":
            schedule = Schedule(learning_rate)
        case "drops":
            if epochs != sorted(set(epochs)) or any(not epoch > 0 for epoch in epochs):
                raise ValueError(
                    f"drops {tuple(drops)} are not in order; give rising epochs, or shares of the "
                    "run below 1"
                )
            # No drop comes before the first update, however short the run.
            steps = tuple(max(1, round(epoch * steps_per_epoch)) for epoch in epochs)
            schedule = Drops(learning_rate, steps, factor)
        case "dexp":
            schedule = ExponentialStages(learning_rate, num_steps)
        case "plateau":
            schedule = Plateau(learning_rate, factor, patience, min_delta, max_drops, stop)
        case _:
            names = ("drops", "plateau", "dexp", "constant")
            raise ValueError(f"unknown schedule {name!r}; {suggestion(str(name), names)}")
    if warmup_epochs > 0:
        schedule = WarmUp(schedule, max(1, round(warmup_epochs * steps_per_epoch)))
    return schedule


def hyperparameters_at(
    epoch: float,
    changes: Sequence[tuple[float, Mapping[str, Any]]],
    *,
    layers: Sequence[str] | Mapping[str, Any] = (),
    learning_rate: float = 1.0,
    bias_learning_rate: float | None = None,
) -> dict[str, Any]:
    """Fields of `Hyperparameters` changed by hand at `epoch`, such as `ORIGINAL_CHANGES` says.

    The trees of multipliers are the same at every epoch, so no change compiles again.

    Args:
      epoch: passes over the training split done.
      changes: (epoch, fields); each holds from the end of that many epochs on, the later over the
        earlier. Multipliers are by layer, or by layer and parameter of it; where they are not
        named, the rates' are 1, the decays' 1 and 0 of biases.
      layers: the parameters, layer -> their names -> anything, to any depth; or names of layers,
        whose parameters are then "kernel" and "bias" (and what else a change names).
      learning_rate: ε at this epoch, where no change gives it.
      bias_learning_rate: a rate for the biases of `layers` that does not follow `learning_rate`;
        the authors left theirs at 0.02.

    Raises:
      ValueError: multipliers that are not by layer, or a `bias_learning_rate` beside a rate of 0,
        of which it is no multiple.
    """
    known = layers if isinstance(layers, Mapping) else {}
    trees: dict[str, dict[str, Any]] = {field: {} for field in _OF_BIASES}
    if bias_learning_rate is not None:
        ones = {layer: _with(known.get(layer, _PARAMETERS), 1.0, 1.0) for layer in layers}
        trees["rate_multipliers"] = ones
    for field, tree in trees.items():
        given = [change.get(field) for _, change in changes]
        for factors in given:
            if not isinstance(factors, Mapping | None):
                raise ValueError(f"{field}={factors!r}; give factors by layer")
        named = [factors or {} for factors in given]
        for layer in dict.fromkeys(layer for change in named for layer in change):
            parameters = known.get(layer) or _named_parameters(layer, named)
            tree[layer] = _with(parameters, 1.0, _OF_BIASES[field])
    fields: dict[str, Any] = {}
    for start, change in sorted(changes, key=lambda item: item[0]):
        if epoch >= start:
            fields |= {field: change[field] for field in change if field not in trees}
            for field, tree in trees.items():
                for layer, factor in (change.get(field) or {}).items():
                    tree[layer] = _with(tree[layer], factor, _OF_BIASES[field])
    if bias_learning_rate is not None:
        rate = fields.get("learning_rate", learning_rate)
        if not rate:
            raise ValueError("bias_learning_rate is beside a learning_rate of 0; give one above 0")
        factor = bias_learning_rate / rate
        trees["rate_multipliers"] = _biases_times(trees["rate_multipliers"], factor)
    return fields | {field: tree for field, tree in trees.items() if tree}


_PARAMETERS = {"kernel": None, "bias": None}
_OF_BIASES = {"rate_multipliers": 1.0, "decay_multipliers": 0.0}  # unless they are named


def _named_parameters(layer: str, changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters of a layer as far as the changes tell."""
    rates = [change[layer] for change in changes if isinstance(change.get(layer), Mapping)]
    named = dict.fromkeys(name for rate in rates for name in rate)
    return named if named.keys() - _PARAMETERS.keys() else _PARAMETERS


def _with(tree: Mapping[str, Any], change: Any, of_biases: float) -> dict[str, Any]:
    """The names of `tree` with the factors of a change: one for all below, or by name.

    One for all leaves biases at 0 where `of_biases` is 0; what is not named is 1, or `of_biases`.
    """
    by_name = isinstance(change, Mapping)
    found: dict[str, Any] = {}
    for name, below in tree.items():
        if isinstance(below, Mapping):
            found[name] = _with(below, change.get(name, 1.0) if by_name else change, of_biases)
        else:
            usual = of_biases if name == "bias" else 1.0
            found[name] = change.get(name, usual) if by_name else change * usual
    unknown = {name: change[name] for name in change if name not in tree} if by_name else {}
    return found | unknown  # those are told later


def _biases_times(rates: Mapping[str, Any], factor: float) -> dict[str, Any]:
    return {
        name: _biases_times(below, factor)
        if isinstance(below, Mapping)
        else below * (factor if name == "bias" else 1.0)
        for name, below in rates.items()
    }
