"""Searches that go on where an earlier one ended."""

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from sklearn.datasets import load_iris
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tuner import OptunaSearchCV
from tuner.errors import HyperparameterError, SearchError
from tuner.rounds import Rounds, finished_trials, load_study, open_study, set_aside
from tuner.spaces import make_space, quiet
from tuner.tracking import MemoryTracker

X, Y = load_iris(return_X_y=True)
GROUPS = np.arange(150) // 30
DEPTH = {"max_depth": IntDistribution(1, 60), "min_samples_leaf": [1, (2, 3), 4]}


class Tree(DecisionTreeClassifier):
    """Fails with one of the choices, and notes what it is fitted with."""

    fitted = []

    def fit(self, X, y):
        self.fitted.append(self.max_depth)
        return super().fit(X, y)


@pytest.fixture(params=["journal", "sqlite", "study"])
def kept(request, tmp_path):
    """Where a study is kept, as settings of a search."""
    if request.param == "study":
        with quiet():
            return {"study": optuna.create_study(direction="maximize")}
    path = tmp_path / "deeper" / "study.log" if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"
    return {"storage": path, "study_name": "iris"}


def search(estimator=None, space=None, **settings):
    estimator = Tree(random_state=0) if estimator is None else estimator
    space = {"max_depth": IntDistribution(1, 60)} if space is None else space
    return OptunaSearchCV(estimator, space, **{"random_state": 0, "n_trials": 5, "cv": 3, **settings})


def test_finished_trials_are_kept_and_not_repeated(kept):
    first = search(**kept).fit(X, Y)
    Tree.fitted.clear()
    second = search(**kept).fit(X, Y)
    assert second.n_trials_ == 10
    assert len(Tree.fitted) == 5 * 3 + 1  # new trials, and the refit
    for name, values in first.cv_results_.items():
        if not name.startswith("rank"):
            np.testing.assert_array_equal(second.cv_results_[name][:5], values)
    assert second.best_score_ == max(second.cv_results_["mean_test_score"])
    proposals = [params["max_depth"] for params in second.cv_results_["params"]]
    assert proposals[5:] != proposals[:5]


def test_failed_and_decoded_trials_are_kept(kept):
    with pytest.warns(match="trials failed"):
        first = search(space=DEPTH, n_trials=8, **kept).fit(X, Y)
    with pytest.warns(match="trials failed"):
        second = search(space=DEPTH, n_trials=0, **kept).fit(X, Y)
    assert second.cv_results_["params"] == first.cv_results_["params"]
    assert (2, 3) in [params["min_samples_leaf"] for params in second.cv_results_["params"]]
    for name in ("state", "reason", "rank_test_score", "mean_fit_time"):
        assert second.cv_results_[name].tolist() == first.cv_results_[name].tolist()


def test_a_resumed_search_is_a_function_of_its_seed(tmp_path):
    def twice(name):
        for _ in range(2):
            fitted = search(storage=tmp_path / "study.log", study_name=name).fit(X, Y)
        return fitted.cv_results_["params"]

    assert twice("a") == twice("b")


def conditional(trial):
    depth = trial.suggest_int("depth", 1, 9)
    return {"max_depth": depth, **({"min_samples_leaf": trial.suggest_int("leaf", 1, 5)} if depth > 4 else {})}


def wider(trial):
    depth = trial.suggest_int("depth", 1, 9)
    return {"max_depth": depth, **({"min_samples_leaf": trial.suggest_int("leaf", 1, 9)} if depth > 4 else {})}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"space": {"max_depth": IntDistribution(1, 9)}}, r"max_depth was IntDistribution\(.*60.* and is .*9"),
        ({"space": {"min_samples_leaf": [1, 2]}}, "max_depth was .* not there any more; min_samples_leaf is new"),
        ({"estimator": DecisionTreeClassifier()}, r"estimator was Tree\(random_state=0\) and is DecisionTree"),
        ({"cv": 4}, "cv was 3 and is 4"),
        ({"cv": StratifiedKFold(3, shuffle=True)}, r"cv was 3 and is StratifiedKFold\("),
        ({"scoring": "f1_macro"}, "scoring was None and is 'f1_macro'"),
    ],
)
def test_a_study_made_for_something_else_is_refused(tmp_path, changed, message):
    kept = {"storage": tmp_path / "study.log", "study_name": "iris"}
    search(n_trials=1, **kept).fit(X, Y)
    Tree.fitted.clear()
    with pytest.raises(SearchError, match=f"'iris' was made for something else: .*{message}.*another study_name"):
        search(**kept, **changed).fit(X, Y)
    with pytest.raises(SearchError, match="data was .* and is"):
        search(**kept).fit(X + 1, Y)
    assert not Tree.fitted


def test_a_changed_branch_of_a_callable_is_refused(tmp_path):
    kept = {"storage": tmp_path / "study.log", "study_name": "iris"}
    search(space=conditional, n_trials=8, **kept).fit(X, Y)
    Tree.fitted.clear()
    with pytest.raises((SearchError, HyperparameterError), match=r"leaf was IntDistribution\(.*5.* and is .*9"):
        search(space=wider, **kept).fit(X, Y)
    assert not Tree.fitted


def test_a_callable_that_makes_something_else_of_the_same_proposals_is_refused(tmp_path):
    def space(leaf):
        return lambda trial: {"max_depth": trial.suggest_int("depth", 1, 9), "min_samples_leaf": leaf}

    kept = {"storage": tmp_path / "study.log", "study_name": "iris"}
    search(space=space(1), **kept).fit(X, Y)
    Tree.fitted.clear()
    with pytest.raises(
        HyperparameterError, match="trial 0 was .* another search space: min_samples_leaf was 1 and is 9"
    ):
        search(space=space(9), **kept).fit(X, Y)
    assert not Tree.fitted
    assert search(space=space(1), **kept).fit(X, Y).n_trials_ == 10


def test_a_callable_must_be_a_function_of_its_proposals():
    counter = iter(range(1, 100))
    with pytest.raises(HyperparameterError, match="other parameters for the same proposals: max_depth was 1 and is 2"):
        search(space=lambda trial: {"max_depth": next(counter)}).fit(X, Y)


def test_a_parameter_may_have_the_name_of_something_else_that_is_compared(tmp_path):
    class Named(Tree):
        def __init__(self, cv=1):
            super().__init__()
            self.cv = cv

    kept = {"storage": tmp_path / "study.log", "study_name": "iris", "n_trials": 1}
    search(Named(), {"cv": [1, 2]}, **kept).fit(X, Y)
    with pytest.raises(SearchError, match=r"cv was CategoricalDistribution\(.*1, 2\).* and is .*3"):
        search(Named(), {"cv": [1, 3]}, **kept).fit(X, Y)


# The same splits ------------------------------------------------------------------------------------------------------


def given_splits(n_train):
    return [(np.arange(n_train), np.arange(n_train, 150))] * 3


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [
        ({"cv": StratifiedKFold(3, shuffle=True)}, {"random_state": 1}, [None, None]),
        ({"cv": GroupKFold(3)}, {}, [GROUPS, GROUPS[::-1] // 2]),
        ({"cv": given_splits(120)}, {"cv": given_splits(110)}, [None, None]),
    ],
    ids=["seed", "groups", "given"],
)
def test_other_splits_are_refused(tmp_path, before, after, groups):
    kept = {"storage": tmp_path / "study.log", "study_name": "iris", "n_trials": 1}
    search(**before, **kept).fit(X, Y, groups=groups[0])
    with pytest.raises(SearchError, match="made for something else: cv's splits differ"):
        search(**{**before, **after}, **kept).fit(X, Y, groups=groups[1])
    assert search(**before, **kept).fit(X, Y, groups=groups[0]).n_trials_ == 2


@pytest.mark.parametrize("random_state", [lambda: None, lambda: np.random.RandomState()])
def test_splits_that_nothing_seeds_are_kept_with_the_study(kept, random_state):
    cv = StratifiedKFold(3, shuffle=True)
    for _ in range(2):
        fitted = search(space={"max_depth": [5]}, cv=cv, n_trials=1, **kept, random_state=random_state()).fit(X, Y)
    scores = np.array([fitted.cv_results_[f"split{i}_test_score"] for i in range(3)])
    assert np.array_equal(scores[:, 0], scores[:, 1])
    assert fitted.n_trials_ == 2


def test_a_splitter_with_a_generator_of_its_own_is_its_users_business(kept):
    cv = StratifiedKFold(3, shuffle=True, random_state=np.random.RandomState(0))
    for _ in range(2):
        fitted = search(cv=cv, n_trials=1, **kept).fit(X, Y)
    assert fitted.n_trials_ == 2


def test_the_same_choices_are_the_same_space_in_another_process(tmp_path):
    kept = {"storage": tmp_path / "study.log", "study_name": "iris"}
    for _ in range(2):  # new objects at other addresses each time
        pipeline = make_pipeline(StandardScaler(), DecisionTreeClassifier())
        space = {
            "standardscaler": [StandardScaler(), "passthrough", StandardScaler(with_mean=False)],
            "decisiontreeclassifier__ccp_alpha": FloatDistribution(0, 0.1),
        }
        fitted = search(pipeline, space, n_trials=2, **kept).fit(X, Y)
    assert fitted.n_trials_ == 4


def test_the_record_of_a_resumed_study_goes_on(tmp_path):
    tracker = MemoryTracker()
    for _ in range(2):
        fitted = search(storage=tmp_path / "study.log", study_name="iris", tracking=tracker).fit(X, Y)
    assert [trial.number for trial in tracker.trials] == list(range(10))
    assert len(tracker.result.trials) == 10
    assert tracker.result.best.number == fitted.best_trial_.number
    assert tracker.result.best.params["max_depth"] == fitted.best_params_["max_depth"]


def test_the_record_says_how_many_trials_there_are_and_gets_each_model_once(tmp_path):
    kept = {"storage": tmp_path / "study.log", "study_name": "iris"}
    tracker = MemoryTracker()
    for n_trials, total, has_model in ((5, 5, True), (0, 5, False), (2, 7, True), (0, 7, False)):
        fitted = search(n_trials=n_trials, tracking=tracker, **kept).fit(X, Y)
        assert tracker.study.params["n_trials"] == total
        assert (tracker.result.model is not None) == has_model
        assert tracker.result.best.number == fitted.best_trial_.number


GRID = {"max_depth": list(range(1, 13))}


@pytest.mark.parametrize("sampler", [optuna.samplers.GridSampler(GRID), "grid"])
@pytest.mark.parametrize("after", [2, 9])
def test_a_stopped_grid_loses_no_point(tmp_path, after, sampler):
    def stop(study, trial):
        if trial.number == after:
            study.stop()

    settings = {
        "space": GRID,
        "sampler": sampler,
        "storage": tmp_path / "study.log",
        "study_name": "iris",
        "n_trials": None,
    }
    first = search(callbacks=[stop], **settings).fit(X, Y)
    assert first.n_trials_ == after + 1
    second = search(**settings).fit(X, Y)
    assert sorted(params["max_depth"] for params in second.cv_results_["params"]) == GRID["max_depth"]
    assert len(second.trials_) == 12  # what was proposed and never run is not counted


@pytest.mark.parametrize("asked_by_a_search", [True, False])
def test_a_killed_grid_loses_no_point(tmp_path, asked_by_a_search):
    kept = {"storage": tmp_path / "study.log", "name": "iris"}
    sampler = optuna.samplers.GridSampler(GRID)
    with quiet():
        study = open_study(None, **kept, sampler=sampler, pruner=None)
        if asked_by_a_search:  # and then the process ended
            space = make_space(GRID, Tree())
            Rounds(study, space, lambda params: None, sampler=None, seed=0, pruning=False).ask(3)
        else:
            study.ask()
    settings = {"space": GRID, "sampler": sampler, "storage": kept["storage"], "study_name": "iris", "n_trials": None}
    fitted = search(**settings).fit(X, Y)
    states = [trial.state for trial in fitted.study_.trials]
    depths = [params["max_depth"] for params in fitted.cv_results_["params"]]
    if asked_by_a_search:
        assert sorted(depths) == GRID["max_depth"]
        assert optuna.trial.TrialState.RUNNING not in states
    else:  # what others are running is theirs
        assert states[0] == optuna.trial.TrialState.RUNNING


def test_a_users_sampler_does_not_repeat_itself(tmp_path):
    settings = {"sampler": optuna.samplers.RandomSampler(seed=0), "storage": tmp_path / "s.log", "study_name": "s"}
    space = {"ccp_alpha": FloatDistribution(0, 1)}
    search(space=space, **settings).fit(X, Y)
    fitted = search(space=space, **settings).fit(X, Y)
    assert len({params["ccp_alpha"] for params in fitted.cv_results_["params"]}) == 10


@pytest.mark.parametrize("kind", ["grid", "random", "random_then_fine"])
def test_a_sampler_by_name_goes_on(kind, kept):
    space = GRID if kind == "grid" else {"ccp_alpha": FloatDistribution(0, 1)}
    settings = {"space": space, "sampler": kind, **kept}
    search(n_trials=8, **settings).fit(X, Y)
    fitted = search(n_trials=8, **settings).fit(X, Y)
    proposed = [tuple(params.values()) for params in fitted.cv_results_["params"]]
    if kind == "grid":
        assert len(set(proposed)) == len(proposed) == len(fitted.study_.trials) == 12
        assert search(n_trials=8, **settings).fit(X, Y).n_trials_ == 12
    else:
        assert len(set(proposed)) == 16
        whole = search(space=space, sampler=kind, n_trials=16).fit(X, Y)
        assert proposed == [tuple(params.values()) for params in whole.cv_results_["params"]]


def test_the_studys_own_sampler_is_used():
    with quiet():
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GridSampler(GRID))
    fitted = search(space=GRID, study=study, n_trials=None).fit(X, Y)
    assert fitted.study_ is study
    assert fitted.n_trials_ == 12


def test_enqueued_trials_come_first():
    with quiet():
        study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"max_depth": 42})
    assert search(study=study).fit(X, Y).cv_results_["params"][0] == {"max_depth": 42}


def test_numbers_of_another_type_are_the_same_proposals(kept):
    space, grid = {"ccp_alpha": FloatDistribution(0, 1)}, {"ccp_alpha": [0, 1, np.float64(0.5)]}
    for _ in range(2):
        fitted = search(space=space, sampler=optuna.samplers.GridSampler(grid), n_trials=None, **kept).fit(X, Y)
    assert sorted(params["ccp_alpha"] for params in fitted.cv_results_["params"]) == [0, 0.5, 1]


def test_trials_of_others_do_not_count():
    with quiet():
        study = optuna.create_study(direction="maximize")
        study.optimize(lambda trial: trial.suggest_int("max_depth", 1, 60) / 60, n_trials=3)
    fitted = search(study=study).fit(X, Y)
    assert fitted.n_trials_ == 5
    assert fitted.cv_results_["number"].tolist() == [3, 4, 5, 6, 7]
    assert fitted.best_trial_.number == fitted.cv_results_["number"][fitted.best_index_]


def test_load_and_set_aside(tmp_path):
    path = tmp_path / "study.log"
    assert load_study(path, "iris") is None
    assert not path.exists()
    assert finished_trials(None) == []
    assert set_aside(path, "iris") is None
    search(storage=path, study_name="iris").fit(X, Y)
    assert len(finished_trials(load_study(str(path), "iris"))) == 5
    assert load_study(path, "other") is None
    other = set_aside(path, "iris")
    assert load_study(path, "iris") is None
    assert len(finished_trials(load_study(path, other))) == 5


def test_nothing_to_show_without_any_trial():
    with pytest.raises(SearchError, match="no trial finished"):
        search(n_trials=0).fit(X, Y)


def test_interrupted_while_asking_leaves_no_running_trial(monkeypatch):
    def interrupted(self, trial, earlier):
        raise KeyboardInterrupt

    monkeypatch.setattr(Rounds, "_judge", interrupted)
    given = search()
    with pytest.raises(KeyboardInterrupt):
        given.fit(X, Y)
    assert all(trial.state.is_finished() for trial in given.study_.trials)
