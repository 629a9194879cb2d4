import inspect
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner import KerasClassifier, KerasRegressor
from tuner.errors import HyperparameterError
from tuner.hyperparameters import HYPERPARAMETERS, Choices, LogRange, layerwise_factors, widths


@pytest.mark.parametrize("cls", [KerasClassifier, KerasRegressor])
def test_every_constructor_parameter_stands_in_the_table_with_its_default(cls):
    parameters = dict(inspect.signature(cls).parameters)
    missing = set(HYPERPARAMETERS) - set(parameters)
    assert missing == (set() if cls is KerasClassifier else {"class_weight", "target_range"})
    for name, parameter in parameters.items():
        assert parameter.default == HYPERPARAMETERS[name].default
        HYPERPARAMETERS[name].check(parameter.default)


def test_every_default_range_holds_allowed_values():
    for hyperparameter in HYPERPARAMETERS.values():
        match hyperparameter.search:
            case LogRange(low, high):
                values = [low, math.sqrt(low * high), high]
            case Choices(values):
                pass
            case None:
                values = []
        for value in values:
            hyperparameter.check(value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"activation": "rellu"}, "activation.*'rellu'.*Did you mean 'relu6?'"),
        ({"kernel_initializer": "he_norml"}, "Did you mean 'he_normal'"),
        ({"optimizer": "adamm"}, "optimizer.*Did you mean 'adam"),
        ({"loss": "mean_squared_eror"}, "Did you mean 'mean_squared_error'"),
        ({"batch_normalization": "befor"}, "Did you mean 'before'"),
        ({"learning_rate": -0.1}, "learning_rate must be a number > 0.*-0.1"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": "0.1"}, "learning_rate"),
        ({"layerwise_learning_rates": 0}, "layerwise_learning_rates must be a number > 0.*got 0"),
        ({"layerwise_learning_rates": (1, -1, 1)}, "layerwise_learning_rates.*a sequence of such numbers"),
        ({"layerwise_learning_rates": (1, 1)}, "has 2 entries, but the network has 3 layers with weights"),
        ({"target_range": (0.9, 0.1)}, "target_range must be .*a pair of numbers, the lower one first; got .0.9, 0.1."),
        ({"target_range": (0.1, 0.9)}, "does not go with loss='categorical_crossentropy', which judges the classes"),
        ({"target_range": (0, 1), "loss": "sparse_categorical_crossentropy"}, "does not go with loss='sparse"),
        ({"target_range": (0.1, 0.9), "loss": "hinge"}, "does not go with loss='hinge', which wants -1 and 1"),
        ({"target_range": (-1, 1), "loss": "binary_crossentropy"}, "which wants probabilities, from 0 to 1"),
        ({"dropout": 1.0}, "dropout must be a number >= 0 and < 1"),
        ({"units": 0}, "units must be an integer >= 1"),
        ({"units": (64, 0)}, "units"),
        ({"units": 2.5}, "units"),
        ({"units": (8, 8), "hidden_layers": 3}, "units has 2 entries but hidden_layers=3"),
        ({"epochs": True}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"initializer_scale": 0.1}, "initializer_scale=0.1 needs kernel_initializer"),
        ({"momentum": 0.9}, "momentum=0.9 does not apply to optimizer='adam'"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "momentum must be"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64'"),
        ({"engine": "keras3"}, "Did you mean 'keras'"),
        ({"learning_rate_schedule": "cosin"}, "Did you mean 'cosine'"),
        (
            {"learning_rate": 0.1, "learning_rate_schedule": keras.optimizers.schedules.CosineDecay(0.1, 10)},
            "stands beside a schedule object",
        ),
        (
            {
                "learning_rate": 0.1,
                "optimizer": keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)),
            },
            "learning_rate=0.1 stands beside an optimizer whose learning rate is a schedule",
        ),
        ({"clipnorm": 1.0, "optimizer": keras.optimizers.SGD(clipvalue=1.0)}, "cannot be made"),
        ({"model": "resnet"}, "model must be"),
        ({"model_params": {"filters": 3}}, "needs a model callable"),
        ({"callbacks": ["x"]}, "callbacks must be"),
        ({"random_state": -1}, "random_state"),
        ({"activation": keras.layers.PReLU()}, "for a layer, write a model"),
        ({"activation": "glu"}, "turns 2 units into 1"),
        ({"kernel_initializer": "constant"}, "kernel_initializer must be"),
        ({"bias_initializer": "orthogonal"}, "cannot build the network"),
        ({"optimizer": "LossScaleOptimizer"}, "optimizer must be"),
        ({"model": keras.Sequential([])}, "a function that returns a new keras.Model"),
        ({"model_params": {3: 3}, "model": lambda input_shape: None}, "by name"),
    ],
)
def test_a_bad_value_is_named_before_any_training(params, message, digits):
    by_constructor = KerasClassifier(**params)
    by_set_params = KerasClassifier().set_params(**params)
    for estimator in (by_constructor, by_set_params):
        with pytest.raises(HyperparameterError, match=message):
            estimator.fit(*digits)
        assert not hasattr(estimator, "model_")


def test_a_misspelt_parameter_name_is_answered_with_the_right_one():
    with pytest.raises(HyperparameterError, match="'learning_rat' is not a parameter.*Did you mean 'learning_rate'"):
        KerasClassifier().set_params(learning_rat=0.1)


@pytest.mark.parametrize("value", [np.float32(0.1), np.float64(0.1), 1, np.int64(1)])
def test_numpy_numbers_are_numbers(value):
    HYPERPARAMETERS["learning_rate"].check(value)


@given(units=st.integers(1, 100), layers=st.integers(0, 20))
def test_widths_of_equal_layers(units, layers):
    assert widths(units, layers) == (units,) * layers


def test_widths_follow_a_sequence_and_default_to_two_layers():
    assert widths([8, 4, 2], None) == widths((8, 4, 2), 3) == (8, 4, 2)
    assert widths(16, None) == (16, 16)


@given(decay=st.floats(0.01, 100), n=st.integers(1, 20))
def test_a_decay_multiplies_from_each_layer_to_the_one_before_it(decay, n):
    factors = layerwise_factors(decay, n)
    assert len(factors) == n and factors[-1] == 1
    assert factors[:-1] == pytest.approx([decay * after for after in factors[1:]], rel=1e-12, abs=0)
    assert layerwise_factors(factors, n) == factors
