import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tuner import KerasClassifier, OptunaSearchCV
from tuner.errors import SearchError
from tuner.report.tables import at_best, histories, layers, networks, scores


@pytest.fixture(scope="module")
def search():
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), KerasClassifier(units=(5, 4), epochs=3, random_state=0))
    space = {"kerasclassifier__learning_rate": [0.01, 1e30], "kerasclassifier__batch_normalization": [None]}
    search = OptunaSearchCV(pipeline, space, n_trials=4, cv=2, random_state=0, refit=False)
    with pytest.warns(match="failed"):
        return search.fit(X, y)


def completed(search):
    return [i for i, state in enumerate(search.cv_results_["state"]) if state == "complete"]


def test_scores_have_a_row_for_each_trial_and_fold(search):
    table = scores(search)
    trials = completed(search)
    assert len(table) == 2 * len(trials) and set(table["learning_rate"]) == {0.01}
    folds = np.stack([search.cv_results_[f"split{fold}_test_score"][trials] for fold in range(2)], axis=1)
    np.testing.assert_array_equal(table["score"], folds.ravel())
    assert table["verdict"].notna().all() and set(table["batch_normalization"]) == {"None"}


def test_failed_trials_may_count_as_a_score(search):
    table = scores(search, failed=0.0)
    assert len(table) == 2 * 4 and set(table["learning_rate"]) == {0.01, 1e30}
    assert (table["score"] == 0).equals(table["learning_rate"] == 1e30)


def test_histories_have_a_row_for_each_epoch(search):
    table = histories(search)
    assert table.groupby(["trial", "fold"])["epoch"].apply(list).tolist() == [[1, 2, 3]] * 2 * len(completed(search))
    measured = search.health_[completed(search)[0]].measurements[1]
    first = table[(table["trial"] == table["trial"].iloc[0]) & (table["fold"] == 1)]
    np.testing.assert_array_equal(first["test_loss"], measured.history["test_loss"])


def test_layers_have_a_row_for_each_epoch_and_layer(search):
    table = layers(search, "grad_rms", "saturation")
    assert len(table) == 2 * len(completed(search)) * 4 * 3
    assert table["layer"].iloc[:3].tolist() == ["hidden_1", "hidden_2", "output"]
    assert table["depth"].iloc[:3].tolist() == [1, 2, 3] and table["from_top"].iloc[:3].tolist() == [2, 1, 0]
    report = search.health_[completed(search)[0]]
    of_fold = table[(table["trial"] == table["trial"].iloc[0]) & (table["fold"] == 1)]
    np.testing.assert_array_equal(of_fold["grad_rms"], report.measurements[1].layer("grad_rms").ravel())


def test_networks_have_a_row_for_each_epoch(search):
    table = networks(search, "loss", "input_rms")
    assert table["epoch"].tolist() == [0, 1, 2, 3] * 2 * len(completed(search))
    report = search.health_[table["trial"].iloc[0]]
    np.testing.assert_array_equal(table["loss"].iloc[:4], report.measurements[0].of_network("loss"))


def test_every_combination_is_kept_at_its_own_best():
    rows = [("a", 0.1, 1.0), ("a", 0.1, 3.0), ("a", 1.0, 2.5), ("b", 0.1, 0.0), ("b", 1.0, 0.5), ("b", 1.0, 0.1)]
    table = pd.DataFrame(rows, columns=["activation", "learning_rate", "score"]).assign(fold=0)
    assert at_best(table, "learning_rate", ["activation"]).index.tolist() == [2, 4, 5]
    assert at_best(table, "learning_rate", ["activation"], "learning_rate")["learning_rate"].eq(1.0).all()


def test_a_value_is_chosen_for_a_fold_by_the_others():
    scores = {0.1: (1.0, 0.0, 0.3), 1.0: (0.0, 0.5, 0.2)}  # in three folds
    rows = [(rate, fold, score) for rate, folds in scores.items() for fold, score in enumerate(folds)]
    table = pd.DataFrame(rows, columns=["learning_rate", "fold", "score"]).assign(activation="relu")
    kept = at_best(table, "learning_rate", ["activation"])
    # By folds 1 and 2 the second rate is better; by 0 and 2, and by 0 and 1, the first.
    assert list(zip(kept["fold"], kept["learning_rate"], strict=True)) == [(1, 0.1), (2, 0.1), (0, 1.0)]


def test_other_estimators_have_scores_only(digits):
    X, y = digits
    search = OptunaSearchCV(LogisticRegression(), {"C": [0.1]}, n_trials=1, cv=2, scoring=["accuracy", "f1_macro"])
    search.set_params(refit=False).fit(X, y)
    assert {"C", "trial", "fold", "accuracy", "f1_macro"} <= set(scores(search))
    with pytest.raises(SearchError, match="numbers of trial 0 are not at hand.*--fresh"):
        layers(search, "grad_rms")
