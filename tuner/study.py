"""A study: what a study file declares, and what ``tuner run`` runs.

A study file asks one question, in the first paragraph of its docstring. It declares ``study = Study(...)``, or
``studies = (Study(...), ...)`` where a question takes several, and may answer it:

.. code-block:: python

    def answer(search):  # of every study one, fitted, in their order
        scored = tables.scores(search)  # tuner.report.tables: the search as long tables, by trial, fold, epoch, layer
        means = scored.groupby("activation")["score"].mean()
        return Answer(
            text=f"{means.idxmax()} scores best, {means.max():.3f}.",  # computed: it says what came out
            table=means.reset_index(),
            figure=plots.bars(scored, "activation", "score"),  # tuner.report.plots: lines, bars, heat_map
            claims={"every activation beats guessing": means.min() > 0.2},  # must hold, with ``--quick`` too
        )

Trials are compared best where the space is a grid of lists, ``random_state`` one of them, so that seeds train side by
side, and ``n_trials`` None. The file may import its neighbours in its folder.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import cloudpickle
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning

from tuner.answer import Answer, question_of
from tuner.errors import HyperparameterError, StudyFileError
from tuner.progress import Progress, Row, best_table, summary
from tuner.samplers import n_combinations
from tuner.search import (
    OptunaSearchCV,
    finished_trials,
    load_study,
    score_of,
    set_aside,
    state_of,
)
from tuner.spaces import make_space
from tuner.tracking import Tracker

#: Where finished trials are kept unless a storage is named, relative to the working directory.
DEFAULT_STORAGE = "mlruns/journal.log"

_PASSED_ON = (
    "cv scoring random_state n_jobs timeout refit enable_pruning sampler pruner storage tracking experiment health"
).split()


class Study:
    """One question, as data, an estimator, a search space and a way of scoring.

    A study counts the trials of all its sessions: ``n_trials`` is the total, finished trials are kept in the storage,
    and running the same study again goes on until the total is reached.

    Parameters
    ----------
    name : str
        Also the name under which Optuna and MLflow keep it.
    data : callable or tuple
        Gives ``(X, y)``, or ``(X, y, params)`` with what else ``fit`` takes (``{"sample_weight": ...}``); a callable is
        called when the study runs.
    estimator : estimator
        Any estimator or pipeline of scikit-learn.
    space : dict, callable or None, default=None
        What is searched, as ``param_distributions`` of `OptunaSearchCV`; None is the ready space of the estimator.
    cv, scoring, refit, random_state, n_jobs, timeout, enable_pruning, sampler, pruner
        As in `OptunaSearchCV`.
    n_trials : int or None, default=50
        The total number of trials. None: every combination of a grid, a space of lists and ranges with a step, once.
    storage : str or optuna.storages.BaseStorage, default="mlruns/journal.log"
        As in `OptunaSearchCV`.
    tracking : "mlflow", Tracker or None, default="mlflow"
        As in `OptunaSearchCV`.
    experiment : str or None, default=None
        As in `OptunaSearchCV`.
    health : {"record", "prune", "objective", "constraint", False, None}, default="record"
        As in `OptunaSearchCV`.
    quick : mapping of str to object, default={}
        What a quick run changes, as `run` takes changes: ``{"n_trials": 4, "estimator__epochs": 2}``.
    """

    def __init__(
        self,
        name: str,
        data: Callable[[], tuple[Any, ...]] | tuple[Any, ...],
        estimator: Any,
        space: Any = None,
        *,
        cv: Any = None,
        scoring: Any = None,
        n_trials: int | None = 50,
        random_state: int | None = None,
        n_jobs: int | None = None,
        timeout: float | None = None,
        refit: Any = True,
        enable_pruning: bool = False,
        sampler: Any = None,
        pruner: Any = None,
        storage: Any = DEFAULT_STORAGE,
        tracking: str | Tracker | None = "mlflow",
        experiment: str | None = None,
        health: str | bool | None = "record",
        quick: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.name = name
        self.data = data
        self.estimator = estimator
        self.space = space
        self.cv = cv
        self.scoring = scoring
        self.n_trials = n_trials
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.timeout = timeout
        self.refit = refit
        self.enable_pruning = enable_pruning
        self.sampler = sampler
        self.pruner = pruner
        self.storage = storage
        self.tracking = tracking
        self.experiment = experiment
        self.health = health
        self.quick = quick

    def run(self, *, quick: bool = False, fresh: bool = False, verbose: bool = True, **changes: Any) -> OptunaSearchCV:
        """Run the study, or what is left of it.

        Parameters
        ----------
        quick : bool, default=False
            Whether to make the changes that the study declares for a quick run. Its trials are kept apart, under the
            study's name with ``-quick``.
        fresh : bool, default=False
            Whether to start anew. What a study of this name holds is set aside under another name, not deleted.
        verbose : bool, default=True
            Whether to show the trials as they finish, and the best of them at the end.
        **changes : object
            Parameters of the study to replace for this run, by name: ``n_trials=10``, ``tracking=None``; those of its
            estimator as ``estimator__epochs=5``.

        Returns
        -------
        OptunaSearchCV
            Fitted.

        Raises
        ------
        TunerError
            Before any training, if something is wrong with the study; see `OptunaSearchCV.fit`.
        KeyboardInterrupt
            After Ctrl-C. Finished trials are kept and shown; the same call goes on from there.
        """
        if quick:
            changes = {"name": f"{self.name}-quick", **self.quick, **changes}
        inner = {name.partition("__")[2]: changes.pop(name) for name in list(changes) if name.startswith("estimator__")}
        unknown = set(changes) - set(vars(self))
        if unknown:
            raise TypeError(f"run() got unknown changes {sorted(unknown)}; a study has {', '.join(vars(self))}.")
        settings = {**vars(self), **changes}
        if inner:
            settings["estimator"] = clone(settings["estimator"]).set_params(**inner)
        if settings["n_trials"] is None:
            settings["n_trials"] = n_combinations(make_space(settings["space"], settings["estimator"]))
            settings["sampler"] = "grid"
        if not isinstance(settings["n_trials"], int) or settings["n_trials"] < 1:
            raise HyperparameterError(f"n_trials must be an integer >= 1; got {settings['n_trials']!r}.")
        name, storage = settings["name"], settings["storage"]
        if fresh and (other := set_aside(storage, name)) and verbose:
            print(f"{name}: the finished trials are set aside as {other!r}.")
        metric = settings["refit"] if isinstance(settings["refit"], str) else "score"
        earlier = [_row(trial, metric) for trial in finished_trials(load_study(storage, name))]
        data = settings["data"]() if callable(settings["data"]) else settings["data"]
        if not isinstance(data, tuple) or len(data) not in (2, 3):
            raise HyperparameterError("data must give (X, y) or (X, y, params), with params a dict for fit.")
        X, y, params = (*data, {})[:3]
        progress = Progress(name, settings["n_trials"], earlier)
        search = OptunaSearchCV(
            settings["estimator"],
            settings["space"],
            n_trials=max(0, settings["n_trials"] - len(earlier)),
            study_name=name,
            callbacks=[lambda study, trial: progress.add(_row(trial, metric))] if verbose else None,
            **{key: settings[key] for key in _PASSED_ON},
        )
        try:
            with ExitStack() as stack:
                if verbose:
                    stack.enter_context(progress)
                    stack.enter_context(warnings.catch_warnings())
                    # What is printed at the end says how many trials failed, and why.
                    warnings.simplefilter("ignore", FitFailedWarning)
                search.fit(X, y, **params)
        finally:
            if verbose and progress.rows:
                self._report(search, progress)
        return search

    @staticmethod
    def _report(search: OptunaSearchCV, progress: Progress) -> None:
        results = getattr(search, "cv_results_", None)
        if results is not None:
            params = dict(zip(results["number"], results["params"], strict=True))
            searched = [key.removeprefix("param_") for key in results if key.startswith("param_")]
            progress.console.print(best_table(progress.rows, params, searched))
        progress.console.print(summary(progress.rows), soft_wrap=True)
        if hasattr(search, "health_"):
            for line in search.health_summary_.lines():
                progress.console.print(line, soft_wrap=True, markup=False)


def _row(trial: Any, metric: str) -> Row:
    attributes: Mapping[str, Any] = trial.user_attrs  # of a trial that another program ran, only the score
    score = score_of(trial)
    return Row(
        number=trial.number,
        state=state_of(trial),
        score=math.nan if score is None else score,
        std=attributes.get(f"std_test_{metric}", math.nan),
        seconds=attributes.get("end_time", math.nan) - attributes.get("start_time", math.nan),
        reason=(attributes.get("reason") or "").partition("\n")[0] or None,
        health=attributes.get("health_verdict"),
    )


@dataclass(frozen=True)
class StudyFile:
    """A question, the studies that it takes, and its answer.

    Parameters
    ----------
    path : Path
    question : str
        The first paragraph of the file's docstring if it is a question, else empty.
    studies : tuple of Study
    answer : callable or None
        Turns the studies' searches, in their order, into an `Answer`.
    """

    path: Path
    question: str
    studies: tuple[Study, ...]
    answer: Callable[..., Answer] | None = None

    def run(self, *, fresh: bool = False, **settings: Any) -> Answer | None:
        """Run every study, and answer the question where the file says how.

        Parameters
        ----------
        fresh : bool, default=False
            Whether to start anew. An answer is of one run: with it, this is always so, since the measurements of
            earlier sessions are not at hand.
        **settings : object
            Passed to `Study.run` of each: ``quick``, ``verbose`` and changes.

        Returns
        -------
        Answer or None
            None where the file has no function ``answer``. It is also kept with the tracked record of every study.
        """
        start = time.perf_counter()
        searches = [study.run(fresh=fresh or self.answer is not None, **settings) for study in self.studies]
        if self.answer is None:
            return None
        answer = replace(self.answer(*searches), seconds=time.perf_counter() - start)
        for search in searches:
            search.track_answer(answer)
        return answer


def load_study_file(path: str | Path) -> StudyFile:
    """Load what a Python file declares: ``study`` or ``studies``, and perhaps a function ``answer``.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    StudyFile

    Raises
    ------
    StudyFileError
        If the file is missing, raises, or declares no study.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise StudyFileError(f"there is no study file {path}. Name a Python file that sets `study = Study(...)`.")
    module = _load(path)
    declared = getattr(module, "studies", getattr(module, "study", None))
    studies = declared if isinstance(declared, tuple | list) else (declared,)
    if not studies or not all(isinstance(study, Study) for study in studies):
        found = ", ".join(type(study).__name__ for study in studies) or "no studies"
        raise StudyFileError(
            f"{path} declares no study: set `study = Study(...)`, or `studies = (Study(...), ...)`, at its top level; "
            f"found {found}."
        )
    answer = getattr(module, "answer", None)
    if answer is not None and not callable(answer):
        raise StudyFileError(f"{path}: answer must be a function of the finished searches; found {answer!r}.")
    return StudyFile(path, question_of(path), tuple(studies), answer)


def _load(path: Path) -> ModuleType:
    """Execute a file as a module that may import its neighbours."""
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise StudyFileError(f"{path} is no Python file; a study file ends in .py.")
    if "keras" in path.read_text(encoding="utf-8").lower():
        import tuner.backend  # noqa: F401 - before the file imports Keras itself, with TensorFlow's messages
    module = importlib.util.module_from_spec(spec)
    # Functions of the file travel to worker processes, and into logged models, which cannot import it by name.
    sys.modules[spec.name] = module
    cloudpickle.register_pickle_by_value(module)
    try:
        with _neighbours(path.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise StudyFileError(
            f"{path} cannot be loaded: {type(error).__name__}: {error} ({where.filename}, line {where.lineno})."
        ) from error
    return module


@contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Let imports find the modules of a folder, as Python does for a script.

    They are forgotten afterwards: another folder has a module of the same name, and what no process can import by name
    travels by value.
    """
    others = {path.stem: sys.modules.pop(path.stem) for path in folder.glob("*.py") if path.stem in sys.modules}
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).parent == folder:
                del sys.modules[name]
        sys.modules |= others
