"""Trials over the folds: estimators with their parameters set go in, scores and their history come out.

The same function runs in the process of the search and in its workers; it knows nothing of Optuna. There are three
ways, tried in this order:

- **lanes**: the last step is one of our Keras estimators, with the library's own ``fit``. Preprocessing is fitted fold
  by fold, then the networks of all folds train together, epoch by epoch, and with them those of other trials where
  the engine finds that worth it.
- **partial_fit**: pruning is on and the estimator has ``partial_fit``. The folds advance together, step by step.
- **fit**: anything else, one fold after the other.
"""

from __future__ import annotations

import inspect
import math
import pickle
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from numbers import Number
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import cloudpickle
import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.base import clone, is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params, _num_samples

from tuner.errors import NonFiniteLossError, SearchError
from tuner.hyperparameters import HYPERPARAMETERS
from tuner.spaces import describe

if TYPE_CHECKING:
    from tuner.engine.base import History, Predict, TrainedLane
    from tuner.health.measurements import Measurements
    from tuner.health.report import HealthReport
    from tuner.tracking.base import State

#: After how many epochs a trial may still be pruned for its gradients. What is fatal shows at once, and a network that
#: has learned for so long is left to its score.
SICK_EPOCHS = 3


class Judge(Protocol):
    """Hears the score of every step and decides whether a trial goes on."""

    def report(self, step: int, score: float) -> bool:
        """Take the score reached at a step, counted from 0; return whether to prune the trial."""

    def notes(self) -> Any:
        """Return what is to be kept with the trial."""

    def restart(self) -> None:
        """Forget what was reported: the trial begins anew."""


@dataclass(frozen=True)
class Job:
    """All that the evaluation of a trial needs.

    Parameters
    ----------
    estimator : estimator
        With the trial's parameters set; it is cloned for every fold.
    X, y : the data of the search
    splits : sequence of (train indices, test indices)
    scorer : callable
        A scikit-learn scorer; gives a number, or a dict of them.
    metric : str
        The score that counts: a key of what the scorer gives, or ``"score"`` for a single number. A scorer that gives
        other keys only is judged by its first.
    fit_params, score_params : mapping
        Keyword arguments of ``fit`` and of the scorer; arrays with one entry per sample are split with the data.
    return_train_score : bool
    max_iter : int
        The number of ``partial_fit`` steps.
    judge : Judge, optional
        Present when unpromising trials are to be pruned.
    prune_sick : bool
        Whether to prune a trial whose gradients rule out, in one of the first `SICK_EPOCHS` epochs, that it learns.
    deadline : float
        Seconds since the epoch after which the trial is not started.
    choices : collection of tuple
        The lists from which the search chooses values, whatever for.
    """

    estimator: Any
    X: Any
    y: Any
    splits: Sequence[tuple[np.ndarray, np.ndarray]]
    scorer: Callable[..., Any]
    metric: str
    fit_params: Mapping[str, Any] = field(default_factory=dict)
    score_params: Mapping[str, Any] = field(default_factory=dict)
    return_train_score: bool = False
    max_iter: int = 1000
    judge: Judge | None = None
    prune_sick: bool = False
    deadline: float = math.inf
    choices: Collection[tuple[Any, ...]] = ()


@dataclass
class Outcome:
    """What the evaluation of a trial gave.

    Parameters
    ----------
    state : {"complete", "pruned", "failed"}
    reason : str or None
        Why the trial was pruned or failed.
    test_scores, train_scores : list of dict of str to float
        The scores of each fold by metric; empty when the trial failed or was pruned before it was scored,
        `train_scores` also when not asked for.
    fit_times, score_times : list of float
        Seconds for each fold.
    series : dict of str to list of float
        Per-epoch values: ``loss`` is the mean over folds, where a fold that stopped keeps its last value, and
        ``split0_loss`` one fold.
    health : HealthReport or None
        What the folds' gradients say; None where they were not measured.
    start_time, end_time : float
        Seconds since the epoch.
    notes : object
        What the judge noted.
    error : Exception or None
        What made the trial fail.
    """

    state: State = "complete"
    reason: str | None = None
    test_scores: list[dict[str, float]] = field(default_factory=list)
    train_scores: list[dict[str, float]] = field(default_factory=list)
    fit_times: list[float] = field(default_factory=list)
    score_times: list[float] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)
    health: HealthReport | None = None
    start_time: float = 0.0
    end_time: float = 0.0
    notes: Any = None
    error: Exception | None = None


Outcomes: TypeAlias = Generator[Outcome | None, None, None]


class _Pruned(Exception):
    """Ends a trial that its judge gave up."""


def evaluate(jobs: Iterable[Job]) -> Outcomes:
    """Train and score the estimator of every job on every fold.

    Trials whose networks are worth training together are; whatever happens to one of them does not touch the others.

    Yields
    ------
    Outcome or None
        In the order of the jobs; None when the deadline had passed and the trial was not started.
    """
    trials = deque(_Trial(job) for job in jobs)
    while trials:
        trial = trials.popleft()
        if not trial.finished:
            if time.time() >= trial.job.deadline:
                yield None
                continue
            if not trial.lanes:  # else it was prepared as a companion, which it could not be
                trial.begin()
            if trial.lanes:
                _train([trial, *_companions(trial, trials)])
        yield trial.outcome


@contextmanager
def evaluating(n_jobs: int, with_keras: bool) -> Iterator[Callable[[Iterable[Job]], Outcomes]]:
    """Give a function that evaluates jobs, `n_jobs` at a time, and gives their outcomes in order.

    Parameters
    ----------
    n_jobs : int
        More than 1 runs them in worker processes, which share the cores. A job whose worker dies has failed.
    with_keras : bool
        Whether the jobs train Keras estimators.
    """
    if n_jobs == 1:
        yield evaluate
        return
    threads = max(1, joblib.cpu_count() // n_jobs)
    settings = {"inner_max_num_threads": threads, "initializer": _limit_threads, "initargs": (threads, with_keras)}
    with (
        joblib.parallel_config("loky", **settings),  # loky starts fresh processes: a forked TensorFlow hangs
        Parallel(n_jobs=n_jobs, return_as="generator", batch_size=1) as parallel,
    ):

        def together(shares: Iterable[Sequence[Job]]) -> Generator[list[Outcome | None], None, None]:
            outcomes = parallel(delayed(_evaluate_in_worker)(share) for share in shares)
            try:
                for outcome in outcomes:  # noqa: UP028  ("yield from" would close them outside the filter below)
                    yield outcome
            finally:
                with warnings.catch_warnings():  # joblib pities the jobs that a stopped search does not need any more
                    warnings.filterwarnings("ignore", "[0-9]+ tasks", UserWarning)
                    outcomes.close()

        def in_workers(jobs: Iterable[Job]) -> Outcomes:
            jobs = list(jobs)
            # Networks may be worth training together: every worker gets its share of them at once.
            size = math.ceil(len(jobs) / n_jobs) if is_lane_estimator(last_step(jobs[0].estimator)) else 1
            waiting = deque(jobs[i : i + size] for i in range(0, len(jobs), size))
            try:
                for outcomes in together(tuple(waiting)):
                    waiting.popleft()
                    yield from outcomes
            except TerminatedWorkerError:
                # All jobs in flight are lost with the pool, which joblib starts again. Which of them killed its worker
                # only shows when they run alone.
                for job in (job for share in waiting for job in share):
                    start = time.time()
                    try:
                        [[outcome]] = together([[job]])
                    except TerminatedWorkerError:
                        outcome = _died(start)
                    yield outcome

        yield in_workers


def _limit_threads(threads: int, with_keras: bool) -> None:
    """Give a fresh worker its share of the cores; TensorFlow only listens before it is first used."""
    if with_keras:
        from tuner.backend import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def _died(start: float) -> Outcome:
    reason = "the worker process died (out of memory?)"
    return Outcome("failed", reason, start_time=start, end_time=time.time(), error=SearchError(reason))


def _evaluate_in_worker(jobs: Sequence[Job]) -> list[Outcome | None]:
    outcomes = list(evaluate(jobs))
    for outcome in outcomes:
        if outcome is not None and outcome.error is not None:
            try:
                pickle.loads(cloudpickle.dumps(outcome.error))
            except Exception:  # an exception that cannot travel must not break the pool
                outcome.error = SearchError(outcome.reason)
    return outcomes


def cause_of(error: BaseException) -> str:
    """Say in words what an error is."""
    if isinstance(error, NonFiniteLossError):
        return str(error)
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", str(error))  # an address differs from process to process
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def objective_metric(metric: str, scores: Collection[str]) -> str:
    """Return the name of the score that counts: `metric`, or the first one if a scorer does not give it."""
    return metric if metric in scores else next(iter(scores))


def mean_score(job: Job, folds: Sequence[_Fold]) -> float:
    """Return the mean over folds of the score that counts."""
    return float(np.mean([fold.test_scores[objective_metric(job.metric, fold.test_scores)] for fold in folds]))


class _Fold:
    """One fold of a trial: its estimator, its share of the data, and what was measured."""

    def __init__(self, job: Job, train: np.ndarray, test: np.ndarray):
        self.job = job
        every = np.arange(_num_samples(job.X))  # a splitter may give masks, lists and negative numbers
        self.train, self.test = every[np.asarray(train)], every[np.asarray(test)]
        self.estimator: Any = clone(job.estimator)
        self.test_scores: dict[str, float] = {}
        self.train_scores: dict[str, float] = {}
        self.fit_time = 0.0
        self.score_time = 0.0

    def test_part(self) -> tuple[Any, Any]:
        return _safe_split(self.estimator, self.job.X, self.job.y, self.test, self.train)

    def fit(self, method: str = "fit", **more: Any) -> None:
        """Call the estimator's `method` on the training part."""
        X, y = _safe_split(self.estimator, self.job.X, self.job.y, self.train)
        params = more | _check_method_params(self.job.X, params=self.job.fit_params, indices=self.train)
        with self.timed("fit_time"):
            fit = getattr(self.estimator, method)
            _ = fit(X, **params) if y is None else fit(X, y, **params)

    def score(self) -> None:
        """Score the estimator as it is on the held-out part."""
        with self.timed("score_time"):
            X, y = self.test_part()
            self.test_scores = self._scores(X, y, self.test)

    def score_train(self) -> None:
        """Score the estimator on the training part, if asked for."""
        if self.job.return_train_score:
            X, y = _safe_split(self.estimator, self.job.X, self.job.y, self.train)
            self.train_scores = self._scores(X, y, self.train)

    def _scores(self, X: Any, y: Any, indices: np.ndarray) -> dict[str, float]:
        params = _check_method_params(self.job.X, params=self.job.score_params, indices=indices)
        scorer = self.job.scorer
        scores = scorer(self.estimator, X, **params) if y is None else scorer(self.estimator, X, y, **params)
        scores = scores if isinstance(scores, dict) else {"score": scores}
        if isinstance(scorer, _MultimetricScorer):
            for name, score in scores.items():
                if isinstance(score, str):  # the traceback of a scorer that raised
                    raise ValueError(f"scoring with {name} failed: {score.strip().splitlines()[-1]}")
        return {name: _number(name, score) for name, score in scores.items()}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)


def _number(name: str, score: Any) -> float:
    if hasattr(score, "item") and np.size(score) == 1:
        score = score.item()
    if not isinstance(score, Number):
        raise ValueError(f"scoring must return a number, got {score!r} ({type(score)}) instead for {name}")
    return float(score)  # type: ignore[arg-type]


class _Trial:
    """One trial on its way through the folds.

    Attributes
    ----------
    lanes : list of Lane
        Of the folds, where they are still to be trained.
    """

    def __init__(self, job: Job):
        self.job = job
        self.outcome = Outcome()
        self.folds: list[_Fold] = []
        self.lanes: list[Any] = []
        self.finished = False
        self._pruned: _Pruned | None = None
        self._error: Exception | None = None

    def restart(self) -> None:
        """Forget a training that broke off."""
        self._pruned = self._error = None
        self._reported = _Reports(self.job, self.folds, self.outcome)
        for fold in self.folds:
            fold.score_time = 0.0
        if self.job.judge is not None:
            self.job.judge.restart()

    def begin(self) -> None:
        """Run the trial to its end, or up to the training of its lanes."""
        job = self.job
        self.outcome.start_time = time.time()
        self.folds = [_Fold(job, train, test) for train, test in job.splits]
        self._reported = _Reports(job, self.folds, self.outcome)
        with self._ending_on_error():
            if is_lane_estimator(last_step(job.estimator)):
                self.lanes = _lanes(job, self.folds)
                self.networks = [last_step(fold.estimator, fitted=True) for fold in self.folds]
                return
            if job.judge is not None:
                _run_partial_fit(job, self.folds, self._reported)
            else:
                _run_fit(job, self.folds)
            self._end()

    def follow(
        self,
        epoch: int,
        histories: Sequence[History],
        predict: Predict,
        health: Sequence[Measurements | None],
    ) -> Iterable[int]:
        """Look at the lanes after an epoch; return those to stop."""
        everything, job = range(len(self.folds)), self.job
        if self._pruned is not None or self._error is not None:
            return ()
        if all(len(history["loss"]) <= epoch for history in histories):
            return ()  # it has come to its end, and others train on
        if not all(math.isfinite(history["loss"][-1]) for history in histories):
            return everything  # one fold that cannot train fails the trial
        try:
            if job.prune_sick and epoch < SICK_EPOCHS:
                _prune_if_sick(health, self.lanes, epoch + 1)
            if job.judge is None:
                return ()
            for i, fold in enumerate(self.folds):
                if len(histories[i]["loss"]) > epoch:  # a fold that has stopped keeps its last score
                    self.networks[i].follow_lane(partial(predict, i))
                    fold.score()
            self._reported.take(epoch)
        except _Pruned as decision:
            self._pruned = decision
            return everything
        except Exception as error:  # it must not end the trials that train beside this one
            self._error = error
            return everything
        return ()

    def end_training(self, trained: Sequence[TrainedLane], fit_time: float) -> None:
        """Score what was trained, `fit_time` seconds for each fold."""
        self.lanes = []  # they hold a copy of the data
        self.outcome.series |= _series([lane.history for lane in trained])
        for fold in self.folds:
            fold.fit_time += fit_time
        with self._ending_on_error():
            if measured := [lane.health for lane in trained if lane.health is not None]:
                from tuner.health.diagnosis import judge

                self.outcome.health = judge(measured)
            if self._error is not None:
                raise self._error
            for network, lane in zip(self.networks, trained, strict=True):
                network.adopt_lane(lane)
            for fold in self.folds:
                if self._pruned is None:  # its last weights may be those of an earlier, better epoch
                    fold.score()
                fold.score_train()
            if self._pruned is not None:
                raise self._pruned
            self._end()

    def fail(self, error: Exception) -> None:
        """End the trial by an error of the training."""
        with self._ending_on_error():
            raise error

    @property
    def scored_meanwhile(self) -> float:
        """The seconds spent on scores so far."""
        return sum(fold.score_time for fold in self.folds)

    @contextmanager
    def _ending_on_error(self) -> Iterator[None]:
        outcome = self.outcome
        try:
            yield
        except _Pruned as pruned:
            outcome.state, outcome.reason = "pruned", str(pruned)
            self._end()
        except Exception as error:
            outcome.state, outcome.error = "failed", error
            outcome.reason = cause_of(error)
            self._end()

    def _end(self) -> None:
        job, folds, outcome = self.job, self.folds, self.outcome
        if outcome.state == "complete" and math.isnan(mean_score(job, folds)):
            raise ValueError("the score is NaN")
        self._reported.keep()
        if outcome.state != "failed":
            outcome.test_scores = [fold.test_scores for fold in folds if fold.test_scores]
            outcome.train_scores = [fold.train_scores for fold in folds if job.return_train_score]
        if job.judge is not None:
            outcome.notes = job.judge.notes()
        outcome.fit_times = [fold.fit_time for fold in folds]
        outcome.score_times = [fold.score_time for fold in folds]
        outcome.end_time = time.time()
        self.lanes, self.folds, self.networks = [], [], []
        self.finished = True


def _prune_if_sick(health: Iterable[Measurements | None], lanes: Iterable[Any], epochs: int) -> None:
    from tuner.engine.health import updates_left
    from tuner.health.diagnosis import fatal

    measured = [measurements for measurements in health if measurements is not None]
    longest = max(lanes, key=lambda lane: lane.steps)
    if measured and (reason := fatal(measured, updates_left(longest, epochs))):
        raise _Pruned(f"health: {reason}")


def _shifted(predict: Predict, start: int, i: int, X: Any) -> np.ndarray:
    return predict(start + i, X)


def _companions(trial: _Trial, others: Iterable[_Trial]) -> list[_Trial]:
    """Return the trials whose lanes are worth training together with those of `trial`.

    Not where the sick are pruned: a program computes all its lanes until the last one ends, also those of a trial that
    was stopped. Five folds alone take 7 % more time than among 40 lanes (digits, 64-64), and one program serves all
    trials of a structure, however many of them a round has.
    """
    from tuner.engine import engine_for

    if trial.job.prune_sick:
        return []
    lane = trial.lanes[0]
    engine = engine_for(lane.hyperparameters)
    structure, room = engine.structure(lane), engine.capacity(lane) // len(trial.lanes)
    found: list[_Trial] = []
    for other in others:
        if structure is None or len(found) + 1 >= room:
            break
        late = time.time() >= other.job.deadline
        if other.finished or late or not _look_alike(trial.job.estimator, other.job.estimator):
            continue
        if not other.lanes:
            other.begin()
        if other.lanes and engine.structure(other.lanes[0]) == structure:
            found.append(other)
    return found


def _look_alike(a: Any, b: Any) -> bool:
    """Whether two estimators may have networks of one structure, told without preparing any data."""

    def structure(estimator: Any) -> list[str]:
        network = last_step(estimator)
        if not is_lane_estimator(network):
            return []
        chosen = {"activation", "batch_normalization"}  # of which one program serves all
        names = [n for n, h in HYPERPARAMETERS.items() if h.kind == "structure" and n not in chosen]
        return [describe(getattr(network, name)) for name in names]

    return structure(a) == structure(b)


def _train(trials: Sequence[_Trial]) -> None:
    """Train the lanes of some trials together, and end the trials."""
    first = {id(trial): sum(len(t.lanes) for t in trials[:i]) for i, trial in enumerate(trials)}
    lanes = [lane for trial in trials for lane in trial.lanes]

    def own(trial: _Trial, everything: Sequence[Any]) -> Sequence[Any]:
        return everything[first[id(trial)] : first[id(trial)] + len(trial.lanes)]

    def on_epoch(
        epoch: int, histories: Sequence[History], predict: Predict, health: Sequence[Measurements | None]
    ) -> Iterable[int]:
        for trial in trials:
            start = first[id(trial)]
            for i in trial.follow(epoch, own(trial, histories), partial(_shifted, predict, start), own(trial, health)):
                yield start + i

    before, start = sum(trial.scored_meanwhile for trial in trials), time.perf_counter()
    try:
        trained = trials[0].networks[0].train_lanes(lanes, on_epoch)
    except Exception as error:
        if len(trials) == 1:
            trials[0].fail(error)
            return
        for trial in trials:  # it is the fault of one of them
            trial.restart()
            _train([trial])
        return
    scored_meanwhile = sum(trial.scored_meanwhile for trial in trials) - before
    fit_time = (time.perf_counter() - start - scored_meanwhile) / len(lanes)
    for trial in trials:
        trial.end_training(own(trial, trained), fit_time)


def _run_fit(job: Job, folds: Sequence[_Fold]) -> None:
    for fold in folds:
        fold.fit()
        fold.score()
        fold.score_train()
        fold.estimator = None  # a large fitted model is of no further use


def _run_partial_fit(job: Job, folds: Sequence[_Fold], reported: _Reports) -> None:
    more = {}
    if is_classifier(job.estimator) and "classes" in inspect.signature(job.estimator.partial_fit).parameters:
        more["classes"] = unique_labels(job.y)
    for step in range(job.max_iter):
        for fold in folds:
            fold.fit("partial_fit", **more)
            fold.score()
        reported.take(step)
    for fold in folds:
        fold.score_train()


class _Reports:
    """The scores of the folds at every step, told to the judge."""

    def __init__(self, job: Job, folds: Sequence[_Fold], outcome: Outcome):
        self.job = job
        self.folds = folds
        self.outcome = outcome
        self.histories: list[History] = [{} for _ in folds]

    def take(self, step: int) -> None:
        """Report the mean of the folds' present scores; raise `_Pruned` if the judge gives up."""
        for fold, history in zip(self.folds, self.histories, strict=True):
            for name, score in fold.test_scores.items():
                history.setdefault(f"held_out_{name}", []).append(score)
        score = mean_score(self.job, self.folds)
        if math.isnan(score):
            raise ValueError("the score is NaN")
        assert self.job.judge is not None
        if self.job.judge.report(step, score):
            raise _Pruned(f"pruned at step {step}")

    def keep(self) -> None:
        """Add what was reported to the outcome's series."""
        self.outcome.series |= _series(self.histories)


def _series(histories: Sequence[History]) -> dict[str, list[float]]:
    """Return the per-epoch series of every fold and their means; a fold that stopped keeps its last value."""
    series: dict[str, list[float]] = {}
    for name in histories[0] if histories else ():
        folds = [history[name] for history in histories]
        length = max(map(len, folds))
        series[name] = [float(np.mean([fold[min(e, len(fold) - 1)] for fold in folds])) for e in range(length)]
        series |= {f"split{i}_{name}": [float(v) for v in fold] for i, fold in enumerate(folds)}
    return series


# Lanes: the way down to the last step ---------------------------------------------------------------------------------


def is_lane_estimator(estimator: Any) -> bool:
    """Whether an estimator is one of our Keras estimators, told without importing TensorFlow.

    A subclass with a ``fit`` of its own is none: training its lanes would go around that ``fit``.
    """
    return hasattr(type(estimator), "make_lane") and type(estimator).fit.__module__ == "tuner.estimators"


def check_lanes(job: Job) -> None:
    """Go through every fold up to the training, as a trial would, and raise what is wrong.

    Preprocessing is fitted inside each training fold, since the data that a network sees are only known there; a custom
    model is built once.
    """
    for i, (train, test) in enumerate(job.splits):
        [lane] = _lanes(job, [_Fold(job, train, test)])
        if i == 0 and lane.hyperparameters["model"] is not None:
            from tuner import network

            network.build(lane.hyperparameters, lane.train.X.shape[1:], lane.output, lane.seed)


def last_step(estimator: Any, fitted: bool = False) -> Any:
    """Return what makes the predictions inside pipelines and target transformations."""
    while True:
        if isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
        elif isinstance(estimator, TransformedTargetRegressor):
            estimator = estimator.regressor_ if fitted else estimator.regressor
        else:
            return estimator


def _lanes(job: Job, folds: Sequence[_Fold]) -> list[Any]:
    """Fit everything before the last step on the training parts and return the lanes of the last one."""
    lanes = []
    table = None
    for fold in folds:
        with _recording(fold):
            fold.fit()
        network = last_step(fold.estimator, fitted=True)
        X, y, sample_weight = network.__dict__.pop("_recorded")
        X_test, y_test = _as_seen_by_last_step(fold.estimator, *fold.test_part())
        lane = network.make_lane(X, y, sample_weight, X_test=X_test, y_test=y_test)
        if network is fold.estimator:  # nothing comes before it: the folds are rows of one table
            table = network.checked_features(job.X) if table is None else table
            parts = {"train": fold.train, "validation": fold.train, "test": fold.test}
            given = {name: (getattr(lane, name), numbers) for name, numbers in parts.items()}
            lane = replace(
                lane, **{name: part and part.within(table, numbers) for name, (part, numbers) in given.items()}
            )
        lanes.append(replace(lane, alternatives=_alternatives(job, lane), recurring=True))
    return lanes


def _alternatives(job: Job, lane: Any) -> Any:
    """Return what one program may serve of what the search may propose, where that are three networks or more.

    Compiling one program for all costs twice as much as compiling one of them, and its steps a third more.
    """
    from tuner.layers import ELEMENTWISE
    from tuner.network import Alternatives

    def all_of(name: str, allowed: Collection[Any]) -> set[Any]:
        value = lane.hyperparameters[name]
        plain = value is None or isinstance(value, str)
        found = {value} if plain and value in allowed else set()
        for choices in job.choices if found else ():
            if value in choices and all(choice in allowed for choice in choices):
                found |= set(choices)
        return found

    activations = all_of("activation", ELEMENTWISE)
    normalizations = all_of("batch_normalization", (None, "before", "after"))
    if len(activations) * len(normalizations) < 3:
        return None
    return Alternatives(tuple(sorted(activations)), tuple(sorted(normalizations, key=str)))


@contextmanager
def _recording(fold: _Fold) -> Iterator[None]:
    """Let ``fit`` run through the whole estimator, while the last step only notes what it would train on.

    The fit of a Pipeline or a TransformedTargetRegressor does much that must not be repeated here: caching in `memory`,
    metadata routing, 'passthrough'. So it runs as it is, and only the class of the last step is exchanged meanwhile.
    """
    network = last_step(fold.estimator)
    original = type(network)
    network.__class__ = _recorder(original)  # type: ignore[arg-type]
    try:
        yield
    finally:
        network.__class__ = original
    last_step(fold.estimator, fitted=True).__class__ = original  # a TransformedTargetRegressor cloned it


@cache
def _recorder(original: type) -> type:
    def fit(self: Any, X: Any, y: Any, sample_weight: Any = None) -> Any:
        self._recorded = X, y, sample_weight
        return self

    fit.__qualname__ = f"{original.__qualname__}.fit"  # a wrong keyword's error names it
    return type(original.__name__, (original,), {"fit": fit, "__module__": original.__module__})


def _as_seen_by_last_step(estimator: Any, X: Any, y: Any) -> tuple[Any, Any]:
    """Take X and y through the fitted steps before the last one."""
    if isinstance(estimator, Pipeline):
        if len(estimator.steps) > 1:
            X = estimator[:-1].transform(X)
        return _as_seen_by_last_step(estimator.steps[-1][1], X, y)
    if isinstance(estimator, TransformedTargetRegressor):
        columns = np.asarray(y).reshape(len(y), -1)
        transformed = np.asarray(estimator.transformer_.transform(columns))
        if np.ndim(y) == 1 and transformed.shape[1:] == (1,):
            transformed = transformed[:, 0]
        return _as_seen_by_last_step(estimator.regressor_, X, transformed)
    return X, y
