"""A scikit-learn search that asks Optuna.

Trials are proposed in rounds of `tuner.rounds.ROUND_SIZE`: all trials of a round are proposed before the first of them
is trained, and they are told in the order of their numbers as they finish. What a search finds therefore depends on its
`random_state`, and not on how many trials run at a time.
"""

from __future__ import annotations

import copy
import math
import os
import platform
import subprocess
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import joblib
import numpy as np
import pandas as pd
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler, GridSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection import check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import _safe_indexing, check_random_state, get_tags
from sklearn.utils._param_validation import Interval, Options, RealNotInt, StrOptions
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params, _num_samples, check_is_fitted, indexable

import tuner
from tuner.errors import DataError, HyperparameterError, SearchError
from tuner.evaluation import (
    Job,
    Outcome,
    Outcomes,
    cause_of,
    check_lanes,
    evaluating,
    is_lane_estimator,
    last_step,
    objective_metric,
)
from tuner.health.summary import HealthSummary, summarize
from tuner.results import first_line, health_of, loggable, metrics_of, results_table, trial_line, trial_record
from tuner.rounds import (
    ROUND_SIZE,
    Asked,
    Rounds,
    check_unchanged,
    finished_trials,
    load_study,
    open_study,
    score_of,
    set_aside,
    state_of,
    study_names,
)
from tuner.samplers import NAMES, check_grid
from tuner.spaces import Params, Space, configured, describe, keras_steps, make_space, quiet
from tuner.tracking.autolog import autologging_off
from tuner.tracking.base import NullTracker, StudyRecord, StudyResult, Tracker

if TYPE_CHECKING:
    from tuner.answer import Answer
    from tuner.health.report import HealthReport

__all__ = [
    "ROUND_SIZE",
    "OptunaSearchCV",
    "finished_trials",
    "load_study",
    "score_of",
    "set_aside",
    "state_of",
    "study_names",
]

# On a study:
_TRACKING = "tuner:tracking"  # what the tracker wants to see again when the study goes on
_MODEL = "tuner:model"  # the record that has the refitted model, and after how many trials it was refitted
_CV_SEED = "tuner:cv_seed"  # what seeds a splitter that nothing else seeds
_EXPERIMENT = "tuner"
_EXAMPLE_ROWS = 5
# Of how many trials the numbers are kept: those of one take 0.1 to 0.4 MB, so that this many stay below 100 MB.
_TRIALS_WITH_NUMBERS = 200
_PACKAGES = ("scikit-learn", "optuna", "numpy", "keras", "tensorflow")


class AllTrialsFailed(SearchError, ValueError):
    """Every trial failed. Also a ValueError, as scikit-learn's searches raise in this case."""


@dataclass(frozen=True)
class _Plan:
    """A search after everything was checked: what to train on, and how.

    Parameters
    ----------
    X, y, fit_params
        All data, for the refit.
    job : Job
        The pattern of every trial's job; its estimator is the one that is searched.
    space : Space
    configure : callable
        Gives the estimator with a trial's parameters set.
    sampler_seed : int
    fingerprint : dict
        What must not change when the study is resumed.
    cv_seed : int or None
        What the study keeps to be split in the same way again.
    """

    X: Any
    y: Any
    fit_params: Mapping[str, Any]
    job: Job
    space: Space
    configure: Callable[[Params], Any]
    sampler_seed: int
    fingerprint: dict[str, Any]
    cv_seed: int | None


class _Reports:
    """The reports of a session with their numbers: of the latest trials, and of the one with the best score."""

    def __init__(self) -> None:
        self._latest: deque[tuple[int, HealthReport]] = deque(maxlen=_TRIALS_WITH_NUMBERS)
        self._best: tuple[int, HealthReport] | None = None
        self._best_score = -math.inf

    def add(self, trial: FrozenTrial, report: HealthReport | None) -> None:
        """Keep the report of the trial that has just finished."""
        score = score_of(trial) if state_of(trial) == "complete" else None
        best = score is not None and score > self._best_score  # of equal ones the first, as scikit-learn has it
        if score is not None and best:
            self._best, self._best_score = None, score
        if report is not None:
            self._latest.append((trial.number, report))
            if best:
                self._best = trial.number, report

    def by_number(self) -> dict[int, HealthReport]:
        """Return what is kept, by the numbers of the trials."""
        return dict([*self._latest, *([self._best] if self._best else [])])


class OptunaSearchCV(BaseSearchCV):
    """Hyperparameter search with cross-validation, proposed by Optuna.

    A scikit-learn search as ``RandomizedSearchCV`` is one, and a drop-in replacement for
    ``optuna_integration.OptunaSearchCV``. Keras estimators train all folds of a trial together.

    Parameters
    ----------
    estimator : estimator
        Any estimator or pipeline of scikit-learn. Preprocessing is fitted inside each training fold.
    param_distributions : mapping, callable or None, default=None
        A mapping from parameter names to Optuna distributions, lists of choices (of any kind) or scipy distributions;
        or a callable ``space(trial) -> params``, for conditional spaces; or None, which takes
        ``tuner.search_space(estimator)``.
    cv : int, splitter, iterable or None, default=None
        As in scikit-learn. The splits are drawn once and are the same for all trials.
    enable_pruning : bool, default=False
        Whether to end unpromising trials early. The folds advance together: Keras estimators by epochs, any other with
        ``partial_fit`` by calls of it. What the pruner hears, at step 0, 1, 2, ..., is the mean over the held-out folds
        of the score that `refit` selects.
    error_score : "raise" or number, default=nan
        The score of a failed trial in ``cv_results_``. "raise" ends the search with the exception, unless it is an
        instance of `catch`.
    max_iter : int, default=1000
        The number of calls of ``partial_fit``; Keras estimators use their ``epochs``.
    n_jobs : int or None, default=None
        How many trials run at a time, in worker processes among which the cores are divided; more than `ROUND_SIZE`
        of them do not help. Does not change the results. A trial whose worker process dies has failed.
    n_trials : int or None, default=10
        How many new trials to run. None goes on until `timeout`, ``study.stop()`` in a callback, or Ctrl-C.
    random_state : int, RandomState or None, default=None
        An int makes two searches identical, but for what a `sampler` of your own proposes. Where it is given, it also
        seeds the estimators inside and the splitter, as far as their own `random_state` is None. A study keeps its
        splits: what seeds a shuffling splitter that nothing else seeds is kept with the study, and another int is
        refused where the study goes on.
    refit : bool, str or callable, default=True
        As in scikit-learn: whether to refit the best, by which metric, or a function of ``cv_results_``.
    return_train_score : bool, default=False
    scoring : str, callable, list, dict or None, default=None
        As in scikit-learn. Of several metrics the one that `refit` names is optimised, or else the first.
    study : optuna.Study or None, default=None
        To go on with.
    subsample : int or float, default=1.0
        How many samples to search on, or which share of them. The refit uses all.
    timeout : float or None, default=None
        Seconds after which no new trial starts.
    verbose : int, default=0
        1 prints a line for each trial, 2 also shows Optuna's log.
    callbacks : list of callable or None, default=None
        Called as ``callback(study, trial)`` after every trial; may call ``study.stop()``.
    catch : exception class or iterable of them, default=()
        Which exceptions ``error_score="raise"`` does not raise.
    sampler : {"tpe", "random", "random_then_fine", "grid"}, optuna sampler or None, default=None
        Seeded by `random_state` where it is a name. "tpe", the default, is a multivariate TPE; "random_then_fine" is
        `RandomThenFineSampler`; "grid" goes once through all combinations of lists and ranges with a step, in random
        order, and ends there whatever `n_trials` is. A sampler of your own is copied, so that the search can be
        repeated. It proposes by the seed that it was made with, whatever `random_state` is; where a study goes on it is
        seeded anew from the operating system, since it would propose the first trials again, so that the proposals of a
        resumed search cannot be repeated.
    pruner : optuna pruner or None, default=None
        The median pruner by default; giving one enables pruning.
    storage : str, path, optuna storage or None, default=None
        Where Optuna keeps the study: a URL, or the path of a journal file, ending in ``.log``. In memory by default.
    study_name : str or None, default=None
        A study of this name in `storage` is resumed: its trials are kept and count, and none is repeated. What has
        changed since is refused as far as it shows in values; the code of functions and classes (a scorer, a `model`
        callable) is only told apart by name, so use another study_name when you edit it. Only one search at a time
        goes on with a study: trials that another one left running are taken for those of a killed process.
    tracking : "mlflow", Tracker or None, default=None
        Where to record the search.
    experiment : str or None, default=None
        The tracker's experiment; "tuner" by default.
    health : {"record", "prune", "objective", "constraint", False, None}, default="record"
        What becomes of the gradients, activations and updates that Keras estimators measure in training. "record"
        keeps what they say with every trial, and decides nothing by it. "prune" also ends a trial in one of its first
        epochs where they rule out that it learns. "objective" makes the health score a second objective of the study,
        to be maximised beside the score; the best trial is still the one with the best score, and nothing can be
        pruned. "constraint" tells Optuna that a trial whose health score is below `tuner.health.HEALTHY_ENOUGH` is not
        feasible, which its samplers then avoid. False and None measure nothing.

    Attributes
    ----------
    cv_results_ : dict of arrays
        As in scikit-learn, one row per finished trial, with columns ``number`` (Optuna's), ``state`` ("complete",
        "pruned" or "failed"), ``reason``, ``health_verdict`` ("healthy" or what was wrong, None where nothing was
        measured) and ``health_score`` (1 is healthy, 0 the worst). Pruned trials rank below complete ones,
        failed trials below these.
    best_index_ : int
        The best trial's row in ``cv_results_`` and in ``trials_``.
    best_params_, best_score_, best_estimator_, refit_time_, scorer_, n_splits_, multimetric_
        As in scikit-learn.
    health_ : list of HealthReport or None
        What the gradients of each row of ``cv_results_`` said. The numbers come with the latest 200 trials of this
        session and with the one that has its best score; the reports of older trials and of earlier sessions have
        none, but the same findings and score. A `tracking` that takes numbers is given those of every trial.
    study_ : optuna.Study
    trials_ : list of optuna.trial.FrozenTrial
        The finished trials.
    best_trial_ : optuna.trial.FrozenTrial
    n_trials_ : int
        The number of finished trials.
    sample_indices_ : ndarray
        The samples that were searched on.
    user_attrs_ : dict
        Of the study.
    """

    _parameter_constraints: dict = {
        **{name: rule for name, rule in BaseSearchCV._parameter_constraints.items() if name != "pre_dispatch"},
        "param_distributions": [Mapping, callable, None],
        "enable_pruning": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_trials": [Interval(Integral, 0, None, closed="left"), None],
        "random_state": ["random_state"],
        "study": [Study, None],
        "subsample": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="right")],
        "timeout": [Interval(Real, 0, None, closed="neither"), None],
        "callbacks": [list, tuple, None],
        "catch": [type, Iterable],
        "sampler": [StrOptions(set(NAMES)), BaseSampler, None],
        "pruner": [BasePruner, None],
        "storage": [str, os.PathLike, BaseStorage, None],
        "study_name": [str, None],
        "tracking": [StrOptions({"mlflow"}), Tracker, None],
        "experiment": [str, None],
        "health": [StrOptions({"record", "prune", "objective", "constraint"}), Options(bool, {False}), None],
    }

    def __init__(
        self,
        estimator: Any,
        param_distributions: Mapping[str, Any] | Callable[[Any], Params] | None = None,
        *,
        cv: Any = None,
        enable_pruning: bool = False,
        error_score: float | str = np.nan,
        max_iter: int = 1000,
        n_jobs: int | None = None,
        n_trials: int | None = 10,
        random_state: int | np.random.RandomState | None = None,
        refit: bool | str | Callable[[dict[str, Any]], int] = True,
        return_train_score: bool = False,
        scoring: Any = None,
        study: Study | None = None,
        subsample: float | int = 1.0,
        timeout: float | None = None,
        verbose: int = 0,
        callbacks: Sequence[Callable[[Study, FrozenTrial], None]] | None = None,
        catch: Iterable[type[Exception]] | type[Exception] = (),
        sampler: str | BaseSampler | None = None,
        pruner: BasePruner | None = None,
        storage: str | os.PathLike[str] | BaseStorage | None = None,
        study_name: str | None = None,
        tracking: str | Tracker | None = None,
        experiment: str | None = None,
        health: str | bool | None = "record",
    ):
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        del self.pre_dispatch
        self.param_distributions = param_distributions
        self.enable_pruning = enable_pruning
        self.max_iter = max_iter
        self.n_trials = n_trials
        self.random_state = random_state
        self.study = study
        self.subsample = subsample
        self.timeout = timeout
        self.callbacks = callbacks
        self.catch = catch
        self.sampler = sampler
        self.pruner = pruner
        self.storage = storage
        self.study_name = study_name
        self.tracking = tracking
        self.experiment = experiment
        self.health = health

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags = copy.deepcopy(get_tags(self.estimator).target_tags)
        return tags

    # What the study knows ---------------------------------------------------------------------------------------------

    @property
    def trials_(self) -> list[FrozenTrial]:
        """The finished trials, one for each row of ``cv_results_``."""
        check_is_fitted(self, "study_")
        return copy.deepcopy(finished_trials(self.study_))

    @property
    def n_trials_(self) -> int:
        """The number of finished trials."""
        check_is_fitted(self, "study_")
        return len(finished_trials(self.study_))

    @property
    def n_iter_(self) -> int:
        """The number of finished trials, which ``RandomizedSearchCV`` calls its iterations."""
        return self.n_trials_

    @property
    def best_trial_(self) -> FrozenTrial:
        """The best trial."""
        check_is_fitted(self, "best_index_")
        return self.trials_[self.best_index_]

    @property
    def health_summary_(self) -> HealthSummary:
        """What the trials were sick with, and which hyperparameters the sick ones share."""
        check_is_fitted(self, "health_")
        return summarize(
            ({name: loggable(value) for name, value in params.items()}, report.verdict, report.findings, report.score)
            for params, report in zip(self.cv_results_["params"], self.health_, strict=True)
            if report is not None
        )

    @property
    def user_attrs_(self) -> dict[str, Any]:
        """The study's user attributes, without those that the search keeps for itself."""
        check_is_fitted(self, "study_")
        return {name: value for name, value in self.study_.user_attrs.items() if not name.startswith("tuner:")}

    @property
    def set_user_attr(self) -> Callable[[str, Any], None]:
        """Set a user attribute of the study."""
        check_is_fitted(self, "study_")
        return self.study_.set_user_attr

    @property
    def trials_dataframe(self) -> Callable[..., pd.DataFrame]:
        """Return the study's trials as a data frame; see `optuna.Study.trials_dataframe`."""
        check_is_fitted(self, "study_")
        return self.study_.trials_dataframe

    # Fitting ----------------------------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None, groups: Any = None, **params: Any) -> Self:
        """Search, and refit the best estimator on all data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
        groups : array-like of shape (n_samples,), optional
            Passed to the splitter.
        **params : object
            Passed to ``fit`` of the estimator, the scorer and the splitter, as in scikit-learn.

        Returns
        -------
        self

        Raises
        ------
        HyperparameterError, DataError, StorageError, TrackingError
            Before any training.
        SearchError
            If the study was made for something else, or no trial completed.
        KeyboardInterrupt
            After Ctrl-C. ``cv_results_`` holds the finished trials.
        """
        if groups is not None:
            params["groups"] = groups
        scorers, _ = self._get_scorers()
        X, y = indexable(X, y)
        with quiet(self.verbose), autologging_off():
            plan = self._plan(X, y, params, scorers)
            weights = params.get("sample_weight")
            task = {"X": X, "y": y, "metadata": None if weights is None else {"sample_weight": weights}}
            context = self._init_callback_context(max_subtasks=int(self.refit is not False))
            context.call_on_fit_task_begin(estimator=self, **task)
            tracker = self._start(plan, scorers)
            try:
                self._run(plan, tracker)
                self._choose(plan)
                if self.refit:
                    self.best_estimator_ = plan.configure(self.best_params_)
                    refitting = context.subcontext(task_name="refit-with-best-params")
                    with refitting.propagate_callback_context(self.best_estimator_):
                        refitting.call_on_fit_task_begin(estimator=self, **task)
                        self._refit(plan)
                    refitting.call_on_fit_task_end(estimator=self, **task)
            except BaseException as error:
                self._finish(tracker, plan, error)
                raise
            self._finish(tracker, plan)
            context.call_on_fit_task_end(estimator=self, **task)
        self._warn_of_failures()
        return self

    def _plan(self, X: Any, y: Any, params: dict[str, Any], scorers: Any) -> _Plan:
        """Check every argument and the data; nothing has been proposed, fitted or written before."""
        if self.study is not None and (self.storage is not None or self.study_name is not None):
            raise HyperparameterError("study already says where it is kept: give either it, or storage and study_name.")
        self._check_settings()
        if y is None and get_tags(self.estimator).target_tags.required:
            raise DataError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        n_samples = _num_samples(X)
        for name, value in params.items():
            if name.split("__")[-1] in ("sample_weight", "groups") and value is not None:
                if _num_samples(value) != n_samples:
                    raise DataError(f"{name} has {_num_samples(value)} entries, but X has {n_samples} samples.")
        params = _check_method_params(X, params=params)
        routed = self._get_routed_params_for_fit(params)

        rng = check_random_state(self.random_state)
        n_searched = self.subsample if isinstance(self.subsample, Integral) else int(self.subsample * n_samples)
        if not 1 <= n_searched <= n_samples:
            raise DataError(f"subsample={self.subsample} leaves {n_searched} of {n_samples} samples.")
        X_searched, y_searched, self.sample_indices_ = X, y, np.arange(n_samples)
        fit_params, score_params, split_params = routed.estimator.fit, routed.scorer.score, routed.splitter.split
        if n_searched < n_samples:
            chosen = np.sort(rng.choice(n_samples, n_searched, replace=False))
            X_searched, y_searched = _safe_split(self.estimator, X, y, chosen)
            fit_params, score_params, split_params = (
                _check_method_params(X, params=part, indices=chosen)
                for part in (fit_params, score_params, split_params)
            )
            self.sample_indices_ = chosen

        seed = int(rng.randint(np.iinfo(np.int32).max))
        estimator = clone(self.estimator)
        cv = check_cv(self.cv, y_searched, classifier=is_classifier(estimator))
        seeded, cv_seed = self.random_state is not None, None
        if getattr(cv, "random_state", 0) is None and getattr(cv, "shuffle", True):
            cv = copy.copy(cv)
            cv.random_state = seed
            if not isinstance(self.random_state, Integral):  # then another session would draw another seed
                cv.random_state = cv_seed = self._kept_cv_seed(default=seed)
        splits = _splits(cv, X_searched, y_searched, split_params)
        self.n_splits_ = len(splits)

        space = make_space(self.param_distributions, estimator)
        if isinstance(self.sampler, str) and self.sampler == "grid":
            check_grid(space.distributions)
        names = scorers._scorers if isinstance(scorers, _MultimetricScorer) else ()
        several = bool(names) or callable(self.scoring)  # what a callable gives shows when it is called
        job = Job(
            estimator=estimator,
            X=X_searched,
            y=y_searched,
            splits=splits,
            scorer=scorers,
            metric=self.refit if isinstance(self.refit, str) and several else next(iter(names), "score"),
            fit_params=fit_params,
            score_params=score_params,
            return_train_score=self.return_train_score,
            max_iter=self.max_iter,
            prune_sick=self.health == "prune",
        )
        network = last_step(estimator)
        if self._prunes and not (is_lane_estimator(network) or hasattr(estimator, "partial_fit")):
            raise HyperparameterError(
                f"enable_pruning needs an estimator with partial_fit; {type(estimator).__name__} has none."
            )
        self._check_health(estimator, space)
        _check_lanes(job, space)
        repeatable = not isinstance(getattr(cv, "random_state", None), np.random.RandomState | np.random.Generator)
        fingerprint = {
            "space": space.describe(),
            "estimator": describe(self.estimator),
            "cv": f"{len(splits)} given splits" if isinstance(self.cv, Iterable) else describe(self.cv),
            "splits": joblib.hash(splits) if repeatable else None,
            "scoring": describe(self.scoring),
            "data": joblib.hash((X_searched, y_searched, fit_params, score_params)),
        }
        return _Plan(
            X=X,
            y=y,
            fit_params=routed.estimator.fit,
            job=job,
            space=space,
            configure=partial(
                configured, estimator, random_state=seed if seeded else None, health=self.health not in (None, False)
            ),
            sampler_seed=seed,
            fingerprint=fingerprint,
            cv_seed=cv_seed,
        )

    def _check_settings(self) -> None:
        """Check what scikit-learn's rules for parameters cannot say."""
        if self.n_jobs == 0:
            raise HyperparameterError("n_jobs must not be 0: give a number of workers, or -1 for one on each core.")
        for callback in self.callbacks or ():
            if not callable(callback):
                raise HyperparameterError(f"callbacks must be callable(study, trial); got {callback!r}.")
        for kind in self._caught:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise HyperparameterError(f"catch must hold exception classes; got {kind!r}.")
        sampler = self.sampler if self.sampler is not None else getattr(self.study, "sampler", None)
        if isinstance(sampler, GridSampler):
            for name, values in sampler._search_space.items():
                if odd := [v for v in values if v is not None and not isinstance(v, (str, int, float))]:
                    raise HyperparameterError(
                        f"{name}: GridSampler goes through None, booleans, numbers and strings only; got {odd[0]!r}. "
                        "sampler='grid' goes through every combination of any choices."
                    )

    def _check_health(self, estimator: Any, space: Space) -> None:
        """Refuse to decide by what nobody measures."""
        if self.health not in ("prune", "objective", "constraint"):
            return
        if self.health == "objective" and self._prunes:
            raise HyperparameterError(
                "health='objective' makes two objectives, of which Optuna cannot prune: leave enable_pruning and "
                "pruner out, or take health='prune' or 'constraint'."
            )
        candidates = (estimator, configured(estimator, space.example))
        if not any(_measures(last_step(candidate)) for candidate in candidates):
            raise HyperparameterError(
                f"health={self.health!r} needs a Keras estimator with health=True as the last step; "
                f"{describe(estimator)} measures no gradients."
            )

    @property
    def _caught(self) -> tuple[Any, ...]:
        return (self.catch,) if isinstance(self.catch, type) else tuple(self.catch)

    def _kept_cv_seed(self, default: int) -> int:
        """Return the seed of the splits of the study that this search goes on with."""
        study = self.study
        if study is None and self.study_name is not None:
            study = load_study(self.storage, self.study_name)
        return default if study is None else study.user_attrs.get(_CV_SEED, default)

    @property
    def _prunes(self) -> bool:
        return self.enable_pruning or self.pruner is not None

    def _start(self, plan: _Plan, scorers: Any) -> Tracker:
        """Open the study and its record."""
        pruner = self.pruner
        if pruner is None and self.study is None and self.enable_pruning:
            pruner = MedianPruner()
        study = open_study(
            self.study,
            storage=self.storage,
            name=self.study_name,
            sampler=None if isinstance(self.sampler, str) else self.sampler,
            pruner=pruner,
            health_objective=self.health == "objective",
        )
        check_unchanged(study, plan.fingerprint)
        earlier = finished_trials(study)
        for trial in earlier:
            plan.space.params_of(trial)  # refuses trials that a callable space does not propose any more
        if plan.cv_seed is not None:
            study.set_user_attr(_CV_SEED, plan.cv_seed)
        tracker = _tracker(self.tracking)
        asked = {name: plan.fingerprint[name] for name in ("estimator", "space", "cv", "scoring")}
        n_trials = None if self.n_trials is None else len(earlier) + self.n_trials
        record = StudyRecord(
            name=study.study_name,
            experiment=self.experiment or _EXPERIMENT,
            params={**asked, "n_trials": n_trials, "random_state": loggable(self.random_state)},
            tags={"data": plan.fingerprint["data"], **_versions()},
            searched=list(plan.space.example),
            objective=f"mean_test_{plan.job.metric}",
            health=self.health not in (None, False) and _measures(last_step(plan.job.estimator)),
        )
        token = tracker.start(record, resume=study.user_attrs.get(_TRACKING))
        if token is not None:
            study.set_user_attr(_TRACKING, token)
        self.study_ = study
        self.scorer_ = scorers._scorers if isinstance(scorers, _MultimetricScorer) else scorers
        return tracker

    def _run(self, plan: _Plan, tracker: Tracker) -> None:
        """Run the rounds; whatever ends them, ``cv_results_`` holds the finished trials afterwards."""
        name = self.sampler
        if name is None and self.study is None:
            name = "tpe"
        rounds = Rounds(
            self.study_,
            plan.space,
            plan.configure,
            sampler=name if isinstance(name, str) else None,
            seed=plan.sampler_seed,
            pruning=self._prunes,
            health=self.health,
        )
        deadline = math.inf if self.timeout is None else time.time() + self.timeout
        left = math.inf if self.n_trials is None else self.n_trials
        n_jobs = min(joblib.effective_n_jobs(self.n_jobs), ROUND_SIZE)
        reports = _Reports()
        try:
            with evaluating(n_jobs, with_keras=bool(keras_steps(plan.job.estimator))) as evaluate_all:
                while left > 0 and time.time() < deadline and not (rounds.exhausted or rounds.stopped):
                    asked = rounds.ask(int(min(rounds.size, left)))
                    left -= len(asked)
                    common = replace(plan.job, deadline=deadline, choices=rounds.choices)
                    jobs = [replace(common, estimator=one.estimator, judge=one.judge) for one in asked]
                    self._run_round(rounds, asked, evaluate_all(jobs), plan, tracker, reports)
        finally:
            self._collect(plan.space, reports.by_number())

    def _run_round(
        self,
        rounds: Rounds,
        asked: Sequence[Asked],
        outcomes: Outcomes,
        plan: _Plan,
        tracker: Tracker,
        reports: _Reports,
    ) -> None:
        """Tell the trials of a round in the order of their numbers; those that did not run are told so."""
        told, why = 0, ""
        try:
            with closing(outcomes):
                for one, outcome in zip(asked, outcomes, strict=True):
                    if outcome is None:
                        why = "the timeout had passed"
                        break
                    trial = rounds.tell(one, outcome, plan.job.metric)
                    told += 1
                    reports.add(trial, outcome.health)
                    tracker.log_trial(trial_record(trial, one.estimator, one.params, outcome.series, outcome.health))
                    self._check_outcome(outcome)
                    if self.verbose:
                        print(trial_line(trial), flush=True)
                    rounds.call(self.callbacks or (), trial)
                    if rounds.stopped:
                        why = "a callback stopped the study"
                        break
        except BaseException as error:
            why = cause_of(error)
            raise
        finally:
            for one in asked[told:]:
                rounds.skip(one.trial, why)

    def _check_outcome(self, outcome: Outcome) -> None:
        """Raise what ends the whole search: errors that the user wants raised, scores that `refit` cannot choose by."""
        error = outcome.error
        if error is not None and self.error_score == "raise" and not isinstance(error, self._caught):
            raise error
        if outcome.test_scores and callable(self.scoring) and set(outcome.test_scores[0]) != {"score"}:
            self._check_refit_for_multimetric(outcome.test_scores[0])  # only now it shows that there are several

    # Results ----------------------------------------------------------------------------------------------------------

    def _collect(self, space: Space, reports: Mapping[int, HealthReport]) -> None:
        """Set ``cv_results_`` from all finished trials of the study, and ``health_`` with what numbers were kept."""
        trials = finished_trials(self.study_)
        if not trials:
            return
        unscored = list(self.scorer_) if isinstance(self.scorer_, dict) else ["score"]
        metrics = metrics_of(trials) or unscored
        self.multimetric_ = metrics != ["score"]
        self.cv_results_ = results_table(
            trials,
            [space.params_of(trial) for trial in trials],
            metrics,
            n_splits=self.n_splits_,
            error_score=math.nan if self.error_score == "raise" else float(self.error_score),
            train=self.return_train_score,
        )
        self.health_ = [reports.get(trial.number) or health_of(trial) for trial in trials]

    def _choose(self, plan: _Plan) -> None:
        """Set ``best_index_``, ``best_params_`` and ``best_score_``."""
        trials = finished_trials(self.study_)
        states = Counter(map(state_of, trials))
        if not states["complete"]:
            if not trials:
                raise SearchError("no trial finished: allow more time, or more trials.")
            failed = next((t for t in trials if state_of(t) == "failed"), None)
            counts = " and ".join(f"{n} {state}" for state, n in states.items())
            first = f" The first to fail was trial {failed.number}: {failed.user_attrs['reason']}" if failed else ""
            raise AllTrialsFailed(f"no trial completed ({counts}), so there is nothing to choose from.{first}")
        if not self.refit and self.multimetric_:
            return
        metric = self.refit if self.multimetric_ else "score"
        self.best_index_ = int(self._select_best_index(self.refit, metric, self.cv_results_))
        self.best_params_ = self.cv_results_["params"][self.best_index_]
        if not callable(self.refit):
            self.best_score_ = self.cv_results_[f"mean_test_{metric}"][self.best_index_]

    def _refit(self, plan: _Plan) -> None:
        start = time.time()
        if plan.y is None:
            self.best_estimator_.fit(plan.X, **plan.fit_params)
        else:
            self.best_estimator_.fit(plan.X, plan.y, **plan.fit_params)
        self.refit_time_ = time.time() - start
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_

    def _warn_of_failures(self) -> None:
        reasons = Counter(self.cv_results_["reason"][self.cv_results_["state"] == "failed"])
        if reasons:
            causes = "; ".join(f"{n} of them with {first_line(reason)}" for reason, n in reasons.items())
            warnings.warn(
                f"{reasons.total()} of {len(self.cv_results_['state'])} trials failed, and rank last: {causes}",
                FitFailedWarning,
                stacklevel=4,  # where fit was called: scikit-learn wraps it
            )

    # Tracking ---------------------------------------------------------------------------------------------------------

    def _finish(self, tracker: Tracker, plan: _Plan, error: BaseException | None = None) -> None:
        """Close the record of the study; it went well unless there is an error."""
        if isinstance(tracker, NullTracker):
            return
        state, model = "finished", getattr(self, "best_estimator_", None) if self.refit else None
        if error is not None:
            state, model = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", None
        if model is not None:
            logged = [self.study_.user_attrs.get(_TRACKING), self.n_trials_]
            if self.study_.user_attrs.get(_MODEL) == logged:
                model = None  # nothing was run since: the record has this model
            else:
                self.study_.set_user_attr(_MODEL, logged)
        tracker.finish(
            StudyResult(
                state=state,  # type: ignore[arg-type]
                reason=None if error is None else cause_of(error),
                model=model,
                input_example=_safe_indexing(plan.X, np.arange(min(_EXAMPLE_ROWS, _num_samples(plan.X)))),
                **self._outcome_so_far(plan, chosen=error is None),
            )
        )

    def track_answer(self, answer: Answer) -> None:
        """Keep an answer with the tracked record of this study, if there is one.

        Parameters
        ----------
        answer : Answer
        """
        check_is_fitted(self, "study_")
        if (record := self.study_.user_attrs.get(_TRACKING)) is not None and self.tracking is not None:
            _tracker(self.tracking).log_answer(record, answer)

    def _outcome_so_far(self, plan: _Plan, chosen: bool) -> dict[str, Any]:
        trials = finished_trials(self.study_)
        if not trials:
            return {"best": None, "trials": pd.DataFrame()}
        from tuner.report.plots import optimization_history

        results = self.cv_results_
        metric = objective_metric(plan.job.metric, metrics_of(trials) or [plan.job.metric])
        row = self.best_index_ if chosen and callable(self.refit) else int(results[f"rank_test_{metric}"].argmin())
        best = None
        if results["state"][row] == "complete":
            params = results["params"][row]
            best = trial_record(trials[row], plan.configure(params), params)
        scores = results[f"mean_test_{metric}"]
        figure = optimization_history(results["number"], scores, results["state"], f"mean test {metric}")
        table = pd.DataFrame({name: values for name, values in results.items() if name != "params"})
        figures, health = {"optimization_history": figure}, self.health_summary_
        return {"best": best, "trials": table, "figures": figures, "health": health if health.n_trials else None}


# Before the search ----------------------------------------------------------------------------------------------------


def _splits(cv: Any, X: Any, y: Any, params: Mapping[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    try:
        with warnings.catch_warnings():
            # scikit-learn goes on when a class has fewer members than there are folds: some folds then lack it.
            warnings.filterwarnings("error", message="The least populated class", category=UserWarning)
            splits = list(cv.split(X, y, **params))
    except (UserWarning, ValueError) as error:
        raise DataError(f"cv={cv} does not fit the data: {error}") from error
    if not splits:
        raise DataError(f"cv={cv} gives no splits.")
    return splits


def _check_lanes(job: Job, space: Space) -> None:
    """Raise what is wrong with the data, or with how they are given to ``fit``: what no hyperparameters can mend.

    Two must fail, with the parameters of a throw-away trial and without any: one could fail by their fault.
    """
    errors = []
    for params in (space.example, {}):
        try:
            candidate = configured(job.estimator, params)
            if not is_lane_estimator(last_step(candidate)):
                return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the trials will warn
                check_lanes(replace(job, estimator=candidate))
        except Exception as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def _measures(network: Any) -> bool:
    return is_lane_estimator(network) and network.health


def _tracker(given: str | Tracker | None) -> Tracker:
    if given is None:
        return NullTracker()
    if isinstance(given, Tracker):
        return given
    from tuner.tracking.mlflow import MlflowTracker

    return MlflowTracker()


def _versions() -> dict[str, str]:
    """Return what the search runs on: versions, and the commit of the working directory if it is in git."""
    tags = {"version.tuner": tuner.__version__, "version.python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            tags[f"version.{package}"] = metadata.version(package)
    with suppress(OSError):
        git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        if git.returncode == 0:
            tags["git.commit"] = git.stdout.strip()
    return tags
