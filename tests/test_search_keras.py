"""OptunaSearchCV with Keras estimators: the folds of a trial train together."""

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import StratifiedKFold, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from tuner import KerasClassifier, KerasRegressor, OptunaSearchCV
from tuner.engine.program import statistics
from tuner.errors import HyperparameterError, SearchError
from tuner.evaluation import Job, evaluate, last_step
from tuner.search import AllTrialsFailed
from tuner.tracking import MemoryTracker

EPOCHS = 3
CV = StratifiedKFold(2, shuffle=True, random_state=0)


def classifier(**params):
    return KerasClassifier(**{"units": 8, "epochs": EPOCHS, "random_state": 0, "learning_rate": 0.01, **params})


def search(estimator, space, **settings):
    return OptunaSearchCV(estimator, space, **{"n_trials": 1, "cv": CV, "random_state": 0, **settings})


def split_scores(fitted, row=0):
    return [fitted.cv_results_[f"split{i}_test_score"][row] for i in range(fitted.n_splits_)]


@pytest.fixture
def lanes(monkeypatch):
    """The lanes of every call of the engine."""
    calls = []
    train = KerasClassifier.train_lanes

    def noted(self, lanes, on_epoch=None):
        calls.append(lanes)
        return train(self, lanes, on_epoch)

    monkeypatch.setattr("tuner.estimators.KerasEstimator.train_lanes", noted)
    return calls


# The same scores as fold by fold --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "prefix"),
    [
        (classifier(), ""),
        (make_pipeline(StandardScaler(), classifier()), "kerasclassifier__"),
        (
            make_pipeline("passthrough", StandardScaler(), make_pipeline(MinMaxScaler(), classifier())),
            "pipeline__kerasclassifier__",
        ),
        (Pipeline([("net", classifier())]), "net__"),
    ],
    ids=["bare", "pipeline", "nested", "one step"],
)
def test_scores_are_those_of_cross_validate(digits, lanes, estimator, prefix):
    fitted = search(estimator, {f"{prefix}units": [9]}, return_train_score=True).fit(*digits)
    assert [len(call) for call in lanes] == [2, 1]  # both folds, and the refit
    best = clone(estimator).set_params(**fitted.best_params_)
    expected = cross_validate(best, *digits, cv=CV, return_train_score=True)
    assert split_scores(fitted) == pytest.approx(expected["test_score"])
    train = [fitted.cv_results_[f"split{i}_train_score"][0] for i in range(2)]
    assert train == pytest.approx(expected["train_score"])
    assert fitted.best_estimator_.predict(digits[0]).shape == digits[1].shape


@pytest.mark.parametrize(("sampler", "calls"), [("grid", 2), ("random", 2), ("tpe", 3)])
def test_a_sampler_that_does_not_learn_lets_all_trials_of_one_structure_train_together(digits, lanes, sampler, calls):
    space = {"units": [2, 4], "random_state": list(range(6))}  # more than a round of a sampler that learns
    fitted = search(classifier(epochs=1), space, sampler=sampler, n_trials=12, refit=False).fit(*digits)
    assert fitted.n_trials_ == 12 and sum(map(len, lanes)) == 12 * fitted.n_splits_
    assert len(lanes) == calls if calls == 2 else len(lanes) >= calls


def test_targets_are_transformed(line):
    network = KerasRegressor(units=8, epochs=EPOCHS, random_state=0)
    for target in (100 * line[1], 100 * np.column_stack([line[1], -line[1]])):
        estimator = TransformedTargetRegressor(make_pipeline(StandardScaler(), network), transformer=StandardScaler())
        tracker = MemoryTracker()
        space = {"regressor__kerasregressor__units": [9]}
        fitted = search(estimator, space, cv=2, tracking=tracker).fit(line[0], target)
        best = clone(estimator).set_params(**fitted.best_params_)
        assert split_scores(fitted) == pytest.approx(cross_val_score(best, line[0], target, cv=2), rel=1e-4)
        assert max(tracker.trials[0].series["test_loss"]) < 10  # of the transformed target


def test_preprocessing_sees_training_folds_only_and_caches(digits, tmp_path):
    class Spy(StandardScaler):
        seen = []

        def fit(self, X, y=None, sample_weight=None):
            Spy.seen.append(len(X))
            return super().fit(X, y)

    pipeline = Pipeline([("spy", Spy()), ("net", classifier())])
    search(pipeline, {"net__units": [3]}).fit(*digits)
    assert Spy.seen == [150, 150, 150, 150, 300]  # once before the search, to look at the data
    Spy.seen.clear()

    cached = Pipeline([("scaler", StandardScaler()), ("net", classifier())], memory=str(tmp_path))
    first = search(cached, {"net__units": [3]}).fit(*digits)
    plain = search(clone(cached).set_params(memory=None), {"net__units": [3]}).fit(*digits)
    assert split_scores(first) == split_scores(plain)
    assert any(tmp_path.rglob("output.pkl"))


def test_a_wrapped_network_goes_fold_by_fold(digits, lanes):
    wrapped = CalibratedClassifierCV(classifier(), cv=2)
    fitted = search(wrapped, {"estimator__units": [3]}).fit(*digits)
    assert {len(call) for call in lanes} == {1}
    assert fitted.cv_results_["state"].tolist() == ["complete"]


def test_sample_weight_reaches_the_lanes(digits):
    X, y = digits
    weights = np.random.default_rng(0).uniform(0, 2, len(y))
    pipeline = make_pipeline(StandardScaler(), classifier())
    fitted = search(pipeline, {"kerasclassifier__units": [9]}).fit(X, y, kerasclassifier__sample_weight=weights)
    best = clone(pipeline).set_params(**fitted.best_params_)
    params = {"kerasclassifier__sample_weight": weights}
    assert split_scores(fitted) == pytest.approx(cross_val_score(best, X, y, cv=CV, params=params))

    with config_context(enable_metadata_routing=True):
        network = classifier().set_fit_request(sample_weight=True)
        routed = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), network)
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        by_routing = search(routed, {"kerasclassifier__units": [9]}, scoring=scorer).fit(X, y, sample_weight=weights)
        best = clone(routed).set_params(**by_routing.best_params_)
        expected = cross_val_score(best, X, y, cv=CV, scoring=scorer, params={"sample_weight": weights})
    assert split_scores(by_routing) == pytest.approx(expected)


# Series and pruning ---------------------------------------------------------------------------------------------------


def test_series_are_per_epoch_and_per_fold(digits):
    tracker = MemoryTracker()
    search(make_pipeline(StandardScaler(), classifier()), {"kerasclassifier__units": [9]}, tracking=tracker).fit(
        *digits
    )
    series = tracker.trials[0].series
    assert {"loss", "accuracy", "test_loss", "test_accuracy", "split0_loss", "split1_test_accuracy"} <= series.keys()
    assert {len(values) for values in series.values()} == {EPOCHS}
    assert series["loss"] == pytest.approx(np.mean([series["split0_loss"], series["split1_loss"]], axis=0))
    assert series["split0_test_accuracy"][-1] == pytest.approx(tracker.trials[0].metrics["split0_test_score"])


def test_pruning_reports_the_mean_score_after_every_epoch(digits):
    pipeline = make_pipeline(StandardScaler(), classifier())
    tracker = MemoryTracker()
    space = {"kerasclassifier__learning_rate": FloatDistribution(1e-7, 1e-1, log=True)}
    settings = {"n_trials": 10, "enable_pruning": True, "tracking": tracker}
    pruner = optuna.pruners.PercentilePruner(70.0, n_startup_trials=1)
    fitted = search(pipeline, space, pruner=pruner, **settings).fit(*digits)
    assert fitted.cv_results_["state"][:8].tolist() == ["complete"] * 8
    for trial, record in zip(fitted.trials_, tracker.trials, strict=True):
        steps = len(trial.intermediate_values)
        assert list(trial.intermediate_values) == list(range(steps))
        assert list(trial.intermediate_values.values()) == pytest.approx(record.series["test_accuracy"])
        assert trial.value == trial.intermediate_values[steps - 1] == record.metrics["mean_test_score"]
        assert (steps < EPOCHS) <= (record.state == "pruned")


class Always:
    """A judge with one verdict."""

    def __init__(self, prune):
        self.prune, self.reports = prune, []

    def report(self, step, score):
        self.reports.append((step, score))
        return self.prune

    def notes(self):
        return None


def job(estimator, data, **settings):
    settings = {"scorer": lambda e, X, y: e.score(X, y), "metric": "score", **settings}
    return Job(estimator, *data, splits=list(CV.split(*data)), **settings)


def test_a_pruned_trial_stops_all_folds(digits):
    judge = Always(prune=True)
    [outcome] = evaluate([job(make_pipeline(StandardScaler(), classifier(epochs=50)), digits, judge=judge)])
    assert (outcome.state, outcome.reason) == ("pruned", "pruned at step 0")
    assert len(outcome.series["split1_loss"]) == 1
    assert judge.reports == [(0, np.mean([scores["score"] for scores in outcome.test_scores]))]


def test_a_fold_that_stopped_keeps_its_last_score(digits):
    early = classifier(epochs=12, early_stopping=True, n_iter_no_change=1, learning_rate=0.3, validation_fraction=0.3)
    judge = Always(prune=False)
    [outcome] = evaluate([job(early, digits, judge=judge)])
    lengths = {len(outcome.series["split0_loss"]), len(outcome.series["split1_loss"])}
    assert len(lengths) == 2, "choose another seed: both folds stop at the same epoch"
    assert [step for step, _ in judge.reports] == list(range(max(lengths)))
    assert len(outcome.series["held_out_score"]) == max(lengths)
    shorter = min((0, 1), key=lambda i: len(outcome.series[f"split{i}_loss"]))
    rest = outcome.series[f"split{shorter}_held_out_score"][min(lengths) - 1 :]
    assert len(set(rest)) == 1
    assert rest[0] == outcome.test_scores[shorter]["score"]  # of the weights that the fold kept


# Failures -------------------------------------------------------------------------------------------------------------


class Explosive(TransformerMixin, BaseEstimator):
    """Makes the features so large that the loss is not finite."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X * self.factor

    def __sklearn_is_fitted__(self):
        return True


def test_a_non_finite_loss_fails_the_trial_at_that_epoch(digits):
    network = classifier(
        units=4,
        activation="linear",
        optimizer="sgd",
        learning_rate=1e6,
        epochs=40,
        loss="mean_squared_error",
        output_activation="linear",
    )
    tracker = MemoryTracker()
    given = search(network, {"learning_rate": [1e-3, 1e6]}, n_trials=6, tracking=tracker)
    with pytest.warns(FitFailedWarning, match="non-finite loss"):
        fitted = given.fit(*digits)
    failed = fitted.cv_results_["param_learning_rate"] == 1e6
    assert 0 < failed.sum() < 6
    assert (fitted.cv_results_["state"] == np.where(failed, "failed", "complete")).all()
    assert all(reason.startswith("non-finite loss") for reason in fitted.cv_results_["reason"][failed])
    assert fitted.best_params_ == {"learning_rate": 1e-3}
    exploded = tracker.trials[int(np.flatnonzero(failed)[0])]
    assert exploded.reason.startswith("non-finite loss")
    assert len(exploded.series["loss"]) < 40
    assert not np.isfinite(exploded.series["loss"][-1])


def holes(X):
    return np.where(X > 0.9, np.nan, X)


def no_network(input_shape, n_outputs):
    return "no network"


BAD = {
    "NaN in X": (classifier(), lambda X, y: ((holes(X), y), {}), "NaN"),
    "infinity in X": (classifier(), lambda X, y: ((np.where(X > 0.9, np.inf, X), y), {}), "infinity"),
    "NaN in y": (KerasRegressor(), lambda X, y: ((X, holes(X)[:, 20]), {}), "NaN"),
    "one class": (classifier(), lambda X, y: ((X, np.zeros(len(X))), {}), "class"),
    "no features": (classifier(), lambda X, y: ((X[:, :0], y), {}), r"0 feature\(s\)"),
    "NaN in sample_weight": (classifier(), lambda X, y: ((X, y), {"sample_weight": holes(X)[:, 20]}), "NaN"),
    "a misspelt fit parameter": (
        classifier(),
        lambda X, y: ((X, y), {"sample_wieght": y}),
        r"KerasClassifier.fit\(\) got an unexpected keyword argument 'sample_wieght'",
    ),
    "no model": (classifier(model=no_network), lambda X, y: ((X, y), {}), "keras.Model"),
}


@pytest.mark.parametrize("in_pipeline", [False, True], ids=["bare", "pipeline"])
@pytest.mark.parametrize(("network", "data", "message"), BAD.values(), ids=BAD)
def test_bad_data_end_the_search_before_anything_is_written(
    digits, lanes, tmp_path, network, data, message, in_pipeline
):
    prefix = ""
    args, params = data(*digits)
    if in_pipeline:
        step = type(network).__name__.lower()
        network, prefix = make_pipeline(FunctionTransformer(), network), f"{step}__"
        params = {prefix + name: value for name, value in params.items()}
    tracker, path = MemoryTracker(), tmp_path / "study.log"
    space = {f"{prefix}learning_rate": [0.1, 0.2]}
    cv = 2 if "class" in message else CV
    if isinstance(last_step(network), KerasRegressor):
        cv = 2
    given = search(network, space, n_trials=20, storage=path, study_name="s", tracking=tracker, cv=cv)
    with pytest.raises((ValueError, TypeError), match=message) as raised:
        given.fit(*args, **params)
    assert not isinstance(raised.value, AllTrialsFailed)
    assert not path.exists()
    assert tracker.study is None
    assert not hasattr(given, "study_")
    assert not lanes


def test_a_weight_without_the_name_of_its_step_is_refused(digits, lanes):
    pipeline = make_pipeline(StandardScaler(), classifier())
    given = search(pipeline, {"kerasclassifier__units": [3]})
    with pytest.raises(ValueError, match="does not accept the sample_weight parameter"):
        given.fit(*digits, sample_weight=np.ones(len(digits[1])))
    assert not hasattr(given, "study_")
    assert not lanes


def test_one_bad_choice_is_not_bad_data(digits):
    pipeline = make_pipeline(PCA(3), classifier())
    for choices in ([4, 400], [400, 4]):  # one of them begins with the bad choice when the data are looked at
        given = search(pipeline, {"pca__n_components": choices}, n_trials=6)
        with pytest.warns(FitFailedWarning, match="n_components=400 must be"):
            fitted = given.fit(*digits)
        assert fitted.best_params_ == {"pca__n_components": 4}


class Own(KerasClassifier):
    fits = []

    def fit(self, X, y, sample_weight=None):
        self.fits.append(len(X))
        return super().fit(X, y, sample_weight)


def test_a_fit_of_its_own_is_called_in_every_fold(digits, lanes):
    network = Own(units=4, epochs=1, random_state=0)
    for estimator, prefix in ((network, ""), (make_pipeline(StandardScaler(), network), "own__")):
        Own.fits.clear()
        search(estimator, {f"{prefix}units": [3]}).fit(*digits)
        assert Own.fits == [150, 150, 300]
    assert {len(call) for call in lanes} == {1}


def test_hyperparameters_that_do_not_fit_together_are_refused_before_training(digits, lanes):
    space = {"hidden_layers": [1, 2, 3], "units": [(4,), (4, 4), (4, 4, 4)]}
    with pytest.raises(HyperparameterError, match="one entry per hidden layer"):
        search(classifier(), space, n_trials=30).fit(*digits)
    assert not lanes


def test_all_networks_fail(digits):
    with pytest.raises(SearchError, match="non-finite loss"):
        search(make_pipeline(Explosive(1e30), classifier()), {"kerasclassifier__units": [3]}).fit(*digits)


# Reproducible ---------------------------------------------------------------------------------------------------------


def test_networks_are_seeded_by_the_search_whatever_n_jobs(digits):
    pipeline = make_pipeline(StandardScaler(), KerasClassifier(units=8, epochs=2))
    space = {"kerasclassifier__dropout": FloatDistribution(0, 0.5), "kerasclassifier__units": [(8,), (8, 8)]}
    one, two = (
        search(
            pipeline, space, n_trials=3, cv=StratifiedKFold(2, shuffle=True), n_jobs=n_jobs, enable_pruning=True
        ).fit(*digits)
        for n_jobs in (1, 2)
    )
    assert one.cv_results_["params"] == two.cv_results_["params"]
    assert one.cv_results_["mean_test_score"] == pytest.approx(two.cv_results_["mean_test_score"])
    assert np.array_equal(one.predict(digits[0]), two.predict(digits[0]))


def test_the_ready_space(digits):
    fitted = search(make_pipeline(StandardScaler(), classifier(epochs=1)), None).fit(*digits)
    assert set(fitted.best_params_) == {
        f"kerasclassifier__{name}"
        for name in ("learning_rate", "kernel_initializer", "activation", "batch_normalization")
    }


# Trials that train together -------------------------------------------------------------------------------------------

ALIKE = {
    "activation": ["relu", "tanh", "sigmoid"],
    "batch_normalization": [None, "before", "after"],
    "kernel_initializer": ["he_normal", "glorot_uniform"],
    "learning_rate": FloatDistribution(1e-3, 1e-1, log=True),
}


def alone(params, digits):
    """Return what evaluating one trial by itself gives."""
    X, y = digits
    splits = list(CV.split(X, y))
    estimator = classifier(**params)
    [outcome] = evaluate([Job(estimator, X, y, splits, make_scorer(accuracy_score), "score")])
    return outcome


def test_trials_of_alike_networks_train_together_and_score_as_they_do_alone(digits, lanes):
    fitted = search(classifier(), ALIKE, n_trials=8, refit=False).fit(*digits)
    assert [len(call) for call in lanes] == [8 * 2]
    assert len(set(fitted.cv_results_["mean_test_score"])) > 4
    for row in range(0, 8, 3):
        outcome = alone(fitted.cv_results_["params"][row], digits)
        # a sample whose two best classes are within rounding may fall either way
        assert split_scores(fitted, row) == pytest.approx([s["score"] for s in outcome.test_scores], abs=1.5 / 150)


def test_a_second_round_traces_and_compiles_nothing(digits):
    searched = search(classifier(units=7), ALIKE, n_trials=8, refit=False).fit(*digits)
    before = vars(statistics).copy()
    searched.set_params(n_trials=16).fit(*digits)
    assert vars(statistics) == before


def test_networks_of_different_shape_train_one_after_the_other(digits, lanes):
    fitted = search(classifier(), {**ALIKE, "units": [5, 9]}, n_trials=8, refit=False).fit(*digits)
    assert sum(map(len, lanes)) == 8 * 2 and len(lanes) > 1
    assert list(fitted.cv_results_["number"]) == list(range(8))
    for call in lanes:
        assert len({lane.hyperparameters["units"] for lane in call}) == 1


def test_a_trial_that_fails_leaves_those_beside_it_alone(digits, lanes):
    rates = [0.01, 1e38, 0.02]
    network = classifier(optimizer="sgd")
    X, y = digits

    def score(estimator, X, y):
        if estimator.learning_rate == 0.02:
            raise ArithmeticError("not this one")
        return estimator.score(X, y)

    splits = list(CV.split(X, y))
    jobs = [Job(clone(network).set_params(learning_rate=rate), X, y, splits, score, "score") for rate in rates]
    outcomes = list(evaluate(jobs))
    assert [len(call) for call in lanes] == [3 * 2]
    assert [outcome.state for outcome in outcomes] == ["complete", "failed", "failed"]
    assert "became" in outcomes[1].reason and "not this one" in outcomes[2].reason


class Listening:
    """A judge that writes down what it hears."""

    def __init__(self):
        self.steps = []

    def report(self, step, score):
        self.steps.append(step)
        return False

    def notes(self):
        return None

    def restart(self):
        self.steps.clear()


def test_a_trial_is_not_judged_after_its_last_epoch(digits, lanes):
    X, y = digits
    splits, scorer = list(CV.split(X, y)), make_scorer(accuracy_score)
    jobs = [Job(classifier(epochs=n), X, y, splits, scorer, "score", judge=Listening()) for n in (2, 4)]
    outcomes = list(evaluate(jobs))
    assert [len(call) for call in lanes] == [2 * 2]
    assert [job.judge.steps for job in jobs] == [[0, 1], [0, 1, 2, 3]]
    assert [len(outcome.series["held_out_score"]) for outcome in outcomes] == [2, 4]


def test_splits_may_be_masks_or_lists(digits):
    X, y = digits
    numbers = list(CV.split(X, y))
    masks = [tuple(np.isin(np.arange(len(X)), rows) for rows in split) for split in numbers]
    lists = [tuple(rows.tolist() for rows in split) for split in numbers]
    scores = [
        split_scores(search(classifier(), {"units": [9]}, cv=cv, refit=False).fit(X, y))
        for cv in (numbers, masks, lists)
    ]
    assert scores[0] == scores[1] == scores[2]


def test_a_search_over_estimators_of_all_kinds(digits):
    X, y = digits
    pipeline = Pipeline([("scale", StandardScaler()), ("model", classifier())])
    models = [classifier(), LogisticRegression(max_iter=2000), classifier(units=5)]
    fitted = search(pipeline, {"model": models}, n_trials=8, refit=False).fit(X, y)
    assert set(fitted.cv_results_["state"]) == {"complete"}


def test_an_error_of_the_training_is_that_of_its_trial(digits, monkeypatch):
    train = KerasClassifier.train_lanes

    def broken(self, lanes, on_epoch=None):
        if any(lane.hyperparameters["learning_rate"] == 0.02 for lane in lanes):
            raise MemoryError("too much")
        return train(self, lanes, on_epoch)

    monkeypatch.setattr("tuner.estimators.KerasEstimator.train_lanes", broken)
    X, y = digits
    splits = list(CV.split(X, y))
    scorer = make_scorer(accuracy_score)
    rates = (0.01, 0.02, 0.03)
    jobs = [Job(classifier(learning_rate=r), X, y, splits, scorer, "score", judge=Listening()) for r in rates]
    assert [outcome.state for outcome in evaluate(jobs)] == ["complete", "failed", "complete"]
    assert jobs[0].judge.steps == list(range(EPOCHS))


def test_pruning_ends_one_trial_and_not_those_beside_it(digits, lanes):
    class Impatient:
        def report(self, step, score):
            return True

        def notes(self):
            return None

    X, y = digits
    splits = list(CV.split(X, y))
    scorer = make_scorer(accuracy_score)
    jobs = [Job(classifier(learning_rate=rate), X, y, splits, scorer, "score") for rate in (0.01, 0.02)]
    jobs[0] = Job(**{**vars(jobs[0]), "judge": Impatient()})
    pruned, complete = evaluate(jobs)
    assert [len(call) for call in lanes] == [2 * 2]
    assert pruned.state == "pruned" and len(pruned.series["loss"]) == 1
    assert complete.state == "complete" and len(complete.series["loss"]) == EPOCHS
