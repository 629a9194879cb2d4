import copy
import functools
import pickle
import subprocess
import sys

import cloudpickle
import joblib
import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tuner import KerasClassifier, KerasRegressor, NonFiniteLossError
from tuner.errors import DataError, HyperparameterError

QUICK = {"units": 16, "epochs": 3, "random_state": 0}


def same_predictions(a, b, X):
    return np.array_equal(a.predict_proba(X), b.predict_proba(X))


def convolution(input_shape, n_outputs, output_activation, filters=4, kernel_size=3):
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(filters, kernel_size, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(n_outputs, output_activation),
        ]
    )


@keras.saving.register_keras_serializable("tests")
class Scale(keras.layers.Layer):
    def call(self, inputs):
        return 2.0 * inputs


def with_custom_layer(input_shape, n_outputs, output_activation):
    return keras.Sequential([keras.Input(input_shape), Scale(), keras.layers.Dense(n_outputs, output_activation)])


class Subclassed(keras.Model):
    def __init__(self, n_outputs, output_activation):
        super().__init__()
        self.hidden = keras.layers.Dense(8, "tanh")
        self.out = keras.layers.Dense(n_outputs, output_activation)
        self.arguments = {"n_outputs": n_outputs, "output_activation": output_activation}

    def call(self, inputs):
        return self.out(self.hidden(inputs))

    def get_config(self):
        return self.arguments


def cube(x):
    return x**3 / 10


# -- what it learns ----------------------------------------------------------------------------------------------------


def test_it_learns_several_classes(digits):
    X, y = digits
    estimator = KerasClassifier(epochs=30, learning_rate=0.01, random_state=0).fit(X, y)
    assert estimator.score(X, y) > 0.98
    proba = estimator.predict_proba(X)
    assert proba.shape == (len(X), 10) and np.allclose(proba.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(estimator.predict_log_proba(X), np.log(proba))
    assert list(estimator.history_) == ["loss", "accuracy"] and len(estimator.history_["loss"]) == 30
    assert estimator.history_["loss"][-1] < estimator.history_["loss"][0]
    assert estimator.n_iter_ == 30 and isinstance(estimator.model_, keras.Model)


def test_it_learns_two_classes_with_string_labels():
    X, y = load_breast_cancer(return_X_y=True)
    labels = np.array(["malignant", "benign"])[y]
    scores = cross_val_score(
        make_pipeline(StandardScaler(), KerasClassifier(**QUICK, learning_rate=0.01)), X, labels, cv=3
    )
    assert scores.mean() > 0.95
    fitted = KerasClassifier(**QUICK).fit(X, labels)
    assert list(fitted.classes_) == ["benign", "malignant"] and fitted.predict_proba(X).shape == (len(X), 2)


def test_it_learns_several_labels(digits):
    X, y = digits
    labels = np.column_stack([y % 2 == 0, y > 4, y == 3]).astype(int)
    estimator = KerasClassifier(epochs=40, learning_rate=0.01, random_state=0).fit(X, labels)
    assert estimator.score(X, labels) > 0.9
    assert set(np.unique(estimator.predict(X))) == {0, 1} and estimator.predict_proba(X).shape == (len(X), 3)


def test_it_learns_one_target_and_several(line):
    X, y = line
    one = KerasRegressor(epochs=100, learning_rate=0.01, random_state=0).fit(X, y)
    assert one.score(X, y) > 0.95 and one.predict(X).shape == (80,)
    two = KerasRegressor(epochs=100, learning_rate=0.01, random_state=0).fit(X, np.column_stack([y, -y]))
    assert two.predict(X).shape == (80, 2) and two.score(X, np.column_stack([y, -y])) > 0.95


def test_squared_error_on_sigmoids_and_cross_entropy_per_class_are_available(digits):
    X, y = digits
    for loss in ("mean_squared_error", "binary_crossentropy"):
        estimator = KerasClassifier(
            epochs=60, learning_rate=0.01, random_state=0, output_activation="sigmoid", loss=loss
        ).fit(X, y)
        # A class whose sigmoid starts saturated may stay unlearnt by squared error: that is why people compare the two.
        assert estimator.score(X, y) > 0.8
        assert np.allclose(estimator.predict_proba(X).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_loss_from_logits_gives_the_probabilities_of_the_softmax(line, n_classes):
    X, _ = line
    y = np.digitize(X[:, 0], [0.0, 0.5][: n_classes - 1])
    logits = KerasClassifier(**QUICK, output_activation="linear").fit(X, y)
    softmax = KerasClassifier(**QUICK, output_activation="softmax").fit(X, y)
    if n_classes == 3:  # with two classes the one has a single output, the other two
        np.testing.assert_allclose(logits.predict_proba(X), softmax.predict_proba(X), atol=1e-5)
    proba = logits.predict_proba(X)
    assert np.array_equal(logits.predict(X), logits.classes_[proba.argmax(axis=1)])


def test_outputs_that_are_no_probabilities_are_not_called_so(line):
    X, y = line
    estimator = KerasClassifier(**QUICK, output_activation="tanh", loss="hinge").fit(X, y > 0)
    assert estimator.score(X, y > 0) > 0.5
    with pytest.raises(HyperparameterError, match="no probabilities"):
        estimator.predict_proba(X)


@pytest.mark.parametrize("engine", ["keras", "stacked"])
@pytest.mark.parametrize(
    ("kind", "target_range", "activation"),
    [("multiclass", (0.1, 0.9), "sigmoid"), ("binary", (-0.8, 0.8), "tanh"), ("multilabel", (0.1, 0.7), "sigmoid")],
)
def test_targets_may_lie_inside_the_range_of_the_output(kind, target_range, activation, engine, digits):
    X, y = digits
    y = {"multiclass": y, "binary": np.where(y > 4, "high", "low"), "multilabel": np.c_[y > 4, y % 2].astype(int)}[kind]
    settings = {"loss": "mean_squared_error", "learning_rate": 0.01, "epochs": 25, "random_state": 0, "engine": engine}
    estimator = KerasClassifier(target_range=target_range, **settings).fit(X, y)
    low, high = target_range
    lane = estimator.make_lane(X, y)
    assert set(np.unique(lane.train.y)) == {np.float32(low), np.float32(high)}
    outputs = np.asarray(estimator.model_(X))
    assert estimator.model_.layers[-1].activation.__name__ == activation
    # What is fitted are the ends of the range, and predictions are told by its middle.
    assert abs(outputs - lane.train.y).mean() < 0.1 * (high - low)
    proba = estimator.predict_proba(X)
    yes = proba if kind == "multilabel" else proba.argmax(axis=1)
    assert 0 <= proba.min() and proba.max() <= 1
    if kind == "multilabel":
        np.testing.assert_array_equal(estimator.predict(X), yes > 0.5)
    else:
        assert proba.sum(axis=1) == pytest.approx(1)
        assert (estimator.predict(X) == estimator.classes_[yes]).mean() > 0.99  # equal ones apart
    # The accuracy of training is that of the predictions.
    right = (estimator.predict(X) == y).mean()
    tested = estimator.train_lanes([estimator.make_lane(X, y, X_test=X, y_test=y)])[0]
    assert right > 0.9 and tested.history["test_accuracy"][-1] == pytest.approx(right)
    assert estimator.history_["accuracy"][-1] == pytest.approx(right, abs=0.05)
    # Health knows what a constant prediction would give, and which outputs are far from their targets.
    facts = estimator._measurements.facts
    assert facts.baseline_loss == pytest.approx(lane.train.y.var(axis=0).mean(), rel=1e-4)
    commonest = None if kind == "multilabel" else np.unique(y, return_counts=True)[1].max() / len(y)
    assert facts.baseline_accuracy == commonest
    assert facts.loss == "mean_squared_error" and estimator._measurements.of_network("output_wrong")[-1] == 0
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))


def test_a_target_range_counts_in_the_next_partial_fit(digits):
    X, y = digits
    settings = {**QUICK, "loss": "binary_crossentropy"}
    estimator = KerasClassifier(**settings).partial_fit(X, y > 4)
    estimator.set_params(target_range=(0.1, 0.7)).partial_fit(X, y > 4)
    assert estimator.model_.optimizer.iterations == 10  # a new one
    mapped = np.clip((np.asarray(estimator.model_(X)) - 0.1) / 0.6, 0, 1)
    np.testing.assert_allclose(estimator.predict_proba(X)[:, 1:], mapped, atol=1e-6)


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, pd.DataFrame, pl.DataFrame, scipy.sparse.csr_matrix, scipy.sparse.coo_array])
def test_every_kind_of_table_gives_the_same_network(kind, digits):
    X, y = digits
    X, y = X[:100], y[:100]
    expected = KerasClassifier(**QUICK).fit(X, y).predict_proba(X)
    if kind is pl.DataFrame:
        table = pl.DataFrame(X, schema=[f"pixel{i}" for i in range(64)])
    elif kind is pd.DataFrame:
        table = pd.DataFrame(X, columns=[f"pixel{i}" for i in range(64)])
    else:
        table = kind(X)
    estimator = KerasClassifier(**QUICK).fit(table, y.tolist() if kind is list else y)
    np.testing.assert_allclose(estimator.predict_proba(table), expected, rtol=1e-5)
    assert estimator.n_features_in_ == 64
    assert hasattr(estimator, "feature_names_in_") == (kind in (pd.DataFrame, pl.DataFrame))


def test_images_go_to_a_custom_model(digits):
    X, y = digits
    images = X.reshape(-1, 8, 8, 1)
    estimator = KerasClassifier(model=convolution, model_params={"filters": 8}, epochs=2, random_state=0)
    estimator.fit(images, y)
    assert estimator.predict(images).shape == y.shape and estimator.model_.layers[0].filters == 8
    with pytest.raises(DataError, match=r"shape \(8, 4, 1\).*\(8, 8, 1\)"):
        estimator.predict(images[:, :, :4])


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[np.nan], [1.0]], [0, 1], "contains NaN"),
        ([[np.inf], [1.0]], [0, 1], "infinity"),
        ([[1.0], [2.0], [3.0]], [0, 1], "inconsistent numbers of samples"),
        (np.empty((4, 0)), [0, 1, 0, 1], "0 feature"),
        ([[1.0], [2.0]], [1, 1], "one class only"),
        ([[1.0], [2.0]], [0.5, 1.5], "[Uu]nknown label type"),
        ([[1.0], [2.0]], [[1, 2], [3, 4]], "2 columns of several classes"),
        ([["a"], ["b"]], [0, 1], "could not convert string"),
    ],
)
def test_bad_data_is_an_error_that_says_why(X, y, message):
    with pytest.raises(ValueError, match=message):
        KerasClassifier(**QUICK).fit(X, y)


def test_bad_targets_of_a_regression_and_bad_weights(line):
    X, y = line
    with pytest.raises(ValueError, match="NaN"):
        KerasRegressor(**QUICK).fit(X, np.where(y > 0, np.nan, y))
    with pytest.raises(ValueError, match="[Nn]egative"):
        KerasRegressor(**QUICK).fit(X, y, sample_weight=-np.ones(80))
    with pytest.raises(ValueError, match="at least one non-zero"):
        KerasRegressor(**QUICK).fit(X, y, sample_weight=np.zeros(80))


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({0: -1.0, 1: 1.0}, "class_weight must be"),
        ({0: np.nan}, "class_weight must be"),
        ({0: 0, 1: 0}, "not all 0"),
        ("balansed", "Did you mean 'balanced'"),
        ({"zero": 2.0}, "'zero', which is no class of y"),
    ],
)
def test_bad_class_weights_are_an_error(class_weight, message, digits):
    with pytest.raises(HyperparameterError, match=message):
        KerasClassifier(**QUICK, class_weight=class_weight).fit(*digits)


def test_values_too_large_for_the_dtype_are_an_error(line):
    X, y = line
    with pytest.raises(DataError, match="too large for float32"):
        KerasRegressor(**QUICK).fit(X, 1e300 * y)


def test_a_column_of_labels_is_stratified_as_labels_are(line):
    X, _ = line
    y = np.repeat([0, 1], [60, 20])
    estimator = KerasClassifier(**QUICK, early_stopping=True, validation_fraction=0.25)
    with pytest.warns(DataConversionWarning):
        lane = estimator.make_lane(X, y[:, np.newaxis])
    assert lane.validation.y.sum() == 5


def test_sample_and_class_weights_move_the_decision(line):
    X, y = line
    positive = y > np.quantile(y, 0.9)
    shares = [
        KerasClassifier(**QUICK, class_weight=weight).fit(X, positive).predict(X).mean()
        for weight in (None, "balanced", {False: 1.0, True: 100.0})
    ]
    assert shares[0] < shares[1] < shares[2]
    by_sample = KerasClassifier(**QUICK).fit(X, positive, sample_weight=np.where(positive, 100.0, 1.0))
    assert by_sample.predict(X).mean() == shares[2]


# -- training ----------------------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_networks_and_fits_do_not_remember(digits):
    X, y = digits
    a = KerasClassifier(**QUICK, dropout=0.2).fit(X, y)
    b = KerasClassifier(**QUICK, dropout=0.2).fit(X, y)
    assert same_predictions(a, b, X) and a.history_ == b.history_
    assert same_predictions(a.fit(X, y), b, X)
    assert not same_predictions(b.set_params(random_state=1).fit(X, y), a, X)


def test_early_stopping_watches_data_of_its_own_and_keeps_the_best_epoch(digits):
    X, y = digits
    estimator = KerasClassifier(
        epochs=200, learning_rate=0.02, early_stopping=True, n_iter_no_change=4, validation_fraction=0.2, random_state=0
    )
    lane = estimator.make_lane(X, y)
    assert len(lane.validation) == 60 and len(lane.train) == 240
    counts = lane.validation.y.sum(axis=0)
    assert counts.min() >= 5 and counts.max() <= 7, "stratified: each of ten classes has about 30 of 300"
    rows = np.vstack([lane.train.features(), lane.validation.features()])
    assert len(np.unique(rows, axis=0)) == len(np.unique(X.astype("float32"), axis=0))
    estimator.fit(X, y)
    losses = estimator.history_["val_loss"]
    assert estimator.n_iter_ == len(losses) < 200
    best = KerasClassifier(**{**estimator.get_params(), "epochs": int(np.argmin(losses)) + 1}).fit(X, y)
    np.testing.assert_allclose(estimator.predict_proba(X), best.predict_proba(X), rtol=1e-3, atol=1e-5)


def test_early_stopping_needs_enough_samples():
    with pytest.raises(DataError, match="early_stopping cannot split off"):
        KerasClassifier(**QUICK, early_stopping=True).fit([[0.0], [1.0], [2.0]], [0, 1, 1])


def test_warm_start_goes_on_with_the_weights(digits):
    X, y = digits
    estimator = KerasClassifier(**QUICK, warm_start=True, learning_rate=0.01).fit(X, y)
    first = estimator.history_["loss"][-1]
    estimator.fit(X, y)
    assert estimator.history_["loss"][3] < first and estimator.n_iter_ == 6
    with pytest.raises(DataError, match="classes that the network does not know"):
        estimator.fit(X, y + 100)


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.1, "learning_rate_schedule": "cosine"},
        {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.02, "layerwise_learning_rates": 0.5},
        {"learning_rate": 0.01, "clipnorm": 0.5, "batch_normalization": "before"},
    ],
    ids=["schedule", "momentum", "Adam"],
)
def test_partial_fit_is_one_epoch_with_the_optimizer_going_on(changes, digits):
    X, y = digits
    params = {**QUICK, **changes}
    whole = KerasClassifier(**params).fit(X, y)
    parts = KerasClassifier(**params)
    parts.partial_fit(X, y, classes=np.arange(10))
    travelled = pickle.loads(pickle.dumps(parts))
    for estimator in (parts, travelled):
        estimator.partial_fit(X, y).partial_fit(X, y)
        assert estimator.n_iter_ == 3
        np.testing.assert_allclose(estimator.predict_proba(X), whole.predict_proba(X), atol=1e-6)
        np.testing.assert_allclose(estimator.history_["loss"], whole.history_["loss"], rtol=1e-5)


def test_partial_fit_takes_classes_that_come_later(digits):
    X, y = digits
    estimator = KerasClassifier(**QUICK).partial_fit(X[y < 5], y[y < 5], classes=np.arange(10))
    estimator.partial_fit(X[y >= 5], y[y >= 5])
    assert estimator.predict_proba(X).shape == (len(X), 10)
    with pytest.raises(DataError, match="does not know.*11"):
        estimator.partial_fit(X, np.where(y == 0, 11, y))
    with pytest.raises(HyperparameterError, match="early_stopping=False"):
        KerasClassifier(early_stopping=True).partial_fit(X, y)


def test_a_changed_optimizer_parameter_counts_in_the_next_partial_fit(digits):
    X, y = digits
    estimator = KerasClassifier(**QUICK).partial_fit(X, y)
    before = estimator.predict_proba(X)
    estimator.set_params(optimizer="sgd", learning_rate=1e-30).partial_fit(X, y)
    np.testing.assert_array_equal(estimator.predict_proba(X), before)


@pytest.mark.parametrize(
    ("changes", "target", "message"),
    [
        ({"units": 32}, None, "made with units=16, and units is now 32"),
        ({"loss": "binary_crossentropy"}, None, "10 outputs of 'softmax'.*wants 10 of 'sigmoid'"),
        ({}, "multilabel", "fitted on one column of labels"),
    ],
)
def test_training_goes_on_only_with_what_fits_the_network(changes, target, message, digits):
    X, y = digits
    estimator = KerasClassifier(**QUICK, warm_start=True).fit(X, y).set_params(**changes)
    y = np.column_stack([y > 3, y > 5]).astype(int) if target == "multilabel" else y
    for go_on in (estimator.fit, estimator.partial_fit):
        with pytest.raises((DataError, HyperparameterError), match=message):
            go_on(X, y)


def test_weights_that_overflow_in_the_last_update_are_noticed(line):
    X, y = line
    with pytest.raises(NonFiniteLossError, match="epoch 1"):
        KerasRegressor(**{**QUICK, "epochs": 1}, batch_size=100, optimizer="sgd", learning_rate=1e38).fit(X, 1e3 * y)


def test_nothing_predicts_with_weights_that_are_lost(line):
    X, y = line
    estimator = KerasRegressor(**QUICK, optimizer="sgd").partial_fit(X, y)
    with pytest.raises(NonFiniteLossError):
        estimator.partial_fit(1e18 * X, 1e18 * y)
    with pytest.raises(NotFittedError):
        estimator.predict(X)


def test_a_loss_that_is_not_finite_is_an_error_with_epoch_and_history(line):
    X, y = line
    with pytest.raises(NonFiniteLossError, match="non-finite loss.*epoch") as caught:
        KerasRegressor(**QUICK, optimizer="sgd", learning_rate=1e10).fit(X * 1e10, y * 1e10)
    error = caught.value
    assert error.epoch == len(error.history["loss"]) and not np.isfinite(error.history["loss"][-1])
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.epoch == error.epoch


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [("cosine", [1, 0.5, 0.0]), ("exponential", [1, 0.1, 0.01]), ("step", [1, 0.1, 0.01])],
)
def test_named_schedules_span_the_epochs(digits, schedule, shares):
    X, y = digits
    estimator = KerasClassifier(epochs=4, batch_size=30, optimizer="sgd", learning_rate=0.1)
    estimator.set_params(learning_rate_schedule=schedule).fit(X, y)
    rate = estimator.model_.optimizer._learning_rate
    start, middle, end = (float(rate(step)) for step in (0, 20, 40))
    np.testing.assert_allclose([start, middle, end], np.multiply(shares, 0.1), rtol=1e-5, atol=1e-8)
    if schedule == "step":
        assert float(rate(19)) == pytest.approx(0.1) and float(rate(29)) == pytest.approx(0.01)


def test_given_values_override_the_optimizers_own_and_instances_are_rebuilt(digits):
    X, y = digits
    instance = keras.optimizers.SGD(0.5, momentum=0.3)
    a = KerasClassifier(**QUICK, optimizer=instance, learning_rate=0.01, clipnorm=2.0).fit(X, y)
    optimizer = a.model_.optimizer
    assert optimizer is not instance and not instance.built
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert (optimizer.momentum, optimizer.clipnorm) == (0.3, 2.0)
    named = KerasClassifier(**QUICK, optimizer="sgd", momentum=0.3, learning_rate=0.01, clipnorm=2.0).fit(X, y)
    assert same_predictions(a, named, X) and same_predictions(a, clone(a).fit(X, y), X)


def test_verbose_prints_a_line_for_each_epoch(digits, capfd):
    KerasClassifier(**QUICK, verbose=1).fit(*digits)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    KerasClassifier(**QUICK).fit(*digits)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


# -- parameters --------------------------------------------------------------------------------------------------------


def test_the_models_own_parameters_are_reached_by_their_names(digits):
    X, y = digits
    estimator = KerasClassifier(model=convolution, model_params={"filters": 2}, epochs=1)
    deep = estimator.get_params()
    assert deep["model__filters"] == 2 and deep["model__kernel_size"] == 3 and "model__n_outputs" not in deep
    assert "model__filters" not in estimator.get_params(deep=False)
    before = estimator.model_params
    estimator.set_params(model__kernel_size=5)
    assert before == {"filters": 2} and estimator.model_params == {"filters": 2, "kernel_size": 5}
    assert clone(estimator).get_params()["model__kernel_size"] == 5
    with pytest.raises(HyperparameterError, match="model__filtres.*Did you mean 'filters'"):
        estimator.set_params(model__filtres=3)
    with pytest.raises(HyperparameterError, match="model callable, and model=None"):
        KerasClassifier().set_params(model__filters=3)
    switched = KerasClassifier().set_params(model__filters=3, model=convolution)
    assert switched.model_params == {"filters": 3}
    grid = GridSearchCV(estimator, {"model__filters": [1, 3]}, cv=2).fit(X.reshape(-1, 8, 8, 1), y)
    assert grid.best_estimator_.model_.layers[0].filters in (1, 3)


def test_the_network_can_be_saved_and_loaded_by_keras_alone(digits, tmp_path):
    X, y = digits
    estimator = KerasClassifier(**QUICK).fit(X, y)
    estimator.model_.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), estimator.predict_proba(X), rtol=1e-5)


def test_numpy_values_are_values(digits):
    params = {"units": np.array([8, 4]), "batch_normalization": np.str_("before"), "residual": np.True_}
    estimator = KerasClassifier(epochs=1, **params).fit(*digits)
    assert [w.shape for w in estimator.model_.get_layer("hidden_2").get_weights()] == [(8, 4), (4,)]


def test_scikit_learn_knows_what_they_are():
    assert is_classifier(KerasClassifier()) and is_regressor(KerasRegressor())
    assert is_classifier(make_pipeline(StandardScaler(), KerasClassifier()))


def test_in_a_transformed_target_regressor(line):
    X, y = line
    model = TransformedTargetRegressor(
        KerasRegressor(epochs=60, learning_rate=0.01, random_state=0), transformer=StandardScaler()
    )
    assert model.fit(X, 1000 + 50 * y).score(X, 1000 + 50 * y) > 0.9


# -- pickle ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"activation": cube},
        {"activation": lambda x: x * keras.ops.sigmoid(x)},
        {"activation": functools.partial(keras.activations.leaky_relu, negative_slope=0.3)},
        {"loss": lambda y_true, y_pred: keras.ops.mean((y_true - y_pred) ** 2, axis=-1)},
        {"activation": "scaled_sigmoid"},
        {"activation": "prelu"},
        {"activation": "maxout"},
        {"model": with_custom_layer},
        {"model": Subclassed},
        {"optimizer": keras.optimizers.Adam(0.01), "loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1)},
        {"dtype": "float64", "batch_normalization": "after"},
    ],
    ids=(
        "plain,function,lambda,partial,lambda loss,scaled sigmoid,prelu,maxout,custom layer,subclass,keras objects,"
        "float64".split(",")
    ),
)
def test_fitted_estimators_travel(params, digits, tmp_path):
    X, y = digits
    estimator = KerasClassifier(**QUICK, **params).fit(X, y)
    copies = [cloudpickle.loads(cloudpickle.dumps(estimator)), copy.deepcopy(estimator)]
    if not any("lambda" in getattr(value, "__name__", "") for value in params.values()):  # Python pickles no lambda
        joblib.dump(estimator, tmp_path / "estimator.joblib")
        copies += [pickle.loads(pickle.dumps(estimator)), joblib.load(tmp_path / "estimator.joblib")]
    for travelled in copies:
        assert same_predictions(travelled, estimator, X)
        assert travelled.history_ == estimator.history_
    again = cloudpickle.loads(cloudpickle.dumps(copies[0]))
    assert same_predictions(again.partial_fit(X, y), estimator.partial_fit(X, y), X)


def test_a_pickle_opens_in_a_fresh_process(digits, tmp_path):
    X, y = digits
    estimator = KerasClassifier(activation="penalized_tanh", **QUICK).fit(X, y)
    (tmp_path / "estimator.pickle").write_bytes(pickle.dumps((estimator, X)))
    code = "import pickle, sys; e, X = pickle.load(open(sys.argv[1], 'rb')); print(e.predict_proba(X).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "estimator.pickle"], capture_output=True, text=True, check=True
    )
    assert np.array_equal(np.array(eval(done.stdout), dtype="float32"), estimator.predict_proba(X))
    assert done.stderr == "", "nothing is printed that was not asked for"


def test_unfitted_estimators_travel_and_clone_forgets_the_fit(digits):
    estimator = KerasClassifier(units=(8, 8), kernel_initializer=keras.initializers.HeNormal(seed=3))
    assert pickle.loads(pickle.dumps(estimator)).get_params()["units"] == (8, 8)
    assert not hasattr(clone(KerasClassifier(**QUICK).fit(*digits)), "model_")
