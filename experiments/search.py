"""Optuna's choice of a sweep's settings: several processes on one study."""

import hashlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

from experiments.settings import Setting, identity, plain
from experiments.tables import row

WAIT_SECONDS = 5


class Trains(Protocol):
    """What is searched of a sweep: see `experiments.sweep.Sweep`."""

    base: ConfigDict

    def train(self, settings: Sequence[Setting]) -> list[dict | None]:
        """The results; None for what others are at."""
        ...


def search(
    sweep: Trains, space: Callable[[Any], Setting], trials: int, journal: Path
) -> list[Setting]:
    """Asks Optuna for settings until `trials` are finished, by all the processes on `journal`.

    Those of another `space` that the journal holds guide the search and are not counted.

    Raises:
      ValueError: a setting cannot be one, or a file is damaged.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Its lock is a link to the journal. By an absolute path: a link that leads nowhere, as a killed
    # process of an earlier version may have left one, is waited for without end.
    journal = journal.resolve()
    lock = journal.with_name(f"{journal.name}.lock")
    if lock.is_symlink() and not lock.exists():
        lock.unlink(missing_ok=True)
    try:
        backend = optuna.storages.journal.JournalFileBackend(str(journal))
        study = optuna.create_study(
            study_name=identity(sweep.base),
            storage=optuna.storages.JournalStorage(backend),
            direction="minimize",
            load_if_exists=True,
        )
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"{journal} is damaged ({error}); delete it to begin the search anew: runs that are "
            "finished are kept"
        ) from error
    failed = optuna.trial.TrialState.FAIL  # those that diverged; they are finished all the same
    complete = (optuna.trial.TrialState.COMPLETE, failed)
    text = _text_of(space)

    def finished() -> list[Any]:
        return [
            trial
            for trial in study.get_trials(deepcopy=False, states=complete)
            if trial.user_attrs.get("space", text) == text  # not in earlier versions
        ]

    if others := len(study.get_trials(deepcopy=False, states=complete)) - len(finished()):
        print(f"{others} trials in {journal} are of another space(trial) and are not counted")
    while len(finished()) < trials:
        trial = study.ask()
        trial.set_user_attr("space", text)
        found = space(trial)
        if not isinstance(found, Mapping):
            raise ValueError(
                f"space(trial) gave {found!r}; let it return a dictionary {{field: value}}"
            )
        setting = {field: plain(value) for field, value in found.items()}
        trial.set_user_attr("setting", setting)
        while (result := sweep.train([setting])[0]) is None:
            time.sleep(WAIT_SECONDS)  # another process is at the very same setting
        error = row(setting, result)["validation_error"]
        study.tell(trial, error, failed if error is None else None)
    return [trial.user_attrs["setting"] for trial in finished()]


def _text_of(function: Callable[..., Any]) -> str:
    """A digest of how a function is written; of one that is written nowhere nothing."""
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return ""
