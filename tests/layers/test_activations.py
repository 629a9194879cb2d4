"""Each activation is its formula, and comes back from a file."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.backend import keras
from tuner.backend import tensorflow as tf
from tuner.layers import Maxout, get_activation, penalized_tanh, scaled_sigmoid

NUMBERS = st.floats(-50, 50, width=32, allow_subnormal=False)


def value_and_slope(function, x):
    x = tf.constant(x, "float64")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return float(y), float(tape.gradient(y, x))


@settings(max_examples=50, deadline=None)
@given(NUMBERS)
def test_the_scaled_sigmoid_is_four_sigmoids_less_two(x):
    sigmoid = 1 / (1 + math.exp(-x))
    value, slope = value_and_slope(scaled_sigmoid, x)
    assert value == pytest.approx(4 * sigmoid - 2, abs=1e-12)
    assert slope == pytest.approx(4 * sigmoid * (1 - sigmoid), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(NUMBERS)
def test_the_penalized_tanh_is_a_quarter_below_zero(x):
    share = 1 if x > 0 else 0.25
    value, slope = value_and_slope(penalized_tanh, x)
    assert value == pytest.approx(share * math.tanh(x), abs=1e-12)
    assert slope == pytest.approx(share * (1 - math.tanh(x) ** 2), abs=1e-12)


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_maxout_is_the_largest_piece_which_alone_gets_the_gradient(pieces):
    x = np.random.default_rng(0).normal(size=(5, 4, pieces * 3)).astype("float32")
    layer, by_piece = Maxout(pieces), x.reshape(5, 4, pieces, 3)
    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = layer(given)
    np.testing.assert_array_equal(y, by_piece.max(axis=2))
    assert layer.compute_output_shape((None, 4, pieces * 3)) == (None, 4, 3)
    largest = by_piece == by_piece.max(axis=2, keepdims=True)
    np.testing.assert_array_equal(tape.gradient(y, given), largest.reshape(x.shape))


def test_maxout_says_what_it_wants():
    with pytest.raises(ValueError, match="Maxout of 2 pieces wants a multiple of them; got 5 inputs"):
        keras.Sequential([keras.Input((5,)), Maxout(2)])


def test_names_of_keras_are_still_found_and_others_are_not():
    assert get_activation("tanh") is keras.activations.tanh
    assert get_activation("penalized_tanh") is get_activation(penalized_tanh) is penalized_tanh
    with pytest.raises(ValueError, match="scaled_tanh"):
        get_activation("scaled_tanh")


def test_keras_saves_and_loads_them(tmp_path):
    layers = [
        keras.layers.Dense(6, scaled_sigmoid),
        keras.layers.Activation(penalized_tanh),
        Maxout(3),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    np.testing.assert_array_equal(loaded(X), model(X))
    assert loaded.layers[2].pieces == 3
