import random

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner import KerasClassifier, KerasRegressor, network
from tuner.errors import HyperparameterError


def params(**changes):
    return KerasClassifier(**changes).get_params(deep=False)


def built(n_inputs=20, n_classes=3, seed=0, **changes):
    values = params(**changes)
    output = network.resolve_output("multiclass", n_classes, values)
    return network.build(values, (n_inputs,), output, seed)


def layer_types(model):
    return [type(layer).__name__ for layer in model.layers]


def test_batch_normalization_stands_before_or_after_the_activation():
    one = {"hidden_layers": 1}
    assert layer_types(built(batch_normalization="before", **one))[1:4] == ["Dense", "BatchNormalization", "Activation"]
    assert layer_types(built(batch_normalization="after", **one))[1:4] == ["Dense", "Activation", "BatchNormalization"]
    assert "BatchNormalization" not in layer_types(built(**one))


def test_dropout_follows_every_hidden_layer():
    assert layer_types(built(hidden_layers=3, dropout=0.5)).count("Dropout") == 3
    assert "Dropout" not in layer_types(built(hidden_layers=3))


def test_a_residual_block_adds_its_input_before_the_activation():
    model = built(n_inputs=8, units=8, hidden_layers=1, residual=True, activation="tanh")
    X = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    kernel, bias, out_kernel, out_bias = model.get_weights()
    expected = np.tanh(X @ kernel + bias + X) @ out_kernel + out_bias
    expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network.outputs(model, X), expected, rtol=1e-5)


def test_a_residual_block_of_another_width_projects_its_input():
    model = built(n_inputs=5, units=(8, 4), residual=True)
    names = [layer.name for layer in model.layers]
    assert {"hidden_1_projection", "hidden_2_projection"} <= set(names)
    assert model.get_layer("hidden_1_projection").bias is None


@pytest.mark.parametrize(
    ("activation", "variance"),
    [
        ("relu", lambda n_in, n_out: 2 / n_in),  # He et al. 2015, eq. 10
        ("leaky_relu", lambda n_in, n_out: 2 / n_in),
        ("selu", lambda n_in, n_out: 1 / n_in),  # Klambauer et al. 2017
        ("tanh", lambda n_in, n_out: 2 / (n_in + n_out)),  # Glorot & Bengio 2010, eq. 12
        ("sigmoid", lambda n_in, n_out: 2 / (n_in + n_out)),
    ],
)
def test_auto_pairs_the_initializer_with_the_activation(activation, variance):
    kernel = built(n_inputs=300, units=200, activation=activation).get_layer("hidden_1").kernel.numpy()
    assert kernel.var() == pytest.approx(variance(300, 200), rel=0.05)


@settings(max_examples=10)
@given(scale=st.floats(0.01, 10))
def test_the_scale_is_half_width_or_standard_deviation(scale):
    uniform = network.initializer("random_uniform", scale, seed=1)((100, 100)).numpy()
    assert np.abs(uniform).max() == pytest.approx(scale, rel=0.01)
    normal = network.initializer("random_normal", scale, seed=1)((100, 100)).numpy()
    assert normal.std() == pytest.approx(scale, rel=0.05)


def test_initial_weights_are_a_function_of_the_seed_and_differ_between_layers():
    for kwargs in ({}, {"kernel_initializer": keras.initializers.HeNormal()}, {"model": small}):
        a, b, other = (built(hidden_layers=3, seed=seed, **kwargs).get_weights() for seed in (1, 1, 2))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        assert not np.array_equal(a[0], other[0])
    model = built(n_inputs=64, units=64, hidden_layers=2)
    assert not np.array_equal(model.get_layer("hidden_1").kernel, model.get_layer("hidden_2").kernel)


def test_an_initializer_with_a_seed_of_its_own_keeps_it():
    fixed = keras.initializers.HeNormal(seed=7)
    a, b = (built(seed=seed, kernel_initializer=fixed).get_weights()[0] for seed in (1, 2))
    assert np.array_equal(a, b)


def small(input_shape, n_outputs, output_activation, filters=4):
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Dense(filters, "relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(n_outputs, output_activation),
        ]
    )


def test_building_leaves_the_callers_global_state_alone():
    random.seed(3)
    expected = random.random()
    random.seed(3)
    built(model=small, dtype="float64")
    assert random.random() == expected
    assert keras.config.floatx() == "float32"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("task", "n", "given", "units", "activation", "loss"),
    [
        ("multiclass", 4, {}, 4, "softmax", "categorical_crossentropy"),
        ("binary", 2, {}, 1, "sigmoid", "binary_crossentropy"),
        ("binary", 2, {"output_activation": "softmax"}, 2, "softmax", "categorical_crossentropy"),
        ("binary", 2, {"loss": "categorical_crossentropy"}, 2, "softmax", "categorical_crossentropy"),
        ("multilabel", 5, {}, 5, "sigmoid", "binary_crossentropy"),
        ("regression", 3, {}, 3, "linear", "mean_squared_error"),
        ("multiclass", 4, {"output_activation": "sigmoid"}, 4, "sigmoid", "binary_crossentropy"),
        ("multiclass", 4, {"loss": "binary_crossentropy"}, 4, "sigmoid", "binary_crossentropy"),
        (
            "multiclass",
            4,
            {"output_activation": "sigmoid", "loss": "mean_squared_error"},
            4,
            "sigmoid",
            "mean_squared_error",
        ),
        ("regression", 1, {"loss": "huber"}, 1, "linear", "huber"),
        ("multiclass", 4, {"loss": "bce"}, 4, "sigmoid", "bce"),
        ("binary", 2, {"loss": "kld"}, 2, "softmax", "kld"),
    ],
)
def test_what_auto_stands_for_at_the_output(task, n, given, units, activation, loss):
    output = network.resolve_output(task, n, params(**given))
    assert (output.units, output.activation, output.loss) == (units, activation, loss)


def test_auto_does_not_guess_a_loss_for_an_odd_output_activation():
    with pytest.raises(HyperparameterError, match="does not know what to pair with output_activation='tanh'"):
        network.resolve_output("multiclass", 3, params(output_activation="tanh"))


def compiled(input_shape, n_outputs):
    model = small(input_shape, n_outputs, "softmax")
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda input_shape: "a network", "must return a keras.Model.*'a network'"),
        (compiled, "uncompiled"),
        (lambda input_shape: small(input_shape, 7, "softmax"), r"outputs of shape \(n, 3\).*gives \(n, 7\)"),
        (lambda input_shape, width: None, "wants width"),
    ],
)
def test_a_model_callable_that_returns_something_else_is_an_error_before_training(model, message, line):
    X, _ = line
    with pytest.raises(HyperparameterError, match=message):
        KerasClassifier(model=model).fit(X, np.arange(len(X)) % 3)


def test_a_model_callable_gets_the_hyperparameters_it_names():
    seen = {}

    def model(input_shape, n_outputs, output_activation, kernel_initializer, units, loss, filters=3):
        seen.update(locals())
        return small(input_shape, n_outputs, output_activation)

    estimator = KerasRegressor(model=model, units=(7, 5), activation="relu", model_params={"filters": 9})
    values = estimator.get_params(deep=False)
    network.build(values, (4,), network.resolve_output("regression", 1, values), 0)
    del seen["seen"]
    assert seen == {
        "input_shape": (4,),
        "n_outputs": 1,
        "output_activation": "linear",
        "kernel_initializer": "he_normal",
        "units": (7, 5),
        "loss": "mean_squared_error",
        "filters": 9,
    }


def test_outputs_do_not_depend_on_the_rows_at_a_time(monkeypatch):
    model = built(batch_normalization="after")
    X = np.random.default_rng(0).normal(size=(50, 20)).astype("float32")
    whole = network.outputs(model, X)
    monkeypatch.setattr(network, "ROWS_AT_A_TIME", 7)
    np.testing.assert_allclose(network.outputs(model, X), whole, rtol=1e-5)


# Without building a network, or several networks as one ---------------------------------------------------------------

INITIALIZED = [
    {"kernel_initializer": "auto", "bias_initializer": "random_normal"},
    {"kernel_initializer": "random_uniform", "initializer_scale": 0.3},
    {"kernel_initializer": "orthogonal", "dtype": "float64"},
    {"kernel_initializer": keras.initializers.HeNormal(seed=7)},
]


@pytest.mark.parametrize("changes", INITIALIZED, ids=lambda changes: str(changes["kernel_initializer"])[:20])
def test_fresh_values_are_those_with_which_a_network_is_built(changes):
    values = params(units=(7, 5), residual=True, batch_normalization="before", activation="selu", **changes)
    output = network.resolve_output("multiclass", 3, values)
    model, template = (network.build(values, (4,), output, seed) for seed in (1, 2))
    fresh = network.fresh_values(template, values, (4,), output, 1)
    dense = [layer for layer in model.layers if "Dense" in type(layer).__name__]
    assert len(fresh) == sum(len(layer.variables) for layer in dense) == 8  # the projections have no bias
    for expected, variable in zip(model.variables, template.variables, strict=True):
        if id(variable) in fresh:
            np.testing.assert_array_equal(fresh[id(variable)], expected)
            assert fresh[id(variable)].dtype == variable.dtype


ALTERNATIVES = network.Alternatives(("relu", "tanh"), (None, "after", "before"))


def test_alternatives_include_what_they_list():
    assert ALTERNATIVES.include(params(activation="tanh", batch_normalization="after"))
    assert not ALTERNATIVES.include(params(activation="elu"))
    assert not ALTERNATIVES.include(params(activation=keras.activations.tanh))
    assert not ALTERNATIVES.include(params(model=small))
    assert not network.Alternatives(("relu",), ("before",)).include(params())


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("normalization", ALTERNATIVES.normalizations)
@pytest.mark.parametrize("activation", ALTERNATIVES.activations)
def test_a_network_of_alternatives_is_the_one_that_was_chosen(activation, normalization, residual):
    values = params(activation=activation, batch_normalization=normalization, residual=residual, units=(4, 3))
    output = network.resolve_output("multiclass", 3, values)
    template = network.build(params(residual=residual, units=(4, 3)), (4,), output, 0, ALTERNATIVES)
    model = network.build(values, (4,), output, 1)
    for variable in template.variables:
        for known in (ALTERNATIVES.choose(template, values), network.fresh_values(template, values, (4,), output, 1)):
            if id(variable) in known:
                variable.assign(known[id(variable)])
    X = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    for training in (True, False):  # first with the statistics of the batch, which change the averages
        np.testing.assert_allclose(template(X, training=training), model(X, training=training), rtol=1e-5, atol=1e-6)
    unused = ALTERNATIVES.unused(template, values)
    own = [variable for variable in template.variables if id(variable) not in unused]
    for mine, expected in zip(own, model.variables, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6, err_msg=expected.path)


def test_the_layers_of_a_custom_model_have_a_factor_each(digits):
    def nested(input_shape, n_outputs, output_activation):
        base = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(8, "relu")])
        head = [keras.layers.Dropout(0.1), keras.layers.Dense(n_outputs, output_activation)]
        return keras.Sequential([keras.Input(input_shape), base, *head])

    classifier = KerasClassifier(model=nested, layerwise_learning_rates=(0.1, 1), epochs=1, random_state=0)
    model = classifier.fit(*digits).model_
    assert network.rate_factors(model, classifier.get_params(deep=False)) == [0.1] * 4 + [1.0] * 2
    with pytest.raises(HyperparameterError, match="has 3 entries, but the network has 2 layers with weights"):
        classifier.set_params(layerwise_learning_rates=(1, 1, 1)).fit(*digits)
