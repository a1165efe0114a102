"""What a configuration means: its data, network, augmentation, schedule and hyper-parameters."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import schedules
from alexnet_jax.augment import Augmentation
from alexnet_jax.data.batches import steps_per_epoch
from alexnet_jax.data.cache import cached
from alexnet_jax.data.sets import Dataset, open_dataset
from alexnet_jax.data.statistics import load_statistics
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.models.presets import network
from alexnet_jax.state import Hyperparameters, run_key

# Fields of `Augmentation` that are arrays, and kept as such in a checkpoint.
CONSTANTS = ("mean", "deviations", "eigenvectors")


class Recipe:
    """A configuration unpacked. Each part is made when it is first asked for, and only once.

    Raises:
      ValueError: at the part that cannot be made, naming the field or the data set.
    """

    def __init__(self, config: ConfigDict):
        """`config` is one of `configs`, with whatever fields its user changed."""
        self.config = config

    def split(self, name: str, labels: bool = True) -> Dataset:
        """The "train", "validation" or "test" split, on disk; `labels` as for `open_dataset`."""
        config = self.config
        return open_dataset(
            config.dataset,
            config[f"{name}_split"],
            data_dir=config.data_dir,
            stored_size=config.stored_size,
            verify=config.verify_data,
            labels=labels,
            flag=f"--config.{name}_split",
        )

    @cached_property
    def training(self) -> Dataset:
        """The training split, on disk."""
        return self.split("train")

    @cached_property
    def validation(self) -> Dataset:
        """The validation split, in the host's memory unless nothing is to be kept there."""
        where = "none" if self.config.cache == "none" else "host"
        return cached(self.split("validation"), where)

    @cached_property
    def digests(self) -> dict[str, str]:
        """By which the images that are trained and validated on are told from others."""
        return {"train": self.training.digest(), "validation": self.validation.digest()}

    def cached_training(self, mesh: Mesh | None = None) -> Dataset:
        """The training split where `config.cache` has it: on disk, host or the mesh's devices."""
        return cached(self.training, self.config.cache, mesh=mesh)

    @cached_property
    def model(self) -> LayeredNetwork:
        """The network, for the classes of the training split."""
        return build_model(self.config, self.training.num_classes)

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        """Mean image, deviations and eigenvectors: the training split's own, or ImageNet's."""
        statistics = self.config.augmentation.statistics
        if statistics == "imagenet":
            default = Augmentation()
            return {name: getattr(default, name) for name in CONSTANTS}
        if statistics != "dataset":
            raise ValueError(f"augmentation.statistics={statistics!r}; use 'dataset' or 'imagenet'")
        return load_statistics(self.training)._asdict()

    @cached_property
    def augmentation(self) -> Augmentation:
        """What is done to the images, with the constants of the data."""
        return build_augmentation(self.config.augmentation, self.constants)

    @property
    def key(self) -> jax.Array:
        """The PRNG key of the run."""
        return run_key(self.config.seed)

    @cached_property
    def epoch_steps(self) -> int:
        """Updates in a pass over the training split."""
        return steps_per_epoch(self.training, self.config.batch_size)

    @property
    def num_steps(self) -> int:
        """Updates in the whole run."""
        return round(self.config.num_epochs * self.epoch_steps)

    @property
    def validate_every(self) -> int:
        """Updates between validations."""
        return max(1, round(self.config.validate_every_epochs * self.epoch_steps))

    @property
    def keep_every(self) -> int | None:
        """Updates between checkpoints that stay, the first before any update; None: none does."""
        epochs = self.config.get("keep_every_epochs")  # not in earlier versions
        return max(1, round(epochs * self.epoch_steps)) if epochs else None

    @cached_property
    def schedule(self) -> schedules.Schedule:
        """The learning rate by step."""
        return schedules.make_schedule(
            **self.config.schedule,
            learning_rate=self.config.learning_rate,
            num_epochs=self.config.num_epochs,
            steps_per_epoch=self.epoch_steps,
        )

    def hyperparameters(
        self, step: int, schedule: schedules.State | None = None
    ) -> Hyperparameters:
        """Those of update `step`: the configuration's fields, the schedule, changes by hand.

        Args:
          step: 0 is the first.
          schedule: the schedule's state; None is that of the beginning.
        """
        state = self.schedule.initial_state() if schedule is None else schedule
        epoch = step / self.epoch_steps
        changed = max((since for since, _ in self.config.hand_changes if since <= epoch), default=0)
        return self._hyperparameters(self.schedule.learning_rate(step, state), changed)

    @cached_property
    def _hyperparameters(self) -> Callable[[float, float], Hyperparameters]:
        # Kept while neither changes: making the arrays takes milliseconds, which small nets feel.
        return lru_cache(maxsize=1)(self._make_hyperparameters)

    def _make_hyperparameters(self, rate: float, epoch: float) -> Hyperparameters:
        config = self.config
        fields = {
            field.name: _given(config.get(field.name, field.default))
            for field in dataclasses.fields(Hyperparameters)
        }
        multipliers = ("rate_multipliers", "decay_multipliers")
        changes = schedules.hyperparameters_at(
            epoch,
            ((0, {name: fields.pop(name) for name in multipliers}), *config.hand_changes),
            layers=[layer.name for layer in self.model.layers],
            learning_rate=rate,
            bias_learning_rate=config.bias_learning_rate,
        )
        return Hyperparameters(**{**fields, "learning_rate": rate, **changes})

    def learning_rate(self, step: int, schedule: schedules.State) -> float:
        """That of update `step`: the schedule's, or a change by hand."""
        return self._by_hand(step, "learning_rate", self.schedule.learning_rate(step, schedule))

    def color_strength(self, step: int) -> float:
        """That of update `step`, for images augmented on the host."""
        return self._by_hand(step, "color_strength", self.config.color_strength)

    def _by_hand(self, step: int, field: str, otherwise: float) -> float:
        epoch = step / self.epoch_steps
        return schedules.hyperparameters_at(epoch, self.config.hand_changes).get(field, otherwise)


def build_model(config: ConfigDict, num_classes: int) -> LayeredNetwork:
    """The network of `config.preset` and `config.model`. Raises ValueError as `network` does."""
    overrides = {name: value for name, value in config.model.items() if value is not None}
    return network(config.preset, num_classes=num_classes, **overrides)


def build_augmentation(
    settings: Mapping[str, Any], constants: Mapping[str, np.ndarray]
) -> Augmentation:
    """The settings of `config.augmentation` with the constants of the data."""
    fields: dict[str, Any] = {k: v for k, v in settings.items() if k != "statistics"}
    fields |= {name: np.asarray(constants[name]) for name in CONSTANTS}
    return Augmentation(**fields)


def split_augmentation(
    augmentation: Augmentation,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Settings (JSON) and constants, as a checkpoint holds them; see `build_augmentation`."""
    fields = dataclasses.asdict(augmentation)
    constants = {name: np.asarray(fields.pop(name)) for name in CONSTANTS}
    return fields, constants


def _given(value: Any) -> Any:
    """A plain value as it is; of a group of optional fields those that are set, or None."""
    if not isinstance(value, ConfigDict):
        return value
    return {name: entry for name, entry in value.to_dict().items() if entry is not None} or None
