import gc

import keras
import numpy as np
import pytest

from tuner import KerasClassifier
from tuner.engine.keras import KerasEngine
from tuner.testing.engines import MEASURED, OPTIONS, EngineTestCase, shown

#: What the engine has a part in; activations, initialisers and optimizers are Keras's own here.
OF_THE_ENGINE = {"batch_size", "class_weight", "layerwise_learning_rates", "learning_rate_schedule", "loss", "model"}


class TestKerasEngine(EngineTestCase):
    @pytest.fixture
    def engine(self):
        return KerasEngine()

    @pytest.mark.parametrize("params", [{}, *(p for p in OPTIONS if OF_THE_ENGINE & p.keys())], ids=shown)
    def test_a_lane_is_trained_as_keras_fit_trains_it(self, engine, params):
        super().test_a_lane_is_trained_as_keras_fit_trains_it(engine, params)

    @pytest.mark.parametrize("params", MEASURED[:2], ids=shown)  # it is compared with itself, in company
    def test_health_is_measured_as_beside_plain_keras(self, engine, params):
        super().test_health_is_measured_as_beside_plain_keras(engine, params)

    @pytest.mark.parametrize("activation", ["prelu", "maxout", "penalized_tanh"])
    def test_every_activation_is_trained_and_measured(self, engine, activation):
        super().test_every_activation_is_trained_and_measured(engine, activation)


class Recorder(keras.callbacks.Callback):
    """Writes what it is told where its copy can be read; Keras callbacks are copied for each fit."""

    events: list = []

    def __deepcopy__(self, memo):
        return type(self)()

    def on_train_begin(self, logs=None):
        self.events.append("train begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(sorted(logs))
        if epoch == 1:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.events.append("train end")


def test_callbacks_see_a_fit_as_one_fit_and_may_stop_it(digits):
    X, y = digits
    Recorder.events.clear()
    callback = Recorder()
    estimator = KerasClassifier(epochs=5, batch_size=150, callbacks=[callback], early_stopping=True)
    estimator.fit(X, y)
    logs = ["accuracy", "loss", "val_accuracy", "val_loss"]
    one_epoch = [0, 1, logs]
    assert Recorder.events == ["train begin", "epoch 0", *one_epoch, "epoch 1", *one_epoch, "train end"]
    assert estimator.n_iter_ == 2
    with pytest.raises(AttributeError):
        callback.model.name  # noqa: B018 - the caller's callback was copied and never attached to a model


def test_no_graph_outlives_its_network(digits):
    def graphs():
        gc.collect()
        return sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects())

    X, y = digits
    estimator = KerasClassifier(epochs=1).fit(X, y)
    before = graphs()
    for _ in range(3):
        estimator.fit(X, y)
    assert graphs() == before


def test_a_learning_rate_callback_of_keras_works(digits):
    X, y = digits
    frozen = keras.callbacks.LearningRateScheduler(lambda epoch: 0.0)
    a = KerasClassifier(epochs=2, random_state=0, callbacks=[frozen]).fit(X, y)
    b = KerasClassifier(epochs=1, random_state=0, callbacks=[frozen]).fit(X, y)
    assert np.array_equal(a.predict_proba(X), b.predict_proba(X)), "a rate of zero leaves the initial weights"


def test_a_network_that_cannot_be_measured_is_trained(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("a layer that does not like to be looked at")

    lane = EngineTestCase.lane()
    [expected] = KerasEngine().train([lane])
    monkeypatch.setattr("tuner.engine.keras.measure_model", broken)
    with pytest.warns(UserWarning, match="health of the network is not measured.*does not like"):
        [trained] = KerasEngine().train([lane])
    assert trained.health is None
    EngineTestCase.assert_same(trained, expected)
