"""The end of a run: its best checkpoint on the test split (sections 4.1, 6)."""

from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh

from alexnet_jax.augment import VIEWS
from alexnet_jax.eval_step import make_eval_step
from alexnet_jax.runs import meter
from alexnet_jax.runs.evaluation import evaluate
from alexnet_jax.runs.metrics_log import MetricsLog
from alexnet_jax.runs.recipe import Recipe
from alexnet_jax.runs.stop_signal import StopSignal
from alexnet_jax.runs.workdir import load_run


def final_test(
    recipe: Recipe,
    workdir: Path,
    mesh: Mesh,
    *,
    say: Callable[[str], None],
    stop: StopSignal,
    log: MetricsLog,
) -> dict[str, dict[str, float]]:
    """Evaluates the best checkpoint on the test split, logs it, and says where the run stands.

    Returns:
      Name in the log, such as "test" -> mean loss and errors; empty without a test split.

    Raises:
      SystemExit: stopped by a signal.
    """
    config = recipe.config
    run = load_run(workdir, mesh=mesh)
    if not (config.test_split and config.final_views):
        missing = "views of the test images" if config.test_split else "test split"
        say(
            f"Done: the best checkpoint is that of step {run.step:,}, in {workdir}; the "
            f"configuration names no {missing}"
        )
        return {}
    dataset = recipe.split("test")
    results: dict[str, dict[str, float]] = {}
    for name in config.final_views:
        views = VIEWS[name]
        eval_step = make_eval_step(run.model, run.augmentation, views=name, mesh=mesh)
        batch_size = config.eval_batch_size // views.count
        measured = evaluate(eval_step, run.state, dataset, batch_size, mesh, stop.agreed)
        if measured is None:
            say("Stopped during the final test; all training is saved, the same command tests.")
            raise SystemExit(stop.exit_status)
        epoch = run.step / recipe.epoch_steps
        rate = measured.images_per_second
        log.write(run.step, epoch, views.log_name, measured.means, None, images_per_second=rate)
        title = views.log_name.replace("_", " ")
        say(f"{title}, checkpoint {run.step:,}: {meter.describe(measured.means)}")
        results[views.log_name] = measured.means
    return results
