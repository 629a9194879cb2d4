"""The Optuna side of a search: open the study, ask a round of trials, judge them, tell them.

What a trial is worth keeping for is stored in its user attributes, under the names that Optuna's own scikit-learn
integration uses where it has one (``mean_test_score``, ``split0_test_score``, ...), so that a resumed study can show
every finished trial in ``cv_results_``. What its gradients said is there as ``health_verdict``, ``health_score`` and,
without the numbers, as ``health``.

Optuna has no state for a trial that was proposed and never trained: its round was stopped, or the process killed. Such
a trial is told as failed and marked with why it did not run (``_NOT_RUN``); it is in no result. Where it is not its own
fault it is also marked to be trained after all (``_AGAIN``), since a sampler that goes through a grid counts it as
done: the next search of the study queues a copy with the same parameters, which names the original
(``_INSTEAD_OF``), so that none is queued twice. Every proposed trial carries the search that proposed it
(``_SESSION``): one that still runs for another session was left behind by a killed process.
"""

from __future__ import annotations

import copy
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, RandomSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from tuner.errors import HyperparameterError, SearchError, StorageError
from tuner.evaluation import Outcome, objective_metric
from tuner.health.summary import health_constraint
from tuner.samplers import named_sampler
from tuner.spaces import PROPOSED, Params, Space, changes, in_words, quiet

#: How many trials are proposed before the first of them is trained. It does not depend on the number of workers, so
#: that results do not; eight keeps as many workers busy and still lets the sampler learn from most trials.
ROUND_SIZE = 8

#: The same for a sampler that does not learn from trials, where nothing is pruned: the larger the round, the more
#: networks of one structure train together.
LARGE_ROUND = 64

Storage: TypeAlias = str | os.PathLike[str] | BaseStorage | None
StudyCallback: TypeAlias = Callable[[Study, FrozenTrial], None]

_NOT_RUN = "tuner:not_run"  # on a trial that was proposed but never trained: why
_AGAIN = "tuner:again"  # on such a trial: whether a resumed search should train it after all
_INSTEAD_OF = "tuner:instead_of"  # on the trial that a resumed search runs: the number of the one that never was
_SESSION = "tuner:session"  # on every proposed trial: which search did so
_FINGERPRINT = "tuner:fingerprint"

_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


# The study ------------------------------------------------------------------------------------------------------------


def open_study(
    study: Study | None,
    *,
    storage: Storage,
    name: str | None,
    sampler: BaseSampler | None,
    pruner: BasePruner | None,
    health_objective: bool = False,
) -> Study:
    """Return the given study, or the one of that name in a storage, created if need be.

    Parameters
    ----------
    study : optuna.Study, optional
        Used as it is; `sampler` and `pruner` replace its own where given.
    storage : str, path or optuna storage, optional
        A URL (``"sqlite:///study.db"``), or the path of a journal file, which ends in ``.log``. In memory by default.
    name : str, optional
    sampler, pruner : optional
        Copied: a search never changes the objects it was given.
    health_objective : bool
        Whether the health score is a second objective.

    Raises
    ------
    StorageError
        If the storage cannot be reached.
    HyperparameterError
        If the study minimises, or has another number of objectives.
    """
    directions = [StudyDirection.MAXIMIZE] * (2 if health_objective else 1)
    sampler, pruner = copy.deepcopy(sampler), copy.deepcopy(pruner)
    if study is None:
        if storage is None and name is None:
            name = "unnamed"  # Optuna would draw a name, by which Hyperband chooses the brackets of its trials
        with _reaching(storage):
            study = optuna.create_study(
                study_name=name,
                storage=_opened(storage),
                directions=directions,
                load_if_exists=True,
                pruner=pruner or optuna.pruners.NopPruner(),
            )
    if len(study.directions) != len(directions):
        needed = "2 (health='objective': score and health)" if health_objective else "1 (the score)"
        raise HyperparameterError(
            f"the study {study.study_name!r} has {len(study.directions)} objective(s), which cannot be changed, and "
            f"this search has {needed}. Set health as it was, or start anew: another study_name, or tuner run --fresh."
        )
    if study.directions != directions:
        raise HyperparameterError(
            f"the study {study.study_name!r} does not maximise one score, as scikit-learn's scorers are meant to: "
            "create it with direction='maximize', and negate what is to be minimised."
        )
    if pruner is not None:
        study.pruner = pruner
    if sampler is not None:
        if study.get_trials(deepcopy=False):
            sampler.reseed_rng()  # else a resumed search would propose the first trials again
        study.sampler = sampler
    return study


def load_study(storage: Storage, name: str) -> Study | None:
    """Return the study of that name, or None if the storage has none.

    Raises
    ------
    StorageError
        If the storage cannot be reached.
    """
    if storage is None or (_is_path(storage) and not Path(storage).exists()):  # type: ignore[arg-type]
        return None
    with _reaching(storage):
        try:
            return optuna.load_study(study_name=name, storage=_opened(storage))  # type: ignore[arg-type]
        except KeyError:
            return None


def study_names(storage: Storage) -> list[str]:
    """Return the names of the studies in a storage; none if there is no such storage.

    Raises
    ------
    StorageError
        If the storage cannot be reached.
    """
    if storage is None or (_is_path(storage) and not Path(storage).exists()):  # type: ignore[arg-type]
        return []
    with _reaching(storage):
        return optuna.get_all_study_names(_opened(storage))  # type: ignore[arg-type]


def set_aside(storage: Storage, name: str) -> str | None:
    """Move what the study of that name holds to another name, and return it; None if there is no such study.

    Raises
    ------
    StorageError
        If the storage cannot be reached.
    """
    if load_study(storage, name) is None:
        return None
    other = f"{name} until {datetime.now():%Y-%m-%d %H:%M:%S.%f}"
    with _reaching(storage):
        kept = _opened(storage)
        optuna.copy_study(from_study_name=name, from_storage=kept, to_storage=kept, to_study_name=other)  # type: ignore[arg-type]
        optuna.delete_study(study_name=name, storage=kept)  # type: ignore[arg-type]
    return other


def _is_path(storage: Storage) -> bool:
    return isinstance(storage, os.PathLike) or (isinstance(storage, str) and "://" not in storage)


def _opened(storage: Storage) -> str | BaseStorage | None:
    if not _is_path(storage):
        return storage  # type: ignore[return-value]
    path = Path(storage)  # type: ignore[arg-type]
    if path.suffix != ".log":
        raise ValueError("a journal file ends in '.log'")
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


@contextmanager
def _reaching(storage: Storage) -> Iterator[None]:
    try:
        with quiet():
            yield
    except Exception as error:  # every driver has its own
        raise StorageError(
            f"the Optuna storage {storage!r} cannot be reached: {type(error).__name__}: {error}. "
            "Give a URL such as 'sqlite:///study.db', or a path that ends in '.log'."
        ) from error


def check_unchanged(study: Study, fingerprint: Mapping[str, Any]) -> None:
    """Refuse to go on with a study that was made for something else; sign a new one.

    Parameters
    ----------
    study : optuna.Study
    fingerprint : mapping
        JSON-able: texts, one mapping of texts for the ``"space"``, and the hash of the ``"splits"``, or None.

    Raises
    ------
    SearchError
        Saying what has changed.
    """
    stored = study.user_attrs.get(_FINGERPRINT)
    if stored is None:
        study.set_user_attr(_FINGERPRINT, dict(fingerprint))
        return
    old, new = ({k: v for k, v in f.items() if k not in ("space", "splits")} for f in (stored, fingerprint))
    difference = changes(stored["space"], fingerprint["space"]) + changes(old, new)
    if not difference and stored.get("splits") != fingerprint["splits"]:  # other data or another cv are split otherwise
        difference = ["cv's splits differ (by the random_state of the search or of cv, or by the groups)"]
    if difference:
        raise SearchError(
            f"the study {study.study_name!r} was made for something else: {'; '.join(difference)}. "
            "Restore what has changed, or start anew: another study_name, or tuner run --fresh."
        )


def finished_trials(study: Study | None) -> list[FrozenTrial]:
    """Return the trials that a search has run to an end, in the order of their numbers; none if there is no study."""
    trials = study.get_trials(deepcopy=False) if study is not None else []
    trials = [t for t in trials if t.state.is_finished() and _NOT_RUN not in t.user_attrs]
    return [t for t in trials if ("state" in t.user_attrs or "mean_test_score" in t.user_attrs)]


def state_of(trial: FrozenTrial) -> str:
    """Return "complete", "pruned" or "failed"."""
    return trial.user_attrs.get("state", _STATES[trial.state])


def score_of(trial: FrozenTrial) -> float | None:
    """Return the score that the study maximises, whatever else it does; None if there is none."""
    return trial.values[0] if trial.values else None


# Rounds ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A proposed trial: Optuna's, the estimator's parameters, the estimator with them, and who may prune it."""

    trial: Trial
    params: Params
    estimator: Any
    judge: TrialJudge | None


class Rounds:
    """Asks and tells the trials of one search.

    Parameters
    ----------
    study : optuna.Study
    space : Space
    configure : callable
        Gives the estimator with a trial's parameters set.
    sampler : str or None
        The name of a sampler, which is made anew for every round from `seed` and the number of trials so far, so that
        a resumed search proposes new trials. None keeps the study's sampler.
    seed : int
    pruning : bool
        Whether trials are judged by the study's pruner.
    health : {"objective", "constraint"} or anything else
        What Optuna is told of a trial's health: a second value, a constraint (see `health_constraint`), or nothing.

    Attributes
    ----------
    exhausted : bool
        Whether the sampler has nothing more to propose.
    stopped : bool
        Whether a callback called ``study.stop()``.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        configure: Callable[[Params], Any],
        *,
        sampler: str | None,
        seed: int,
        pruning: bool,
        health: Any = None,
    ):
        self.study = study
        self.space = space
        self.configure = configure
        self.sampler = sampler
        self.seed = seed
        self.pruning = pruning
        self.health = health
        self.exhausted = False
        self.stopped = False
        self._session = uuid.uuid4().hex
        self._propose_again()

    @property
    def size(self) -> int:
        """How many trials to propose before the first of them is trained."""
        sampler: Any = self.sampler if self.sampler is not None else self.study.sampler
        blind = sampler in ("grid", "random") or isinstance(sampler, GridSampler | BruteForceSampler | RandomSampler)
        return LARGE_ROUND if blind and not self.pruning else ROUND_SIZE

    def ask(self, n: int) -> list[Asked]:
        """Propose up to `n` trials; fewer only when the sampler is exhausted.

        Raises
        ------
        HyperparameterError
            If a proposal is not allowed. Nothing of the round has been trained then.
        """
        earlier = self.study.get_trials(deepcopy=False)
        if self.sampler is not None:
            self.study.sampler = named_sampler(self.sampler, self.seed, len(earlier))
        waiting = sum(trial.state == TrialState.WAITING for trial in earlier)
        if isinstance(self.study.sampler, GridSampler):
            n = min(n, waiting + len(self.study.sampler._get_unvisited_grid_ids(self.study)))
        elif isinstance(self.study.sampler, BruteForceSampler):
            begun = [trial for trial in earlier if trial.state != TrialState.WAITING and trial.params]
            if begun and self._all_asked(begun[-1]):
                n = min(n, waiting)
        asked: list[Asked] = []
        trial = None
        try:
            while len(asked) < n and not self.exhausted:
                if self.sampler == "random":  # whatever the size of the rounds, also those of a session before
                    self.study.sampler = named_sampler(self.sampler, self.seed, len(earlier) + len(asked))
                trial = self.study.ask()
                trial.set_user_attr(_SESSION, self._session)
                params = self.space.suggest(trial)
                # As a resumed search will see it: a sampler may give 1 where Optuna stores 1.0.
                stored = self.space.params_of(trial.storage.get_trial(trial._trial_id))
                trial.set_user_attr(PROPOSED, in_words(stored))
                asked.append(Asked(trial, params, self.configure(params), self._judge(trial, earlier)))
                if isinstance(self.study.sampler, BruteForceSampler) and self._all_asked(trial):
                    n = min(n, waiting)
                trial = None
        except BaseException as error:
            if trial is not None:
                self.skip(trial, f"{type(error).__name__}: {error}", again=False)
            for other in asked:
                self.skip(other.trial, "another trial of its round could not be proposed")
            raise
        self.exhausted |= not asked
        return asked

    @property
    def choices(self) -> list[tuple[Any, ...]]:
        """The lists from which the trials so far have chosen values, whatever for."""
        trials = self.study.get_trials(deepcopy=False)
        found = {
            distribution.choices
            for trial in trials
            for distribution in trial.distributions.values()
            if isinstance(distribution, CategoricalDistribution)
        }
        return sorted(found, key=str)

    def tell(self, asked: Asked, outcome: Outcome, metric: str) -> FrozenTrial:
        """Store what a trial gave and tell Optuna."""
        trial = asked.trial
        if outcome.state == "complete" and outcome.health is None and self.health == "objective":
            reason = "no health was measured, which is an objective"
            outcome = replace(outcome, state="failed", reason=reason, test_scores=[], train_scores=[])
        for name, value in attributes(outcome).items():
            trial.set_user_attr(name, value)
        if outcome.notes is not None:
            for step, score in outcome.notes["reports"].items():
                trial.report(score, step)
            for name, value in outcome.notes["system_attrs"].items():  # the rungs of successive halving
                trial.storage.set_trial_system_attr(trial._trial_id, name, value)
        if outcome.health is not None and self.health == "constraint":
            trial.set_constraint("health", *health_constraint(trial))
        with _stop_calls(self.study) as calls:
            if outcome.state == "complete":
                folds = [scores[objective_metric(metric, scores)] for scores in outcome.test_scores]
                values = [float(np.mean(folds))]
                if outcome.health is not None and self.health == "objective":
                    values.append(float(outcome.health.score))
                frozen = self.study.tell(trial, values)
            else:
                state = TrialState.PRUNED if outcome.state == "pruned" else TrialState.FAIL
                frozen = self.study.tell(trial, state=state)
        self.exhausted |= bool(calls)
        return frozen

    def skip(self, trial: Trial | FrozenTrial, why: str, again: bool = True) -> None:
        """Tell Optuna that a proposed trial was never trained; `again` lets a resumed search train it."""
        storage = self.study._storage
        if storage.get_trial(trial._trial_id).state.is_finished():
            return  # interrupted after it was told
        storage.set_trial_user_attr(trial._trial_id, _NOT_RUN, why)
        storage.set_trial_user_attr(trial._trial_id, _AGAIN, again)
        with _stop_calls(self.study):
            self.study.tell(trial.number, state=TrialState.FAIL)

    def call(self, callbacks: Iterable[StudyCallback], trial: FrozenTrial) -> None:
        """Call the user's callbacks on a finished trial."""
        with _stop_calls(self.study) as calls:
            for callback in callbacks:
                callback(self.study, trial)
        self.stopped |= bool(calls)

    def _propose_again(self) -> None:
        """Queue what an earlier search proposed and could not train: a grid must not lose its points."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _SESSION in trial.user_attrs:  # only one search at a time proposes to a study
                self.skip(trial, "its search was killed")
        trials = self.study.get_trials(deepcopy=False)
        queued = {trial.user_attrs.get(_INSTEAD_OF) for trial in trials}
        for trial in trials:
            if trial.user_attrs.get(_AGAIN) and trial.number not in queued:
                self.study.add_trial(
                    create_trial(
                        state=TrialState.WAITING,
                        system_attrs={**trial.system_attrs, "fixed_params": trial.params},
                        user_attrs={_INSTEAD_OF: trial.number},
                    )
                )

    def _all_asked(self, trial: Trial | FrozenTrial) -> bool:
        """Whether a sampler that goes through every combination has proposed the last one.

        It says so when a trial finishes, where those that run count as done: so it is asked as if the trial had.
        """
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        with _stop_calls(self.study) as calls:
            self.study.sampler.after_trial(self.study, frozen, TrialState.FAIL, None)
        return bool(calls)

    def _judge(self, trial: Trial, earlier: Sequence[FrozenTrial]) -> TrialJudge | None:
        if not self.pruning:
            return None
        return TrialJudge(self.study.study_name, copy.deepcopy(self.study.pruner), earlier, trial)


@contextmanager
def _stop_calls(study: Study) -> Iterator[list[None]]:
    """Note calls of ``study.stop()``, which Optuna itself only allows inside ``Study.optimize``."""
    calls: list[None] = []
    study.stop = lambda: calls.append(None)  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        del study.stop


def attributes(outcome: Outcome) -> dict[str, Any]:
    """Return what is stored with a trial: all that ``cv_results_`` needs."""
    attributes: dict[str, Any] = {"state": outcome.state, "reason": outcome.reason}
    attributes |= {"start_time": outcome.start_time, "end_time": outcome.end_time}
    if (health := outcome.health) is not None:
        attributes |= {"health_verdict": health.verdict, "health_score": float(health.score)}
        attributes["health"] = health.to_dict(numbers=False)
    columns = {"fit_time": outcome.fit_times, "score_time": outcome.score_times}
    for part, folds in (("test", outcome.test_scores), ("train", outcome.train_scores)):
        for name in folds[0] if folds else ():
            columns[f"{part}_{name}"] = scores = [fold[name] for fold in folds]
            attributes |= {f"split{i}_{part}_{name}": score for i, score in enumerate(scores)}
    for name, values in columns.items():
        if not values:  # nothing is known of a trial whose worker died
            continue
        attributes[f"mean_{name}"] = float(np.mean(values))
        attributes[f"std_{name}"] = float(np.std(values))
    return attributes


# Pruning --------------------------------------------------------------------------------------------------------------


class TrialJudge:
    """Judges one trial against the study as it was when its round began.

    Any process can do so, and the verdict is the same whatever else runs: the study is copied into memory, study name
    and trial numbers included, which Hyperband draws its brackets from.

    Parameters
    ----------
    study_name : str
    pruner : optuna pruner
    earlier : sequence of FrozenTrial
        The study when the round began.
    trial : optuna.Trial
        The trial to judge.
    """

    def __init__(self, study_name: str, pruner: BasePruner, earlier: Sequence[FrozenTrial], trial: Trial):
        self._study_name = study_name
        self._pruner = pruner
        self._number = trial.number
        self._trials = [_without_user_attrs(t) for t in earlier]
        blank = create_trial(state=TrialState.RUNNING)
        self._trials += [blank] * (trial.number + 1 - len(earlier))
        self._trials[trial.number] = create_trial(
            state=TrialState.WAITING, params=trial.params, distributions=trial.distributions
        )
        self._reports: dict[int, float] = {}

    def report(self, step: int, score: float) -> bool:
        """Take the score reached at a step, counted from 0; return whether to prune the trial."""
        self._reports[step] = score
        self._copy.report(score, step)
        return self._copy.should_prune()

    def notes(self) -> dict[str, Any]:
        """Return the reports and the pruner's own notes, to be copied to the real trial."""
        if not self._reports:
            return {"reports": {}, "system_attrs": {}}
        return {"reports": self._reports, "system_attrs": self._copy.study.trials[self._number].system_attrs}

    def restart(self) -> None:
        """Forget what was reported: the trial begins anew."""
        self._reports.clear()
        self.__dict__.pop("_copy", None)

    @cached_property
    def _copy(self) -> Trial:
        with quiet():
            study = optuna.create_study(
                study_name=self._study_name, direction="maximize", sampler=RandomSampler(), pruner=self._pruner
            )
        study.add_trials(self._trials)
        return study.ask()  # the one that waits


def _without_user_attrs(trial: FrozenTrial) -> FrozenTrial:
    light = copy.copy(trial)
    light.user_attrs = {}
    if light.state == TrialState.WAITING:
        light.state = TrialState.RUNNING
    return light
