"""Cross-validation of one estimator, all folds of a network at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import indexable

from tuner.evaluation import Job, evaluate


def cross_validate(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    groups: Any = None,
    scoring: Any = None,
    cv: Any = None,
    params: Mapping[str, Any] | None = None,
    return_train_score: bool = False,
) -> dict[str, Any]:
    """Score an estimator by cross-validation, as ``sklearn.model_selection.cross_validate`` does.

    The folds of a Keras estimator, also at the end of a pipeline, train together; they have the weights, batches and
    scores that they have one by one.

    Parameters
    ----------
    estimator : estimator
        Cloned for every fold.
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
    groups : array-like of shape (n_samples,), optional
        Passed to the splitter.
    scoring : str, callable, list, tuple or dict, optional
    cv : int, splitter or iterable, optional
    params : dict, optional
        Passed to ``fit``; arrays with one entry per sample are split with the data.
    return_train_score : bool, default=False

    Returns
    -------
    dict
        Arrays of shape (n_splits,): ``test_score`` (``test_<name>`` for several), ``train_...`` if asked for,
        ``fit_time`` and ``score_time`` in seconds. ``series`` holds what was recorded after every epoch, by name:
        ``loss`` is the mean of the folds, ``split0_loss`` one of them, ``test_loss`` that of the held-out fold.

    Raises
    ------
    Exception
        What went wrong in a fold; a loss that became NaN is a `NonFiniteLossError`.
    """
    X, y, groups = indexable(X, y, groups)
    estimator = clone(estimator)
    splitter = check_cv(cv, y, classifier=is_classifier(estimator))
    job = Job(
        estimator=estimator,
        X=X,
        y=y,
        splits=list(splitter.split(X, y, groups)),
        scorer=check_scoring(estimator, scoring=scoring),
        metric="score",
        fit_params=params or {},
        return_train_score=return_train_score,
    )
    [outcome] = evaluate([job])
    assert outcome is not None  # there is no deadline
    if outcome.error is not None:
        raise outcome.error
    result: dict[str, Any] = {"fit_time": np.array(outcome.fit_times), "score_time": np.array(outcome.score_times)}
    for part, folds in (("test", outcome.test_scores), ("train", outcome.train_scores)):
        for name in folds[0] if folds else ():
            result[f"{part}_{name}"] = np.array([fold[name] for fold in folds])
    return result | {"series": outcome.series}
