"""What every engine must satisfy, as tests to inherit: set `engine` and run them with pytest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import scipy.sparse

from tuner import KerasClassifier, KerasRegressor, network, seeds
from tuner.engine.base import Engine, History, Lane, LaneState, Part, TrainedLane
from tuner.engine.keras import KerasEngine
from tuner.health.measurements import LAYER_MEASURES, NETWORK_MEASURES

# float32 carries 7 digits; a few epochs of training lose two or three of them where the order of a sum differs.
_RTOL, _ATOL = 1e-3, 1e-5


def convolutional(input_shape: Any, n_outputs: int, output_activation: Any) -> keras.Model:
    """Make a network for images that normalises and drops."""
    layers = [
        keras.layers.Conv2D(4, 2, padding="same", use_bias=False),  # batch normalisation would cancel the bias
        keras.layers.BatchNormalization(),
        keras.layers.Activation("relu"),
        keras.layers.Dropout(0.3),
        keras.layers.Flatten(),
        keras.layers.Dense(n_outputs, output_activation),
    ]
    return keras.Sequential([keras.Input(input_shape), *layers])


def scaled(input_shape: Any, n_outputs: int, output_activation: Any, kernel_initializer: Any) -> keras.Model:
    """Make a network for images with the initialiser that it is given."""
    layers = [
        keras.layers.Conv2D(4, 2, padding="same", activation="relu", kernel_initializer=kernel_initializer),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        keras.layers.Dense(8, "tanh"),
        keras.layers.Dense(n_outputs, output_activation, kernel_initializer=kernel_initializer),
    ]
    return keras.Sequential([keras.Input(input_shape), *layers])


def functional(input_shape: Any, n_outputs: int, output_activation: Any, activation: Any) -> keras.Model:
    """Make a network with a shortcut, a normalisation of rows, and weights with a limit and a penalty."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Dense(8, activation, kernel_constraint="max_norm")(inputs)
    x = keras.layers.Add()([x, keras.layers.Dense(8, kernel_regularizer="l2")(x)])
    x = keras.layers.LayerNormalization()(x)
    return keras.Model(inputs, keras.layers.Dense(n_outputs, output_activation)(x))


class Subclassed(keras.Model):
    """A network whose own code calls the layers."""

    def __init__(self, n_outputs: int, output_activation: Any):
        super().__init__()
        self.hidden = keras.layers.Dense(8, "tanh")
        self.dropped = keras.layers.Dropout(0.2)
        self.normalized = keras.layers.BatchNormalization()
        self.last = keras.layers.Dense(n_outputs, output_activation)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the outputs; the layers learn from Keras whether they are trained."""
        return self.last(self.normalized(self.dropped(self.hidden(inputs))))


def subclassed(n_outputs: int, output_activation: Any) -> keras.Model:
    """Make a `Subclassed`; Keras hides the signature of the class itself."""
    return Subclassed(n_outputs, output_activation)


def cubic(y_true: Any, y_pred: Any) -> Any:
    """Return the mean third power of the errors (n,), a loss that Keras does not have."""
    return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 3, axis=-1)


_WARMED_UP = keras.optimizers.schedules.CosineDecay(1e-3, 12, warmup_target=0.02, warmup_steps=5, name="warmed_up")
_STAIRCASE = keras.optimizers.schedules.InverseTimeDecay(0.02, 3, 0.5, staircase=True, name="staircase")

#: The activations that the studies compare.
ACTIVATIONS = (
    "tanh sigmoid relu leaky_relu prelu elu selu softplus softsign gelu swish maxout scaled_sigmoid penalized_tanh"
).split()

#: Arguments of `EngineTestCase.lane`; an engine trains every one of these lanes as plain Keras does. To save time,
#: options share an entry that have nothing to do with each other.
OPTIONS: list[dict[str, Any]] = [
    {},
    # the network
    {"units": (16, 8, 4), "activation": "tanh"},
    {"activation": "prelu", "residual": True, "batch_normalization": "after"},
    {"activation": "maxout", "residual": True, "batch_normalization": "before", "dropout": 0.2, "dtype": "float64"},
    {"activation": "penalized_tanh", "output_activation": "scaled_sigmoid", "task": "regression"},
    {"hidden_layers": 0, "bias_initializer": "random_normal"},
    {"kernel_initializer": "random_uniform", "initializer_scale": 0.1, "activation": "selu", "shuffle": False},
    {"kernel_initializer": "lsuv", "units": (8, 5), "residual": True, "bias_initializer": "random_normal"},
    {"kernel_initializer": "lsuv", "batch_normalization": "after", "dropout": 0.3, "activation": "maxout"},
    {"kernel_initializer": "lsuv", "model": scaled, "sample_shape": (3, 2, 1)},
    {"batch_normalization": "before"},
    {"batch_normalization": "before", "dtype": "float64"},
    {"batch_normalization": "after", "activation": "silu"},
    {"dropout": 0.3},
    {"dropout": 0.5, "dtype": "float64"},
    {"residual": True, "hidden_layers": 3, "activation": "gelu", "kernel_initializer": "orthogonal"},
    {"residual": True, "units": (8, 5), "batch_normalization": "before", "dropout": 0.2},
    {"residual": True, "batch_normalization": "after", "dropout": 0.2, "dtype": "float64"},
    {"model": convolutional, "sample_shape": (3, 2, 1)},
    {"model": functional},
    {"model": subclassed},
    # the output, the loss and the rows
    {"output_activation": "linear", "optimizer": "adamax"},
    {"output_activation": "sigmoid", "loss": "mean_squared_error", "class_weight": "balanced"},
    {"target_range": (0.1, 0.9), "loss": "mean_squared_error", "optimizer": "sgd", "learning_rate": 1.0},
    {"target_range": (-1, 0.8), "loss": "mean_squared_error", "task": "binary"},
    {"target_range": (0.3, 0.9), "loss": "binary_crossentropy", "task": "multilabel"},
    {"loss": "sparse_categorical_crossentropy", "optimizer": "lamb"},
    {"loss": "categorical_focal_crossentropy", "optimizer": "lion"},
    {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1, name="smoothed"), "optimizer": "ftrl"},
    {"loss": cubic, "output_activation": "softmax", "optimizer": "adadelta", "learning_rate": 0.5},
    {"task": "binary", "optimizer": "adagrad"},
    {"task": "binary", "loss": "hinge", "optimizer": "rmsprop"},
    {"task": "multilabel", "optimizer": "adafactor"},
    {"task": "regression", "loss": "huber", "optimizer": "sgd", "momentum": 0.5, "clipnorm": 0.1},
    {"task": "regression", "loss": "mean_absolute_error", "optimizer": "adamw", "weight_decay": 0.01},
    {"task": "regression", "loss": "log_cosh", "optimizer": "rmsprop", "momentum": 0.9},
    {"class_weight": {0: 0, 1: 1, 2: 3}},
    {"batch_size": 1},
    {"batch_size": 90, "optimizer": "momentum"},
    {"batch_size": 1000},
    # the optimizer
    {"optimizer": "muon", "weight_decay": 0.1},
    {"optimizer": "nadam"},
    {"optimizer": "nesterov", "weight_decay": 0.01},
    {"optimizer": "sgd", "learning_rate": 10.0},  # everything saturates
    {"optimizer": keras.optimizers.Adam(amsgrad=True, global_clipnorm=0.05, name="amsgrad_and_global_clipnorm")},
    {"optimizer": keras.optimizers.SGD(0.1, clipvalue=0.01, loss_scale_factor=8, name="clipvalue_and_loss_scale")},
    {"optimizer": keras.optimizers.RMSprop(centered=True, name="centered")},
    {"optimizer": keras.optimizers.Adam(use_ema=True, ema_momentum=0.9, name="moving_average")},
    {"clipnorm": 0.01},
    {"layerwise_learning_rates": 0.3, "batch_normalization": "after", "optimizer": "nesterov", "weight_decay": 0.1},
    {"layerwise_learning_rates": (5, 1, 0.2), "residual": True, "units": (8, 5), "learning_rate_schedule": "cosine"},
    {"layerwise_learning_rates": [0.1, 1.0, 2.0], "model": convolutional, "sample_shape": (3, 2, 1)},
    {"layerwise_learning_rates": 3, "optimizer": "muon", "learning_rate_schedule": _STAIRCASE, "weight_decay": 0.1},
    {"learning_rate_schedule": "cosine"},
    {"learning_rate_schedule": "exponential", "learning_rate": 0.01},
    {"learning_rate_schedule": "step", "optimizer": "sgd", "learning_rate": 0.1},
    {"learning_rate_schedule": _WARMED_UP},
    {"learning_rate_schedule": _STAIRCASE, "optimizer": "sgd"},
]


#: Arguments of `EngineTestCase.lane` for lanes whose health an engine measures as it is measured beside plain Keras.
MEASURED: list[dict[str, Any]] = [
    {"dropout": 0.3, "batch_normalization": "before", "activation": "tanh"},
    {"residual": True, "units": (8, 5), "optimizer": "nesterov", "clipnorm": 0.1},
    {"residual": True, "units": (8, 5), "activation": "maxout", "batch_normalization": "before"},
    {"model": convolutional, "sample_shape": (3, 2, 1)},
    {"model": subclassed},
    {"output_activation": "sigmoid", "loss": "mean_squared_error", "activation": "softsign"},
    {"loss": "sparse_categorical_crossentropy", "batch_size": 1, "hidden_layers": 0},
    {"task": "regression", "early_stopping": True, "optimizer": "sgd"},
    {"target_range": (-0.8, 0.8), "loss": "mean_squared_error", "layerwise_learning_rates": 3.0},
]


def shown(params: dict[str, Any]) -> str:
    """Return a name for a test with these parameters, the same in every process."""

    def name(value: Any) -> Any:
        return getattr(value, "__name__", None) or getattr(value, "name", value)

    return ", ".join(f"{key}={name(value)}" for key, value in params.items()) or "defaults"


def fitted_by_keras(lane: Lane) -> tuple[History, keras.Model]:
    """Return the history and the network that one call of ``keras.Model.fit`` gives, without an engine."""
    from tuner.engine.compilation import make_loss, make_metric, make_optimizer, scale_rates

    values, part = lane.hyperparameters, lane.train
    prefix, watched = ("test", lane.test) if lane.validation is None else ("val", lane.validation)
    assert watched is not None

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        for epoch in range(lane.epochs):
            order = np.arange(len(part))
            if values["shuffle"]:
                order = seeds.batch_order(lane.seed, epoch, len(part))
            for start in range(0, len(part), values["batch_size"]):
                rows = order[start : start + values["batch_size"]]
                weights = () if part.sample_weight is None else (part.sample_weight[rows],)
                yield part.features(rows), part.y[rows], *weights

    with network.precision(values["dtype"]):
        model = lane.fresh_model()
        optimizer = make_optimizer(values, lane.steps * lane.epochs)
        if (factors := network.rate_factors(model, values)) is not None:
            scale_rates(optimizer, factors)
        model.compile(
            optimizer,
            make_loss(lane.output.loss, values["dtype"]),
            weighted_metrics=[make_metric(lane.task, lane.output)],
            jit_compile=False,
        )
        # Keras 3.15 loses what an optimizer assigns while it is built within a traced step (ScheduleFreeAdamW).
        model.optimizer.build(model.trainable_variables)
        callbacks = [
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, logs: network.reset_masks(model, lane.seed, e))
        ]
        if lane.validation is not None:
            patience = values["n_iter_no_change"]
            callbacks.append(
                keras.callbacks.EarlyStopping(patience=patience, min_delta=values["tol"], restore_best_weights=True)
            )
        logs = model.fit(
            batches(),
            epochs=lane.epochs,
            steps_per_epoch=lane.steps,
            validation_data=(watched.features(), watched.y),
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        ).history
    return {name.replace("val_", f"{prefix}_"): series for name, series in logs.items()}, model


def assert_same_weights(a: keras.Model, b: keras.Model) -> None:
    """Assert that two networks of one structure have the same weights within float32.

    Two kinds of variables are left out. The counters of random masks are set anew in every epoch. And a bias in front
    of a batch normalisation is cancelled by it: in float32 its gradient is rounding, which Adam makes as large as any;
    float64 is compared in full.
    """
    layers = {layer.name for layer in a.layers}
    for x, y in zip(a.variables, b.variables, strict=True):
        layer, _, name = x.path.rpartition("/")
        cancelled = name == "bias" and f"{layer}_normalization" in layers and x.dtype == "float32"
        if name != "seed_generator_state" and not cancelled:
            np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=_RTOL, atol=_ATOL, err_msg=x.path)


class EngineTestCase:
    """The contract of an engine, see `tuner.engine.base`. Subclasses give the fixture `engine`."""

    @pytest.fixture
    def engine(self) -> Engine:
        """Return the engine to test."""
        raise NotImplementedError

    @staticmethod
    def lane(
        fold: int = 0,
        n: int = 90,
        *,
        task: str = "multiclass",
        sample_shape: tuple[int, ...] = (6,),
        weighted: bool = False,
        **params: Any,
    ) -> Lane:
        """Return a lane of a small problem of 6 features, by default of 3 classes; folds have other rows and seeds."""
        rng = np.random.default_rng(fold)
        X = rng.normal(size=(n, 6))
        scores = X[:, :3] + 0.3 * rng.normal(size=(n, 3))
        weights = rng.integers(0, 3, n) if weighted else None
        y = {
            "binary": scores[:, 0] > 0,
            "multiclass": scores.argmax(axis=1),
            "multilabel": (scores > 0).astype(int),
            "regression": scores,
        }[task]
        X = X.reshape(n, *sample_shape)
        settings: dict[str, Any] = {"units": 8, "epochs": 3, "batch_size": 16, "random_state": fold, **params}
        estimator = KerasRegressor(**settings) if task == "regression" else KerasClassifier(**settings)
        return estimator.make_lane(X, y, weights, X_test=X[:20], y_test=y[:20])

    @staticmethod
    def different_lanes() -> list[Lane]:
        """Return lanes that differ in all in which lanes of one structure may."""
        lane = EngineTestCase.lane
        shared: dict[str, Any] = {"optimizer": "nesterov", "batch_normalization": "after"}
        return [
            lane(
                learning_rate=0.1,
                momentum=0.5,
                layerwise_learning_rates=0.5,
                weight_decay=0.1,
                clipnorm=0.05,
                dropout=0.5,
                **shared,
            ),
            lane(
                *(1, 75),
                weighted=True,
                learning_rate_schedule="cosine",
                layerwise_learning_rates=(1, 2, 3),
                weight_decay=0.0,
                clipnorm=10.0,
                dropout=0.1,
                kernel_initializer="random_normal",
                initializer_scale=0.5,
                bias_initializer="ones",
                **shared,
            ),
            lane(
                *(2, 91),
                learning_rate_schedule=_WARMED_UP,
                layerwise_learning_rates=np.ones(3),
                weight_decay=0.01,
                clipnorm=0.5,
                dropout=0.3,
                kernel_initializer="lsuv",
                class_weight={0: 0, 1: 1, 2: 3},
                shuffle=False,
                epochs=5,
                **shared,
            ),
        ]

    @staticmethod
    def assert_same(a: TrainedLane, b: TrainedLane) -> None:
        """Assert that two trained lanes are the same within float32."""
        assert a.history.keys() == b.history.keys()
        for name in a.history:
            np.testing.assert_allclose(a.history[name], b.history[name], rtol=_RTOL, atol=_ATOL, err_msg=name)
        assert_same_weights(a.model, b.model)

    @pytest.mark.parametrize("params", OPTIONS, ids=shown)
    def test_a_lane_is_trained_as_keras_fit_trains_it(self, engine: Engine, params: dict[str, Any]) -> None:
        """Compare with ``keras.Model.fit`` on the same batches, the series of every epoch and the final weights."""
        lane = self.lane(weighted=True, **params)
        [trained] = engine.train([lane])
        history, model = fitted_by_keras(lane)
        assert trained.history.keys() == history.keys()
        for name, series in history.items():
            np.testing.assert_allclose(trained.history[name], series, rtol=_RTOL, atol=_ATOL, err_msg=name)
        assert_same_weights(trained.model, model)

    @pytest.mark.parametrize(
        ("given", "factors", "params"),
        [
            (0.5, (0.25, 0.5, 1), {"optimizer": "sgd"}),
            (3, (9, 3, 1), {"optimizer": "momentum", "weight_decay": 0.3, "clipnorm": 0.1}),
            ((2, 0.1, 7), (2, 0.1, 7), {"optimizer": "adam", "weight_decay": 0.3, "batch_normalization": "before"}),
            (np.array([0.1, 1, 10]), (0.1, 1, 10), {"optimizer": "adagrad", "units": (8, 5), "residual": True}),
        ],
        ids=["decay", "growth", "normalization", "projection"],
    )
    def test_layers_learn_at_rates_of_their_own(
        self, engine: Engine, given: Any, factors: tuple[float, ...], params: dict[str, Any]
    ) -> None:
        """One step changes every weight by its layer's factor times what it changes without factors, and no other."""
        params = {"learning_rate": 0.01, "epochs": 1, "batch_size": 90, "dtype": "float64", **params}
        plain, scaled = (self.lane(layerwise_learning_rates=value, **params) for value in (None, given))
        start = network.build(plain.hyperparameters, (6,), plain.output, plain.seed)
        models = [engine.train([lane])[0].model for lane in (plain, scaled)]
        names = ["hidden_1", "hidden_2", "output"]
        for before, after, own in zip(*(model.trainable_variables for model in (start, *models)), strict=True):
            factor = factors[next(i for i, name in enumerate(names) if name in before.path)]
            before, after, own = map(np.asarray, (before, after, own))
            assert (after != before).any()
            np.testing.assert_allclose(own - before, factor * (after - before), rtol=1e-9, atol=1e-14)

    @pytest.mark.parametrize("backwards", [False, True])
    def test_lanes_do_not_know_of_each_other(self, engine: Engine, backwards: bool) -> None:
        """A lane alone equals the lane in company, in any order, beside others that differ in all they may."""
        lanes = self.different_lanes()[:: -1 if backwards else 1]
        for lane, together in zip(lanes, engine.train(lanes), strict=True):
            [alone] = engine.train([lane])
            self.assert_same(alone, together)

    @pytest.mark.parametrize("kind", ["binary", "multilabel", "regression", "sparse"])
    def test_every_kind_of_target_and_sparse_rows(self, engine: Engine, kind: str) -> None:
        """The loss falls, and sparse rows are trained on as dense ones."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(90, 6))
        settings: dict[str, Any] = {"units": 8, "epochs": 8, "learning_rate": 0.01, "random_state": 0}
        if kind == "regression":
            lane = KerasRegressor(**settings).make_lane(X, X[:, 0])
        else:
            y = X[:, :2] > 0 if kind == "multilabel" else X[:, 0] > 0
            rows = scipy.sparse.csr_matrix(X) if kind == "sparse" else X
            lane = KerasClassifier(**settings).make_lane(rows, y.astype(int))
        [trained] = engine.train([lane])
        assert trained.history["loss"][-1] < trained.history["loss"][0]
        if kind == "sparse":
            dense = replace(lane, train=replace(lane.train, X=lane.train.X.toarray()))
            np.testing.assert_allclose(trained.outputs(lane.train.X), trained.outputs(dense.train.X), rtol=1e-5)
            self.assert_same(trained, engine.train([dense])[0])

    @pytest.mark.parametrize("pickled", [False, True], ids=["compiled", "pickled"])
    @pytest.mark.parametrize(
        "params",
        [
            {"dropout": 0.2, "batch_normalization": "after"},
            {"optimizer": "momentum", "learning_rate": 0.1},
            {"learning_rate_schedule": "cosine", "learning_rate": 0.01},
        ],
        ids=shown,
    )
    def test_a_lane_goes_on_where_it_stood(self, engine: Engine, params: dict[str, Any], pickled: bool) -> None:
        """Two epochs and then one are three, optimizer included."""
        lane = self.lane(**params)
        [first] = engine.train([replace(lane, epochs=2)])
        model, values = first.model, None
        if pickled:  # the network comes back as a file, and the optimizer as its values
            values = [np.asarray(v) for v in model.optimizer.variables]
            model = network.from_bytes(*network.to_bytes(model), "float32")
        state = LaneState(model, first.epoch, first.history, keep_optimizer=not pickled, optimizer_values=values)
        [going_on] = engine.train([replace(lane, epochs=1, state=state)])
        assert going_on.epoch == 3
        self.assert_same(going_on, engine.train([lane])[0])

    def test_a_weight_of_two_is_a_row_given_twice(self, engine: Engine) -> None:
        """Hold for a batch of all rows, in float64, to many digits."""
        lane = self.lane(batch_size=1000, dtype="float64", epochs=5)
        counts = np.arange(len(lane.train)) % 3
        weighted = replace(lane, train=Part(lane.train.X, lane.train.y, counts.astype(float)))
        repeated = replace(
            lane,
            train=Part(
                np.repeat(lane.train.X, counts, axis=0), np.repeat(lane.train.y, counts, axis=0), np.ones(counts.sum())
            ),
        )
        a, b = (engine.train([x])[0].model.get_weights() for x in (weighted, repeated))
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-7)

    def test_a_lane_that_diverges_ends_there_and_leaves_the_others_alone(self, engine: Engine) -> None:
        """The history of a lane with a non-finite loss ends with that epoch."""
        linear: dict[str, Any] = {"activation": "linear", "loss": "mean_squared_error", "output_activation": "linear"}
        sick, healthy = (self.lane(optimizer="sgd", learning_rate=rate, epochs=5, **linear) for rate in (1e3, 0.01))
        diverged, beside = engine.train([sick, healthy])
        assert diverged.non_finite and not np.isfinite(diverged.history["loss"][-1])
        assert np.isfinite(diverged.history["loss"][:-1]).all() and len(diverged.history["loss"]) < 5
        assert not beside.non_finite
        self.assert_same(beside, engine.train([healthy])[0])

    def test_lanes_stop_early_where_keras_stops_them(self, engine: Engine) -> None:
        """Compare with Keras's own callback: each lane ends in its epoch and keeps the weights of its best one."""
        early: dict[str, Any] = {
            "early_stopping": True,
            "validation_fraction": 0.3,
            "n_iter_no_change": 2,
            "tol": 0.0,
            "epochs": 30,
        }
        lanes = [self.lane(fold, learning_rate=rate, **early) for fold, rate in ((0, 0.1), (1, 0.3), (2, 0.03))]
        lanes = [replace(lane, test=None) for lane in lanes]
        trained = engine.train(lanes)
        ends = [lane.epoch for lane in trained]
        assert len(set(ends)) == 3 and max(ends) < 30, "choose other rates: the lanes are to stop in different epochs"
        for lane, mine in zip(lanes, trained, strict=True):
            history, model = fitted_by_keras(lane)
            for name, series in history.items():
                np.testing.assert_allclose(mine.history[name], series, rtol=0.01, atol=1e-4, err_msg=name)
            outputs = network.outputs(model, lane.train.features())
            np.testing.assert_allclose(mine.outputs(lane.train.features()), outputs, rtol=0.01, atol=1e-3)

    def test_early_stopping_restores_the_best_epoch(self, engine: Engine) -> None:
        """The weights are those of the lowest loss on the validation part, and training ended early."""
        lane = self.lane(learning_rate=0.1, early_stopping=True, validation_fraction=0.3, n_iter_no_change=3, epochs=60)
        assert lane.validation is not None
        [trained] = engine.train([lane])
        losses = trained.history["val_loss"]
        assert len(losses) < 60 and np.argmin(losses) < len(losses) - 1
        outputs = network.outputs(trained.model, lane.validation.features())
        loss = float(keras.ops.mean(keras.losses.categorical_crossentropy(lane.validation.y, outputs)))
        assert loss == pytest.approx(min(losses), rel=1e-4)

    def test_on_epoch_sees_every_epoch_and_stops_lanes(self, engine: Engine) -> None:
        """A stopped lane keeps the weights it had; the others go on."""
        lanes = [self.lane(fold, epochs=5) for fold in range(2)]
        seen: list[tuple[int, int, int]] = []
        kept = None

        def on_epoch(epoch: int, histories: Any, predict: Any, health: Any) -> list[int]:
            nonlocal kept
            assert all(one.epochs[-1] == len(one.history["loss"]) for one in health)
            seen.append((epoch, len(histories[0]["loss"]), len(histories[1]["loss"])))
            outputs = predict(0, lanes[0].train.X)
            assert outputs.shape == (90, 3)
            if epoch == 1:
                kept = outputs
                return [0]
            return []

        stopped, finished = engine.train(lanes, on_epoch)
        assert seen == [(0, 1, 1), (1, 2, 2), (2, 2, 3), (3, 2, 4), (4, 2, 5)]
        assert kept is not None
        np.testing.assert_allclose(network.outputs(stopped.model, lanes[0].train.X), kept, rtol=1e-5)
        assert stopped.epoch == 2 and finished.epoch == 5
        self.assert_same(stopped, engine.train([replace(lanes[0], epochs=2)])[0])
        self.assert_same(finished, engine.train([lanes[1]])[0])

    @pytest.mark.parametrize("params", MEASURED, ids=shown)
    def test_health_is_measured_as_beside_plain_keras(self, engine: Engine, params: dict[str, Any]) -> None:
        """Every measure of every layer and epoch, also in the company of a longer and wilder lane."""
        self.assert_health_as_beside_keras(engine, params)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_every_activation_is_trained_and_measured(self, engine: Engine, activation: str) -> None:
        """The loss falls, every hidden layer has gradients and slopes, and health is as beside plain Keras."""
        params: dict[str, Any] = {"activation": activation, "units": (8, 5), "learning_rate": 0.03}
        trained = self.assert_health_as_beside_keras(engine, params)
        assert trained.history["loss"][-1] < trained.history["loss"][0]
        assert trained.health is not None
        assert [layer.activation for layer in trained.health.facts.layers[:-1]] == [
            network.activation_name(activation)
        ] * 2
        for name in ("grad_norm", "slope", "local_slope", "signal_variance"):
            assert (trained.health.layer(name)[:, :-1] > 0).all(), name
        assert (trained.health.layer("dead_units")[:, :-1] < 1).all()

    def assert_health_as_beside_keras(self, engine: Engine, params: dict[str, Any]) -> TrainedLane:
        """Assert that a lane's health is measured as beside plain Keras; return the trained lane."""
        lane = self.lane(weighted=True, dtype="float64", **params)
        [expected] = KerasEngine().train([lane])
        trained, beside = engine.train([lane, self.lane(1, 91, dtype="float64", **{**params, "learning_rate": 0.5})])
        assert trained.health is not None and expected.health is not None and beside.health is not None
        assert trained.health.facts == expected.health.facts
        assert trained.health.epochs == expected.health.epochs == list(range(len(trained.history["loss"]) + 1))
        assert trained.health.history is trained.history
        for name in LAYER_MEASURES:
            theirs, ours = expected.health.layer(name), trained.health.layer(name)
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-10, err_msg=name)
        for name in NETWORK_MEASURES:
            theirs, ours = expected.health.of_network(name), trained.health.of_network(name)
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-10, err_msg=name)
        assert beside.health.epochs == list(range(len(beside.history["loss"]) + 1))
        return trained

    def test_measuring_health_does_not_touch_training(self, engine: Engine) -> None:
        """The same weights come out where nothing is measured."""
        params: dict[str, Any] = {"dropout": 0.3, "batch_normalization": "after"}
        [measured], [not_measured] = (engine.train([self.lane(health=health, **params)]) for health in (True, False))
        assert measured.health is not None and not_measured.health is None
        self.assert_same(measured, not_measured)

    def test_health_is_the_same_whenever_it_is_looked_at(self, engine: Engine) -> None:
        """After every epoch or only at the end, also of lanes that end or are stopped before the others."""
        lanes = [self.lane(fold, epochs=epochs) for fold, epochs in enumerate((40, 40, 3))]

        def stop(epoch: int, histories: Any, predict: Any, health: Any) -> list[int]:
            return [1] if epoch == 4 else []

        def look(epoch: int, histories: Any, predict: Any, health: Any) -> list[int]:
            seen = [len(one.epochs) for one in health[:2]]
            assert seen == [epoch + 2, min(epoch + 2, 6)]
            assert len(health) == 3 and len(health[2].layer("grad_norm")) == min(epoch + 2, 4)
            return stop(epoch, histories, predict, health)

        for seen, unseen in zip(engine.train(lanes, look), engine.train(lanes, stop), strict=True):
            assert seen.health is not None and unseen.health is not None
            assert seen.health.epochs == unseen.health.epochs
            np.testing.assert_array_equal(seen.health.layers, unseen.health.layers)
            np.testing.assert_array_equal(seen.health.network, unseen.health.network)

    def test_health_goes_on_with_the_training(self, engine: Engine) -> None:
        """A lane that goes on from a state continues its series; what was measured before is not measured again."""
        lane = self.lane(epochs=2)
        [first] = engine.train([lane])
        state = LaneState(first.model, first.epoch, first.history, keep_optimizer=True, health=first.health)
        [second] = engine.train([replace(lane, state=state, epochs=3)])
        assert first.health is not None and second.health is not None
        assert first.health.epochs == [0, 1, 2] and second.health.epochs == [0, 1, 2, 3, 4, 5]
        np.testing.assert_array_equal(second.health.layer("grad_norm")[:3], first.health.layer("grad_norm"))
        assert len(second.health.history["loss"]) == 5

    def test_the_held_out_part_is_measured_and_never_acted_upon(self, engine: Engine) -> None:
        """Its loss is the loss of the final weights; without it training is the same."""
        lane = self.lane()
        assert lane.test is not None
        [trained] = engine.train([lane])
        outputs = network.outputs(trained.model, lane.test.features())
        loss = float(keras.ops.mean(keras.losses.categorical_crossentropy(lane.test.y, outputs)))
        assert trained.history["test_loss"][-1] == pytest.approx(loss, rel=1e-4)
        [without] = engine.train([replace(lane, test=None)])
        assert_same_weights(trained.model, without.model)
