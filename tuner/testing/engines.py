"""What every engine must satisfy, as tests to inherit: set `engine` and run them with pytest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import scipy.sparse

from tuner import KerasClassifier, KerasRegressor, network, seeds
from tuner.engine.base import Engine, Lane, LaneState, Part, TrainedLane

# float32 carries 7 digits; a few epochs of training lose two or three of them where the order of a sum differs.
_RTOL, _ATOL = 1e-3, 1e-5

#: One change of the estimator's parameters each; an engine trains every one of them as plain Keras does.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"units": (16, 8, 4), "activation": "tanh"},
    {"hidden_layers": 0},
    {"kernel_initializer": "random_uniform", "initializer_scale": 0.1},
    {"batch_normalization": "before"},
    {"batch_normalization": "before", "dtype": "float64"},
    {"batch_normalization": "after"},
    {"dropout": 0.3},
    {"residual": True, "hidden_layers": 3},
    {"output_activation": "sigmoid", "loss": "mean_squared_error"},
    {"loss": "sparse_categorical_crossentropy"},
    {"optimizer": "sgd", "learning_rate": 0.1},
    {"optimizer": "sgd", "momentum": 0.5},
    {"optimizer": "nesterov"},
    {"optimizer": "adagrad"},
    {"optimizer": "rmsprop"},
    {"optimizer": "adamw", "weight_decay": 0.01},
    {"learning_rate_schedule": "cosine"},
    {"learning_rate_schedule": "exponential", "learning_rate": 0.01},
    {"learning_rate_schedule": "step"},
    {"clipnorm": 0.01},
    {"class_weight": "balanced"},
    {"shuffle": False},
    {"batch_size": 1000},
    {"dtype": "float64"},
]


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
    def lane(fold: int = 0, n: int = 90, weighted: bool = False, **params: Any) -> Lane:
        """Return a lane of a small problem of three classes; folds have different rows and seeds."""
        rng = np.random.default_rng(fold)
        X = rng.normal(size=(n, 6))
        y = (X[:, :3] + 0.3 * rng.normal(size=(n, 3))).argmax(axis=1)
        settings = {"units": 8, "epochs": 3, "batch_size": 16, "random_state": fold, **params}
        weights = rng.integers(0, 3, n) if weighted else None
        return KerasClassifier(**settings).make_lane(X, y, weights, X_test=X[:20], y_test=y[:20])

    @staticmethod
    def assert_same(a: TrainedLane, b: TrainedLane) -> None:
        """Assert that two trained lanes are the same within float32."""
        assert a.history.keys() == b.history.keys()
        for name in a.history:
            np.testing.assert_allclose(a.history[name], b.history[name], rtol=_RTOL, atol=_ATOL, err_msg=name)
        assert_same_weights(a.model, b.model)

    @pytest.mark.parametrize("params", OPTIONS, ids=str)
    def test_a_lane_is_trained_as_keras_fit_trains_it(self, engine: Engine, params: dict[str, Any]) -> None:
        """Compare with ``keras.Model.fit`` on the same batches, written out here without an engine."""
        from tuner.engine.compilation import make_loss, make_optimizer

        lane = self.lane(weighted=True, **params)
        [trained] = engine.train([lane])
        values, part = lane.hyperparameters, lane.train
        steps = -(-len(part) // values["batch_size"])
        with network.precision(values["dtype"]):
            model = network.build(values, part.X.shape[1:], lane.output, lane.seed)
            model.compile(
                make_optimizer(values, steps * values["epochs"]), make_loss(lane.output.loss, values["dtype"])
            )
            losses = []
            for epoch in range(values["epochs"]):
                network.reset_masks(model, lane.seed, epoch)
                n = len(part)
                order = seeds.batch_order(lane.seed, epoch, n) if values["shuffle"] else np.arange(n)
                fitted = model.fit(
                    part.X[order],
                    part.y[order],
                    sample_weight=None if part.sample_weight is None else part.sample_weight[order],
                    batch_size=values["batch_size"],
                    shuffle=False,
                    verbose=0,
                )
                losses += fitted.history["loss"]
        np.testing.assert_allclose(trained.history["loss"], losses, rtol=_RTOL)
        assert_same_weights(trained.model, model)

    @pytest.mark.parametrize("params", [{}, {"dropout": 0.3, "batch_normalization": "before"}], ids=str)
    def test_lanes_do_not_know_of_each_other(self, engine: Engine, params: dict[str, Any]) -> None:
        """A lane alone equals the lane in company, in any order, beside unequal folds."""
        lanes = [self.lane(fold, n, **params) for fold, n in enumerate((90, 91, 75))]
        together = engine.train(lanes)
        backwards = engine.train(lanes[::-1])[::-1]
        for lane, a, b in zip(lanes, together, backwards, strict=True):
            [alone] = engine.train([lane])
            self.assert_same(alone, a)
            self.assert_same(a, b)

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
            self.assert_same(trained, engine.train([dense])[0])

    def test_a_lane_goes_on_where_it_stood(self, engine: Engine) -> None:
        """Two epochs and then one are three, optimizer included."""
        lane = self.lane(dropout=0.2, batch_normalization="after")
        [first] = engine.train([replace(lane, epochs=2)])
        state = LaneState(first.model, first.epoch, first.history, keep_optimizer=True)
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
        healthy = self.lane()
        X, y = np.full((40, 2), 1e18), np.linspace(-1e18, 1e18, 40)
        sick = KerasRegressor(optimizer="sgd", learning_rate=1e6, epochs=3, random_state=0).make_lane(X, y)
        diverged, beside = engine.train([sick, healthy])
        assert diverged.non_finite and not np.isfinite(diverged.history["loss"][-1])
        assert np.isfinite(diverged.history["loss"][:-1]).all() and len(diverged.history["loss"]) < 3
        assert not beside.non_finite
        self.assert_same(beside, engine.train([healthy])[0])

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

        def on_epoch(epoch: int, histories: Any, predict: Any) -> list[int]:
            nonlocal kept
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
