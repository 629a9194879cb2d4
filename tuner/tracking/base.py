"""The contract between a search and whatever keeps a record of it.

A search calls a tracker from one thread, in this order: ``start`` once, ``log_trial`` once per finished trial (in trial
order), ``finish`` once, whatever happened in between; ``log_answer`` may follow. Only the process that runs the search
calls it; worker processes never do. A tracker owns no result: everything it is given is kept by the search and by
Optuna as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from tuner.answer import Answer
    from tuner.health.report import HealthReport
    from tuner.health.summary import HealthSummary

State = Literal["complete", "pruned", "failed"]


class TrackingWarning(UserWarning):
    """A record is incomplete because its store failed; the study and its results are not affected."""


@dataclass(frozen=True)
class StudyRecord:
    """What is known of a study before its first trial.

    Parameters
    ----------
    name : str
        The study's name.
    experiment : str
        The experiment to which the study belongs; studies of one experiment are compared with each other.
    params : mapping of str to object
        What was asked: the estimator, the space, cv, scoring, the number of trials, the seed.
    tags : mapping of str to str
        What it was run on: data fingerprint, versions, git commit.
    searched : sequence of str
        The estimator's own names of the hyperparameters that are searched, in the order of the space.
    objective : str
        The metric of a trial that the study maximises, for instance ``"mean_test_score"``.
    health : bool
        Whether trials say what their gradients were like.
    """

    name: str
    experiment: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    searched: Sequence[str]
    objective: str
    health: bool = False


@dataclass(frozen=True)
class TrialRecord:
    """What is known of a finished trial.

    Parameters
    ----------
    number : int
        Optuna's number of the trial.
    state : {"complete", "pruned", "failed"}
    reason : str or None
        Why a trial was pruned or failed.
    params : mapping of str to object
        Every hyperparameter under the estimator's own name, searched or not.
    metrics : mapping of str to float
        ``mean_test_score``, ``std_test_score``, ``split0_test_score``, ``mean_fit_time`` (seconds) and the like.
    series : mapping of str to sequence of float
        Per-epoch values, epoch 1 first: ``loss`` (the mean over folds), ``split0_loss`` (one fold), and so on.
    start_time, end_time : float
        Seconds since the epoch.
    health : HealthReport or None
        What the gradients said, if they were measured.
    """

    number: int
    state: State
    reason: str | None
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    series: Mapping[str, Sequence[float]]
    start_time: float
    end_time: float
    health: HealthReport | None = None


@dataclass(frozen=True)
class StudyResult:
    """What is known of a study after its last trial.

    Parameters
    ----------
    state : {"finished", "interrupted", "failed"}
    reason : str or None
        Why the study failed or was interrupted.
    best : TrialRecord or None
        The best complete trial, if there is one.
    trials : pandas.DataFrame
        One row per trial.
    figures : mapping of str to matplotlib.figure.Figure
        Figures by file name without its ending, for instance ``"optimization_history"``.
    model : object or None
        The refitted estimator.
    input_example : array-like or None
        The first rows of the training data, as they were given to ``fit``.
    health : HealthSummary or None
        Which trials were sick with what, if gradients were measured.
    """

    state: Literal["finished", "interrupted", "failed"]
    reason: str | None
    best: TrialRecord | None
    trials: DataFrame
    figures: Mapping[str, Figure] = field(default_factory=dict)
    model: Any = None
    input_example: Any = None
    health: HealthSummary | None = None


class Tracker(ABC):
    """Keeps a record of a study and its trials."""

    @abstractmethod
    def start(self, study: StudyRecord, resume: str | None = None) -> str | None:
        """Open the record of a study.

        Parameters
        ----------
        study : StudyRecord
        resume : str, optional
            What an earlier ``start`` of this study returned; its record is continued where it still exists.

        Returns
        -------
        str or None
            What to pass as `resume` another time; equal to `resume` exactly when the record is continued.

        Raises
        ------
        TrackingError
            If the store cannot be reached or written. Nothing has been trained yet.
        """

    @abstractmethod
    def log_trial(self, trial: TrialRecord) -> None:
        """Record a finished trial. Never raises: a store that fails in the middle is warned of once."""

    @abstractmethod
    def finish(self, result: StudyResult) -> None:
        """Record the end of the study and return when everything is written. Never raises, as `log_trial`."""

    @abstractmethod
    def log_answer(self, record: str, answer: Answer) -> None:
        """Add to the record of a finished study what it found. Never raises, as `log_trial`.

        Parameters
        ----------
        record : str
            What `start` of the study returned; it may have been another tracker's.
        answer : Answer
        """


class NullTracker(Tracker):
    """Keeps nothing."""

    def start(self, study: StudyRecord, resume: str | None = None) -> str | None:
        """Do nothing."""
        return None

    def log_trial(self, trial: TrialRecord) -> None:
        """Do nothing."""

    def finish(self, result: StudyResult) -> None:
        """Do nothing."""

    def log_answer(self, record: str, answer: Answer) -> None:
        """Do nothing."""


class MemoryTracker(Tracker):
    """Keeps the records in memory: `study`, `trials`, `result` and `answer`."""

    def __init__(self) -> None:
        self.study: StudyRecord | None = None
        self.trials: list[TrialRecord] = []
        self.result: StudyResult | None = None
        self.answer: Answer | None = None

    def start(self, study: StudyRecord, resume: str | None = None) -> str | None:
        """Keep the study; earlier trials are kept when the study of the same name goes on."""
        if resume != study.name:
            self.trials = []
        self.study, self.result, self.answer = study, None, None
        return study.name

    def log_trial(self, trial: TrialRecord) -> None:
        """Keep the trial."""
        self.trials.append(trial)

    def finish(self, result: StudyResult) -> None:
        """Keep the result."""
        self.result = result

    def log_answer(self, record: str, answer: Answer) -> None:
        """Keep the answer."""
        self.answer = answer
