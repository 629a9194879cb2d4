"""The measures, each against its formula written out in NumPy, and on every kind of network."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tuner.health.measurements import LAYER_MEASURES, NETWORK_MEASURES, SATURATION_MARGIN
from tuner.health.measures import PROBE_ROWS, RANGES, Probe, measure_model
from tuner.layers import Maxout, get_activation

RNG = np.random.default_rng(0)
X = RNG.normal(size=(PROBE_ROWS, 5)).astype("float64")
TARGETS = np.eye(3)[np.arange(PROBE_ROWS) % 3]


@pytest.fixture(autouse=True)
def double_precision():
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx(floatx)


def measured(model, X=X, y=TARGETS, loss=None, before=None):
    """Return the measures of a model's layers and of the network, by name."""
    loss = loss or keras.losses.MeanSquaredError(dtype="float64")
    probe = Probe(model, X[:1])
    before = before or [tf.convert_to_tensor(v.value) for v in model.trainable_variables]
    by_layer, by_network = measure_model(
        probe,
        tf.constant(X),
        y,
        lambda outputs: tf.add_n([loss(y, outputs), *model.losses]),
        before,
        layers=probe.layers,
    )
    layers = {name: by_layer[:, i] for i, name in enumerate(LAYER_MEASURES)}
    return probe, layers, dict(zip(NETWORK_MEASURES, by_network, strict=True))


def dense(*layers, inputs=5):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((inputs,)), *layers])


def test_every_measure_is_its_formula():
    model = dense(keras.layers.Dense(4, "tanh"), keras.layers.Dense(3, "sigmoid"))
    old = [v.numpy() - 0.01 for v in model.trainable_variables]
    _, layers, network = measured(model, before=[tf.constant(v) for v in old])
    w1, b1, w2, b2 = (v.numpy() for v in model.trainable_variables)
    a1 = np.tanh(X @ w1 + b1)
    a2 = 1 / (1 + np.exp(-(a1 @ w2 + b2)))
    d2 = 2 * (a2 - TARGETS) / 3 * a2 * (1 - a2)  # the gradient of a row's loss, the mean over three outputs
    d1 = d2 @ w2.T * (1 - a1**2)
    for i, (w, a, slope, delta, below, low, high) in enumerate(
        [(w1, a1, 1 - a1**2, d1, X, -1, 1), (w2, a2, a2 * (1 - a2), d2, a1, 0, 1)]
    ):
        g = below.T @ delta / PROBE_ROWS
        scaled = 2 * (a - low) / (high - low) - 1
        expected = {
            "grad_norm": np.linalg.norm(g),
            "grad_rms": np.sqrt(np.mean(g**2)),
            "grad_zeros": 0,
            "error_rms": np.sqrt(np.mean(delta**2)),
            "weight_norm": np.linalg.norm(w),
            "update_ratio": np.sqrt(0.01**2 * w.size) / np.linalg.norm(w - 0.01),
            "activation_mean": a.mean(),
            "activation_variance": a.var(),
            "signal_variance": a.var(axis=0).mean(),
            "saturation": np.mean(np.minimum(a - low, high - a) < SATURATION_MARGIN * (high - low)),
            "saturation_index": np.mean(abs(scaled)),
            "dead_units": 0,
            "slope": np.sqrt(np.mean(slope**2)),
            "local_slope": np.sqrt(np.mean((w[None] * slope[:, None, :]) ** 2)),
            "non_finite": 0,
        }
        for name, value in expected.items():
            assert layers[name][i] == pytest.approx(value, rel=1e-6, abs=1e-12), name
    assert network["loss"] == pytest.approx(np.mean((a2 - TARGETS) ** 2))
    assert network["input_mean"] == pytest.approx(X.mean())
    assert network["input_rms"] == pytest.approx(np.sqrt(np.mean(X**2)))
    assert network["input_max"] == pytest.approx(abs(X).max())
    means, squares = X.mean(axis=0), (X**2).mean(axis=0)
    assert network["input_offset"] == pytest.approx(np.sqrt(np.mean(means**2) / np.mean(X.var(axis=0))))
    assert network["input_spread"] == pytest.approx(np.std(np.log10(squares) / 2))
    assert network["grad_norm"] == pytest.approx(math.hypot(*layers["grad_norm"]))


@given(arrays(float, (PROBE_ROWS, 2), elements=st.floats(-1, 1, allow_nan=False)))
@settings(max_examples=20, deadline=None)
def test_the_saturation_index_is_that_of_the_paper(values):
    """Rakitianskaia & Engelbrecht 2015: ten bins over the range, the bins' absolute means weighted by their counts."""
    values = np.clip(values, -0.999, 0.999)
    identity = dense(keras.layers.Dense(2, "tanh", kernel_initializer="identity"), inputs=2)
    _, layers, _ = measured(identity, X=np.arctanh(values), y=values)
    bins = np.clip(((values.ravel() + 1) / 0.2).astype(int), 0, 9)
    sums = np.array([values.ravel()[bins == b].sum() for b in range(10)])
    assert layers["saturation_index"][0] == pytest.approx(abs(sums).sum() / values.size, rel=1e-6, abs=1e-9)


def test_a_dead_unit_is_told_from_a_sparse_one():
    model = dense(keras.layers.Dense(4, "relu", use_bias=True), keras.layers.Dense(3))
    kernel = np.zeros((5, 4))
    kernel[0, 1:] = 1
    # dead; active on one row of the probe; half active; always active
    biases = np.array([-1, -np.sort(X[:, 0])[-2] - 1e-9, 0, 100])
    model.layers[0].set_weights([kernel, biases])
    _, layers, _ = measured(model)
    assert layers["dead_units"][0] == 0.25
    assert layers["dead_units"][1] == 0


@pytest.mark.parametrize("name", sorted(RANGES))
def test_saturation_knows_the_range_of_every_bounded_activation(name):
    model = dense(
        keras.layers.Dense(4, get_activation(name), kernel_initializer=keras.initializers.RandomNormal(stddev=1e4))
    )
    _, layers, _ = measured(model, y=np.zeros((PROBE_ROWS, 4)))
    assert layers["saturation"][0] > 0.95
    assert layers["saturation_index"][0] > 0.95
    assert layers["saturated_units"][0] > 0.9
    mild = dense(
        keras.layers.Dense(4, get_activation(name), kernel_initializer=keras.initializers.RandomNormal(stddev=1e-3))
    )
    assert measured(mild, y=np.zeros((PROBE_ROWS, 4)))[1]["saturation"][0] == 0


def test_a_unit_of_maxout_is_its_largest_piece():
    model = dense(keras.layers.Dense(8, bias_initializer="normal"), Maxout(2), keras.layers.Dense(3))
    probe, layers, _ = measured(model)
    w1, b1, w2, b2 = (v.numpy() for v in model.trainable_variables)
    pieces = (X @ w1 + b1).reshape(-1, 2, 4)
    a1 = pieces.max(axis=1)
    d2 = 2 * (a1 @ w2 + b2 - TARGETS) / 3
    d1 = d2 @ w2.T
    g = X.T @ ((pieces == a1[:, None]) * d1[:, None]).reshape(-1, 8) / PROBE_ROWS
    facts = probe.layers[0]
    assert (facts.activation, facts.units, facts.fan_in, facts.n_weights) == ("maxout", 4, 5, 40)
    expected = {
        "grad_norm": np.linalg.norm(g),
        "error_rms": np.sqrt(np.mean(d1**2)),
        "activation_mean": a1.mean(),
        "activation_variance": a1.var(),
        "saturation": np.nan,
        "dead_units": 0,
        "slope": 1,
        "local_slope": np.sqrt(np.mean(w1**2)),
    }
    for name, value in expected.items():
        assert layers[name][0] == pytest.approx(value, rel=1e-6, abs=1e-12, nan_ok=True), name
    assert layers["error_rms"][1] == pytest.approx(np.sqrt(np.mean(d2**2)))


def test_the_slope_of_a_parametric_relu_is_its_own():
    model = dense(keras.layers.Dense(4), keras.layers.PReLU("random_normal"), keras.layers.Dense(3))
    probe, layers, _ = measured(model)
    w1, b1, slopes = (v.numpy() for v in model.trainable_variables[:3])
    slope = np.where(X @ w1 + b1 > 0, 1, slopes)
    assert probe.layers[0].activation == "prelu"
    assert layers["slope"][0] == pytest.approx(np.sqrt(np.mean(slope**2)))


def test_the_slopes_of_a_parametric_relu_on_images_are_no_layer_of_their_own():
    image = [keras.layers.Reshape((5, 1)), keras.layers.Conv1D(3, 2), keras.layers.PReLU(), keras.layers.Flatten()]
    probe, _, _ = measured(dense(*image, keras.layers.Dense(3)))
    assert [(layer.kind, layer.activation) for layer in probe.layers] == [("Conv1D", "prelu"), ("Dense", "linear")]


def test_an_activation_without_a_range_is_not_called_saturated_and_an_unknown_one_is_named():
    model = dense(keras.layers.Dense(4, "relu"), keras.layers.Dense(3, lambda z: z**3, name="cubic"))
    probe, layers, network = measured(model)
    assert np.isnan(layers["saturation"]).all()
    assert math.isnan(network["output_saturation"])
    assert [facts.activation for facts in probe.layers] == ["relu", "unknown"]
    assert "'cubic'" in probe.notes[0]


def test_outputs_saturated_at_the_wrong_end():
    model = dense(keras.layers.Dense(3, "sigmoid", kernel_initializer="zeros", bias_initializer="zeros"))
    model.layers[0].bias.assign([100.0, -100.0, 0.0])
    _, _, network = measured(model)
    assert network["output_saturation"] == pytest.approx(2 / 3)
    wrong = np.mean(TARGETS[:, 0] == 0) + np.mean(TARGETS[:, 1] == 1)
    assert network["output_wrong"] == pytest.approx(wrong / 3)
    indices = np.argmax(TARGETS, axis=1)[:, None].astype(float)
    softmax = dense(keras.layers.Dense(3, "softmax", kernel_initializer="zeros"))
    softmax.layers[0].bias.assign([100.0, 0.0, 0.0])
    loss = keras.losses.SparseCategoricalCrossentropy(dtype="float64")
    _, _, network = measured(softmax, y=indices, loss=loss)
    assert network["output_wrong"] == pytest.approx(np.mean(indices != 0) * 2 / 3)


def test_gradients_of_linear_networks_follow_the_scale_of_the_weights():
    """With every weight matrix w times an orthogonal one, the error falls by w at every layer."""
    for w in (0.01, 1.5):
        model = dense(*(keras.layers.Dense(5, kernel_initializer=keras.initializers.Orthogonal(w)) for _ in range(6)))
        _, layers, _ = measured(model, y=np.zeros((PROBE_ROWS, 5)))
        error = layers["error_rms"]
        np.testing.assert_allclose(error[:-1] / error[1:], w, rtol=1e-6)


def test_what_is_not_finite_is_counted():
    model = dense(keras.layers.Dense(4, "tanh"), keras.layers.Dense(3))
    kernel, bias = model.layers[0].get_weights()
    kernel[0, 0] = np.nan
    model.layers[0].set_weights([kernel, bias])
    _, layers, network = measured(model)
    assert layers["non_finite"][0] > 0
    assert network["non_finite"] > layers["non_finite"][0]


def test_measuring_changes_nothing():
    model = dense(
        keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.Dense(3)
    )
    before = [np.array(v.numpy()) for v in model.variables]
    calls = [(layer, layer.call.__func__) for layer in model.layers]
    measured(model)
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))
    assert all(layer.call.__func__ is call for layer, call in calls)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.second, self.first = keras.layers.Dense(3, name="second"), keras.layers.Dense(6, name="first")
        self.activation = keras.layers.LeakyReLU()

    def call(self, inputs):
        return self.second(self.activation(self.first(inputs)))


def nested():
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.ReLU()], name="inner")
    shared = keras.layers.Dense(6, "tanh", name="shared")
    inputs = keras.Input((5,))
    x = keras.layers.Dense(6, "elu", name="first")(inputs)
    x = keras.layers.Add()([shared(x), shared(shared(x))])
    return keras.Model(inputs, keras.layers.Dense(3, name="out")(inner(x)))


def images():
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Reshape((5, 1, 1)),
            keras.layers.Conv2D(4, (2, 1), activation="sigmoid", name="convolution"),
            keras.layers.DepthwiseConv2D((2, 1), name="depthwise"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="out"),
        ]
    )


def recurrent():
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Reshape((5, 1)),
            keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True), name="both"),
            keras.layers.GRU(4, name="gru"),
            keras.layers.Dense(3, name="out"),
        ]
    )


@pytest.mark.parametrize(
    ("make", "names", "activations"),
    [
        (Subclassed, ["first", "second"], ["leaky_relu", "linear"]),
        (nested, ["first", "shared", "inner/dense", "out"], ["elu", "tanh", "relu", "linear"]),
        (images, ["convolution", "depthwise", "out"], ["sigmoid", "linear", "linear"]),
        (
            recurrent,
            ["both/forward_lstm", "both/backward_lstm", "gru", "out"],
            ["tanh", "tanh", "tanh", "linear"],
        ),
    ],
)
def test_any_network_is_measured_in_the_order_of_its_calls(make, names, activations):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = make()
    model(X)  # whoever trains has built it
    probe, layers, network = measured(model)
    assert [facts.name for facts in probe.layers] == names
    assert [facts.activation for facts in probe.layers] == activations
    for name in ("grad_norm", "error_rms", "weight_norm", "activation_variance"):
        assert (layers[name] > 0).all(), name
    assert network["non_finite"] == 0
    assert network["grad_norm"] > 0


def test_the_gradient_of_a_shared_layer_is_the_sum_over_its_calls():
    model = nested()
    _, layers, _ = measured(model)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(X) - TARGETS))
    kernel = model.get_layer("shared").kernel
    gradient = tape.gradient(loss, kernel.value)
    assert layers["grad_norm"][1] == pytest.approx(np.linalg.norm(gradient), rel=1e-6)


def test_embeddings_have_gradients_but_inputs_without_scale():
    model = keras.Sequential([keras.Input((4,), dtype="int32"), keras.layers.Embedding(9, 3), keras.layers.Flatten()])
    model.add(keras.layers.Dense(3))
    _, layers, network = measured(model, X=RNG.integers(9, size=(PROBE_ROWS, 4)).astype("int32"))
    assert layers["grad_norm"][0] > 0
    assert math.isnan(network["input_rms"])


def test_a_network_without_weights_says_so():
    model = dense(keras.layers.Activation("tanh"), keras.layers.Rescaling(2.0))
    probe, layers, network = measured(model, y=np.zeros((PROBE_ROWS, 5)))
    assert probe.layers == ()
    assert "no layer has trainable weights" in probe.notes[0]
    assert network["loss"] > 0
