"""Training in bfloat16 ends where training in float32 does."""

import pytest

from alexnet_jax.configs import digits


@pytest.mark.slow  # four trainings of ten epochs
def test_ten_epochs_of_digits_in_bfloat16_end_within_the_seeds_of_float32():
    from experiments.fitting import fit

    def final_loss(precision, seed):
        config = digits.get_config()
        config.num_epochs = 10
        config.model.precision = precision
        config.seed = seed
        result, _ = fit(config)
        return result["epochs"][-1]["train"]["loss"]

    exact = [final_loss("float32", seed) for seed in range(4)]
    assert max(exact) < 2.2  # they learn: at chance it is 2.3
    for seed in range(2):
        assert min(exact) <= final_loss("bfloat16", seed) <= max(exact)
