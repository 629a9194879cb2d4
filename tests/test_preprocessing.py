import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from tuner import GlobalScaler, KerasClassifier, OptunaSearchCV


@parametrize_with_checks([GlobalScaler()])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_sklearn_checks(estimator, check):
    check(estimator)


def test_mnist_has_the_mean_and_deviation_of_the_textbook():
    path = Path(os.environ.get("TUNER_DATA_HOME", "")) / "mnist.npz"
    if not path.is_file():
        pytest.skip("TUNER_DATA_HOME names no folder that holds mnist.npz (as keras.datasets.mnist keeps it)")
    with np.load(path) as data:
        images = data["x_train"]
    scaler = GlobalScaler().fit(images)
    assert (round(scaler.mean_, 2), round(scaler.scale_, 2)) == (33.32, 78.57)
    again = GlobalScaler().fit(images.reshape(len(images), -1).astype(np.float32))
    assert (again.mean_, again.scale_) == pytest.approx((scaler.mean_, scaler.scale_), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_all_entries_together_get_mean_0_and_deviation_1_and_come_back(dtype, data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=4))
    X = data.draw(arrays(dtype, shape, elements=st.integers(-1000, 1000).map(float)))
    scaler = GlobalScaler().fit(X)
    scaled = scaler.transform(X)
    assert scaled.dtype == dtype and scaled.shape == shape
    assert scaled.mean(dtype=float) == pytest.approx(0, abs=1e-4)
    assert scaled.std(dtype=float) == pytest.approx(float(X.min() != X.max()), abs=1e-4)
    np.testing.assert_allclose(scaler.inverse_transform(scaled), X, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_entries_that_are_all_the_same_are_not_divided_by_rounding(value):
    X = np.full((7, 3), value)
    scaler = GlobalScaler().fit(X)
    assert scaler.scale_ == 1
    np.testing.assert_allclose(scaler.transform(X), 0, atol=1e-15 * value)


def test_features_keep_their_names():
    scaler = GlobalScaler().set_output(transform="pandas").fit(pd.DataFrame({"a": [1, 2], "b": [3, 4]}))
    assert list(scaler.get_feature_names_out()) == ["a", "b"]


def test_a_search_can_choose_it(digits):
    X, y = digits
    network = KerasClassifier(units=8, epochs=2, random_state=0)
    search = OptunaSearchCV(
        make_pipeline("passthrough", network),
        {"passthrough": [GlobalScaler(), "passthrough"]},
        n_trials=2,
        cv=2,
        error_score="raise",
        random_state=0,
    )
    search.fit(X, y)
    assert search.cv_results_["state"].tolist() == ["complete"] * 2
