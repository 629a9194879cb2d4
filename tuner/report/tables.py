"""Finished searches to tables, in the long form that plots and ``groupby`` take.

Every function but `at_best` takes a fitted `OptunaSearchCV` and returns a row for each trial and fold, with a column
for every hyperparameter that was searched, under the last part of its name (``learning_rate`` for
``kerasclassifier__learning_rate``), and for whatever else a callable space asked the trial. None and sequences stand
there in words: ``"None"``, ``"(64, 32)"``. Trials that failed are left out, and where the space has lists the rows keep
their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tuner.errors import SearchError

if TYPE_CHECKING:
    from tuner.search import OptunaSearchCV


def scores(search: OptunaSearchCV, failed: float | None = None) -> pd.DataFrame:
    """Return the scores: a row for each trial and fold.

    Parameters
    ----------
    search : OptunaSearchCV
    failed : float, optional
        What trials that failed count as, such as 0: to leave them out flatters what fails for some seeds only.

    Returns
    -------
    pandas.DataFrame
        The hyperparameters, ``trial``, ``fold``, a column for every metric (``score`` where there is only one),
        ``fit_time`` in seconds (a fold's share of its trial's), and ``verdict``, None where no health was measured.
    """
    results = search.cv_results_
    prefix = "split0_test_"
    metrics = [name.removeprefix(prefix) for name in results if name.startswith(prefix)]
    rows = [
        row
        | {"fold": fold}
        | {
            metric: failed if results["state"][i] == "failed" else results[f"split{fold}_test_{metric}"][i]
            for metric in metrics
        }
        | {"fit_time": results["mean_fit_time"][i], "verdict": results["health_verdict"][i]}
        for i, row in _trials(search, failed=failed is not None)
        for fold in range(search.n_splits_)
    ]
    return pd.DataFrame(rows)


def histories(search: OptunaSearchCV) -> pd.DataFrame:
    """Return the series of training: a row for each trial, fold and epoch.

    Returns
    -------
    pandas.DataFrame
        The hyperparameters, ``trial``, ``fold``, ``epoch`` from 1, ``verdict``, and a column for every series of the
        engine: ``loss``, ``accuracy``, ``test_loss``, ``test_accuracy`` (of the held-out fold).

    Raises
    ------
    SearchError
        If the numbers of a trial are not at hand.
    """
    rows = [
        row
        | {"fold": fold, "epoch": epoch, "verdict": search.cv_results_["health_verdict"][i]}
        | {name: series[epoch - 1] for name, series in measured.history.items() if len(series) >= epoch}
        for i, row in _trials(search)
        for fold, measured in enumerate(_measurements(search, i))
        for epoch in range(1, len(measured.history["loss"]) + 1)
    ]
    return pd.DataFrame(rows)


def layers(search: OptunaSearchCV, *measures: str) -> pd.DataFrame:
    """Return what was measured of layers: a row for each trial, fold, epoch and layer.

    Parameters
    ----------
    search : OptunaSearchCV
    *measures : str
        Names of `tuner.health.measurements.LAYER_MEASURES`.

    Returns
    -------
    pandas.DataFrame
        The hyperparameters, ``trial``, ``fold``, ``epoch`` from 0 (before training), ``layer`` by name, ``depth`` from
        1, ``from_top`` from 0 (the output layer), and a column for every measure.

    Raises
    ------
    SearchError
        If the numbers of a trial are not at hand.
    """
    rows = []
    for i, row in _trials(search):
        for fold, measured in enumerate(_measurements(search, i)):
            columns = {measure: measured.layer(measure) for measure in measures}
            names = [layer.name for layer in measured.facts.layers]
            rows += [
                row
                | {"fold": fold, "epoch": epoch, "layer": name, "depth": depth + 1, "from_top": len(names) - 1 - depth}
                | {measure: values[at, depth] for measure, values in columns.items()}
                for at, epoch in enumerate(measured.epochs)
                for depth, name in enumerate(names)
            ]
    return pd.DataFrame(rows)


def at_best(table: pd.DataFrame, over: str, by: Sequence[str], score: str = "score") -> pd.DataFrame:
    """Return the rows at the value of a hyperparameter that has the best mean score, for each of some combinations.

    Every combination has been given its own learning rate, say, before they are compared. For the rows of a fold the
    value is chosen by the other folds. Of a single split it is chosen by the scores that are returned: they are the
    best of several, and compare combinations of equally many values only.

    Parameters
    ----------
    table : pandas.DataFrame
        As `scores` gives it.
    over : str
        The hyperparameter's column.
    by : sequence of str
        Columns; the value is chosen for each combination of theirs.
    score : str
    """
    keyed, folds = table.set_index([*by, over]).index, table["fold"].to_numpy()
    chosen = np.zeros(len(table), dtype=bool)
    for fold in np.unique(folds):
        others = folds != fold
        means = table[others if others.any() else ~others].groupby([*by, over], sort=False)[score].mean()
        best = means.groupby(level=list(by), sort=False).idxmax()
        chosen |= ~others & keyed.isin(best)
    return table[chosen]


def networks(search: OptunaSearchCV, *measures: str) -> pd.DataFrame:
    """Return what was measured of whole networks: a row for each trial, fold and epoch.

    Parameters
    ----------
    search : OptunaSearchCV
    *measures : str
        Names of `tuner.health.measurements.NETWORK_MEASURES`.

    Returns
    -------
    pandas.DataFrame
        The hyperparameters, ``trial``, ``fold``, ``epoch`` from 0 (before training), and a column for every measure.

    Raises
    ------
    SearchError
        If the numbers of a trial are not at hand.
    """
    rows = [
        row | {"fold": fold, "epoch": epoch} | {measure: measured.of_network(measure)[at] for measure in measures}
        for i, row in _trials(search)
        for fold, measured in enumerate(_measurements(search, i))
        for at, epoch in enumerate(measured.epochs)
    ]
    return pd.DataFrame(rows)


def _trials(search: OptunaSearchCV, failed: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield place and hyperparameters of every trial that did not fail, or of all, in the order of a grid's lists."""
    results, space = search.cv_results_, search.param_distributions
    lists = {name: given for name, given in space.items() if isinstance(given, list)} if isinstance(space, dict) else {}
    trials = search.trials_
    done = [i for i, state in enumerate(results["state"]) if failed or state != "failed"]
    for i in sorted(done, key=lambda i: [given.index(results["params"][i][name]) for name, given in lists.items()]):
        both = trials[i].params | results["params"][i]  # a callable space has names of its own
        short = {name.rpartition("__")[2]: _plain(value) for name, value in both.items()}
        yield i, {**short, "trial": int(results["number"][i])}


def _plain(value: Any) -> Any:
    return str(value) if value is None or isinstance(value, tuple | list | dict) else value


def _measurements(search: OptunaSearchCV, i: int) -> Any:
    report = search.health_[i]
    if report is None or not report.measurements:
        raise SearchError(
            f"the numbers of trial {search.cv_results_['number'][i]} are not at hand: they are of the latest trials of "
            "this session only, and where health is measured. Start anew with tuner run --fresh."
        )
    return report.measurements
