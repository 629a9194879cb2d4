"""A chosen layer gives what the layer itself gives, and what was not chosen does not show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.backend import keras
from tuner.backend import tensorflow as tf
from tuner.layers import ELEMENTWISE, ChosenActivation, OptionalNormalization, get_activation

NAMES = sorted(ELEMENTWISE)
ALL = ChosenActivation(NAMES)
ALL.build((None, 3))


@tf.function(input_signature=[tf.TensorSpec((), "int32"), tf.TensorSpec((None,), "float32")])
def chosen(choice, x):
    """Return values and slopes of an activation that was chosen among all."""
    with tf.GradientTape() as tape, keras.StatelessScope(state_mapping=[(ALL.choice, choice)]):
        tape.watch(x)
        values = ALL(x)
    return values, tape.gradient(values, x)


@pytest.mark.parametrize("name", NAMES)
def test_a_chosen_activation_has_the_values_and_slopes_of_the_activation(name):
    function = get_activation(name)

    @tf.function(input_signature=[tf.TensorSpec((None,), "float32")])
    def plain(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = function(x)
        return values, tape.gradient(values, x, unconnected_gradients="zero")

    # TensorFlow turns subnormal numbers into zeros.
    around_zero, large = (st.floats(-limit, limit, width=32, allow_subnormal=False) for limit in (16, 2.0**99))

    @settings(max_examples=20, deadline=None)
    @given(x=st.lists(around_zero | large, min_size=1, max_size=8))
    def check(x):
        x = tf.constant(x, "float32")
        for mine, expected in zip(chosen(NAMES.index(name), x), plain(x), strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-6, atol=1e-30)

    check()


@pytest.mark.parametrize("name", NAMES)
def test_elementwise_activations_map_every_number_by_itself(name):
    x = np.random.default_rng(0).normal(scale=3, size=(4, 5)).astype("float32")
    function = get_activation(name)
    one_by_one = [function(tf.constant([[number]])).numpy().item() for number in x.flat]
    np.testing.assert_allclose(np.asarray(function(x)).ravel(), one_by_one, rtol=1e-6)


def test_every_elementwise_activation_of_keras_is_among_them():
    functions = {get_activation(name) for name in NAMES}
    others = {f.__name__ for f in vars(keras.activations).values() if callable(f) and f not in functions}
    of_several_numbers = {"glu", "log_softmax", "softmax", "sparsemax"}
    with_arguments = {"threshold"}
    assert others == {"deserialize", "get", "serialize"} | of_several_numbers | with_arguments


def test_lanes_choose_for_themselves_in_one_program():
    layer = ChosenActivation(["relu", "exponential", "tanh"])
    layer.build((None, 2))
    x = tf.constant(np.float32([[-100.0, 100.0]] * 3))  # the exponential of 100 overflows

    def one_lane(given):
        choice, x = given
        with tf.GradientTape() as tape, keras.StatelessScope(state_mapping=[(layer.choice, choice)]):
            tape.watch(x)
            values = layer(x)
        return values, tape.gradient(values, x)

    values, slopes = tf.function(lambda *given: tf.vectorized_map(one_lane, given))(tf.constant([0, 2, 2]), x)
    np.testing.assert_array_equal(values, [[0, 100], [-1, 1], [-1, 1]])
    np.testing.assert_array_equal(slopes, [[0, 1], [0, 0], [0, 0]])


def test_the_choice_is_a_weight_that_training_leaves_alone():
    layer = ChosenActivation(["relu", "tanh"])
    layer.build((None, 2))
    assert [v.name for v in layer.non_trainable_variables] == ["choice"] and not layer.trainable_variables


@pytest.mark.parametrize("training", [True, False])
def test_an_optional_normalization_is_batch_normalization_or_nothing(training):
    layer, plain = OptionalNormalization(), keras.layers.BatchNormalization()
    layer.build((None, 3))
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    np.testing.assert_array_equal(layer(x, training=training), x)
    layer.on.assign(1)
    np.testing.assert_allclose(layer(x, training=training), plain(x, training=training), rtol=1e-6)


def test_what_overflows_in_a_normalization_that_is_off_does_not_come_back():
    layer = OptionalNormalization()
    layer.build((None, 1))
    x = tf.constant([[1e30], [-1e30]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
    np.testing.assert_array_equal(tape.gradient(outputs, x), [[1], [1]])
