"""OptunaSearchCV with scikit-learn's own estimators: everything but pruning, failures and resuming."""

import inspect
import os

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from scipy.stats import loguniform
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone, is_classifier, is_regressor
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, get_scorer, make_scorer
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    RandomizedSearchCV,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

from tuner import OptunaSearchCV
from tuner.errors import DataError, HyperparameterError, SearchError, StorageError, TrackingError
from tuner.rounds import ROUND_SIZE
from tuner.tracking import MemoryTracker

X, Y = load_iris(return_X_y=True)
DEPTH = {"max_depth": IntDistribution(1, 6), "min_samples_leaf": IntDistribution(1, 40)}
TREE = DecisionTreeClassifier(random_state=0)


def search(estimator=TREE, space=None, **settings):
    return OptunaSearchCV(
        estimator, DEPTH if space is None else space, **{"random_state": 0, "n_trials": 5, **settings}
    )


def scores(fitted):
    """All of cv_results_ but the times, and the health of trees: NaN, which is not equal to itself."""
    return {name: list(v) for name, v in fitted.cv_results_.items() if "_time" not in name and name != "health_score"}


# The drop-in --------------------------------------------------------------------------------------------------------


def test_constructor_is_upstreams_and_more():
    upstream = {
        "estimator": inspect.Parameter.empty,
        "param_distributions": None,
        "cv": None,
        "enable_pruning": False,
        "error_score": np.nan,
        "max_iter": 1000,
        "n_jobs": None,
        "n_trials": 10,
        "random_state": None,
        "refit": True,
        "return_train_score": False,
        "scoring": None,
        "study": None,
        "subsample": 1.0,
        "timeout": None,
        "verbose": 0,
        "callbacks": None,
        "catch": (),
    }
    parameters = inspect.signature(OptunaSearchCV).parameters
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["estimator", "param_distributions"]
    assert {name: repr(parameters[name].default) for name in upstream} == {n: repr(v) for n, v in upstream.items()}
    assert [p for p in parameters if p not in upstream] == [
        "sampler",
        "pruner",
        "storage",
        "study_name",
        "tracking",
        "experiment",
        "health",
    ]


def test_upstreams_attributes_and_methods():
    heard = []
    fitted = search(callbacks=[lambda study, trial: heard.append((study.study_name, trial.number))]).fit(X, Y)
    assert fitted.n_trials_ == len(fitted.trials_) == 5
    assert fitted.n_splits_ == 5
    assert fitted.best_trial_.number == fitted.best_index_ == fitted.study_.best_trial.number
    assert fitted.best_trial_.params == fitted.best_params_
    assert fitted.best_score_ == fitted.study_.best_value == max(fitted.cv_results_["mean_test_score"])
    assert fitted.best_estimator_.get_params()["max_depth"] == fitted.best_params_["max_depth"]
    assert fitted.refit_time_ > 0
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert fitted.score(X, Y) == fitted.best_estimator_.score(X, Y)
    assert len(fitted.trials_dataframe()) == 5
    fitted.set_user_attr("question", "how deep?")
    assert fitted.user_attrs_ == {"question": "how deep?"}
    assert heard == [(fitted.study_.study_name, number) for number in range(5)]
    for name in ("mean_test_score", "std_test_score", "split0_test_score", "mean_fit_time", "std_score_time"):
        assert [t.user_attrs[name] for t in fitted.trials_] == fitted.cv_results_[name].tolist()


def test_cv_results_is_scikit_learns():
    settings = {"cv": 3, "return_train_score": True, "scoring": ["accuracy", "f1_macro"], "refit": "accuracy"}
    ours = search(**settings).fit(X, Y).cv_results_
    theirs = RandomizedSearchCV(TREE, {name: [2, 3] for name in DEPTH}, n_iter=3, **settings).fit(X, Y).cv_results_
    added = ["number", "state", "reason", "health_verdict", "health_score"]
    assert set(ours) - set(theirs) == set(added)
    assert list(ours)[-5:] == added
    for name, values in theirs.items():
        assert type(ours[name]) is type(values)
        if name != "params":
            assert ours[name].dtype == values.dtype


def test_scores_are_those_of_cross_validate():
    cv = StratifiedKFold(4, shuffle=True, random_state=3)
    fitted = search(scoring="f1_macro", cv=cv).fit(X, Y)
    for row, params in enumerate(fitted.cv_results_["params"]):
        expected = cross_val_score(clone(TREE).set_params(**params), X, Y, scoring="f1_macro", cv=cv)
        assert [fitted.cv_results_[f"split{i}_test_score"][row] for i in range(4)] == expected.tolist()


def test_is_what_its_estimator_is():
    assert is_classifier(search())
    assert is_regressor(search(Ridge(), {"alpha": FloatDistribution(0.1, 1)}))
    assert hasattr(search(), "predict_proba")
    assert not hasattr(search(SVC()), "transform")
    assert cross_val_score(search(), X, Y, cv=3, scoring="roc_auc_ovr").min() > 0.8  # nested cross-validation


def test_constructor_arguments_stay_as_they_are():
    sampler, space = optuna.samplers.RandomSampler(seed=1), dict(DEPTH)
    estimator = make_pipeline(StandardScaler(), DecisionTreeClassifier())
    given = search(estimator, {f"decisiontreeclassifier__{k}": v for k, v in space.items()}, sampler=sampler)
    before = {name: repr(value) for name, value in given.get_params(deep=True).items()}
    first = scores(given.fit(X, Y))
    assert {name: repr(value) for name, value in given.get_params(deep=True).items()} == before
    assert scores(given.fit(X, Y)) == first  # the sampler has not moved either
    with pytest.raises(Exception, match="not fitted"):
        check_is_fitted(estimator)


def test_no_output_unless_asked(capfd):
    search(n_trials=2).fit(X, Y)
    assert capfd.readouterr() == ("", "")
    search(n_trials=2, verbose=1).fit(X, Y)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["trial 0: complete", "trial 1: complete"]


# What is searched ---------------------------------------------------------------------------------------------------


def test_params_are_the_estimators_own():
    def space(trial):
        kernel = trial.suggest_categorical("kernel of the machine", ["linear", "rbf"])
        params = {"svc__kernel": kernel}
        if kernel == "rbf":
            params["svc__C"] = trial.suggest_float("C", 0.1, 10)
        return params

    fitted = search(make_pipeline(StandardScaler(), SVC()), space, n_trials=8).fit(X, Y)
    assert all(params.keys() <= {"svc__kernel", "svc__C"} for params in fitted.cv_results_["params"])
    assert fitted.best_estimator_.get_params()["svc__kernel"] == fitted.best_params_["svc__kernel"]
    linear = fitted.cv_results_["param_svc__kernel"] == "linear"
    assert 0 < linear.sum() < 8
    assert np.array_equal(np.ma.getmaskarray(fitted.cv_results_["param_svc__C"]), np.asarray(linear))


def test_whole_steps_can_be_searched():
    steps = [LogisticRegression(max_iter=1000), DecisionTreeClassifier(max_depth=2)]
    pipeline = make_pipeline(StandardScaler(), DummyClassifier())
    fitted = search(pipeline, {"dummyclassifier": steps}, n_trials=6).fit(X, Y)
    assert {type(p["dummyclassifier"]) for p in fitted.cv_results_["params"]} == {type(step) for step in steps}
    assert fitted.best_estimator_[-1] is not fitted.best_params_["dummyclassifier"]
    assert not any(hasattr(step, "classes_") for step in steps)


def test_scipy_distributions_and_lists():
    fitted = search(SVC(), {"C": loguniform(0.1, 10), "kernel": ["linear", "rbf"]}).fit(X, Y)
    assert all(0.1 <= p["C"] <= 10 for p in fitted.cv_results_["params"])


def test_preprocessing_sees_training_folds_only():
    class Spy(TransformerMixin, BaseEstimator):
        seen = []

        def fit(self, X, y=None):
            Spy.seen.append(set(X[:, 0]))
            return self

        def transform(self, X):
            return X

    data = np.arange(30.0).reshape(-1, 1)
    splits = list(KFold(3).split(data))
    search(make_pipeline(Spy(), Ridge()), {"ridge__alpha": [1.0]}, cv=3, n_trials=1).fit(data, data[:, 0])
    assert Spy.seen == [set(data[train, 0]) for train, _ in splits] + [set(data[:, 0])]


# Scoring ------------------------------------------------------------------------------------------------------------


def test_several_metrics():
    fitted = search(scoring={"a": "accuracy", "f": "f1_macro"}, refit="f").fit(X, Y)
    assert fitted.multimetric_
    assert fitted.study_.best_value == fitted.best_score_ == max(fitted.cv_results_["mean_test_f"])
    assert fitted.score(X, Y) == get_scorer("f1_macro")(fitted.best_estimator_, X, Y)
    assert "mean_test_score" not in fitted.cv_results_


def both(estimator, X, y):
    predicted = estimator.predict(X)
    return {"right": accuracy_score(y, predicted), "wrong": -1 + accuracy_score(y, predicted)}


def test_callable_that_gives_several_metrics():
    fitted = search(scoring=both, refit="wrong").fit(X, Y)
    assert fitted.best_score_ == fitted.study_.best_value == max(fitted.cv_results_["mean_test_wrong"])
    with pytest.raises(ValueError, match="refit must be set to a scorer key"):
        search(scoring=both, refit=True).fit(X, Y)


def test_refit_may_choose():
    def last(results):
        return len(results["params"]) - 1

    fitted = search(refit=last).fit(X, Y)
    assert fitted.best_index_ == fitted.best_trial_.number == 4
    assert not hasattr(fitted, "best_score_")


def test_without_refit():
    fitted = search(refit=False).fit(X, Y)
    assert fitted.best_score_ == fitted.study_.best_value
    assert not hasattr(fitted, "best_estimator_")
    with pytest.raises(AttributeError, match="has no attribute"):
        fitted.predict(X)
    several = search(refit=False, scoring=["accuracy", "f1_macro"]).fit(X, Y)
    assert several.study_.best_value == max(several.cv_results_["mean_test_accuracy"])
    assert not hasattr(several, "best_index_")


def test_feature_names_travel():
    frame = pd.DataFrame(X, columns=list("abcd"))
    fitted = search(n_trials=1).fit(frame, pd.Series(Y))
    assert fitted.feature_names_in_.tolist() == list("abcd")
    assert fitted.n_features_in_ == 4


# Metadata -----------------------------------------------------------------------------------------------------------


WEIGHTS = np.where(Y == 0, 0.0, 1.0)


def test_sample_weight_reaches_fit_and_scorer():
    fitted = search(cv=3).fit(X, Y, sample_weight=WEIGHTS)
    for row, params in enumerate(fitted.cv_results_["params"]):
        for i, (train, test) in enumerate(StratifiedKFold(3).split(X, Y)):
            tree = clone(TREE).set_params(**params).fit(X[train], Y[train], sample_weight=WEIGHTS[train])
            expected = tree.score(X[test], Y[test], sample_weight=WEIGHTS[test])
            assert fitted.cv_results_[f"split{i}_test_score"][row] == expected


def test_metadata_routing():
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False), clone(TREE).set_fit_request(sample_weight=True)
        )
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        space = {f"decisiontreeclassifier__{name}": d for name, d in DEPTH.items()}
        given = OptunaSearchCV(pipeline, space, n_trials=3, random_state=0, scoring=scorer, cv=LeaveOneGroupOut())
        groups = np.arange(150) % 3
        fitted = given.fit(X, Y, sample_weight=WEIGHTS, groups=groups)
        params = {"sample_weight": WEIGHTS, "groups": groups}
        best = clone(pipeline).set_params(**fitted.best_params_)
        best.set_params(decisiontreeclassifier__random_state=0)
        expected = cross_validate(best, X, Y, scoring=scorer, cv=LeaveOneGroupOut(), params=params)["test_score"]
    assert [fitted.cv_results_[f"split{i}_test_score"][fitted.best_index_] for i in range(3)] == expected.tolist()


def test_groups_may_be_positional():
    groups = np.arange(150) % 5
    fitted = search(cv=GroupKFold(5), n_trials=2).fit(X, Y, groups)
    assert scores(search(cv=GroupKFold(5), n_trials=2).fit(X, Y, groups=groups)) == scores(fitted)


def test_subsample():
    heard = []

    class Counting(DecisionTreeClassifier):
        def fit(self, X, y):
            heard.append(len(X))
            return super().fit(X, y)

    for subsample in (0.5, 75):
        fitted = search(Counting(), subsample=subsample, cv=3, n_trials=1).fit(X, Y)
        assert len(fitted.sample_indices_) == 75
        assert heard == [50, 50, 50, 150]  # refitted on everything
        heard.clear()


# Identical searches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cv", [3, StratifiedKFold(3, shuffle=True), StratifiedShuffleSplit(3)])
def test_an_int_random_state_makes_searches_identical(cv):
    def run(random_state):
        estimator = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=3))
        space = {"randomforestclassifier__max_depth": IntDistribution(1, 20)}
        return scores(search(estimator, space, n_trials=11, cv=cv, random_state=random_state).fit(X, Y))

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_estimators_that_are_searched_are_seeded_as_well():
    space = {"forest": [RandomForestClassifier(n_estimators=2), RandomForestClassifier(n_estimators=3)]}
    pipeline = Pipeline([("forest", DummyClassifier())])
    first, second = (search(pipeline, space, cv=3).fit(X, Y) for _ in range(2))
    assert first.cv_results_["mean_test_score"].tolist() == second.cv_results_["mean_test_score"].tolist()
    assert np.array_equal(first.predict_proba(X), second.predict_proba(X))


def test_results_do_not_depend_on_n_jobs():
    space = {"class_weight": [lambda: 1, None], "max_depth": IntDistribution(1, 9)}  # the lambda fails, in a worker too

    class Forest(RandomForestClassifier):
        def fit(self, X, y):
            if callable(self.class_weight):
                raise ValueError(f"not with {self.class_weight}")
            return super().fit(X, y)

    def run(n_jobs):
        with pytest.warns(match="failed"):
            return search(Forest(n_estimators=3), space, n_trials=12, n_jobs=n_jobs).fit(X, Y)

    one, two = run(1), run(2)
    for name, values in scores(one).items():
        if name not in ("params", "param_class_weight"):  # the lambda is another object
            np.testing.assert_array_equal(values, scores(two)[name])
    assert [t.params for t in one.trials_] == [t.params for t in two.trials_]


class WhereAmI(ClassifierMixin, BaseEstimator):
    def __init__(self, x=0):
        self.x = x

    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.zeros(len(X))

    def score(self, X, y):
        return float(os.getpid())


def test_workers_are_other_processes_and_few():
    fitted = search(WhereAmI(), {"x": IntDistribution(0, 9)}, n_jobs=2, n_trials=4).fit(X, Y)
    processes = set(fitted.cv_results_["mean_test_score"])
    assert os.getpid() not in processes
    assert len(processes) <= 2


# Ending a search ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_callback_can_stop_the_study(n_jobs):
    def stop(study, trial):
        if trial.number == 2:
            study.stop()

    fitted = search(n_trials=20, callbacks=[stop], n_jobs=n_jobs).fit(X, Y)
    assert fitted.n_trials_ == 3
    assert len(fitted.cv_results_["params"]) == 3
    with pytest.raises(RuntimeError):
        fitted.study_.stop()  # outside a search Optuna refuses it, as ever


def test_timeout_ends_the_search():
    fitted = search(n_trials=None, timeout=0.5).fit(X, Y)
    assert fitted.n_trials_ > 1
    with pytest.raises(SearchError, match="no trial finished"):
        search(timeout=1e-9).fit(X, Y)


class Interrupted(DecisionTreeClassifier):
    """Ctrl-C during the fit of one depth."""

    def fit(self, X, y):
        if self.max_depth == 2:
            raise KeyboardInterrupt
        return super().fit(X, y)


def test_ctrl_c_keeps_the_finished_trials():
    tracker = MemoryTracker()
    grid = {"max_depth": [1, 2, 3, 4]}  # which the sampler shuffles to 3, 4, 2, 1
    interrupted = search(Interrupted(), grid, sampler=optuna.samplers.GridSampler(grid), tracking=tracker)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(X, Y)
    assert [params["max_depth"] for params in interrupted.cv_results_["params"]] == [3, 4]
    assert interrupted.n_trials_ == len(tracker.trials) == 2
    assert tracker.result.state == "interrupted"
    assert tracker.result.reason == "KeyboardInterrupt"
    assert all(t.state.is_finished() for t in interrupted.study_.trials)


GRID = {"max_depth": [1, 2, 3, 4, 5], "criterion": ["gini", "entropy"]}


@pytest.mark.parametrize("n_trials", [None, 30])
@pytest.mark.parametrize("sampler", ["GridSampler", "BruteForceSampler", "grid"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # BruteForceSampler
def test_a_grid_is_gone_through_once(sampler, n_trials):
    samplers = {
        "GridSampler": lambda: optuna.samplers.GridSampler(GRID),
        "BruteForceSampler": optuna.samplers.BruteForceSampler,
        "grid": lambda: "grid",
    }
    fitted = search(space=GRID, sampler=samplers[sampler](), n_trials=n_trials).fit(X, Y)
    points = {tuple(p.values()) for p in fitted.cv_results_["params"]}
    assert fitted.n_trials_ == len(fitted.study_.trials) == len(points) == 10


def test_a_grid_by_name_takes_choices_of_any_kind_and_conditions():
    def space(trial):
        params = {"class_weight": trial.suggest_categorical("class_weight", [None, {0: 1, 1: 2, 2: 1}])}
        if params["class_weight"]:
            params["max_depth"] = trial.suggest_int("max_depth", 1, 5, step=2)
        return params

    fitted = search(space=space, sampler="grid", n_trials=None).fit(X, Y)
    depths = sorted(params.get("max_depth", 0) for params in fitted.cv_results_["params"])
    assert depths == [0, 1, 3, 5]


def test_a_grid_has_an_end():
    with pytest.raises(HyperparameterError, match=r"ccp_alpha: sampler='grid' needs a list .* got FloatDistribution"):
        search(space={"ccp_alpha": FloatDistribution(0, 1)}, sampler="grid").fit(X, Y)
    with pytest.raises(ValueError, match="sampler.*must be a str among"):
        search(sampler="gird").fit(X, Y)


@pytest.mark.parametrize("name", ["tpe", "random", "random_then_fine", "grid"])
def test_a_sampler_by_name_is_seeded_by_the_search(name):
    proposed = [
        search(sampler=name, n_trials=12, random_state=seed, cv=2).fit(X, Y).cv_results_["params"] for seed in (0, 0, 1)
    ]
    assert proposed[0] == proposed[1] != proposed[2]
    if name == "tpe":
        assert proposed[0] == search(n_trials=12, cv=2).fit(X, Y).cv_results_["params"]


def test_repeated_folds_are_folds():
    cv = RepeatedStratifiedKFold(n_splits=3, n_repeats=2)
    fitted, again = (search(cv=cv, n_trials=2).fit(X, Y) for _ in range(2))
    assert fitted.n_splits_ == 6 and "split5_test_score" in fitted.cv_results_
    assert scores(fitted) == scores(again)  # the search seeds the splitter


@pytest.mark.parametrize("n_trials", [3, 8, 9])
def test_rounds_do_not_ask_for_more_than_wanted(n_trials):
    fitted = search(n_trials=n_trials).fit(X, Y)
    assert [t.number for t in fitted.study_.trials] == list(range(n_trials))
    assert ROUND_SIZE == 8  # documented


# Tracking -----------------------------------------------------------------------------------------------------------


def test_tracker_hears_everything():
    tracker = MemoryTracker()
    pipeline = make_pipeline(StandardScaler(), SVC())
    space = {"svc__C": FloatDistribution(0.1, 10), "svc__kernel": ["linear", "rbf"]}
    given = search(pipeline, space, tracking=tracker, study_name="svc", experiment="iris", scoring="accuracy")
    fitted = given.fit(X, Y)
    study, result = tracker.study, tracker.result
    assert (study.name, study.experiment, study.objective) == ("svc", "iris", "mean_test_score")
    assert study.searched == ["svc__C", "svc__kernel"]
    assert study.params["estimator"] == "Pipeline(steps=[('standardscaler', StandardScaler()), ('svc', SVC())])"
    assert study.params["n_trials"] == 5
    assert {"data", "version.tuner", "version.scikit-learn", "version.optuna"} <= study.tags.keys()
    assert [t.number for t in tracker.trials] == [0, 1, 2, 3, 4]
    trial = tracker.trials[3]
    assert trial.state == "complete"
    assert trial.metrics["split0_test_score"] == fitted.cv_results_["split0_test_score"][3]
    assert trial.params["svc__C"] == fitted.cv_results_["params"][3]["svc__C"]
    assert trial.params["svc__gamma"] == "scale"  # not searched, recorded all the same
    assert {"steps", "memory", "svc", "svc__verbose"}.isdisjoint(trial.params)
    assert trial.start_time <= trial.end_time
    assert (result.state, result.reason, result.best.number) == ("finished", None, fitted.best_index_)
    assert result.trials["mean_test_score"].tolist() == fitted.cv_results_["mean_test_score"].tolist()
    assert result.model is fitted.best_estimator_
    assert np.array_equal(result.input_example, X[:5])
    assert list(result.figures) == ["optimization_history"]


def test_tracker_that_cannot_start_ends_the_search_before_training():
    class Unreachable(MemoryTracker):
        def start(self, study, resume=None):
            raise TrackingError("nobody there")

    fits = []

    class Counting(DecisionTreeClassifier):
        def fit(self, X, y):
            fits.append(1)
            return super().fit(X, y)

    with pytest.raises(TrackingError, match="nobody there"):
        search(Counting(), tracking=Unreachable()).fit(X, Y)
    assert not fits


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_trials": -1}, "'n_trials' parameter"),
        ({"timeout": 0}, "'timeout' parameter"),
        ({"subsample": 1.5}, "'subsample' parameter"),
        ({"subsample": 151}, "leaves 151 of 150 samples"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"tracking": "wandb"}, "'tracking' parameter"),
        ({"error_score": "ignore"}, "'error_score' parameter"),
        ({"enable_pruning": True}, "needs an estimator with partial_fit; Counting has none"),
        ({"pruner": optuna.pruners.MedianPruner()}, "needs an estimator with partial_fit"),
        ({"cv": 51}, "The least populated class in y has only 50 members|greater than the number of members"),
        ({"cv": []}, "no splits"),
        ({"space": {"max_dept": [3]}}, "Did you mean 'max_depth'"),
        ({"scoring": ["accuracy", "f1_macro"]}, "refit must be set to a scorer key"),
        ({"study": optuna.create_study(direction="maximize"), "study_name": "other"}, "give either it"),
        ({"study": optuna.create_study(direction="minimize")}, "does not maximise"),
        ({"n_jobs": 0}, "n_jobs must not be 0"),
        ({"callbacks": [3]}, "callbacks must be callable.*got 3"),
        ({"catch": [3]}, "catch must hold exception classes; got 3"),
        ({"scoring": "acuracy"}, "'scoring' parameter|not a valid scoring value"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_settings_are_refused_before_anything_happens(settings, message):
    fits = []

    class Counting(DecisionTreeClassifier):
        def fit(self, X, y):
            fits.append(1)
            return super().fit(X, y)

    given = search(Counting(), **settings)
    with pytest.raises((ValueError, SearchError), match=message):
        given.fit(X, Y)
    assert not fits
    assert not hasattr(given, "study_")


@pytest.mark.filterwarnings("ignore:.*not supported by `GridSampler`")
def test_a_grid_of_objects_is_refused(tmp_path):
    grid = {"class_weight": [None, {0: 1, 1: 2, 2: 1}]}
    path = tmp_path / "study.log"
    with pytest.raises(HyperparameterError, match=r"class_weight: GridSampler .* got \{0: 1.*sampler='grid'"):
        search(space=grid, sampler=optuna.samplers.GridSampler(grid), storage=path, study_name="s").fit(X, Y)
    assert not path.exists()
    numbers = {"ccp_alpha": np.logspace(-3, -1, 3)}  # floats of NumPy are floats
    fitted = search(space=numbers, sampler=optuna.samplers.GridSampler(numbers), n_trials=None).fit(X, Y)
    assert sorted(params["ccp_alpha"] for params in fitted.cv_results_["params"]) == sorted(numbers["ccp_alpha"])


def test_bad_data():
    with pytest.raises(DataError, match="The least populated class in y has only 2 members"):
        search().fit(X[48:], Y[48:])
    with pytest.raises(DataError, match="sample_weight has 3 entries, but X has 150 samples"):
        search().fit(X, Y, sample_weight=[1, 2, 3])
    with pytest.raises(DataError, match="groups has 3 entries"):
        search().fit(X, Y, groups=[1, 2, 3])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        search().fit(X, Y[:-1])
    with pytest.raises(DataError, match="requires y"):
        search().fit(X)


@pytest.mark.parametrize("storage", ["nonsense://nowhere", "study.db", "sqlite:////no/such/folder/study.db"])
def test_unreachable_storage(storage):
    with pytest.raises(StorageError, match="cannot be reached"):
        search(storage=storage, study_name="s").fit(X, Y)


def test_a_later_branch_of_a_callable_is_refused_before_it_trains():
    def space(trial):
        depth = trial.suggest_int("depth", 1, 6)
        return {"max_depth": depth} if depth != 6 else {"max_dept": depth}

    given = search(space=space, n_trials=100)
    with pytest.raises(HyperparameterError, match="Did you mean 'max_depth'"):
        given.fit(X, Y)
    assert all(trial.state.is_finished() for trial in given.study_.trials)


def test_a_transformer_can_be_searched():
    transformer = FunctionTransformer(lambda X: X + 1)
    fitted = search(transformer, {"validate": [True, False]}, scoring=lambda est, X, y=None: 1.0, n_trials=2).fit(X)
    assert np.array_equal(fitted.transform(X), X + 1)
