"""How long each layer takes: the operations of a trace, by the layer that they belong to."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax

from alexnet_jax.wording import align

PARTS = ("augmentation", "loss", "update", "vitals")  # the step's scopes beside the layers

# An instruction of a compiled program: its name, what it does, and the scopes it was written in.
_INSTRUCTION = re.compile(
    r'^\s*(?:ROOT )?%?(\S+) = .*? ([\w-]+)\(.*metadata={[^}]*op_name="([^"]*)"', re.MULTILINE
)
_CONTAINERS = ("while", "call", "conditional")  # what they run has its own times
_COLLECTIVE = re.compile("(all-|reduce-scatter|collective-)")
WAYS = ("forward", "backward", "exchange")


def layer_times(trace: Path, program: str, layers: Iterable[str]) -> dict[str, dict[str, float]]:
    """Part of the step -> each of `WAYS` -> milliseconds in all, summed over threads.

    "exchange" is what devices send each other, and wait for, on both ways.

    Args:
      trace: the folder that `jax.profiler.start_trace` was given; its newest trace is read.
      program: the compiled step as text, `step.lower(…).compile().as_text()`.
      layers: their names, the first rows of the table. After them come `PARTS` and "other", where
        they took any time.

    XLA joins operations and names what comes of it after the last: a layer's bias may count as
    the next one's padding.
    """
    layers = list(layers)
    instructions = {name: (does, scope) for name, does, scope in _INSTRUCTION.findall(program)}
    module = program.split(maxsplit=2)[1].rstrip(",")  # HloModule jit_train_step, …
    times: dict[tuple[str, str], float] = defaultdict(float)
    for operation, milliseconds in _operations(trace, module):
        does, scope = instructions.get(operation, ("", ""))
        if does in _CONTAINERS:
            continue
        path = re.split(r"[/()]+", scope)  # jit(train_step)/transpose(jvp(AlexNet))/conv1/add
        part = next((name for name in (*PARTS, *layers) if name in path), "other")
        way = "backward" if "transpose(" in scope else "forward"
        times[part, "exchange" if _COLLECTIVE.match(does) else way] += milliseconds
    rows = {part: {way: times[part, way] for way in WAYS} for part in (*layers, *PARTS, "other")}
    return {part: row for part, row in rows.items() if part in layers or any(row.values())}


def format_layer_times(times: Mapping[str, Mapping[str, float]], calls: int) -> str:
    """The table: milliseconds of one of the `calls` of the step."""
    whole = sum(sum(row.values()) for row in times.values())
    ways = [way for way in WAYS if any(row[way] for row in times.values())]
    lines: list[tuple[str, ...]] = [("", *(f"{way} ms" for way in ways), "share")]
    for part, row in times.items():
        cells = [f"{row[way] / calls:.1f}" if row[way] else "" for way in ways]
        lines.append((part, *cells, f"{sum(row.values()) / whole:.1%}"))
    return align(lines)


def _operations(trace: Path, module: str) -> Iterable[tuple[str, float]]:
    """The operations of one compiled program, and the milliseconds each took each time."""
    newest = max(trace.glob("plugins/profile/*"), default=trace)  # they are named after their date
    for file in newest.glob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    stats = dict(event.stats)
                    if stats.get("hlo_module") == module and "hlo_op" in stats:
                        yield str(stats["hlo_op"]), event.duration_ns / 1e6
