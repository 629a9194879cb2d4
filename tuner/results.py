"""Finished trials as tables and records: ``cv_results_``, what a tracker is told, a line on the terminal."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import FrozenTrial
from sklearn.model_selection._search import _yield_masked_array_for_each_param

from tuner.rounds import score_of, state_of
from tuner.spaces import Params, describe
from tuner.tracking.base import TrialRecord

if TYPE_CHECKING:
    from tuner.health.report import HealthReport

_RANK_OF_STATE = {"complete": 0, "pruned": 1, "failed": 2}
_NOT_HYPERPARAMETERS = {"steps", "memory", "verbose", "transformers", "transform_input"}


def metrics_of(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the names of the metrics that the trials were scored by; none if all of them failed."""
    names = [name for trial in trials for name in trial.user_attrs if name.startswith("mean_test_")]
    return [name.removeprefix("mean_test_") for name in dict.fromkeys(names)]


def results_table(
    trials: Sequence[FrozenTrial],
    params: list[Params],
    metrics: Sequence[str],
    *,
    n_splits: int,
    error_score: float,
    train: bool,
) -> dict[str, Any]:
    """Return ``cv_results_`` as scikit-learn has it, with the columns number, state, reason and those of health.

    Parameters
    ----------
    trials : sequence of FrozenTrial
    params : list of dict
        Of each trial, by the estimator's own names.
    metrics : sequence of str
        ``"score"`` where there is only one.
    n_splits : int
    error_score : float
        What failed trials show as their scores.
    train : bool
        Whether to add the scores on the training parts.
    """
    states = [state_of(trial) for trial in trials]
    failed = np.array([state == "failed" for state in states])

    def column(name: str) -> np.ndarray:
        return np.array([trial.user_attrs.get(name, math.nan) for trial in trials], dtype=float)

    table = {
        f"{kind}_{name}": column(f"{kind}_{name}") for name in ("fit_time", "score_time") for kind in ("mean", "std")
    }
    table |= dict(_yield_masked_array_for_each_param(params))
    table["params"] = params  # type: ignore[assignment]
    for part in ("test", "train") if train else ("test",):
        for metric in metrics:
            score = f"{part}_{metric}"
            for name in (*(f"split{i}_{score}" for i in range(n_splits)), f"mean_{score}"):
                table[name] = np.where(failed, error_score, column(name))
            table[f"std_{score}"] = np.where(failed, 0 * error_score, column(f"std_{score}"))
            if part == "test":
                table[f"rank_{score}"] = _ranks(states, table[f"mean_{score}"])
    table["number"] = np.array([trial.number for trial in trials])
    table["state"] = np.array(states, dtype=object)
    table["reason"] = np.array([trial.user_attrs.get("reason") for trial in trials], dtype=object)
    table["health_verdict"] = np.array([trial.user_attrs.get("health_verdict") for trial in trials], dtype=object)
    table["health_score"] = column("health_score")
    return table


def _ranks(states: Sequence[str], scores: np.ndarray) -> np.ndarray:
    """Rank trials from 1, ties alike: complete before pruned before failed, higher scores first, NaN last."""
    keys = [
        (_RANK_OF_STATE[state], math.inf if math.isnan(score) else -score)
        for state, score in zip(states, scores, strict=True)
    ]
    in_order = sorted(keys)
    return np.array([bisect_left(in_order, key) + 1 for key in keys], dtype=np.int32)


def trial_record(
    trial: FrozenTrial,
    estimator: Any,
    params: Params,
    series: Mapping[str, Sequence[float]] | None = None,
    health: HealthReport | None = None,
) -> TrialRecord:
    """Return what a tracker is told of a trial.

    Parameters
    ----------
    trial : FrozenTrial
    estimator : estimator
        With the trial's parameters set.
    params : dict
        The searched parameters by the estimator's own names.
    series : mapping of str to sequence of float, optional
        Per-epoch values.
    health : HealthReport, optional
    """
    attributes = trial.user_attrs
    return TrialRecord(
        number=trial.number,
        state=state_of(trial),  # type: ignore[arg-type]
        reason=attributes.get("reason"),
        params={**_hyperparameters(estimator), **{name: loggable(value) for name, value in params.items()}},
        metrics={name: value for name, value in attributes.items() if name.startswith(("mean_", "std_", "split"))},
        series=series or {},
        start_time=attributes.get("start_time", math.nan),
        end_time=attributes.get("end_time", math.nan),
        health=health,
    )


def health_of(trial: FrozenTrial) -> HealthReport | None:
    """Return the health report that is stored with a trial, which has no numbers."""
    stored = trial.user_attrs.get("health")
    if stored is None:
        return None
    from tuner.health.report import HealthReport

    return HealthReport.from_dict(stored)


def trial_line(trial: FrozenTrial) -> str:
    """Return a finished trial in one line."""
    seconds = trial.user_attrs["end_time"] - trial.user_attrs["start_time"]
    attributes, score = trial.user_attrs, score_of(trial)
    what = first_line(attributes["reason"]) if score is None else f"score {score:.4f}"
    what += f", {attributes['health_verdict']}" if "health_verdict" in attributes else ""
    return f"trial {trial.number}: {state_of(trial)}, {what} ({seconds:.1f} s)"


def first_line(text: str) -> str:
    """Return the first line of an error message; some go on for pages."""
    return text.strip().splitlines()[0]


def _hyperparameters(estimator: Any) -> dict[str, Any]:
    """Return the plain parameters of an estimator and of those inside, by name."""
    return {
        name: loggable(value)
        for name, value in estimator.get_params(deep=True).items()
        if name.split("__")[-1] not in _NOT_HYPERPARAMETERS and not hasattr(value, "get_params")
    }


def loggable(value: Any) -> Any:
    """Return a plain value as it is, anything else as a text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else describe(value)
