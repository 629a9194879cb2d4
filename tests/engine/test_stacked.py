"""Beside the contract: what is made once, what is shared, what falls back, and networks that share a program."""

import gc
import weakref
from collections import OrderedDict
from dataclasses import replace

import keras
import numpy as np
import pytest

from tuner import KerasClassifier, network
from tuner.engine import engine_for, program, stacked
from tuner.engine.base import Part
from tuner.engine.keras import KerasEngine
from tuner.engine.stacked import StackedEngine
from tuner.errors import HyperparameterError
from tuner.network import Alternatives
from tuner.testing.engines import (
    MEASURED,
    EngineTestCase,
    Subclassed,
    convolutional,
    fitted_by_keras,
    functional,
    shown,
)

lane, assert_same = EngineTestCase.lane, EngineTestCase.assert_same

#: Every kind of layer that is mended, and of optimizer state: the compiler may not change what they do.
COMPILED = [
    {"dropout": 0.3, "batch_normalization": "before", "residual": True},
    {"dropout": 0.5, "batch_normalization": "after", "dtype": "float64"},
    {"model": convolutional, "sample_shape": (3, 2, 1)},
    {"task": "binary", "optimizer": "sgd", "clipnorm": 0.1},
    {"task": "regression", "optimizer": "nesterov", "weight_decay": 0.01, "learning_rate_schedule": "cosine"},
    {"task": "multilabel", "optimizer": "adafactor"},
    {"optimizer": keras.optimizers.RMSprop(centered=True, momentum=0.9, name="centered")},
    {"optimizer": keras.optimizers.Adam(use_ema=True, amsgrad=True, name="moving_average")},
    {"optimizer": "muon"},
    {"optimizer": "nadam"},
]


@pytest.fixture
def compiled(monkeypatch):
    """However short a fit is, and however many there were, XLA compiles its program."""
    monkeypatch.setattr(stacked, "COMPILED_FROM", 0)
    monkeypatch.setattr(program, "COMPILED_AT_MOST", 10**6)


@pytest.fixture
def programs(monkeypatch):
    """The cache, at first empty."""
    cache = OrderedDict()
    monkeypatch.setattr(program, "_programs", cache)
    return cache


def spent():
    return program.statistics.traced, program.statistics.compiled


def folds(n_folds=3, copy=False, **params):
    """Return lanes that are folds of one table, or of equal tables."""
    whole = lane(**params)
    rows = np.arange(len(whole.train))
    made = []
    for fold in range(n_folds):
        table = replace(whole.train, X=whole.train.X.copy()) if copy else whole.train
        held_out = rows % n_folds == fold
        made.append(replace(whole, seed=fold, train=table.take(rows[~held_out]), test=table.take(rows[held_out])))
    return made


class TestStackedEngine(EngineTestCase):
    @pytest.fixture
    def engine(self):
        return StackedEngine(strict=True)

    def test_lanes_that_differ_in_all_they_may_share_a_program(self, engine):
        assert [indices for indices, _ in engine.crews(self.different_lanes())] == [[0, 1, 2]]

    def test_lanes_train_in_the_narrowest_program_there_is(self, engine, programs):
        lanes = folds(4, epochs=1)
        for some in (lanes[:2], lanes, lanes[:3]):
            engine.train(some)
        assert sorted(key[1].lanes for key in programs) == [2, 4]
        for n, width in ((2, 2), (3, 4), (1, 2), (4, 4), (2, 2)):  # whichever was used last
            [(_, crew)] = engine.crews(lanes[:n])
            assert crew.width == width


@pytest.mark.usefixtures("compiled")
class TestCompiledStackedEngine(EngineTestCase):
    @pytest.fixture
    def engine(self):
        return StackedEngine(strict=True)

    @pytest.mark.parametrize("params", COMPILED, ids=shown)
    def test_a_lane_is_trained_as_keras_fit_trains_it(self, engine, params):
        super().test_a_lane_is_trained_as_keras_fit_trains_it(engine, params)

    @pytest.mark.parametrize("params", MEASURED[:4], ids=shown)
    def test_health_is_measured_as_beside_plain_keras(self, engine, params):
        super().test_health_is_measured_as_beside_plain_keras(engine, params)

    @pytest.mark.parametrize("activation", ["prelu", "maxout", "penalized_tanh"])
    def test_every_activation_is_trained_and_measured(self, engine, activation):
        super().test_every_activation_is_trained_and_measured(engine, activation)


def assert_fitted(trained, one):
    """Assert that a lane was trained as ``keras.Model.fit`` trains it."""
    history, model = fitted_by_keras(one)
    assert trained.history.keys() == history.keys()
    for name, series in history.items():
        np.testing.assert_allclose(trained.history[name], series, rtol=1e-3, err_msg=name)
    outputs = network.outputs(model, one.train.X)
    np.testing.assert_allclose(trained.outputs(one.train.X), outputs, rtol=1e-3, atol=1e-5)


class Untold(Subclassed):
    """Has no argument ``training``, so that Keras trains it as it predicts."""

    def call(self, inputs):
        return super().call(inputs)


def untold(n_outputs, output_activation):
    return Untold(n_outputs, output_activation)


def test_a_model_that_does_not_ask_whether_it_is_trained_is_not_told():
    one = lane(model=untold)
    assert_fitted(StackedEngine(strict=True).train([one])[0], one)


# What is made once ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("compiled", "programs")
def test_a_second_trial_of_the_structure_traces_and_compiles_nothing():
    def trial(n_folds=2, n=90, **params):
        shared = {"optimizer": "momentum", "hidden_layers": 1, "epochs": 1, "learning_rate": 0.1, "dropout": 0.2}
        return [lane(fold, n, **{**shared, **params}) for fold in range(n_folds)]

    engine = StackedEngine(strict=True)
    engine.train(trial())
    before = spent()
    for another in (
        trial(learning_rate=0.03, momentum=0.3, dropout=0.7),
        trial(kernel_initializer="random_normal", initializer_scale=0.3, bias_initializer="ones"),
        trial(random_state=7, class_weight="balanced"),
        trial(learning_rate_schedule="cosine", epochs=2, shuffle=False),
        trial(n=91),
        trial(n_folds=1),  # a fit
    ):
        engine.train(another)
        assert spent() == before
    engine.train(trial(activation="tanh"))
    assert spent() == tuple(n + 1 for n in before)


def test_the_cache_is_bounded_and_lets_go(monkeypatch, programs):
    monkeypatch.setattr(program, "CACHE_SIZE", 2)
    engine = StackedEngine(strict=True)
    made = []
    for units in (3, 4, 5, 6):
        trained = engine.train([lane(units=units, hidden_layers=1, epochs=1)])
        made.append(weakref.ref(next(reversed(programs.values()))))
    engine.train([lane(units=5, hidden_layers=1, epochs=1)])
    engine.train([lane(units=3, hidden_layers=1, epochs=1)])
    assert [one.template.get_layer("hidden_1").units for one in programs.values()] == [5, 3], "the oldest use goes"
    del trained
    gc.collect()
    assert [one() is None for one in made] == [True, True, False, True]


def test_nothing_grows_with_the_number_of_fits(programs):
    def graphs():
        gc.collect()
        return sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects())

    X = lane().train.X
    counts = []
    for seed in range(4):
        estimator = KerasClassifier(epochs=1, random_state=seed, learning_rate=0.01 * (seed + 1), engine="stacked")
        estimator.fit(X, X[:, 0] > 0).predict(X)
        estimator.model_.predict_step(X[:1])
        counts.append((graphs(), len(programs)))
    assert counts[1:] == counts[:1] * 3


@pytest.mark.usefixtures("programs")
def test_networks_of_one_model_callable_share_a_program():
    engine = StackedEngine(strict=True)

    def trial(seed):
        return [lane(fold, model=functional, epochs=1, random_state=seed) for fold in range(2)]

    assert [indices for indices, _ in engine.crews(trial(0))] == [[0, 1]]
    before = spent()
    engine.train(trial(1))
    assert spent() == before


# What is shared -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", [False, True], ids=["one table", "equal tables"])
def test_a_table_that_lanes_share_is_there_once(copy):
    lanes = folds(copy=copy)
    engine = StackedEngine(strict=True)
    [(_, crew)] = engine.crews(lanes)
    assert 90 <= crew.arguments.X.shape[0] <= 1.07 * 90
    for fold, trained in zip(lanes, engine.train(lanes), strict=True):
        own = [Part(part.features(), part.y) for part in (fold.train, fold.test)]
        assert_same(trained, KerasEngine().train([replace(fold, train=own[0], test=own[1])])[0])


def test_a_budget_of_memory_divides_the_lanes(monkeypatch):
    lanes = folds(5, copy=True)
    engine = StackedEngine(strict=True)
    together = engine.train(lanes)
    bytes_of_one = stacked.MEMORY_BUDGET // stacked._room(lanes[:1])
    monkeypatch.setattr(stacked, "MEMORY_BUDGET", int(2.5 * bytes_of_one))
    assert [len(indices) for indices, _ in engine.crews(lanes)] == [2, 2, 1]
    assert engine.capacity(lanes[0]) <= 2
    for a, b in zip(together, engine.train(lanes), strict=True):
        assert_same(a, b)


def test_a_shared_table_leaves_room_for_more_lanes():
    assert stacked._room(folds(5, n=3000)) > 1.5 * stacked._room(folds(5, n=3000, copy=True))


@pytest.mark.usefixtures("compiled")
def test_a_seed_gives_the_same_predictions_in_every_fit_and_any_company():
    X = lane().train.X
    estimator = KerasClassifier(epochs=2, dropout=0.2, random_state=0, engine="stacked")
    first, second = (estimator.fit(X, X[:, 0] > 0).predict_proba(X) for _ in range(2))
    assert np.array_equal(first, second)

    lanes = [lane(fold, dropout=0.2) for fold in range(6)]
    [alone] = StackedEngine(strict=True).train(lanes[:1])
    beside = StackedEngine(strict=True).train(lanes)[0]
    assert_same(alone, beside)
    np.testing.assert_allclose(beside.outputs(X), alone.outputs(X), rtol=1e-4)


# Networks that share a program ----------------------------------------------------------------------------------------


def test_targets_are_data_of_a_lane():
    given = [None, (0.1, 0.9), (-0.2, 0.8)]
    lanes = [lane(target_range=ends, loss="mean_squared_error", output_activation="sigmoid") for ends in given]
    engine = StackedEngine(strict=True)
    assert [indices for indices, _ in engine.crews(lanes)] == [[0, 1, 2]]
    for trained, expected in zip(engine.train(lanes), KerasEngine().train(lanes), strict=True):
        assert_same(trained, expected)


ALTERNATIVES = Alternatives(("exponential", "relu", "tanh"), (None, "after", "before"))


@pytest.mark.parametrize(
    "params",
    [
        {
            "dropout": 0.2,
            "residual": True,
            "kernel_initializer": "lsuv",
            "layerwise_learning_rates": (1, 0.5, 2),
        },
        {"optimizer": keras.optimizers.SGD(0.1, 0.9, use_ema=True, name="averaging")},
    ],
    ids=shown,
)
def test_activations_and_normalizations_share_a_program_and_give_ordinary_networks(params):
    plain = [
        lane(fold, activation=activation, batch_normalization=normalization, epochs=2, dtype="float64", **params)
        for fold, (activation, normalization) in enumerate([("relu", None), ("tanh", "before"), ("relu", "after")])
    ]
    engine = StackedEngine(strict=True)
    lanes = [replace(one, alternatives=ALTERNATIVES) for one in plain]
    assert [indices for indices, _ in engine.crews(lanes)] == [[0, 1, 2]]
    X = lanes[0].train.X
    for expected, trained in zip(KerasEngine().train(plain), engine.train(lanes), strict=True):
        np.testing.assert_allclose(trained.outputs(X), expected.outputs(X), rtol=1e-5)  # without its model
        assert_same(trained, expected)
        a, b = trained.model, expected.model
        assert [layer.name for layer in a.layers] == [layer.name for layer in b.layers]
        assert [v.path for v in a.trainable_variables] == [v.path for v in b.trainable_variables]
        for x, y in zip(a.optimizer.variables, b.optimizer.variables, strict=True):
            np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-4, atol=1e-7, err_msg=y.path)


def test_a_candidate_that_overflows_does_no_harm_where_it_was_not_chosen():
    far = lane(activation="tanh")
    far = replace(far, train=replace(far.train, X=1000 * far.train.X), test=None)
    [trained] = StackedEngine(strict=True).train([replace(far, alternatives=ALTERNATIVES)])
    assert not trained.non_finite
    assert_same(trained, KerasEngine().train([far])[0])


# What falls back ------------------------------------------------------------------------------------------------------


def recurrent(input_shape, n_outputs, output_activation):
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.LSTM(4), keras.layers.Dense(n_outputs, output_activation)]
    )


class Centred(keras.layers.Layer):
    """Subtracts from each row the mean of its batch."""

    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=0, keepdims=True)


def centred(input_shape, n_outputs, output_activation):
    return keras.Sequential([keras.Input(input_shape), Centred(), keras.layers.Dense(n_outputs, output_activation)])


class AddingLoss(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(keras.ops.mean(keras.ops.square(inputs)))
        return inputs


class Noisy(keras.layers.Layer):
    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs)) * 0


def adding_loss(input_shape, n_outputs, output_activation):
    return keras.Sequential([keras.Input(input_shape), AddingLoss(), keras.layers.Dense(n_outputs, output_activation)])


def noisy(input_shape, n_outputs, output_activation):
    return keras.Sequential([keras.Input(input_shape), Noisy(), keras.layers.Dense(n_outputs, output_activation)])


def embedding(input_shape, n_outputs, output_activation):
    layers = [
        keras.layers.Rescaling(0.0),
        keras.layers.Embedding(3, 2),
        keras.layers.Flatten(),
        keras.layers.Dense(n_outputs, output_activation),
    ]
    return keras.Sequential([keras.Input(input_shape), *layers])


FALLBACKS = {
    "recurrent": ({"model": recurrent, "sample_shape": (3, 2)}, "."),
    "centred": ({"model": centred}, "rows of a batch act on each other"),
    "dice": ({"loss": "dice"}, "is not the mean of the losses of its rows"),
    "adding a loss": ({"model": adding_loss}, "adds a loss"),
    "noise of the process": ({"model": noisy}, "variable that is not its own"),
    "embedding": ({"model": embedding, "sample_shape": (6,)}, "embeddings are sparse"),
    "schedule-free": ({"optimizer": "schedulefreeadamw", "learning_rate": 0.1}, "ScheduleFreeAdamW"),
    "accumulating": (
        {"optimizer": keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=4)},
        "gradient_accumulation_steps",
    ),
    "overwriting": (
        {"optimizer": keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=4)},
        "ema_overwrite_frequency",
    ),
}


@pytest.mark.parametrize(("params", "cause"), FALLBACKS.values(), ids=FALLBACKS)
def test_what_does_not_vectorize_is_trained_by_keras(monkeypatch, params, cause):
    monkeypatch.setattr(stacked, "_said", set())
    stacked._failed.clear()
    one = lane(**params)
    with pytest.raises(HyperparameterError, match=f"engine='stacked' cannot train this network .*{cause}.*'keras'"):
        StackedEngine(strict=True).train([one])
    with pytest.warns(UserWarning, match=f"with plain Keras.*{cause}") as said:
        [trained] = StackedEngine().train([one])
    assert len(said) == 1
    StackedEngine().crews([one])  # says nothing any more: a warning would be an error
    assert_fitted(trained, one)


def test_callbacks_of_keras_are_refused_where_plain_keras_is_not_to_be_used():
    callbacks = [keras.callbacks.TerminateOnNaN()]
    with pytest.raises(HyperparameterError, match="engine='stacked' cannot call Keras callbacks.*use engine='auto'"):
        lane(engine="stacked", callbacks=callbacks)
    assert isinstance(engine_for(lane(engine="auto", callbacks=callbacks).hyperparameters), KerasEngine)


# Networks that are not the same ---------------------------------------------------------------------------------------


class Weighted:
    def __init__(self, weight):
        self.weight = weight

    def squares(self, y_true, y_pred):
        return self.weight * keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    def __call__(self, y_true, y_pred):
        return self.squares(y_true, y_pred)


def scaled_by(factor):
    def scaled(x):
        return x * factor

    return scaled


def with_a_closure(input_shape, n_outputs, factor):
    layers = [keras.layers.Dense(6, activation=scaled_by(factor)), keras.layers.Dense(n_outputs, "softmax")]
    return keras.Sequential([keras.Input(input_shape), *layers])


def named_like_its_activation(input_shape, n_outputs, activation):
    layers = [keras.layers.Activation(activation, name=activation), keras.layers.Dense(n_outputs, "softmax")]
    return keras.Sequential([keras.Input(input_shape), *layers])


def dropping(input_shape, n_outputs, rate):
    layers = [keras.layers.Dropout(rate), keras.layers.Dense(n_outputs, "softmax")]
    return keras.Sequential([keras.Input(input_shape), *layers])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"loss": Weighted(1.0).squares}, {"loss": Weighted(3.0).squares}),
        ({"loss": Weighted(1.0)}, {"loss": Weighted(3.0)}),
        ({"activation": scaled_by(1.0)}, {"activation": scaled_by(5.0)}),
        *(
            ({"model": model, "model_params": a}, {"model": model, "model_params": b})
            for model, a, b in [
                (with_a_closure, {"factor": 1.0}, {"factor": 5.0}),
                (dropping, {"rate": 0.2}, {"rate": 0.0}),
            ]
        ),
        tuple({"model": named_like_its_activation, "activation": a} for a in ("relu", "tanh")),
        ({"loss": keras.losses.Huber(delta=0.1)}, {"loss": keras.losses.Huber(delta=1.0)}),
    ],
    ids=["method", "callable", "function", "closure in a model", "dropout or none", "name and activation", "instance"],
)
def test_a_program_is_not_taken_for_that_of_another_network(one, other):
    engine = StackedEngine(strict=True)
    engine.train([lane(**one)])
    assert_same(engine.train([lane(**other)])[0], KerasEngine().train([lane(**other)])[0])


def test_a_function_that_reads_a_global_is_known_by_its_value():
    scope = {"keras": keras, "factor": 1.0, "__name__": "__main__"}
    exec("def scaled(x):\n    return x * factor", scope)
    StackedEngine(strict=True).train([lane(activation=scope["scaled"])])
    scope["factor"] = 5.0
    other = lane(activation=scope["scaled"])
    assert_same(StackedEngine(strict=True).train([other])[0], KerasEngine().train([other])[0])


def test_layers_that_the_user_froze_stay_frozen(digits):
    X, y = digits
    estimator = KerasClassifier(units=8, epochs=1, warm_start=True, random_state=0).fit(X, y)
    estimator.model_.get_layer("hidden_1").trainable = False
    before = [np.array(w) for w in estimator.model_.get_layer("hidden_1").get_weights()]
    with pytest.warns(UserWarning, match="layers were frozen"):
        estimator.fit(X, y)
    for a, b in zip(before, estimator.model_.get_layer("hidden_1").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
