"""A real table through the whole path: mixed columns, missing values, sample weights, a ColumnTransformer."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tuner import KerasClassifier, OptunaSearchCV, search_space

COLUMNS = (
    "age workclass fnlwgt education education_num marital_status occupation relationship race sex capital_gain "
    "capital_loss hours_per_week native_country income"
).split()
NUMBERS = ["age", "education_num", "capital_gain", "capital_loss", "hours_per_week"]
CATEGORIES = ["workclass", "education", "marital_status", "occupation", "relationship", "race", "sex"]


@pytest.fixture(scope="module")
def adult():
    """2,000 rows of the adult census: X (2000, 12), y (2000,) of strings, the census's own sample weights (2000,)."""
    home = os.environ.get("TUNER_DATA_HOME")
    if not home or not (Path(home) / "adult-train.csv").exists():
        pytest.skip("TUNER_DATA_HOME names no folder that holds adult-train.csv")
    table = pd.read_csv(Path(home) / "adult-train.csv", names=COLUMNS, skipinitialspace=True, na_values="?", nrows=2000)
    return table[NUMBERS + CATEGORIES], table["income"], table["fnlwgt"].to_numpy() / table["fnlwgt"].mean()


def preprocessing():
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), CATEGORIES),
    )


def test_adult_is_searched_with_sample_weights(adult):
    X, y, weights = adult
    assert X.isna().any().any() and y.nunique() == 2
    pipeline = make_pipeline(preprocessing(), KerasClassifier(units=16, epochs=5, random_state=0))
    names = ["kerasclassifier__learning_rate", "kerasclassifier__batch_normalization"]
    ready = search_space(pipeline)
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    search = OptunaSearchCV(
        pipeline, {name: ready[name] for name in names}, n_trials=3, cv=cv, scoring="roc_auc", random_state=0
    )
    search.fit(X, y, kerasclassifier__sample_weight=weights)
    baseline = cross_val_score(make_pipeline(preprocessing(), LogisticRegression()), X, y, cv=cv, scoring="roc_auc")
    assert search.best_score_ > baseline.mean() - 0.03
    assert list(search.classes_) == ["<=50K", ">50K"] and set(search.predict(X[:50])) <= set(search.classes_)
    np.testing.assert_allclose(search.predict_proba(X[:50]).sum(axis=1), 1, atol=1e-6)

    again = OptunaSearchCV(
        pipeline, {name: ready[name] for name in names}, n_trials=3, cv=cv, scoring="roc_auc", random_state=0
    )
    unweighted = again.fit(X, y)
    assert unweighted.cv_results_["params"] == search.cv_results_["params"]
    assert not np.array_equal(unweighted.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"])
