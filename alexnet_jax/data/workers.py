"""Who writes the shards: processes of this machine, or Apache Beam's workers (section 2)."""

import functools
import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

from tensorflow_datasets.core.utils.lazy_imports_utils import apache_beam as beam
from tqdm import tqdm

from alexnet_jax.data.archives import PrepareError
from alexnet_jax.data.images import ImageError
from alexnet_jax.data.writing import ShardTask, WriteShard


class _Shared(NamedTuple):
    """What the processes on one machine share."""

    next_task: Any  # Value: the first task that nobody took
    written: Any  # RawArray: images that each worker wrote
    stop: Any  # Event
    errors: Any  # SimpleQueue


def write_with_processes(
    write: WriteShard, tasks: list[ShardTask], bar: tqdm, workers: int
) -> None:
    """Writes `tasks` with `workers` processes of this machine, one shard at a time each.

    Raises the first error, once the other workers have dropped the shards under way.
    """
    if not workers:
        for task in tasks:
            write(task, bar.update)
        return
    context = multiprocessing.get_context("spawn")
    shared = _Shared(
        context.Value("q", 0),
        context.RawArray("q", workers),
        context.Event(),
        context.SimpleQueue(),
    )
    already = bar.n
    processes = [
        context.Process(target=_work, args=(worker, write, tasks, shared), daemon=True)
        for worker in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        running = processes
        while running:
            connection.wait([process.sentinel for process in running], 0.5)
            running = [process for process in running if process.exitcode is None]
            bar.update(already + sum(shared.written) - bar.n)
            if not shared.errors.empty():
                raise shared.errors.get()
            codes = [process.exitcode or 0 for process in processes]
            if max(codes) > 0:  # Python could not even begin
                raise PrepareError(
                    "a worker process could not start, for the reason above; a script that "
                    'prepares needs `if __name__ == "__main__":`'
                )
            if any(codes):
                raise PrepareError(
                    "a worker process was killed (out of memory?); start the same command again "
                    "with a smaller --num_workers: the shards already written are kept"
                )
    finally:
        shared.stop.set()
        for process in processes:
            if process.pid:
                process.join()


def _work(worker: int, write: WriteShard, tasks: list[ShardTask], shared: _Shared) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    def advance(images: int) -> None:
        shared.written[worker] += images
        if shared.stop.is_set():
            raise InterruptedError("stopped")

    while not shared.stop.is_set():
        with shared.next_task.get_lock():
            number = shared.next_task.value
            shared.next_task.value += 1
        if number >= len(tasks):
            break
        try:
            write(tasks[number], advance)
        except InterruptedError:
            break
        except Exception as error:
            if not shared.stop.is_set():  # the first error is enough, and the queue holds few
                shared.stop.set()
                known = isinstance(error, ImageError | PrepareError | OSError)
                shared.errors.put(error if known else RuntimeError(traceback.format_exc()))


def _exit_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def beam_options(values: Sequence[str]) -> Any:
    """Beam's pipeline options of `name=value` each; its workers log warnings only.

    Raises:
      PrepareError: one is not of that form, or Beam is not installed.
    """
    if wrong := [option for option in values if "=" not in option]:
        raise PrepareError(f"--beam_options has {wrong[0]}; write name=value,name=value")
    try:
        pipeline_options = beam.options.pipeline_options.PipelineOptions
    except ImportError as error:
        raise PrepareError(
            f"--beam_runner needs Apache Beam ({error}); pip install 'alexnet-jax[prepare]' in an "
            "environment of its own"
        ) from error
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    return pipeline_options.from_dictionary(
        {"default_sdk_harness_log_level": "WARNING"}
        | dict(option.split("=", 1) for option in values)
    )


def write_with_beam(write: WriteShard, tasks: list[ShardTask], runner: Any, options: Any) -> None:
    """Writes `tasks` on Apache Beam; every worker must see the folders of the images and the set.

    Raises PrepareError with the first failure once every other shard is written.
    """
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        shards = pipeline | beam.Create(tasks) | beam.Reshuffle()
        shards | beam.Map(functools.partial(_attempt, write))
    failures = [Path(f"{task.path}.failure") for task in tasks]
    failures = [path for path in failures if path.exists()]
    messages = [path.read_text() for path in failures]
    for path in failures:
        path.unlink()
    if messages:
        raise PrepareError(messages[0])


def _attempt(write: WriteShard, task: ShardTask) -> None:
    """Beam would bury the message under its own, and try again: leave it in a file."""
    failure = Path(f"{task.path}.failure")
    failure.unlink(missing_ok=True)  # of an attempt before
    try:
        write(task)
    except (ImageError, PrepareError) as error:
        failure.write_text(str(error))
