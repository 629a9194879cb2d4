"""Searches that go on where an earlier one ended."""

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tuner import OptunaSearchCV
from tuner.errors import HyperparameterError, SearchError
from tuner.rounds import Rounds, delete_study, finished_trials, load_study
from tuner.spaces import quiet
from tuner.tracking import MemoryTracker

X, Y = load_iris(return_X_y=True)
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
            assert list(second.cv_results_[name][:5]) == list(values)
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


GRID = {"max_depth": list(range(1, 13))}


@pytest.mark.parametrize("after", [2, 9])
def test_a_stopped_grid_loses_no_point(tmp_path, after):
    def stop(study, trial):
        if trial.number == after:
            study.stop()

    settings = {
        "space": GRID,
        "sampler": optuna.samplers.GridSampler(GRID),
        "storage": tmp_path / "study.log",
        "study_name": "iris",
        "n_trials": None,
    }
    first = search(callbacks=[stop], **settings).fit(X, Y)
    assert first.n_trials_ == after + 1
    second = search(**settings).fit(X, Y)
    assert sorted(params["max_depth"] for params in second.cv_results_["params"]) == GRID["max_depth"]
    assert len(second.trials_) == 12  # what was proposed and never run is not counted


def test_a_users_sampler_does_not_repeat_itself(tmp_path):
    settings = {"sampler": optuna.samplers.RandomSampler(seed=0), "storage": tmp_path / "s.log", "study_name": "s"}
    space = {"ccp_alpha": FloatDistribution(0, 1)}
    search(space=space, **settings).fit(X, Y)
    fitted = search(space=space, **settings).fit(X, Y)
    assert len({params["ccp_alpha"] for params in fitted.cv_results_["params"]}) == 10


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


def test_trials_of_others_do_not_count():
    with quiet():
        study = optuna.create_study(direction="maximize")
        study.optimize(lambda trial: trial.suggest_int("max_depth", 1, 60) / 60, n_trials=3)
    fitted = search(study=study).fit(X, Y)
    assert fitted.n_trials_ == 5
    assert fitted.cv_results_["number"].tolist() == [3, 4, 5, 6, 7]
    assert fitted.best_trial_.number == fitted.cv_results_["number"][fitted.best_index_]


def test_load_and_delete(tmp_path):
    path = tmp_path / "study.log"
    assert load_study(path, "iris") is None
    assert not path.exists()
    assert finished_trials(None) == []
    delete_study(path, "iris")
    search(storage=path, study_name="iris").fit(X, Y)
    assert len(finished_trials(load_study(str(path), "iris"))) == 5
    assert load_study(path, "other") is None
    delete_study(path, "iris")
    assert load_study(path, "iris") is None


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
