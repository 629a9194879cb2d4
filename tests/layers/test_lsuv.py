"""Every layer's outputs begin with variance 1, on training rows and whatever the data are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner import KerasClassifier, network
from tuner.backend import keras
from tuner.engine.base import SCALING_ROWS
from tuner.engine.keras import KerasEngine
from tuner.engine.stacked import StackedEngine
from tuner.layers import LSUV, lsuv_layers, to_unit_variance
from tuner.testing.engines import EngineTestCase

lane = EngineTestCase.lane
RNG = np.random.default_rng(0)
X = RNG.normal(3, 5, size=(64, 6)).astype("float32")


def sequential(*layers, inputs=(6,)):
    return keras.Sequential([keras.Input(inputs), *layers])


def dense(units, *args, **kwargs):
    return keras.layers.Dense(units, *args, kernel_initializer=LSUV(seed=units), **kwargs)


def scaled(model, X=X):
    to_unit_variance(model, lsuv_layers(model), X)
    return model


def test_kernels_are_orthonormal_but_for_the_scale_that_gives_variance_1():
    """Written out in NumPy, layer by layer."""
    model = scaled(sequential(dense(5, "relu"), dense(4, "tanh", bias_initializer="normal"), dense(3, "softmax")))
    x = X
    for layer, function in zip(model.layers, [lambda z: np.maximum(z, 0), np.tanh, None], strict=True):
        start = np.asarray(keras.initializers.Orthogonal(seed=layer.units)(layer.kernel.shape))
        np.testing.assert_allclose(start.T @ start, np.eye(layer.units), atol=1e-5)
        np.testing.assert_allclose(layer.kernel, start / (x @ start).std(), rtol=1e-4)
        assert (x @ layer.kernel.numpy()).var() == pytest.approx(1, rel=1e-4)
        x = function(x @ layer.kernel.numpy() + layer.bias.numpy()) if function else x


def test_a_variance_within_the_tolerance_is_left_alone():
    identity = keras.layers.Dense(6)
    model = sequential(identity)
    for variance, changed in ((0.91, False), (1.09, False), (0.89, True), (1.11, True)):
        x = (X - X.mean()) / X.std() * np.sqrt(variance)
        identity.kernel.assign(np.eye(6))
        to_unit_variance(model, [identity], x)
        assert np.array_equal(identity.kernel, np.eye(6)) != changed, variance


def test_layers_of_every_kind_in_the_order_of_their_calls():
    """A shared layer is scaled at its first call; what was not asked for stays, and so do moving averages."""
    inputs = keras.Input((5, 6))
    conv = keras.layers.Conv1D(4, 2, activation="relu", kernel_initializer=LSUV(seed=1))
    shared, frozen = dense(4), keras.layers.Dense(4)
    x = keras.layers.BatchNormalization()(conv(inputs))
    x = shared(keras.layers.Dropout(0.5)(shared(x)))
    model = keras.Model(inputs, dense(2)(keras.layers.GlobalAveragePooling1D()(frozen(x))))
    images = RNG.normal(2, 3, size=(32, 5, 6)).astype("float32")
    before = {v.path: np.asarray(v) for v in model.variables}
    assert {layer.name for layer in lsuv_layers(model)} == {conv.name, shared.name, model.layers[-1].name}
    scaled(model, images)
    kernels = [layer.kernel.path for layer in (conv, shared, model.layers[-1])]
    for variable in model.variables:
        assert np.array_equal(variable, before[variable.path]) != (variable.path in kernels), variable.path
    convolved = keras.ops.conv(images, conv.kernel)
    assert np.var(convolved) == pytest.approx(1, rel=1e-4)
    seen = np.maximum(convolved, 0)
    seen = (seen - seen.mean(axis=(0, 1))) / np.sqrt(seen.var(axis=(0, 1)) + 1e-3)  # the batch's statistics
    assert np.var(seen @ shared.kernel.numpy()) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=20, deadline=None)
@given(value=st.sampled_from([0.0, 1e-30, 1.0, 1e6, 1e30, 3e38, np.inf, np.nan]), varies=st.booleans())
def test_whatever_the_data_are_the_kernel_is_finite(dtype, value, varies):
    with network.precision(dtype), np.errstate(all="ignore"):
        x = (np.full((20, 6), value) * (RNG.normal(size=(20, 6)) if varies else 1)).astype(dtype)
        model = sequential(dense(1), dense(2))
        before = [np.asarray(layer.kernel) for layer in model.layers]
        scaled(model, x)
        for layer, start in zip(model.layers, before, strict=True):
            assert np.isfinite(layer.kernel).all()
            if value == 0 or not np.isfinite(x).all():
                np.testing.assert_array_equal(layer.kernel, start)
        if not varies:  # one unit has the same output for every row: rounding is not divided by
            np.testing.assert_array_equal(model.layers[0].kernel, before[0])


@pytest.mark.parametrize("engine", [KerasEngine(), StackedEngine(strict=True)], ids=["keras", "stacked"])
def test_weights_are_scaled_by_the_rows_that_the_lane_trains_on(engine):
    """Not by those that stop it early, those that are held out, or those without weight; and each lane by its own."""
    settings = {"early_stopping": True, "validation_fraction": 0.3, "learning_rate": 1e-30, "epochs": 1}
    one = lane(weighted=True, kernel_initializer="lsuv", activation="relu", units=(8, 5), **settings)
    other = lane(1, kernel_initializer="lsuv", activation="relu", units=(8, 5), **settings)
    counts = one.train.row_numbers[np.flatnonzero(one.train.sample_weight)]
    elsewhere = one.train.X.copy()
    elsewhere[np.setdiff1d(np.arange(len(elsewhere)), counts)] *= 100
    changed = replace(
        one,
        train=replace(one.train, X=elsewhere),
        validation=replace(one.validation, X=100 * one.validation.X),
        test=replace(one.test, X=100 * one.test.X),
    )
    starts = [trained.model.get_weights() for trained in engine.train([one, changed, other])]
    for mine, unchanged, others in zip(*starts, strict=True):
        np.testing.assert_array_equal(mine, unchanged)
        assert mine.ndim == 1 or not np.allclose(mine, others)
    rows = one.train.X[counts]
    assert np.var(rows @ starts[0][0]) == pytest.approx(1, rel=1e-4)
    hidden = np.maximum(rows @ starts[0][0], 0)
    assert np.var(hidden @ starts[0][2]) == pytest.approx(1, rel=1e-4)


def test_the_start_follows_from_random_state():
    x = RNG.normal(size=(60, 4))
    a, b, c = (
        KerasClassifier(kernel_initializer="lsuv", random_state=seed, epochs=1).fit(x, x[:, 0] > 0).model_.get_weights()
        for seed in (3, 3, 4)
    )
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    assert not np.array_equal(a[0], c[0])


def test_many_rows_are_sampled():
    many = lane(n=3 * SCALING_ROWS, kernel_initializer="lsuv")
    model = many.fresh_model()
    variance = np.var(many.train.X @ model.layers[1].kernel.numpy())
    assert variance != pytest.approx(1, rel=1e-5) and variance == pytest.approx(1, rel=0.2)


def test_the_layers_of_a_custom_model_have_starts_of_their_own():
    def model(input_shape, n_outputs, kernel_initializer):
        layers = [keras.layers.Dense(6, kernel_initializer=kernel_initializer) for _ in range(2)]
        return sequential(*layers, keras.layers.Dense(n_outputs, "softmax"))

    custom = lane(kernel_initializer="lsuv", model=model)
    (first, _, second, _, other, _), again = (custom.fresh_model().get_weights() for _ in range(2))
    np.testing.assert_array_equal(first, again[0])
    for kernel in (first, second):
        np.testing.assert_allclose(kernel.T @ kernel / (kernel[:, 0] @ kernel[:, 0]), np.eye(6), atol=1e-5)
    assert not np.allclose(first / np.linalg.norm(first), second / np.linalg.norm(second), atol=0.1)
    assert np.var(custom.train.X @ first) == pytest.approx(1, abs=0.1)
    assert not np.allclose(other.T @ other / (other[:, 0] @ other[:, 0]), np.eye(3), atol=1e-3)  # not asked for
