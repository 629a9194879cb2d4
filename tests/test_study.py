import sys
from types import ModuleType

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tuner import OptunaSearchCV, Study
from tuner.errors import HyperparameterError, SearchError, StorageError, StudyFileError
from tuner.search import load_study
from tuner.study import load_study_file
from tuner.tracking import MemoryTracker


def make_study(**changes):
    settings = {
        "name": "iris",
        "data": lambda: load_iris(return_X_y=True),
        "estimator": LogisticRegression(max_iter=2000),
        "space": {"C": [0.01, 0.1, 1.0, 10.0], "fit_intercept": [True, False]},
        "cv": 3,
        "n_trials": 3,
        "random_state": 0,
        "storage": "results/journal.log",
        "tracking": None,
    }
    return Study(**{**settings, **changes})


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_returns_the_fitted_search_and_shows_the_trials(capsys):
    tracker = MemoryTracker()
    search = make_study(tracking=tracker).run()
    assert isinstance(search, OptunaSearchCV) and search.n_trials_ == 3
    assert search.predict(load_iris().data[:2]).shape == (2,)
    shown = capsys.readouterr().out
    assert "trial   2  complete" in shown and "best of 3 complete trials" in shown and "3 trials: 3 complete" in shown
    assert tracker.study.name == "iris" and len(tracker.trials) == 3
    assert make_study(n_trials=1, name="quiet").run(verbose=False).n_trials_ == 1
    assert capsys.readouterr().out == ""


def test_the_same_study_goes_on_to_its_total_and_repeats_nothing():
    first = make_study().run(verbose=False)
    proposed = [trial.params for trial in first.trials_]
    again = make_study().run(verbose=False)
    assert again.n_trials_ == 3 and again.best_score_ == first.best_score_
    longer = make_study().run(n_trials=5, verbose=False)
    assert longer.n_trials_ == 5
    assert [trial.params for trial in longer.trials_][:3] == proposed


def test_a_study_may_take_every_combination_of_its_lists_once(capsys):
    search = make_study().run(n_trials=None)
    taken = [(params["C"], params["fit_intercept"]) for params in search.cv_results_["params"]]
    assert sorted(taken) == [(C, fit) for C in (0.01, 0.1, 1.0, 10.0) for fit in (False, True)]
    assert "(8/8" in capsys.readouterr().out
    again = make_study().run(n_trials=None, verbose=False, fresh=True)
    assert again.cv_results_["params"] == search.cv_results_["params"]


def test_every_combination_may_depend_on_what_was_chosen(capsys):
    def space(trial):
        fit_intercept = trial.suggest_categorical("fit_intercept", [False, True])
        scaling = trial.suggest_int("intercept_scaling", 1, 3) if fit_intercept else 1
        return {
            "fit_intercept": fit_intercept,
            "intercept_scaling": scaling,
            "C": trial.suggest_float("C", 1, 2, step=0.5),
        }

    search = make_study(space=space).run(n_trials=None)
    taken = [(params["intercept_scaling"], params["C"]) for params in search.cv_results_["params"]]
    assert sorted(taken) == sorted((scaling, C) for scaling in (1, 1, 2, 3) for C in (1.0, 1.5, 2.0))
    assert "(12/12" in capsys.readouterr().out


def test_the_last_value_of_a_range_is_among_the_combinations(capsys):
    # In floating-point numbers 0.1 + 2 * 0.1 is above 0.3.
    make_study(space=lambda trial: {"C": trial.suggest_float("C", 0.1, 0.3, step=0.1)}).run(n_trials=None)
    assert "(3/3" in capsys.readouterr().out


def test_fresh_and_another_name_start_anew():
    make_study().run(verbose=False)
    changed = make_study(space={"C": [0.5, 5.0]})
    with pytest.raises(SearchError, match="(?s)made for something else.*C") as caught:
        changed.run(verbose=False)
    assert "fit_intercept" in str(caught.value), "the difference is shown"
    assert changed.run(verbose=False, name="another").n_trials_ == 3
    assert set(changed.run(verbose=False, fresh=True).cv_results_["param_C"]) <= {0.5, 5.0}


def test_starting_anew_loses_nothing(capsys):
    before = make_study().run(verbose=False).study_.trials
    make_study().run(fresh=True)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "set aside as" in line]
    aside = load_study("results/journal.log", line.split("'")[1])
    assert [trial.params for trial in aside.trials] == [trial.params for trial in before]


def test_failed_trials_are_told_at_the_end_once(capsys, recwarn):
    make_study(space={"C": [1.0, -1.0]}, n_trials=4).run()
    shown = capsys.readouterr().out
    assert "1 failed" in shown or "2 failed" in shown or "3 failed" in shown
    assert "The 'C' parameter of LogisticRegression must be" in shown.splitlines()[-1]
    assert not [warning for warning in recwarn if "failed" in str(warning.message)]


def test_changes_for_one_run_are_checked():
    with pytest.raises(TypeError, match="unknown changes.*trials"):
        make_study().run(trials=3)
    with pytest.raises(HyperparameterError, match="n_trials must be an integer >= 1; got 0"):
        make_study().run(n_trials=0)
    with pytest.raises(HyperparameterError, match="C: sampler='grid' needs a list"):
        make_study(space=lambda trial: {"C": trial.suggest_float("C", 0.1, 1.0)}).run(n_trials=None)
    with pytest.raises(HyperparameterError, match="data must give"):
        make_study(data=lambda: np.zeros(3)).run()
    with pytest.raises(StorageError, match="cannot be reached"):
        make_study().run(storage="postgresql://localhost:1/none")


def test_data_may_bring_what_fit_takes():
    X, y = load_iris(return_X_y=True)
    weights = np.where(y == 2, 100.0, 0.01)
    search = make_study(data=(X, y, {"sample_weight": weights}), name="weighted").run(verbose=False)
    assert (search.predict(X) == 2).mean() > 0.4


def test_ctrl_c_keeps_and_shows_what_is_finished(capsys):
    class Interrupting(LogisticRegression):
        fits = 0

        def fit(self, X, y, sample_weight=None):
            type(self).fits += 1
            if type(self).fits == 8:  # in the second fold of the third trial
                raise KeyboardInterrupt
            return super().fit(X, y, sample_weight)

    study = make_study(estimator=Interrupting(max_iter=2000), n_trials=4)
    with pytest.raises(KeyboardInterrupt):
        study.run()
    shown = capsys.readouterr().out
    assert "2 trials: 2 complete" in shown and "best of 2 complete trials" in shown
    resumed = study.run()
    assert resumed.n_trials_ == 4
    assert "going on after 2 finished trials" in capsys.readouterr().out


# -- study files -------------------------------------------------------------------------------------------------------

FILE = """
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from tuner import Study

estimator = LogisticRegression(max_iter=2000)
study = Study("iris", lambda: load_iris(return_X_y=True), estimator, {"C": [0.1, 1.0]}, n_trials=2, tracking=None)
"""


def test_a_study_file_declares_a_study(tmp_path):
    (tmp_path / "iris.py").write_text(FILE)
    file = load_study_file("iris.py")
    [study] = file.studies
    assert study.run(verbose=False, n_jobs=2).n_trials_ == 2
    assert file.question == "" and file.run(verbose=False) is None, "nothing is asked, and nothing answered"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no study file"),
        ("x = 1", "declares no study"),
        ("study = 3", "found int"),
        ("studies = ()", "declares no study.*found no studies"),
        (f"{FILE}\nanswer = 42", "answer must be a function.*42"),
        ("def (", "cannot be loaded: SyntaxError"),
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError.*line 1"),
        ("\n\n1 / 0", "ZeroDivisionError.*line 3"),
    ],
)
def test_a_file_that_is_no_study_is_an_error_that_says_why(content, message, tmp_path):
    if content is not None:
        (tmp_path / "broken.py").write_text(content)
    with pytest.raises(StudyFileError, match=message):
        load_study_file(tmp_path / "broken.py")


QUESTION = '''
"""Which C suits irises,
and does it matter?

More words.
"""

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from neighbour import Doubled
from tuner import Answer, Study
from tuner.report import plots, tables

studies = [
    Study(name, lambda: load_iris(return_X_y=True), Doubled(max_iter=2000), {"C": [0.1, 1.0]}, n_trials=3, cv=3,
          quick={"n_trials": 2, "estimator__tol": 0.1}, random_state=0)
    for name in ("first", "second")
]


def answer(first, second):
    scored = tables.scores(first)
    return Answer(
        text=f"{len(scored)} and {len(tables.scores(second))} scores, tol={first.estimator.tol}.",
        table=scored.groupby("C", as_index=False)["score"].mean(),
        figure=plots.bars(scored, "C", "score"),
        claims={"all is well": True, "nothing is": False},
    )
'''
NEIGHBOUR = """
from sklearn.linear_model import LogisticRegression


class Doubled(LogisticRegression):
    pass
"""


@pytest.fixture
def question(tmp_path):
    (tmp_path / "which_c.py").write_text(QUESTION)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    return load_study_file("which_c.py")


def test_a_file_may_ask_a_question_of_several_studies_and_answer_it(question):
    tracker = MemoryTracker()
    answer = question.run(verbose=False, tracking=tracker, n_jobs=2)
    assert question.question == "Which C suits irises, and does it matter?"
    assert answer.text == "9 and 9 scores, tol=0.0001." and answer.seconds > 0
    assert tracker.answer is answer
    assert "DOES NOT HOLD: nothing is" in str(answer) and "holds: all is well" in str(answer)
    again = question.run(verbose=False, tracking=None)
    assert again.text == answer.text, "it starts anew: earlier sessions leave no measurements"


def test_a_quick_run_makes_the_declared_changes_and_is_kept_apart(question):
    assert question.run(verbose=False, quick=True, tracking=None).text == "6 and 6 scores, tol=0.1."
    assert load_study("mlruns/journal.log", "first-quick") and not load_study("mlruns/journal.log", "first")
    [study, _] = question.studies
    assert study.run(verbose=False, quick=True, tracking=None, n_trials=3, name="mine").n_trials_ == 3


def test_modules_beside_a_file_are_not_confused_with_those_of_another_folder(question, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "which_c.py").write_text(QUESTION)
    (other / "neighbour.py").write_text(NEIGHBOUR.replace("pass", "words = 'the other'"))
    assert load_study_file(other / "which_c.py").studies[0].estimator.words == "the other"
    assert not hasattr(question.studies[0].estimator, "words")


def test_modules_beside_a_file_are_found_whatever_of_their_name_is_imported(question, monkeypatch):
    imported = ModuleType("neighbour")
    monkeypatch.setitem(sys.modules, "neighbour", imported)
    assert load_study_file("which_c.py").studies[0].estimator.get_params()["max_iter"] == 2000
    assert sys.modules["neighbour"] is imported
