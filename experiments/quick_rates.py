"""A sweep as an example: learning rates and decays of the smallest CIFAR-10 net.

    python -m experiments.sweep --workdir=runs/quick_rates --config=experiments/quick_rates.py
    python -m experiments.sweep --workdir=runs/quick_search --config=experiments/quick_rates.py \
        --trials=24
"""

from alexnet_jax.configs import cifar10_quick


def get_config():
    """The authors' 19% net on a tenth of the images, for ten epochs."""
    config = cifar10_quick.get_config()
    config.train_split = "train[:10%]"
    config.num_epochs = 10
    config.schedule.drops = (0.85, 0.95)
    return config


def sweep():
    """Four rates, two decays, three seeds."""
    for rate in (0.0005, 0.001, 0.002, 0.004):
        for decay in (0.0, 0.004):
            for seed in range(3):
                yield {"learning_rate": rate, "weight_decay": decay, "seed": seed}


def space(trial):
    """What Optuna chooses from."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
    }
