"""What a search makes of the gradients that its networks measure."""

from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import NSGAIISampler
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tuner import KerasClassifier, OptunaSearchCV, Study
from tuner.backend import keras
from tuner.engine.health import updates_left
from tuner.engine.stacked import StackedCrew
from tuner.errors import HyperparameterError
from tuner.evaluation import SICK_EPOCHS, Job, evaluate
from tuner.health import HEALTHY_ENOUGH, health_constraint
from tuner.spaces import quiet
from tuner.testing.health import make_measurements, measure
from tuner.tracking import MemoryTracker

X, Y = load_iris(return_X_y=True)
SPACE = {"activation": ["relu", "tanh"]}


@pytest.fixture(autouse=True)
def measuring(monkeypatch):
    """Networks with the activation ``tanh`` are dead by what is said of them; the others are healthy."""
    train = KerasClassifier.train_lanes

    def measured_training(self, lanes, on_epoch=None):
        kinds = ["dead" if lane.hyperparameters["activation"] == "tanh" else "healthy" for lane in lanes]
        health = [
            make_measurements(kind, epochs=0) if lane.hyperparameters["health"] else None
            for lane, kind in zip(lanes, kinds, strict=True)
        ]

        def measured_epoch(epoch, histories, predict, _):
            for measurements, history, kind in zip(health, histories, kinds, strict=True):
                if measurements is not None and len(history["loss"]) > epoch:
                    measure(measurements, epoch + 1, kind)
            return on_epoch(epoch, histories, predict, health) if on_epoch else ()

        trained = train(self, lanes, measured_epoch)
        for lane, measurements in zip(trained, health, strict=True):
            lane.health = measurements
        return trained

    monkeypatch.setattr("tuner.estimators.KerasEstimator.train_lanes", measured_training)


def network(**params):
    return KerasClassifier(**{"units": 4, "epochs": 2, "random_state": 0, **params})


def search(estimator=None, space=None, **settings):
    estimator = network() if estimator is None else estimator
    settings = {"n_trials": 6, "cv": 2, "random_state": 0, "refit": False, **settings}
    return OptunaSearchCV(estimator, SPACE if space is None else space, **settings)


def dead(fitted):
    sick = fitted.cv_results_["param_activation"] == "tanh"
    assert 0 < sick.sum() < len(sick), "choose another seed"
    return np.asarray(sick)


def test_every_trial_says_what_was_wrong_with_it():
    tracker = MemoryTracker()
    fitted = search(tracking=tracker).fit(X, Y)
    sick, verdicts = dead(fitted), fitted.cv_results_["health_verdict"]
    assert (verdicts[~sick] == "healthy").all() and (verdicts[sick] != "healthy").all()
    scores = fitted.cv_results_["health_score"]
    assert scores[sick].max() < HEALTHY_ENOUGH < scores[~sick].min()
    assert fitted.cv_results_["state"].tolist() == ["complete"] * 6
    for row, report in enumerate(fitted.health_):
        assert (report.verdict, report.score) == (verdicts[row], scores[row])
        assert len(report.measurements) == 2 and report.measurements[0].epochs == [0, 1, 2]
        assert tracker.trials[row].health is report
    assert tracker.study.health
    assert (tracker.result.health.n_trials, tracker.result.health.n_sick) == (6, sick.sum())


def test_a_resumed_study_knows_what_its_trials_were_sick_with(tmp_path):
    kept = {"storage": tmp_path / "study.log", "study_name": "iris"}
    first = search(**kept).fit(X, Y)
    second = search(n_trials=1, **kept).fit(X, Y)
    assert second.cv_results_["health_verdict"][:6].tolist() == first.cv_results_["health_verdict"].tolist()
    for before, after in zip(first.health_, second.health_[:6], strict=True):
        assert [finding.condition for finding in after.findings] == [finding.condition for finding in before.findings]
        assert (after.verdict, after.score) == (before.verdict, before.score)
    assert second.health_[6].measurements
    assert second.health_summary_.n_trials == 7


def test_the_numbers_of_long_searches_are_kept_of_the_latest_trials_and_of_the_best(monkeypatch):
    monkeypatch.setattr("tuner.search._TRIALS_WITH_NUMBERS", 2)
    tracker = MemoryTracker()

    def score(estimator, X, y):
        return {3: 0.1, 4: 0.9, 5: 0.2, 6: 0.9, 7: 0.3, 8: 0.4}[estimator.units]

    space = {"units": [3, 4, 5, 6, 7, 8]}
    sampler = optuna.samplers.GridSampler(space, seed=0)
    fitted = search(space=space, sampler=sampler, scoring=score, refit=True, tracking=tracker).fit(X, Y)
    assert 0 < fitted.best_index_ < 4, "choose another seed"
    with_numbers = [row for row, report in enumerate(fitted.health_) if report.measurements]
    assert with_numbers == [fitted.best_index_, 4, 5]
    assert all(trial.health.measurements for trial in tracker.trials)
    for trial, report in zip(tracker.trials, fitted.health_, strict=True):
        assert report.to_dict(numbers=False) == trial.health.to_dict(numbers=False)
    assert fitted.health_summary_.n_trials == 6


@pytest.mark.parametrize("off", [False, None])
def test_it_can_be_switched_off_in_whatever_is_searched(off):
    pipeline = make_pipeline(StandardScaler(), network())
    fitted = search(pipeline, {"kerasclassifier": [network(units=3), network(units=5)]}, n_trials=2, health=off)
    fitted.fit(X, Y)
    assert fitted.health_ == [None, None]
    assert fitted.cv_results_["health_verdict"].tolist() == [None, None]
    assert np.isnan(fitted.cv_results_["health_score"]).all()
    assert fitted.health_summary_.lines() == []


def test_other_estimators_have_no_health():
    fitted = search(LogisticRegression(max_iter=1000), {"C": [0.1, 1.0]}, n_trials=2).fit(X, Y)
    assert fitted.health_ == [None, None] and "health_verdict" not in fitted.trials_[0].user_attrs


# Pruning --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", [None, optuna.pruners.NopPruner()], ids=["alone", "beside a pruner"])
def test_a_network_that_cannot_learn_is_pruned(pruner):
    tracker = MemoryTracker()
    fitted = search(network(epochs=6), health="prune", pruner=pruner, tracking=tracker, refit=True).fit(X, Y)
    sick, results = dead(fitted), fitted.cv_results_
    assert (results["state"] == np.where(sick, "pruned", "complete")).all()
    for row in np.flatnonzero(sick):
        assert results["reason"][row].startswith("health: ")
        assert fitted.trials_[row].state == optuna.trial.TrialState.PRUNED
        assert len(tracker.trials[row].series["loss"]) <= SICK_EPOCHS
        assert fitted.health_[row].verdict != "healthy"
    scored = np.isfinite(results["mean_test_score"][sick])
    assert scored.all() if pruner else not scored.any(), "only a pruner wants to know scores in between"
    assert results["rank_test_score"][sick].min() > results["rank_test_score"][~sick].max()
    assert results["state"][fitted.best_index_] == "complete"


def test_a_pruned_trial_is_not_computed_until_those_beside_it_end(monkeypatch):
    trained = []

    class Watched(StackedCrew):
        def train_epoch(self):
            trained.append((self.width, sum(self.active)))
            super().train_epoch()

    monkeypatch.setattr("tuner.engine.stacked.StackedCrew", Watched)
    whole = search(network(epochs=8), health="record").fit(X, Y)
    assert sum(width for width, _ in trained) >= 8 * 6 * 2
    trained.clear()
    pruned = search(network(epochs=8), health="prune").fit(X, Y)
    sick = dead(pruned)
    assert all(width == active == 2 for width, active in trained)  # the folds of one trial
    assert len(trained) <= SICK_EPOCHS * sick.sum() + 8 * (~sick).sum()
    same = pytest.approx(whole.cv_results_["mean_test_score"][~sick], abs=1.5 / 150)
    assert pruned.cv_results_["mean_test_score"][~sick] == same


def test_a_pruned_trial_without_a_score_can_be_shown_and_gone_on_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = Study("iris", (X, Y), network(epochs=4), SPACE, cv=2, n_trials=5, random_state=0, health="prune")
    fitted = study.run(tracking=None)
    shown = capsys.readouterr().out
    n_sick = int(dead(fitted).sum())
    assert f"{n_sick} pruned" in shown and f"health: {n_sick} of 5 trials were sick" in shown
    assert "pruned  " in shown and "health: " in shown
    again = study.run(tracking=None, n_trials=6)
    assert again.n_trials_ == 6


def test_a_scorer_of_several_metrics_goes_with_pruned_trials_that_have_none():
    def scores(estimator, X, y):
        return {"accuracy": estimator.score(X, y), "one": 1.0}

    fitted = search(health="prune", scoring=scores, refit="accuracy").fit(X, Y)
    assert np.isnan(fitted.cv_results_["mean_test_accuracy"][dead(fitted)]).all()


def test_only_the_first_epochs_prune(monkeypatch):
    asked = []
    monkeypatch.setattr("tuner.health.diagnosis.fatal", lambda health, updates_left: asked.append(len(health)))
    job = Job(network(epochs=6), X, Y, [(np.arange(0, 150, 2), np.arange(1, 150, 2))], lambda e, X, y: 1.0, "score")
    assert [outcome.state for outcome in evaluate([job])] == ["complete"]
    assert asked == []
    [outcome] = evaluate([replace(job, prune_sick=True)])
    assert outcome.state == "complete" and asked == [1] * SICK_EPOCHS


def changing(first, then):
    """Return a schedule with another rate from the ninth update on; Keras includes the boundary."""
    return keras.optimizers.schedules.PiecewiseConstantDecay([7], [first, then])


@pytest.mark.parametrize(
    ("schedule", "left"),
    [(None, 16), (changing(0.01, 0.1), 160), (changing(0.1, 0.01), 1.6), (changing(0.0, 0.1), np.inf)],
    ids=["constant", "warm-up", "decay", "from 0"],
)
def test_updates_to_come_count_by_their_learning_rates(schedule, left):
    rate = 0.1 if schedule is None else None
    estimator = network(optimizer="sgd", learning_rate=rate, learning_rate_schedule=schedule, batch_size=8, epochs=3)
    lane = estimator.make_lane(X[:64], Y[:64])
    assert updates_left(lane, 1) == pytest.approx(left)
    assert updates_left(lane, 3) == 0


@pytest.mark.parametrize("prune", [False, True])
def test_a_trial_that_failed_says_what_was_wrong_with_it_too(prune):
    exploding = network(
        activation="linear",
        optimizer="sgd",
        learning_rate=1e6,
        epochs=40,
        loss="mean_squared_error",
        output_activation="linear",
    )
    splits = [(np.arange(0, 150, 2), np.arange(1, 150, 2))]
    [outcome] = evaluate([Job(exploding, X, Y, splits, lambda e, X, y: 1.0, "score", prune_sick=prune)])
    assert outcome.state == "failed" and outcome.reason.startswith("non-finite loss")
    assert len(outcome.health.measurements) == 1


# Objective and constraint ---------------------------------------------------------------------------------------------


def test_health_as_an_objective_is_maximised_beside_the_score(tmp_path):
    kept = {"storage": tmp_path / "study.log", "study_name": "iris"}
    fitted = search(health="objective", refit=True, n_trials=12, **kept).fit(X, Y)
    results = fitted.cv_results_
    assert len(fitted.study_.directions) == 2
    for row, trial in enumerate(fitted.trials_):
        assert trial.values == pytest.approx([results["mean_test_score"][row], results["health_score"][row]])
    assert fitted.best_score_ == max(results["mean_test_score"])
    assert all(trial.values[1] > HEALTHY_ENOUGH for trial in fitted.study_.best_trials)
    assert search(health="objective", n_trials=1, **kept).fit(X, Y).n_trials_ == 13


def test_a_study_of_two_objectives_is_shown_as_any(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = Study("iris", (X, Y), network(), SPACE, cv=2, n_trials=2, random_state=0, health="objective", tracking=None)
    study.run()
    assert "best of 2 complete trials" in capsys.readouterr().out
    assert study.run(n_trials=3).n_trials_ == 3
    assert "going on after 2 finished trials" in capsys.readouterr().out
    fitted = search(health="objective", verbose=1, n_trials=1).fit(X, Y)
    assert f"score {fitted.cv_results_['mean_test_score'][0]:.4f}, " in capsys.readouterr().out


def test_the_number_of_objectives_of_a_study_cannot_be_changed(tmp_path):
    kept = {"storage": tmp_path / "study.log", "study_name": "iris"}
    search(n_trials=1, **kept).fit(X, Y)
    with pytest.raises(HyperparameterError, match=r"'iris' has 1 objective\(s\).*this search has 2"):
        search(health="objective", **kept).fit(X, Y)
    for health in ("prune", "record", None):  # nothing else is part of what a study was made for
        search(n_trials=1, health=health, **kept).fit(X, Y)
    two = {"storage": tmp_path / "study.log", "study_name": "two"}
    search(health="objective", n_trials=1, **two).fit(X, Y)
    with pytest.raises(HyperparameterError, match=r"'two' has 2 objective\(s\)"):
        search(**two).fit(X, Y)


@pytest.mark.parametrize(
    ("estimator", "settings", "message"),
    [
        (LogisticRegression(), {"health": "objective"}, "health='objective' needs a Keras estimator.*Logistic"),
        (LogisticRegression(), {"health": "prune"}, "health='prune' needs a Keras estimator"),
        (network(health=False), {"health": "constraint"}, "measures no gradients"),
        (network(), {"health": "objective", "enable_pruning": True}, "two objectives, of which Optuna cannot prune"),
    ],
)
def test_nothing_is_decided_by_what_nobody_measures(estimator, settings, message):
    space = {"C": [0.1]} if isinstance(estimator, LogisticRegression) else SPACE
    given = search(estimator, space, **settings)
    with pytest.raises(HyperparameterError, match=message):
        given.fit(X, Y)
    assert not hasattr(given, "study_")


def test_an_unknown_use_of_health_is_refused():
    with pytest.raises(ValueError, match="The 'health' parameter of OptunaSearchCV must be"):
        search(health="always").fit(X, Y)


def test_health_as_a_constraint_makes_sick_trials_infeasible():
    fitted = search(health="constraint").fit(X, Y)
    sick = dead(fitted)
    for trial, is_sick, score in zip(fitted.trials_, sick, fitted.cv_results_["health_score"], strict=True):
        assert trial.constraints == pytest.approx({"health": HEALTHY_ENOUGH - score})
        assert (trial.constraints["health"] > 0) == is_sick
        assert health_constraint(trial) == pytest.approx((HEALTHY_ENOUGH - score,))
    assert not any(trial.constraints for trial in search().fit(X, Y).trials_)


def test_the_constraint_serves_samplers_that_ask_for_a_function():
    with pytest.warns(FutureWarning, match="constraints_func"):
        sampler = NSGAIISampler(constraints_func=health_constraint, seed=0)
    fitted = search(sampler=sampler).fit(X, Y)
    assert [max(trial.constraints.values()) > 0 for trial in fitted.trials_] == dead(fitted).tolist()


def test_a_constraint_teaches_the_sampler():
    space = {"activation": ["relu", "tanh"], "learning_rate": FloatDistribution(1e-4, 1e-1, log=True)}
    with quiet():
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=8)
    fitted = search(network(epochs=1), space, sampler=sampler, health="constraint", n_trials=24).fit(X, Y)
    later = np.asarray(fitted.cv_results_["param_activation"][8:] == "tanh")
    assert later.mean() < 0.4
