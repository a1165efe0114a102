"""The sweep of a recipe file on a Ray cluster: as `experiments.sweep`, but Ray Tune hands out runs.

    pip install 'alexnet-jax[sweep]'
    python -m experiments.ray_tune --workdir=/shared/rates --config=experiments/quick_rates.py

Without a cluster it uses this machine, --runs_at_once at a time. The workdir is to be one that all
machines see; what is finished there is not trained again. Each worker keeps its compiled programs
from run to run. Then `experiments.sweep` with the same flags writes the table.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from alexnet_jax import main as training  # defines --config, --workdir and --data_dir
from experiments import harness
from experiments.sweep import Sweep, asked, checked, from_file, row

FLAGS = flags.FLAGS
flags.DEFINE_integer("runs_at_once", 1, "workers on this machine, where there is no cluster")
flags.DEFINE_float("cpus", 1.0, "processor cores that a run is given")
flags.DEFINE_float("gpus", 0.0, "GPUs that a run is given")


def trainable(base: ConfigDict, folder: Path, quick: bool) -> type:
    """The class of Ray Tune that trains one setting a step and is reused for the next."""
    from ray import tune

    class Runs(tune.Trainable):
        def setup(self, config: dict) -> None:
            self.sweep = Sweep(base, folder, quick=quick)  # the flags are not there
            self.setting = config["setting"]

        def reset_config(self, new_config: dict) -> bool:
            self.setting = new_config["setting"]
            return True

        def step(self) -> dict:
            (result,) = self.sweep.train([self.setting])
            found = row(self.setting, result) if result else {}
            known = {name: value for name, value in found.items() if value is not None}
            return {"validation_error": float("nan"), **known, "done": True}  # Ray wants a number

    return Runs


def main(_: Sequence[str]) -> None:
    """Hands every setting of the sweep to Ray."""
    base, folder = asked()
    folder = folder.resolve()
    settings = checked(from_file("sweep()", "give one")(), base)
    sweep = Sweep(base, folder)
    import ray
    from ray import tune

    if not ray.is_initialized():
        ray.init(num_cpus=max(1, round(FLAGS.cpus * FLAGS.runs_at_once)), log_to_driver=False)
    needs = {"cpu": FLAGS.cpus, "gpu": FLAGS.gpus}
    tuner = tune.Tuner(
        tune.with_resources(trainable(base, folder, harness.quick()), needs),
        param_space={"setting": tune.grid_search(settings)},
        tune_config=tune.TuneConfig(metric="validation_error", mode="min", reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(sweep.reports / "ray"),
            name="sweep",
            verbose=1,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    results = tuner.fit()
    if results.errors:
        raise ValueError(
            f"{len(results.errors)} of {len(settings)} runs failed: {results.errors[0]}"
        )
    finished = sum(sweep.result(setting) is not None for setting in settings)  # others train some
    print(f"{finished} of {len(settings)} runs are finished: {sweep.runs}")


if __name__ == "__main__":
    harness.run(main, rewrite=training.with_config_paths)
