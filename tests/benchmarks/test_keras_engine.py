"""The plain Keras engine advances folds epoch by epoch: at what cost against ``keras.Model.fit`` fold by fold?"""

import pytest
from measuring import FOLDS, check_losses, fold_lanes, keras_fit, timed
from sklearn.datasets import load_digits
from table import speedup

from tuner.engine.keras import KerasEngine

pytestmark = pytest.mark.benchmark

EPOCHS = 20


def test_epoch_by_epoch_costs_no_more_than_fit(record):
    X, y = load_digits(return_X_y=True)
    lanes = fold_lanes(X / 16, y, epochs=EPOCHS)
    KerasEngine().train(lanes[:1])  # what the first call of TensorFlow costs is nobody's
    keras_fit(lanes[0])

    fits = [keras_fit(lane) for lane in lanes]
    ours, trained = timed(KerasEngine().train, lanes, lambda *_: ())
    row = speedup(
        f"plain engine, digits, {FOLDS} folds, {EPOCHS} epochs, Adam",
        "Keras fit",
        "s",
        ours,
        sum(fit.seconds for fit in fits),
        1,
        equal=check_losses(trained, fits),
    )
    record(row, at_least=1)
