"""The mended layers give, as lanes of one compiled program, what Keras gives for each lane alone."""

import numpy as np
import pytest

from tuner.backend import keras
from tuner.backend import tensorflow as tf
from tuner.engine.vectorizing import VectorizedLayers, keep_mask

layers = keras.layers
N_LANES = 2


def sequential(shape, *made, dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *made])


def random_lanes(model, x_shape, dtype="float32"):
    """Return weights, states and inputs with a leading axis of lanes."""
    rng = np.random.default_rng(0)

    def lanes(shape):
        return tf.constant(rng.normal(size=(N_LANES, *shape)), dtype)

    weights = [lanes(variable.shape) for variable in model.trainable_variables]
    states = [tf.stack([tf.convert_to_tensor(v)] * N_LANES) for v in model.non_trainable_variables]
    return weights, states, lanes(x_shape)


def step(model, weights, states, x):
    """Return outputs, states and gradients of a training step of one lane."""
    with tf.GradientTape() as tape:
        tape.watch((weights, x))
        outputs, states = model.stateless_call(weights, states, x, training=True)
        loss = tf.reduce_sum(tf.sin(outputs))
    return outputs, states, tape.gradient(loss, (weights, x), unconnected_gradients="zero")


def vectorized_step(model, vectorized, weights, states, x, given=None):
    """Return what `step` returns for each lane, from one compiled program."""

    def one_lane(lane):
        *arguments, given = lane
        with vectorized.given(**given):
            return step(model, *arguments)

    @tf.function(jit_compile=True)
    def run(*lanes):
        return tf.vectorized_map(one_lane, lanes, fallback_to_while_loop=False)

    return run(weights, states, x, given or {})


def assert_close(actual, desired, rtol):
    for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(desired), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1.0, float(np.abs(b).max(initial=0))))


def lane(index, structure):
    return tf.nest.map_structure(lambda tensor: tensor[index], structure)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (32, 64), (7, 3, 2, 5)])
def test_the_mask_is_that_of_tensorflow_to_the_last_bit(dtype, shape):
    @tf.function(jit_compile=True)
    def masks(rates, seeds, steps):
        return tf.vectorized_map(
            lambda lane: keep_mask(shape, dtype, *lane), (rates, seeds, steps), fallback_to_while_loop=False
        )

    # Keras keeps seeds as int64 and gives TensorFlow the remainder by 2**31 - 2.
    states = [(0, 0), (1, 2), (123456, 99999), (2**31 - 2, 1), (2**31 - 1, 7)]
    seeds, steps = (np.array(column, "int32") for column in zip(*states, strict=True))
    numbers = [keras.random.uniform(shape, dtype=dtype, seed=_generator(seed, step)).numpy() for seed, step in states]
    exactly = np.array([number.flat[0] for number in numbers], dtype)  # a rate that meets a number keeps it
    for rates in (np.full(5, 0.0, dtype), np.full(5, 0.3, dtype), exactly, np.full(5, 1.0, dtype)):
        expected = [number >= rate for number, rate in zip(numbers, rates, strict=True)]
        assert np.array_equal(masks(rates, seeds, steps), expected)


def _generator(seed, step):
    generator = keras.random.SeedGenerator(0)
    generator.state.assign([seed, step])
    return generator


def test_dropout_is_that_of_keras_with_a_rate_and_a_seed_for_each_lane():
    def make(rates):
        # Keras lists the layers of a nested model in another order than their variables.
        inner = sequential((6,), layers.Dropout(rates[0]), layers.Dense(5), layers.Dropout(rates[1]))
        return sequential((6,), inner, layers.Dropout(0.0), layers.Dense(4), layers.Dropout(rates[2]))

    model = make([0.5, 0.5, 0.5])
    vectorized = VectorizedLayers(model)
    assert vectorized.n_dropouts == 3
    rates, seeds, at = [[0.1, 0.6, 0.3], [0.7, 0.2, 1.0]], [[1, 2, 3], [4, 5, 2**31 - 1]], [4, 9]
    weights, states, x = random_lanes(model, (8, 6))
    given = {"rates": tf.constant(rates, "float64"), "seeds": tf.constant(seeds), "step": tf.constant(at)}
    actual = vectorized_step(model, vectorized, weights, states, x, given)
    shorter = vectorized_step(model, vectorized, weights, states, x[:, :5], given)[0]
    for i in range(N_LANES):
        plain = make(rates[i])
        assert vectorized.rates(plain) == rates[i]
        counters = iter(seeds[i])
        own = [[next(counters), at[i]] if v.shape == (2,) else v for v in plain.non_trainable_variables]
        outputs, _, gradients = step(plain, lane(i, weights), [tf.constant(state, "int64") for state in own], x[i])
        assert_close(lane(i, actual)[::2], (outputs, gradients), 1e-5)
        assert np.array_equal(np.asarray(outputs) == 0, np.asarray(actual[0][i]) == 0)
    assert_close(shorter, actual[0][:, :5], 1e-5)

    assert np.array_equal(model(x[0], training=False), model(x[0])), "nothing is dropped in inference"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_does_not_count_in_batch_normalization(dtype):
    def make():
        normalized = [layers.BatchNormalization(dtype=dtype), layers.BatchNormalization(axis=1, dtype=dtype)]
        inner = sequential((3, 2, 4), layers.Dense(1, dtype=dtype), layers.BatchNormalization(scale=False, dtype=dtype))
        frozen = layers.BatchNormalization(trainable=False, dtype=dtype)
        return sequential((3, 2, 4), *normalized, inner, frozen, dtype=dtype)

    model, plain, lengths = make(), make(), (5, 3)
    weights, states, x = random_lanes(model, (5, 3, 2, 4), dtype)
    valid = np.arange(5) < np.array(lengths)[:, None]
    given = {"valid": tf.constant(valid, dtype)}
    outputs, new_states, _ = vectorized_step(model, VectorizedLayers(model), weights, states, x, given)
    for i, length in enumerate(lengths):
        expected = step(plain, lane(i, weights), lane(i, states), x[i, :length])[:2]
        assert_close((outputs[i, :length], lane(i, new_states)), expected, 1e-4 if dtype == "float32" else 1e-11)


def test_gradients_through_a_padded_batch_normalization_are_those_of_the_rows():
    model, plain = (sequential((4,), layers.Dense(3), layers.BatchNormalization()) for _ in range(2))
    vectorized = VectorizedLayers(model)
    weights, states, x = random_lanes(model, (5, 4))
    for rows in (1, 3):
        valid = tf.constant(np.arange(5) < rows)
        with vectorized.given(valid=valid), tf.GradientTape() as tape:
            tape.watch(x)
            outputs, _ = model.stateless_call(lane(0, weights), lane(0, states), x[0], training=True)
            loss = tf.reduce_sum(tf.sin(outputs[:rows]))
        _, _, (_, expected) = step(plain, lane(0, weights), lane(0, states), x[0, :rows])
        assert_close(tape.gradient(loss, x)[0, :rows], expected, 1e-4)


CONVOLUTIONS = {
    "1d causal dilated": ((9, 2), lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2, activation="tanh")),
    "1d strided": ((9, 2), lambda: layers.Conv1D(3, 4, strides=3, use_bias=False)),
    "2d same, even kernel": ((6, 5, 2), lambda: layers.Conv2D(3, (2, 4), padding="same", strides=2)),
    "2d valid, dilated": ((6, 7, 1), lambda: layers.Conv2D(2, (2, 3), dilation_rate=(1, 2), activation="relu")),
    "3d same": ((3, 4, 3, 2), lambda: layers.Conv3D(2, (1, 3, 2), padding="same", strides=(1, 2, 1))),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_take_a_kernel_for_each_lane(name):
    shape, make = CONVOLUTIONS[name]
    model, plain = sequential(shape, make()), sequential(shape, make())
    weights, states, x = random_lanes(model, (4, *shape))
    actual = vectorized_step(model, VectorizedLayers(model), weights, states, x)
    for i in range(N_LANES):
        assert_close(lane(i, actual), step(plain, lane(i, weights), lane(i, states), x[i]), 1e-5)


class OwnNormalization(layers.BatchNormalization):
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: layers.GaussianNoise(0.1), "draws random numbers"),
        (lambda: layers.SpatialDropout1D(0.1), "draws random numbers"),
        (lambda: layers.Dropout(0.1, noise_shape=(None, 1, 4)), "draws random numbers"),
        (lambda: sequential((3, 4), layers.Dropout(0.2), layers.AlphaDropout(0.1, name="culprit")), "draws random"),
        (lambda: layers.BatchNormalization(renorm=True), "renorm=True"),
        (lambda: layers.BatchNormalization(synchronized=True), "synchronized=True"),
        (lambda: OwnNormalization(), "of its own"),
        (lambda: layers.Dense(2, activity_regularizer="l2"), "activity_regularizer"),
    ],
)
def test_a_layer_that_would_come_out_wrong_is_refused_by_name(make, reason):
    layer = make()
    if not isinstance(layer, keras.Model):
        layer.name = "culprit"
    with pytest.raises(NotImplementedError, match=f"'culprit'.*{reason}"):
        VectorizedLayers(sequential((3, 4), layer))


def test_a_dropout_layer_that_is_used_twice_is_refused_when_it_is_traced():
    twice = layers.Dropout(0.5)
    model = sequential((4,), twice, layers.Dense(4), twice)
    vectorized = VectorizedLayers(model)
    with (
        pytest.raises(NotImplementedError, match="more than once"),
        vectorized.given(rates=tf.constant([0.5]), seeds=tf.constant([1]), step=tf.constant(0)),
    ):
        model(np.zeros((2, 4)), training=True)


def test_the_rates_of_another_structure_are_refused():
    with pytest.raises(ValueError, match="0 dropout layers.* has 1"):
        VectorizedLayers(sequential((4,), layers.Dense(2))).rates(sequential((4,), layers.Dropout(0.5)))
