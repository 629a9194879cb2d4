"""One fit on the digits, as scikit-learn users call it: how fast against Keras, and against scikit-learn itself?"""

from functools import partial

import numpy as np
import pytest
from digits import BATCH_SIZE, EPOCHS, UNITS, mlp
from measuring import check_accuracies, check_losses, compiling, fold_lanes, keras_fit, timed, told, train
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from table import speedup

from tuner import KerasClassifier

pytestmark = pytest.mark.benchmark

WORK = f"one fit, digits, {EPOCHS} epochs, Adam"
PARAMS = {"units": UNITS, "epochs": EPOCHS, "batch_size": BATCH_SIZE}


@pytest.fixture(scope="module")
def data():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype("float32"), y


def fit_seconds(make_network, seeds, X, X_test, y, y_test):
    """Return the median seconds of a fit after the first, and the accuracies of all."""
    seconds, accuracies = [], []
    for seed in seeds:
        spent, network = timed(make_network(random_state=seed).fit, X, y)
        seconds.append(spent)
        accuracies.append(network.score(X_test, y_test))
    return float(np.median(seconds[1:])), accuracies


def test_fit_against_keras(data, record):
    lanes = fold_lanes(*data, **PARAMS)  # one after the other, as single fits
    keras_fit(lanes[0])  # what the first call of TensorFlow costs is nobody's
    fits = [keras_fit(lane) for lane in lanes]
    with compiling() as compiled:
        train(lanes[:1])
    ours, trained = zip(*(timed(train, [lane]) for lane in lanes), strict=True)
    row = speedup(
        WORK,
        "Keras fit",
        "s",
        float(np.median(ours)),
        float(np.median([fit.seconds for fit in fits])),
        10,
        equal=check_losses([lane for one in trained for lane in one], fits),
        remark=f"warm; the first fit compiles, {told(compiled)}; Keras traces every new network",
    )
    record(row, at_least=1)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer. Maximum iterations:sklearn.exceptions.ConvergenceWarning")
def test_fit_against_mlp(data, record):
    X, y = data
    parts = train_test_split(X, y, random_state=0)
    seeds = range(15)
    ours, accuracies = fit_seconds(
        partial(KerasClassifier, kernel_initializer="glorot_uniform", **PARAMS), seeds, *parts
    )
    theirs, their_accuracies = fit_seconds(mlp, seeds, *parts)
    row = speedup(
        WORK,
        "MLPClassifier.fit",
        "s",
        ours,
        theirs,
        1,
        equal=check_accuracies(accuracies, their_accuracies),
        remark="warm",
    )
    record(row, at_least=0.5)  # not slower is the target; half as fast would be a defect
