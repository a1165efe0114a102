"""Every field of a run with the paper's value; the other recipes change what differs.

Two values are the authors' code's: the colour shift and the epochs at which the rate drops.
"""

from collections.abc import Iterable

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from alexnet_jax.models.alexnet import LAYER_NAMES
from alexnet_jax.models.presets import network_fields
from alexnet_jax.schedules import PAPER_DROPS


def get_config() -> ConfigDict:
    """The paper's recipe, without a data set."""
    config = ConfigDict()
    config.seed = 0

    # The network: a preset and what differs from it (None keeps the preset's).
    config.preset = "paper"
    config.model = model_fields(config.preset)

    # Another run's workdir, or an .npz file of weights: layers whose shapes agree are taken.
    config.init_from = placeholder(str)
    config.ensemble = 1  # networks, of the seeds seed, seed + 1, …; several go to WORKDIR/seed_*

    # The data: any prepared tfds set by name, images stored with this side in pixels.
    config.dataset = ""
    config.data_dir = placeholder(str)
    config.train_split = "train"
    config.validation_split = "validation"  # what the schedule and the best checkpoint see
    config.test_split = placeholder(str)  # evaluated once, at the end
    config.stored_size = 256
    config.cache = "none"  # or "host", "device": keep the decoded images there
    # With cache="device", updates made in one compiled call. Pays where a step is short against
    # its launch: digits on an H200 1.9 times as fast, on CPU 11 times slower
    # (experiments/speed/steps_per_call.py).
    config.steps_per_call = 1
    # Processes that read and decode; 0: threads of this one, which were faster on two cores (raw
    # 7,501 against 4,901 images/s, JPEG 4,166 against 2,973: experiments/speed/reading.py).
    config.read_workers = 0
    config.verify_data = False  # compare every shard with its digest first
    config.augment = "device"  # or "host": the paper's way, on the CPU while the GPU trains

    # Section 4.1. The constants are the training split's own, or ImageNet's.
    config.augmentation = ConfigDict(
        {
            "crop": "random",  # or "center", "ten": one of the ten test views
            "flip": True,
            "color": "std",  # or "eigenvalue" as printed, "none"
            "mean_at": "crop",  # or "center", as the authors' code
            "scale": 1.0,
            "scale_with_color": False,
            "statistics": "dataset",  # or "imagenet"
        }
    )

    # Section 5.
    config.batch_size = 128
    config.num_epochs = 90.0
    config.learning_rate = 0.01
    config.bias_learning_rate = placeholder(float)  # a rate of their own that never drops
    config.momentum = 0.9
    config.weight_decay = 5e-4
    config.color_strength = 0.1
    # Layer -> factor on its rate or decay, or {"kernel": factor, "bias": factor}; None is 1.
    config.rate_multipliers = multipliers(LAYER_NAMES)
    config.decay_multipliers = multipliers(LAYER_NAMES)
    # ((epoch, {field of Hyperparameters: value}), …); layers named here obey it from epoch 0 on.
    config.hand_changes = ()
    config.schedule = ConfigDict(
        {
            "name": "drops",  # or "plateau", "constant", "dexp": the authors' later runs'
            "drops": PAPER_DROPS,  # epochs, or shares of the run below 1
            "factor": 10.0,
            "patience": 5,
            "min_delta": 0.0,
            "max_drops": 3,
            "stop": True,
            "warmup_epochs": 0.0,
        }
    )

    # The machine: the towers over `model` devices, the batch over `data` (None: all there are).
    config.mesh = ConfigDict({"data": placeholder(int), "model": 1})

    config.eval_batch_size = 256
    config.validate_every_epochs = 1.0
    config.best_metric = "top1_error"  # of the validation, or "top5_error", "loss"
    config.log_every_steps = 100
    config.watch_every_steps = 0  # updates between looks at every layer's health; 0: none
    config.checkpoint_every_steps = placeholder(int)  # besides after each validation
    config.keep_every_epochs = placeholder(float)  # checkpoints that stay: the explorer's film
    config.final_views = ("center", "ten")
    return config


def model_fields(preset: str) -> ConfigDict:
    """The fields of a preset's net that a user can set, all None: as the preset has them."""
    fields = network_fields(preset).items()
    return ConfigDict(
        {name: placeholder(type(value)) for name, value in fields if name != "num_classes"}
    )


def multipliers(layers: Iterable[str]) -> ConfigDict:
    """A factor for each layer, all None."""
    return ConfigDict({layer: placeholder(object) for layer in layers})
