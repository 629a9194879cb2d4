"""Trials that fail, and trials that are pruned."""

import os

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score

from tuner import OptunaSearchCV
from tuner.errors import SearchError
from tuner.tracking import MemoryTracker

X, Y = load_iris(return_X_y=True)


class Fragile(ClassifierMixin, BaseEstimator):
    """Scores `quality`; fails as `trouble` says."""

    def __init__(self, quality=0.5, trouble=None):
        self.quality = quality
        self.trouble = trouble

    def fit(self, X, y):
        if self.trouble == "fit":
            raise ArithmeticError("the matrix is tired")
        return self

    def score(self, X, y):
        if self.trouble == "score":
            raise LookupError("no score today")
        return np.nan if self.trouble == "nan" else self.quality


QUALITY = {"quality": FloatDistribution(0, 1), "trouble": [None, None, "fit", "score", "nan"]}


def fragile(**settings):
    return OptunaSearchCV(Fragile(), QUALITY, **{"n_trials": 16, "random_state": 1, "cv": 2, **settings})


# Failures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error_score", [np.nan, 7.0])
def test_failed_trials_keep_their_cause_and_rank_last(error_score):
    tracker = MemoryTracker()
    with pytest.warns(FitFailedWarning, match="of 16 trials failed") as warned:
        fitted = fragile(error_score=error_score, tracking=tracker).fit(X, Y)
    assert len(warned) == 1
    results = fitted.cv_results_
    causes = {
        "fit": "ArithmeticError: the matrix is tired",
        "score": "LookupError: no score today",
        "nan": "ValueError: the score is NaN",
        None: None,
    }
    for row, params in enumerate(results["params"]):
        trial, record = fitted.trials_[row], tracker.trials[row]
        cause = causes[params["trouble"]]
        assert results["reason"][row] == trial.user_attrs["reason"] == record.reason == cause
        assert results["state"][row] == record.state == ("complete" if cause is None else "failed")
        assert trial.state == (TrialState.COMPLETE if cause is None else TrialState.FAIL)
        if cause is not None:
            np.testing.assert_equal(results["mean_test_score"][row], error_score)
            np.testing.assert_equal(results["split1_test_score"][row], error_score)
    failed = results["state"] == "failed"
    assert 0 < failed.sum() < 16
    assert results["rank_test_score"][~failed].max() < results["rank_test_score"][failed].min()
    assert results["state"][fitted.best_index_] == "complete"
    assert fitted.best_score_ == max(results["mean_test_score"][~failed])


def test_error_score_raise_ends_the_search_but_for_what_is_caught():
    with pytest.raises((ArithmeticError, LookupError)):
        fragile(error_score="raise", catch=ValueError).fit(X, Y)
    with pytest.warns(FitFailedWarning):
        fitted = fragile(error_score="raise", catch=(ArithmeticError, LookupError, ValueError)).fit(X, Y)
    assert fitted.n_trials_ == 16


def test_the_same_error_is_raised_from_a_worker():
    space = {"trouble": [None, "fit"]}
    with pytest.raises(ArithmeticError, match="the matrix is tired"):
        OptunaSearchCV(Fragile(), space, n_trials=8, n_jobs=2, random_state=0, error_score="raise", cv=2).fit(X, Y)


class Deadly(Fragile):
    """Ends its process, as the operating system does when memory runs out."""

    def fit(self, X, y):
        if self.trouble == "death":
            os._exit(1)
        return super().fit(X, y)


@pytest.mark.parametrize("pruning", [False, True])
def test_a_worker_that_dies_fails_one_trial(pruning):
    class Deadlier(Deadly):
        def partial_fit(self, X, y):
            return self.fit(X, y)

    space = {"quality": FloatDistribution(0, 1), "trouble": [None, None, "death", "fit"]}
    given = OptunaSearchCV(
        Deadlier(), space, n_trials=10, n_jobs=2, random_state=3, cv=2, enable_pruning=pruning, max_iter=2
    )
    with pytest.warns(FitFailedWarning, match="the worker process died"):
        fitted = given.fit(X, Y)
    results = fitted.cv_results_
    reasons = {"death": "the worker process died (out of memory?)", "fit": "ArithmeticError: the matrix is tired"}
    troubles = [params["trouble"] for params in results["params"]]
    assert 0 < troubles.count("death") < 8
    assert "fit" in troubles
    assert len(troubles) == 10
    for row, trouble in enumerate(troubles):
        if trouble is not None:
            assert results["reason"][row] == reasons[trouble]
            assert results["state"][row] == "failed"
        else:
            assert results["state"][row] in (("complete", "pruned") if pruning else ("complete",))
    assert np.isnan(results["mean_fit_time"][troubles.index("death")])


@pytest.mark.parametrize("error_score", [np.nan, 0.0])
def test_all_fail(error_score):
    tracker = MemoryTracker()
    given = OptunaSearchCV(Fragile(), {"trouble": ["fit"]}, n_trials=3, error_score=error_score, tracking=tracker)
    with pytest.raises(SearchError, match=r"3 failed.*trial 0: ArithmeticError: the matrix is tired") as raised:
        given.fit(X, Y)
    assert isinstance(raised.value, ValueError)  # as scikit-learn raises
    assert not hasattr(given, "best_estimator_")
    assert list(given.cv_results_["state"]) == ["failed"] * 3
    assert (tracker.result.state, tracker.result.best) == ("failed", None)


def test_a_metric_that_fails_in_a_multimetric_search():
    def capricious(estimator, X, y):
        if estimator.quality > 0.5:
            raise LookupError("too good")
        return estimator.quality

    given = fragile(scoring={"plain": lambda e, X, y: e.quality, "capricious": capricious}, refit="plain")
    with pytest.warns(FitFailedWarning):
        fitted = given.set_params(param_distributions={"quality": FloatDistribution(0, 1)}).fit(X, Y)
    failed = fitted.cv_results_["state"] == "failed"
    assert (fitted.cv_results_["param_quality"][failed] > 0.5).all()
    assert "scoring with capricious failed: LookupError: too good" in fitted.cv_results_["reason"][failed][0]
    assert np.isnan(fitted.cv_results_["mean_test_plain"][failed]).all()


def test_scores_must_be_numbers():
    with pytest.raises(SearchError, match="scoring must return a number, got 'good'"):
        fragile(scoring=lambda estimator, X, y: "good" if estimator else 0).fit(X, Y)


# Pruning ------------------------------------------------------------------------------------------------------------


class Learner(ClassifierMixin, BaseEstimator):
    """Its score grows by `rate` with every partial_fit, on the folds alike but for a fraction of the first sample."""

    def __init__(self, rate=0.01):
        self.rate = rate

    def fit(self, X, y):
        self.steps_ = 100
        return self

    def partial_fit(self, X, y, classes=None):
        assert list(classes) == [0, 1, 2]
        self.steps_ = getattr(self, "steps_", 0) + 1
        return self

    def score(self, X, y):
        return self.rate * self.steps_ + 1e-3 * X[0, 0]


RATE = {"rate": FloatDistribution(0, 0.01)}


def learner(**settings):
    settings = {"n_trials": 24, "random_state": 0, "cv": 3, "enable_pruning": True, "max_iter": 10, **settings}
    return OptunaSearchCV(Learner(), RATE, **settings)


@pytest.fixture(scope="module")
def pruned():
    """A search some of whose trials were pruned."""
    tracker = MemoryTracker()
    return learner(tracking=tracker).fit(X, Y), tracker


def test_pruned_trials_keep_their_scores_and_rank_below_complete_ones(pruned):
    fitted, tracker = pruned
    results = fitted.cv_results_
    early = results["state"] == "pruned"
    assert 0 < early.sum() < 24
    assert set(results["state"]) == {"complete", "pruned"}
    assert np.isfinite(results["mean_test_score"]).all()
    assert results["rank_test_score"][~early].max() < results["rank_test_score"][early].min()
    for row in np.flatnonzero(early):
        trial, record = fitted.trials_[row], tracker.trials[row]
        steps = len(trial.intermediate_values)
        assert trial.state == TrialState.PRUNED
        assert results["reason"][row] == record.reason == f"pruned at step {steps - 1}"
        assert trial.value == results["mean_test_score"][row]
        rate = results["params"][row]["rate"]
        assert results["mean_test_score"][row] == pytest.approx(rate * steps, abs=0.01)
        assert record.series["held_out_score"] == list(trial.intermediate_values.values())
        assert len(record.series["split2_held_out_score"]) == steps


def test_one_report_per_step_is_the_mean_over_folds(pruned):
    fitted, _ = pruned
    complete = fitted.trials_[0]
    assert list(complete.intermediate_values) == list(range(10))
    first = [X[test][0, 0] for _, test in StratifiedKFold(3).split(X, Y)]
    rate = complete.params["rate"]
    expected = [rate * (step + 1) + 1e-3 * np.mean(first) for step in range(10)]
    assert list(complete.intermediate_values.values()) == pytest.approx(expected)
    assert complete.value == complete.intermediate_values[9]


def test_a_round_is_judged_by_earlier_rounds_only(pruned):
    states = pruned[0].cv_results_["state"]
    assert list(states[:8]) == ["complete"] * 8
    median = np.median([trial.intermediate_values[0] for trial in pruned[0].trials_[:8]])
    second = [trial for trial in pruned[0].trials_[8:16] if trial.state == TrialState.PRUNED]
    assert all(trial.intermediate_values[0] < median for trial in second)


@pytest.mark.parametrize(
    "pruner",
    [
        None,
        optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        optuna.pruners.HyperbandPruner(min_resource=1, max_resource=10, reduction_factor=3),
        optuna.pruners.PercentilePruner(60.0, n_startup_trials=2),
    ],
    ids=lambda pruner: type(pruner).__name__,
)
def test_every_pruner_decides_the_same_whatever_n_jobs(pruner):
    one, two = (learner(pruner=pruner, n_jobs=n_jobs, study_name="same").fit(X, Y) for n_jobs in (1, 2))
    assert "pruned" in one.cv_results_["state"]
    for name in ("params", "state", "reason", "mean_test_score"):
        assert list(one.cv_results_[name]) == list(two.cv_results_[name])
    for a, b in zip(one.trials_, two.trials_, strict=True):
        assert a.intermediate_values == b.intermediate_values
        assert {k: v for k, v in a.system_attrs.items()} == {k: v for k, v in b.system_attrs.items()}


def test_hyperband_is_a_function_of_the_seed_without_a_name():
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=10, reduction_factor=3)
    first, *others = (learner(pruner=pruner, n_trials=16).fit(X, Y) for _ in range(3))
    for other in others:
        assert [t.intermediate_values for t in other.trials_] == [t.intermediate_values for t in first.trials_]


def test_the_notes_of_successive_halving_reach_the_study():
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    fitted = learner(pruner=pruner).fit(X, Y)
    assert all("completed_rung_0" in trial.system_attrs for trial in fitted.trials_)


def test_real_partial_fit_equals_scikit_learn():
    given = OptunaSearchCV(
        SGDClassifier(random_state=0),
        {"alpha": FloatDistribution(1e-4, 1e-1, log=True)},
        enable_pruning=True,
        max_iter=3,
        n_trials=2,
        cv=3,
        return_train_score=True,
    ).fit(X, Y)
    for row, params in enumerate(given.cv_results_["params"]):
        for i, (train, test) in enumerate(StratifiedKFold(3).split(X, Y)):
            model = SGDClassifier(random_state=0, **params)
            for _ in range(3):
                model.partial_fit(X[train], Y[train], classes=[0, 1, 2])
            assert given.cv_results_[f"split{i}_test_score"][row] == model.score(X[test], Y[test])
            assert given.cv_results_[f"split{i}_train_score"][row] == model.score(X[train], Y[train])


def test_without_pruning_partial_fit_is_not_used():
    fitted = OptunaSearchCV(Learner(), RATE, n_trials=2, cv=3).fit(X, Y)
    assert fitted.best_estimator_.steps_ == 100
    assert not fitted.trials_[0].intermediate_values


def test_never_the_best_even_if_all_are_pruned():
    pruner = optuna.pruners.ThresholdPruner(lower=2.0)
    with pytest.raises(SearchError, match=r"no trial completed \(24 pruned\)"):
        learner(pruner=pruner).fit(X, Y)


def test_nan_at_a_step_fails_the_trial():
    class Odd(Learner):
        def score(self, X, y):
            return np.nan if self.steps_ == 2 and self.rate > 0.005 else super().score(X, y)

    with pytest.warns(FitFailedWarning):
        fitted = OptunaSearchCV(Odd(), RATE, n_trials=8, cv=3, enable_pruning=True, max_iter=3, random_state=0).fit(
            X, Y
        )
    failed = fitted.cv_results_["state"] == "failed"
    assert (np.asarray(fitted.cv_results_["param_rate"] > 0.005) == failed).all()


def test_scores_of_ordinary_estimators_are_untouched_by_all_this():
    space = {"C": [1.0]}
    fitted = OptunaSearchCV(LogisticRegression(max_iter=1000), space, n_trials=1).fit(X, Y)
    assert fitted.best_score_ == cross_val_score(LogisticRegression(max_iter=1000), X, Y).mean()
