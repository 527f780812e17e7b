"""The Optuna study of a sweep: its one state, in a database that Optuna's own tools read.

By default a SQLite file beside the sweep's results. SQLite cannot live in an object store, so there it is a local copy
that is put back after every change: the sweep resumes from its URI alone. Any other database is named by its URL.
"""

import json
import logging
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mama_ray.errors import UserError
from mama_ray.masking import mask_secrets
from mama_ray.orchestration.sweep.space import describe_space
from mama_ray.orchestration.sweep.study_file import require_study_file, study_errors
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import is_plain_name
from mama_ray.training.manifest import list_checkpoints

logger = logging.getLogger(__name__)

FILE_NAME = "study.db"
RUN_ATTRIBUTE = "run"  # a trial's run, which it keeps when it is started again
_DEFINITION = "mama_ray_definition"
_QUEUED_POINT = "fixed_params"  # Optuna's name for what enqueue_trial was given
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class StudyStore:
    """The database of a sweep's study; a context manager, because a copy of a remote one is temporary."""

    def __init__(self, url: str | None, name: str, run_folder: Place) -> None:
        """Open the database at `url`, or the file in the sweep's folder; UserError where there is none to be had."""
        self.name = name
        self._target = run_folder / FILE_NAME
        self._scratch: tempfile.TemporaryDirectory | None = None
        self._copy: Path | None = None
        if url is None and run_folder.is_local:
            url = f"sqlite:///{self._target.path}"
        elif url is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="mama_ray-study-")
            self._copy = Path(self._scratch.name, FILE_NAME)
            if self._target.is_file():
                self._copy.write_bytes(self._target.read_bytes())
            url = f"sqlite:///{self._copy}"
        self._shown = str(mask_secrets(url if self._copy is None else self._target.uri))
        if (file := _sqlite_file(url)) is not None:
            require_study_file(file, self._shown)
        self.storage = _open_storage(url)

    def __enter__(self) -> "StudyStore":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()

    def open_study(
        self,
        distributions: Mapping[str, BaseDistribution],
        objectives: Mapping[str, str],
        *,
        first_points: Sequence[Mapping[str, Any]],
        definition: str = "",
    ) -> optuna.Study:
        """Create the study with its first points queued, or load it; UserError if it is that of another search.

        objectives: metric -> max or min. definition: what else must be equal for trials to be compared.
        """
        study = self.find_study(distributions, objectives, definition=definition)
        if study is None:
            directions = [
                StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE for mode in objectives.values()
            ]
            if self.name in optuna.get_all_study_names(self.storage):  # of a start that came to nothing
                optuna.delete_study(study_name=self.name, storage=self.storage)
            study = optuna.create_study(storage=self.storage, study_name=self.name, directions=directions)
            for point in first_points:
                study.enqueue_trial(dict(point))
            ours = _define(distributions, objectives, definition)
            study.set_user_attr(_DEFINITION, ours)  # last: with it the queue is known to be whole
        self.publish()
        return study

    def find_study(
        self, distributions: Mapping[str, BaseDistribution], objectives: Mapping[str, str], *, definition: str = ""
    ) -> optuna.Study | None:
        """Load the study of this search; None where there is none, or one of a start that came to nothing.

        Raises UserError for that of another search once one of its trials has learned something, and for a database
        that is damaged.
        """
        with study_errors(self._shown):
            if self.name not in optuna.get_all_study_names(self.storage):
                return None
            study = optuna.load_study(study_name=self.name, storage=self.storage)
            self._require_usual(study)
            return self._of_this_search(study, distributions, objectives, definition)

    def _require_usual(self, study: optuna.Study) -> None:
        """Read all trials, and raise UserError for names of runs that are not ours to follow."""
        for trial in study.get_trials(deepcopy=False):
            name = run_of(trial)
            if not isinstance(name, str) or "/" in name or not is_plain_name(name):
                raise UserError("a trial of the study names an odd run", got=repr(name), wanted="a plain name")

    def _of_this_search(
        self,
        study: optuna.Study,
        distributions: Mapping[str, BaseDistribution],
        objectives: Mapping[str, str],
        definition: str,
    ) -> optuna.Study | None:
        ours, theirs = _define(distributions, objectives, definition), study.user_attrs.get(_DEFINITION)
        if theirs == ours:
            return study
        if not self._binds(study):
            return None
        if theirs is None:
            raise UserError(f"study {self.name} was not made by this job", remedy="give --run another name")
        raise UserError(
            f"study {self.name} exists with another search",
            got=_difference(ours, theirs),
            wanted=_difference(theirs, ours),
            remedy="start it with its own config to go on, or give --run another name",
        )

    def _binds(self, study: optuna.Study) -> bool:
        """Tell whether a study holds what a trial has learned, or may be learning now, in it or as a checkpoint."""
        return any(
            trial.state in (*_FINISHED, TrialState.RUNNING)
            or trial.intermediate_values
            or list_checkpoints(self._target.parent / f"trials/{run_of(trial)}")
            for trial in study.get_trials(deepcopy=False)
        )

    def publish(self) -> None:
        """Put the copy of a remote database where it belongs."""
        if self._copy is None:
            return
        whole = self._copy.with_name("snapshot.db")
        with sqlite3.connect(self._copy) as source, sqlite3.connect(whole) as target:
            source.backup(target)
        try:
            self._target.write_whole(whole.read_bytes())
        except OSError as error:  # the next change brings it along
            logger.warning("could not put the study into the storage: %s", error)


def requeue_unfinished(study: optuna.Study) -> int:
    """Queue again every trial that an earlier start left running or that failed; returns how many.

    A killed driver leaves its trials RUNNING in the study for ever. They are told failed, and their points are queued
    with the names of their runs, so that each goes on from its own checkpoint.
    """
    trials = study.get_trials(deepcopy=False)
    taken = {run_of(trial) for trial in trials if trial.state in (*_FINISHED, TrialState.WAITING)}
    unfinished: dict[str, dict[str, Any]] = {}
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        # One that was killed while it was being made has some of what it was queued with, or nothing to do again.
        point = trial.params | trial.system_attrs.get(_QUEUED_POINT, {})
        if trial.state in (TrialState.RUNNING, TrialState.FAIL) and point and run_of(trial) not in taken:
            unfinished[run_of(trial)] = point
    for run, point in unfinished.items():
        study.enqueue_trial(point, user_attrs={RUN_ATTRIBUTE: run})
    return len(unfinished)


def run_of(trial: FrozenTrial | optuna.Trial) -> str:
    """Return the name of a trial's run: its own, or that of the trial whose point it takes up again."""
    return trial.user_attrs.get(RUN_ATTRIBUTE) or f"trial-{trial.number:04d}"


def num_finished(study: optuna.Study) -> int:
    """Return how many trials came to a result, pruned ones included."""
    return len(study.get_trials(deepcopy=False, states=_FINISHED))


def latest_by_run(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials, of those that one run had the last, in the order in which the runs began."""
    runs: dict[str, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        run = trial.user_attrs.get(RUN_ATTRIBUTE)
        if run is not None:
            runs[run] = trial
    return list(runs.values())


def curves_by_run(study: optuna.Study) -> dict[str, dict[int, float]]:
    """Return the values of every run by step, of all the trials that it had."""
    curves: dict[str, dict[int, float]] = {}
    for trial in study.get_trials(deepcopy=False):
        curves.setdefault(run_of(trial), {}).update(trial.intermediate_values)
    return curves


def _define(distributions: Mapping[str, BaseDistribution], objectives: Mapping[str, str], definition: str) -> str:
    return json.dumps([describe_space(distributions), dict(objectives), definition])


def _sqlite_file(url: str) -> str | None:
    """Return the file of a SQLite URL, whichever driver it names; None for other databases and one in memory."""
    try:
        parts = make_url(url)
    except SQLAlchemyError:  # told when it is opened
        return None
    if parts.get_backend_name() != "sqlite" or parts.database in (None, "", ":memory:"):
        return None
    if "uri" in parts.query:
        raise UserError("study database", got=mask_secrets(url), wanted="sqlite:///PATH", remedy="leave uri=... out")
    return parts.database


def _open_storage(url: str) -> optuna.storages.RDBStorage:
    # A word for every table and trial is too much; warnings stay.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    wanted = "a database URL such as sqlite:////path/study.db or postgresql://host/database"
    try:
        return optuna.storages.RDBStorage(url)
    except ImportError as error:
        remedy = "install the driver of that database"
        raise UserError("study database", got=mask_secrets(url), wanted=wanted, remedy=remedy) from error
    except (SQLAlchemyError, StorageInternalError, ValueError, RuntimeError, AssertionError) as error:
        reason = str(mask_secrets((str(error).splitlines() or [type(error).__name__])[0]))
        raise UserError(
            "study database cannot be opened", got=mask_secrets(url), wanted=wanted, remedy=reason
        ) from None


def _difference(ours: str, theirs: str) -> str:
    """Return what of one definition is not in the other, as short as it can be said."""
    mine, other = json.loads(ours), json.loads(theirs)
    parts = []
    for name, one, two in zip(("search_space", "objectives", "config"), mine, other, strict=True):
        if one != two:
            parts.append(f"{name} {_changed_keys(one, two)}")
    return "; ".join(parts)


def _changed_keys(one: Any, two: Any) -> str:
    one, two = (json.loads(value) if isinstance(value, str) and value else value or {} for value in (one, two))
    return ", ".join(f"{key} = {one[key]}" for key in one if key not in two or one[key] != two[key]) or "without it"
