"""Training in bfloat16 ends where training in float32 does."""

import pytest

from alexnet_jax.configs import digits


@pytest.mark.slow  # four trainings of ten epochs
def test_digits_in_bfloat16_end_within_the_spread_of_float32_seeds():
    from experiments.harness import fit

    def test_loss(precision, seed):
        config = digits.get_config()
        config.num_epochs = 15
        config.model.precision = precision
        config.seed = seed
        result, _ = fit(config)
        return result["test"]["center"], result["epochs"][-1]["train"]["loss"]

    exact = [test_loss("float32", seed) for seed in range(3)]
    rounded = [test_loss("bfloat16", seed) for seed in range(3)]
    errors = [error["top1_error"] for error, _ in exact]
    spread = max(errors) - min(errors) + 0.01  # a hundredth is two digits of the test split
    for error, loss in rounded:
        assert min(errors) - spread <= error["top1_error"] <= max(errors) + spread
        assert loss < 2 * max(of for _, of in exact) + 0.05
