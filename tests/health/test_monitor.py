"""`HealthMonitor` and `diagnose`: the same report for anyone's model, which stays as it was."""

import keras
import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_digits

from tuner import KerasClassifier, TunerError, network, seeds
from tuner.errors import DataError, HyperparameterError
from tuner.health import HealthMonitor, diagnose
from tuner.health.measurements import LAYER_MEASURES, NETWORK_MEASURES
from tuner.health.measures import PROBE_ROWS

X, y = load_digits(return_X_y=True)
X = (X[:PROBE_ROWS] / 16).astype("float32")
y = y[:PROBE_ROWS]
ONE_HOT = np.eye(10, dtype="float32")[y]


def compiled(*layers, loss="categorical_crossentropy", optimizer="adam", inputs=64):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((inputs,)), *layers])
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def small(**settings):
    return compiled(keras.layers.Dense(8, "tanh"), keras.layers.Dense(10, "softmax"), **settings)


def test_the_monitor_measures_what_the_estimator_measures():
    """One batch holds all rows and all of them are the probe: both see the same updates and the same values."""
    estimator = KerasClassifier(
        units=(8,), activation="tanh", optimizer="sgd", epochs=3, batch_size=PROBE_ROWS, shuffle=False, random_state=0
    )
    lane = estimator.make_lane(X, y)
    model = network.build(lane.hyperparameters, (64,), lane.output, lane.seed)
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    ours = estimator.fit(X, y).health_.measurements[0]
    monitor = HealthMonitor(X, ONE_HOT)
    model.fit(X, ONE_HOT, epochs=3, batch_size=PROBE_ROWS, shuffle=False, callbacks=[monitor], verbose=0)
    theirs = monitor.measurements
    assert theirs.epochs == ours.epochs == [0, 1, 2, 3]
    for name in LAYER_MEASURES:
        np.testing.assert_allclose(theirs.layer(name), ours.layer(name), rtol=2e-3, atol=1e-6, err_msg=name)
    for name in NETWORK_MEASURES:
        np.testing.assert_allclose(theirs.of_network(name), ours.of_network(name), rtol=2e-3, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(theirs.history["loss"], ours.history["loss"], rtol=1e-5)
    assert theirs.facts.baseline_loss == pytest.approx(ours.facts.baseline_loss)
    assert theirs.facts.baseline_accuracy == ours.facts.baseline_accuracy == np.bincount(y).max() / len(y)
    assert monitor.report.verdict == estimator.health_.verdict


def test_the_update_is_the_true_one_of_the_last_step():
    model = small(optimizer=keras.optimizers.Adam(0.01))
    weights = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: weights.append(model.layers[0].get_weights()[0].copy())
    )
    monitor = HealthMonitor(X, ONE_HOT)
    model.fit(X, ONE_HOT, epochs=2, batch_size=16, callbacks=[keep, monitor], verbose=0)
    new, old = model.layers[0].get_weights()[0], weights[-1]
    expected = np.linalg.norm(new - old) / np.linalg.norm(old)
    assert monitor.measurements.layer("update_ratio")[-1, 0] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(monitor.measurements.layer("update_ratio")[0]).all()


def test_diagnose_leaves_the_model_as_it_was():
    model = small()
    model.fit(X, ONE_HOT, epochs=1, verbose=0)
    before = [np.array(v.numpy()) for v in (*model.variables, *model.optimizer.variables)]
    history = model.history
    report = diagnose(model, X, ONE_HOT, epochs=3, batch_size=16, validation_data=(X, ONE_HOT))
    assert report.measurements[0].epochs == [0, 1, 2, 3]
    assert set(report.measurements[0].history) >= {"loss", "accuracy", "val_loss"}
    after = [np.array(v.numpy()) for v in (*model.variables, *model.optimizer.variables)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert model.history is history
    expected = model.predict(X, verbose=0)
    diagnose(model, X, ONE_HOT, epochs=1)
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)


def test_diagnose_says_what_is_wrong():
    model = small(optimizer=keras.optimizers.SGD(1e30))
    report = diagnose(model, X * 1e10, ONE_HOT, epochs=5)
    assert report.verdict != "healthy"
    assert "unscaled_inputs" in report.conditions
    assert np.isfinite(model.get_weights()[0]).all()


def test_nan_weights_from_the_start_are_found():
    model = small()
    kernel, bias = model.layers[0].get_weights()
    model.layers[0].set_weights([kernel * np.nan, bias])
    report = diagnose(model, X, ONE_HOT, epochs=3)
    assert "non_finite" in report.conditions
    assert report.measurements[0].epochs == [0, 1]  # nothing can come after that


def test_models_with_several_inputs_and_sparse_targets():
    a, b = keras.Input((64,), name="a"), keras.Input((3,), name="b")
    outputs = keras.layers.Dense(10, "softmax")(keras.layers.Concatenate()([keras.layers.Dense(4, "relu")(a), b]))
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile("adam", "sparse_categorical_crossentropy")
    report = diagnose(model, {"a": X, "b": X[:, :3]}, y, epochs=2)
    facts = report.measurements[0].facts
    assert [layer.activation for layer in facts.layers] == ["relu", "softmax"]
    counts = np.bincount(y) / len(y)
    assert facts.baseline_accuracy == counts.max()
    assert facts.baseline_loss == pytest.approx(-np.sum(counts * np.log(counts)))


@pytest.mark.parametrize(
    ("activation", "targets", "task", "accuracy"),
    [
        ("sigmoid", ONE_HOT, "multiclass", np.bincount(y).max() / len(y)),
        ("sigmoid", np.concatenate([ONE_HOT[:, :9], ONE_HOT[:, :1]], axis=1), "multilabel", None),
        ("softmax", ONE_HOT, "multiclass", np.bincount(y).max() / len(y)),
    ],
)
def test_several_sigmoid_outputs_are_classes_where_they_exclude_each_other(activation, targets, task, accuracy):
    model = compiled(keras.layers.Dense(10, activation))
    model.compile("adam", "binary_crossentropy" if activation == "sigmoid" else "categorical_crossentropy")
    facts = diagnose(model, X, targets, epochs=1).measurements[0].facts
    assert (facts.task, facts.baseline_accuracy) == (task, accuracy)


def test_recurrent_models_are_diagnosed():
    model = compiled(keras.layers.Reshape((8, 8)), keras.layers.LSTM(4), keras.layers.Dense(10, "softmax"))
    report = diagnose(model, X, ONE_HOT, epochs=2)
    assert [layer.kind for layer in report.measurements[0].facts.layers] == ["LSTM", "Dense"]
    assert "lstm" in str(report)


def test_what_cannot_be_judged_is_said():
    only_scales = compiled(keras.layers.BatchNormalization(), keras.layers.Softmax(), inputs=10)
    report = diagnose(only_scales, X[:, :10], ONE_HOT, epochs=1)
    assert any("no layer has trainable weights" in note for note in report.notes)
    assert report.layers["layer"].isin([""]).all()


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (X[:0], ONE_HOT[:0], "X has no rows"),
        (X, ONE_HOT[:5], "y has 5 rows, but X has 48"),
        (scipy.sparse.csr_matrix(X), ONE_HOT, "sparse"),
    ],
)
def test_rows_that_cannot_be_measured_on_are_refused(X, y, message):
    with pytest.raises(DataError, match=message):
        diagnose(small(), X, y)


def test_a_model_that_is_not_compiled_is_refused():
    with pytest.raises(HyperparameterError, match=r"model\.compile"):
        diagnose(keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)]), X, ONE_HOT)
    with pytest.raises(TunerError, match="nothing has been measured"):
        HealthMonitor(X, ONE_HOT).report  # noqa: B018


def test_the_probe_is_a_fixed_sample():
    rows = seeds.probe_rows(0, 1000, PROBE_ROWS)
    assert len(set(rows)) == PROBE_ROWS
    assert np.array_equal(rows, seeds.probe_rows(0, 1000, PROBE_ROWS))
    assert set(seeds.probe_rows(0, 10, PROBE_ROWS)) == set(range(10))


def test_weights_scale_the_loss_and_the_constant_prediction_alike():
    """Keras divides a weighted loss by the number of rows, so that weights of 20 make it 20 times as large."""
    reports = []
    for weight in (None, np.full(len(X), 20.0)):
        model = small(optimizer=keras.optimizers.Adam(0.05))
        reports.append(diagnose(model, X, ONE_HOT, epochs=8, batch_size=16, sample_weight=weight))
    assert reports[0].verdict == reports[1].verdict
    plain, weighted = (report.statistics["loss_left"] for report in reports)
    assert weighted == pytest.approx(plain, abs=0.2)


class OwnDense(keras.layers.Layer):
    """Calls its activation with a keyword."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.softmax

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 10))

    def call(self, inputs):
        return self.activation(keras.ops.matmul(inputs, self.kernel), axis=-1)


def test_layers_may_use_their_activation_as_they_like():
    report = diagnose(compiled(OwnDense(name="own_dense")), X, ONE_HOT, epochs=1)
    assert report.measurements[0].facts.layers[0].activation == "softmax"
    fitted = KerasClassifier(model=own_dense, epochs=1).fit(X, y)
    assert [layer.name for layer in fitted.health_.measurements[0].facts.layers] == ["own_dense"]


def own_dense():
    return keras.Sequential([keras.Input((64,)), OwnDense(name="own_dense")])


def test_half_precision_is_measured_in_single_precision():
    model = compiled(
        keras.layers.Dense(8, "relu", dtype="mixed_bfloat16"), keras.layers.Dense(10, "softmax", dtype="float32")
    )
    measured = diagnose(model, X, ONE_HOT, epochs=1).measurements[0]
    assert np.isfinite(measured.layer("grad_norm")).all()


def test_what_cannot_be_measured_is_trained_all_the_same():
    class OwnStep(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(10)

        def call(self, inputs):
            return self.dense(inputs)

        def train_step(self, data):
            return {"loss": 1.0}

    model = OwnStep()
    model.compile("adam")
    model(X)
    report = diagnose(model, X, ONE_HOT, epochs=2)
    assert any("cannot be measured" in note for note in report.notes)
    assert len(report.measurements[0].history["loss"]) == 2


def test_series_of_now_and_then_keep_their_epochs():
    model = small()
    monitor = HealthMonitor(X, ONE_HOT)
    model.fit(*(X, ONE_HOT), epochs=4, validation_data=(X, ONE_HOT), validation_freq=2, callbacks=[monitor], verbose=0)
    series = monitor.measurements.history["val_loss"]
    assert [np.isnan(value) for value in series] == [True, False, True, False]
