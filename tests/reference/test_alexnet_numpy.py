"""The reference itself: finite differences, published fixtures, PyTorch."""

import numpy as np
import pytest

from tests.reference import alexnet_numpy as reference
from tests.reference.alexnet_numpy import PRESETS
from tests.reference.cases import NETS, problem, relative


@pytest.mark.parametrize("name", NETS)
def test_gradients_equal_finite_differences(name):
    net = NETS[name]
    params, images, labels, masks = problem(net)
    _, _, gradients = reference.loss_and_gradients(net, params, images, labels, masks)
    rng = np.random.default_rng(1)
    for layer, leaves in params.items():
        for leaf, value in leaves.items():
            direction = rng.normal(size=value.shape)
            direction /= np.linalg.norm(direction)
            difference = 0.0
            step = 1e-6
            for sign in (1, -1):
                leaves[leaf] = value + sign * step * direction
                logits, _ = reference.forward(net, params, images, masks)
                difference += sign * reference.negative_log_likelihood(logits, labels)[0]
            leaves[leaf] = value
            expected = difference / (2 * step)
            found = (gradients[layer][leaf] * direction).sum()
            scale = np.linalg.norm(gradients[layer][leaf])
            assert abs(found - expected) <= 1e-6 * scale + 1e-8, (layer, leaf)


CHANNELS = np.arange(100.0, 800.0, 100.0).reshape(1, 1, 1, 7)


@pytest.mark.parametrize(
    ("k", "alpha", "expected"),
    [
        (2, 1e-4, [12.5, 14.865089, 14.461559, 13.465396, 12.486180, 15.766808, 20.332207]),
        (2, 2e-5, [30.836784, 42.044821, 43.819129, 42.294851, 40.010272, 50.376104, 64.556445]),
        (1, 2e-5, [36.741959, 46.473616, 46.530243, 43.953634, 41.077261, 51.811395, 66.650308]),
    ],
)
def test_local_response_norm_equals_published_figures(k, alpha, expected):
    found, _ = reference.local_response_norm(CHANNELS, k, 5, alpha, 0.75)
    np.testing.assert_allclose(found.ravel(), expected, atol=5e-7)


@pytest.mark.parametrize(
    ("name", "parameters", "neurons", "macs"),
    [
        ("paper", 60_965_224, 659_272, 724_406_816),
        ("original", 60_965_224, 659_272, 724_406_816),
        ("caffe", 60_965_224, 659_272, 724_406_816),
        ("valid224", 49_430_888, 609_640, 643_026_048),
        ("one_gpu", 59_798_312, 355_864, 391_514_384),
        ("six_conv", 61_555_304, 668_488, 745_640_480),
    ],
)
def test_totals_equal_published_counts(name, parameters, neurons, macs):
    sizes = reference.sizes(PRESETS[name]).values()
    assert sum(s.parameters for s in sizes) == parameters
    assert sum(s.neurons for s in sizes) == neurons
    assert sum(s.macs for s in sizes) == macs


def torch_loss_and_gradients(net, params, images, labels, masks):
    """The same network through PyTorch's own operations and autodiff, float64."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional

    def tensor(array):
        return torch.tensor(np.asarray(array, np.float64))

    leaves = {
        name: {k: tensor(v).requires_grad_() for k, v in layer.items()}
        for name, layer in params.items()
    }
    act = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[net.activation]

    def norm(x):  # PyTorch divides alpha by n
        k, n, alpha, beta = net.lrn
        cut = x.chunk(1 if net.lrn_across_towers else net.towers, dim=1)
        return torch.cat([functional.local_response_norm(c, n, alpha * n, beta, k) for c in cut], 1)

    def map_norm(x):  # an average that counts the zeros outside divides by 25 everywhere
        mean = functional.avg_pool2d(x * x, 5, stride=1, padding=2, count_include_pad=True)
        return x / (1 + 0.001 * mean) ** 0.75

    x = tensor(images).permute(0, 3, 1, 2)
    for layer in reference.layers(net):
        kernel, bias = leaves[layer.name]["kernel"], leaves[layer.name]["bias"]
        if layer.taps:
            low, high = layer.pad
            x = functional.pad(x, (low, high, low, high))
            weight = kernel.permute(3, 2, 0, 1)
            x = functional.conv2d(x, weight, bias, layer.stride, groups=layer.groups)
        else:
            towers = x.chunk(layer.groups, dim=1)
            if x.ndim == 4:
                towers = [t.permute(0, 2, 3, 1).flatten(1) for t in towers]
            columns = kernel.chunk(layer.groups, dim=1)
            parts = [t @ c for t, c in zip(towers, columns, strict=True)]
            x = torch.cat(parts, 1) + bias
        for operation in layer.then:
            if operation == "act":
                x = act(x)
            elif operation == "pool":
                x = functional.max_pool2d(x, *net.pool)
            elif operation == "dropout":
                factor = net.keep if masks is None else tensor(masks[layer.name])
                x = x * factor / (net.keep if net.dropout == "inverted" else 1)
            elif net.lrn is not None:
                x = norm(x) if operation == "norm" else map_norm(x)
    loss = functional.cross_entropy(x, torch.tensor(labels))
    loss.backward()
    gradients = {
        name: {k: v.grad.numpy() for k, v in layer.items()} for name, layer in leaves.items()
    }
    return loss.item(), x.detach().numpy(), gradients


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("training", [False, True])
def test_network_equals_pytorch(name, training):
    net = NETS[name]
    params, images, labels, masks = problem(net)
    masks = masks if training else None
    loss, logits, gradients = reference.loss_and_gradients(net, params, images, labels, masks)
    expected = torch_loss_and_gradients(net, params, images, labels, masks)
    assert loss == pytest.approx(expected[0], rel=1e-12)
    assert relative(logits, expected[1]) < 1e-12
    for layer, leaves in gradients.items():
        for leaf, gradient in leaves.items():
            assert relative(gradient, expected[2][layer][leaf]) < 1e-11, (layer, leaf)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 9])
def test_local_response_norm_equals_pytorch_for_any_window(n):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(n).normal(0, 100, (2, 3, 3, 7))
    expected = torch.nn.functional.local_response_norm(
        torch.tensor(x).permute(0, 3, 1, 2), n, 1e-4 * n, 0.75, 2.0
    )
    found, _ = reference.local_response_norm(x, 2.0, n, 1e-4, 0.75)
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1).numpy(), rtol=1e-12)
