"""What a net of the authors' 2012 code says, in the fields of this library's net and recipe.

Source: the authors' `layer.py`, `layers-145.cfg`, `layer-params-145.cfg`.
"""

import statistics
from typing import Any

from alexnet_jax.interop.authors_graph import Graph
from alexnet_jax.models.alexnet import INITIAL_STDDEV

# Kernel, stride and padding of conv1 to conv6, and the initial biases that are zero.
_CONVOLUTIONS = ((11, 4, 0), (5, 1, 2), *((3, 1, 1),) * 4)
_ZERO_BIAS = ("conv1", "conv3", "fc8")


def fields_of(graph: Graph, *, trained: bool) -> dict[str, Any]:
    """The fields of `AlexNet` that make this net; `trained` where they were read back."""
    names, stages = graph.names, graph.stages
    for name, stage, (kernel, stride, padding) in zip(names, stages, _CONVOLUTIONS, strict=False):
        if name.startswith("fc"):
            break
        for layer in stage:
            settings = {"filterSize": kernel, "stride": stride, "padding": padding}
            for key, wanted in settings.items():
                defaults = {"stride": 1, "padding": 0}
                # Padding is kept with its sign turned.
                if abs(graph.number(layer, key, defaults.get(key))) != wanted:
                    found = graph.layers[layer].get(key)
                    raise graph.refuse(layer, f"has {key}={found}; {name} of AlexNet has {wanted}")
            for key in ("groups", "randSparse"):
                if any(str(x) not in ("1", "1.0", "0.0") for x in graph.values(layer, key, 1)):
                    raise graph.refuse(layer, f"has {key}, which is not expressed here")
    width = [sum(_width(graph, layer) for layer in stage) for stage in stages]
    orders = [graph.operations(at) for at in range(len(stages) - 1)]
    six = len(stages) == 9
    pooled = 4  # conv5, which pools whether a sixth follows or not
    for at, order in enumerate(orders):
        plain = tuple(x for x in order if x != "dropout")
        if at == pooled and sorted(plain) == ["activation", "pool"]:
            continue
        if at > 1 and plain != ("activation",):
            raise graph.refuse(stages[at][0], f"is followed by {', '.join(order) or 'nothing'}")
    drop = graph.same(graph.passed("hs"), "keep")
    fields: dict[str, Any] = {
        "num_classes": width[-1],
        "towers": len(stages[0]),
        "conv_features": tuple(width[:5]),
        "conv6_features": width[5] if six else 0,
        "fc_features": tuple(width[-3:-1]),
        "exchange": tuple(name for at, name in enumerate(names) if at and graph.reads_all(at)),
        "activation": _activation(graph),
        "conv1_order": tuple(x for x in orders[0] if x != "dropout"),
        "conv2_order": tuple(x for x in orders[1] if x != "dropout"),
        "dropout_at": tuple(
            name for name, order in zip(names, orders, strict=False) if "dropout" in order
        ),
        "dropout_rate": 0.0 if drop is None else 1 - drop,
        **_pools(graph),
        **_norms(graph, trained),
    }
    if fields["towers"] == 1:
        del fields["exchange"]
    if not drop:
        del fields["dropout_at"]
    return fields if trained else fields | _initial(graph)


def _width(graph: Graph, layer: str) -> int:
    key = "filters" if graph.kind(layer) == "conv" else "outputs"
    return int(graph.number(layer, key))


def _activation(graph: Graph) -> str:
    if graph.detached:
        names = graph.passed("neuron")
        found = {str(dict(graph.layers[x]["neuron"])["type"]) for x in names}
    else:
        found = {
            str(neuron["type"] if isinstance(neuron, dict) else neuron)
            for layer in graph.layers.values()
            if (neuron := layer.get("neuron"))
        }
    known = {"relu": "relu", "logistic": "sigmoid", "tanh[1,1]": "tanh"}
    kinds = {known.get(kind.replace(" ", "")) for kind in found}
    if len(kinds) != 1 or None in kinds:
        raise ValueError(
            f"{graph.path}: neurons {', '.join(sorted(found)) or 'of no kind'}; one of "
            f"{', '.join(known)} for all is read here"
        )
    return str(kinds.pop())


def _pools(graph: Graph) -> dict[str, Any]:
    names = graph.passed("pool")
    for name in names:
        if graph.layers[name].get("pool") != "max":
            raise graph.refuse(name, f"pools by {graph.layers[name].get('pool')!r}, not by max")
        if graph.number(name, "start", 0):
            raise graph.refuse(name, "starts outside of the maps")
    window, stride = graph.same(names, "sizeX"), graph.same(names, "stride")
    return {} if window is None else {"pool_window": int(window), "pool_stride": int(stride or 1)}


def _norms(graph: Graph, trained: bool) -> dict[str, Any]:
    """The constants of section 3.3; a checkpoint has its scale divided by the size already."""
    names, within = graph.passed("cmrnorm"), graph.passed("rnorm")
    for name in within:
        area = graph.number(name, "size") ** 2
        strength = graph.number(name, "scale") * (area if trained else 1)
        if (area, round(strength, 9), graph.number(name, "pow")) != (25, 0.001, 0.75):
            raise graph.refuse(name, "has other constants than those of layers-145")
    if not names:
        return {} if within else {"lrn": False}
    size, scale = graph.same(names, "size"), graph.same(names, "scale")
    assert size is not None and scale is not None
    return {
        "lrn_size": int(size),
        "lrn_k": graph.same(names, "minDiv", 1.0),
        "lrn_alpha": round(scale * size, 12) if trained else scale,
        "lrn_beta": graph.same(names, "pow"),
    }


def _initial(graph: Graph) -> dict[str, Any]:
    """How weights and biases begin."""
    names = graph.names
    stddev = {
        name: graph.same(stage, "initW", 0.01)
        for name, stage in zip(names, graph.stages, strict=True)
    }
    known = [
        initialization
        for initialization, differing in INITIAL_STDDEV.items()
        if all(stddev[name] == differing.get(name, 0.01) for name in names)
    ]
    if not known:
        raise ValueError(f"{graph.path}: weights of the deviations {stddev}, as no net here begins")
    hidden = [
        layer
        for name, stage in zip(names, graph.stages, strict=True)
        for layer in stage
        if name not in _ZERO_BIAS
    ]
    for name, stage in zip(names, graph.stages, strict=True):
        if name in _ZERO_BIAS and graph.same(stage, "initB", 0):
            raise graph.refuse(stage[0], f"has biases that begin at another value than 0 ({name})")
    return {"initialization": known[0], "hidden_bias": graph.same(hidden, "initB", 0)}


def rates_of(graph: Graph) -> dict[str, Any]:
    """Fields of a recipe: the rates that most layers have, and factors of those that differ.

    The authors froze conv1 at the end, and their files hold the end.
    """
    layers = [name for stage in graph.stages for name in stage]
    rates = {
        name: (graph.same(stage, "epsW"), graph.same(stage, "epsB"))
        for name, stage in zip(graph.names, graph.stages, strict=True)
    }
    of_weights, of_biases = (
        statistics.mode(column) for column in zip(*rates.values(), strict=True)
    )
    if not (of_weights and of_biases):
        raise graph.refuse(layers[-1], "and most others have rates of 0, which train nothing")
    fields = {
        "learning_rate": of_weights,
        "bias_learning_rate": of_biases,
        "momentum": graph.same(layers, "momW"),
        "weight_decay": graph.same(layers, "wc", 0),
        "rate_multipliers": {
            name: {"kernel": weights / of_weights, "bias": biases / of_biases}
            for name, (weights, biases) in rates.items()
            if weights is not None and biases is not None
            if (weights, biases) != (of_weights, of_biases)
        },
    }
    if graph.same(layers, "momB") != fields["momentum"]:
        raise graph.refuse(layers[0], "has another momentum for its biases than for its weights")
    return fields
