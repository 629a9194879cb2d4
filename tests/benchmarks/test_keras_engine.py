"""The plain Keras engine advances folds epoch by epoch: at what cost against ``keras.Model.fit`` fold by fold?"""

import time

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tuner import KerasClassifier, network
from tuner.engine.compilation import make_loss, make_metric, make_optimizer
from tuner.engine.keras import KerasEngine

pytestmark = pytest.mark.benchmark

FOLDS, EPOCHS = 5, 20


def make_lanes():
    X, y = load_digits(return_X_y=True)
    folds = np.arange(len(X)) % FOLDS
    return [
        KerasClassifier(epochs=EPOCHS, shuffle=False, random_state=fold).make_lane(
            X[folds != fold] / 16, y[folds != fold]
        )
        for fold in range(FOLDS)
    ]


def keras_fit(lane):
    """Train the lane by one call of ``fit`` on the same batches, and return its last loss."""
    values, part = lane.hyperparameters, lane.train
    model = network.build(values, part.X.shape[1:], lane.output, lane.seed)
    steps = -(-len(part) // values["batch_size"])
    model.compile(
        make_optimizer(values, steps * EPOCHS),
        make_loss(lane.output.loss, values["dtype"]),
        weighted_metrics=[make_metric(lane.task, lane.output)],
        jit_compile=False,
    )
    fitted = model.fit(
        part.X, part.y, batch_size=values["batch_size"], epochs=EPOCHS, shuffle=values["shuffle"], verbose=0
    )
    return fitted.history["loss"][-1]


def test_epoch_by_epoch_costs_no_more_than_fit(capsys):
    lanes = make_lanes()
    KerasEngine().train(lanes[:1])  # what the first call of TensorFlow costs is nobody's
    keras_fit(lanes[0])

    start = time.perf_counter()
    losses = [keras_fit(lane) for lane in lanes]
    theirs = time.perf_counter() - start
    start = time.perf_counter()
    trained = KerasEngine().train(lanes, lambda epoch, histories, predict: ())
    ours = time.perf_counter() - start

    np.testing.assert_allclose([lane.history["loss"][-1] for lane in trained], losses, rtol=1e-3)
    with capsys.disabled():
        print(f"\ndigits, {FOLDS} folds, {EPOCHS} epochs, Adam: Keras fit {theirs:.1f} s, engine {ours:.1f} s")
    assert theirs / ours > 1
