"""How to measure: times, what engines spend, what ``keras.Model.fit`` does with a lane, and when scores are equal."""

import math
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps

import numpy as np

from tuner import KerasClassifier, network
from tuner.backend import keras
from tuner.engine.base import Engine
from tuner.engine.compilation import make_loss, make_metric, make_optimizer
from tuner.engine.program import Statistics, statistics

FOLDS = 5

#: Share of the work to do: below 1 the benchmarks are only tried, and record nothing.
SHARE = float(os.environ.get("TUNER_BENCH_SHARE", 1))

#: Two mean scores are equal when they differ by at most this many standard errors of their difference. Scores of equal
#: networks do so but for once in 700 times (Student's t, 14 degrees of freedom).
STANDARD_ERRORS = 4

#: Two series of losses are equal to this relative tolerance. On MNIST with tanh the engine and `fit` agree to 3e-7, and
#: another seed changes some epoch's loss by 6e-3, another order of rows by 5e-2. ReLU is no help there: its kink turns
#: rounding into 2e-3 within three epochs, between `fit` with and without XLA as much as between `fit` and an engine.
LOSS_TOLERANCE = 1e-3


def scaled(count, least):
    """Return the part of `count` that `SHARE` leaves, and not less than `least`."""
    return max(math.ceil(count * SHARE), least)


def timed(function, *args, **kwargs):
    """Return the seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - start, result


def training_watched(monkeypatch):
    """Return a list that is given the (start, end) of every training from now on."""
    spans = []

    def watched(train):
        @wraps(train)
        def wrapper(*args, **kwargs):
            start = time.perf_counter()
            try:
                return train(*args, **kwargs)
            finally:
                spans.append((start, time.perf_counter()))

        return wrapper

    for engine in Engine.__subclasses__():
        monkeypatch.setattr(engine, "train", watched(engine.train))
    return spans


def uncovered(spans, start, end):
    """Return the seconds between start and end that no span overlaps."""
    seconds, reached = 0.0, start
    for begin, finish in sorted(spans):
        seconds += max(0.0, min(begin, end) - reached)
        reached = min(max(reached, finish), end)
    return seconds + end - reached


@contextmanager
def compiling():
    """Give what the block has traced and compiled, once it is left."""
    before, spent = replace(statistics), Statistics()
    yield spent
    for name, value in vars(before).items():
        setattr(spent, name, getattr(statistics, name) - value)


def told(spent):
    """Say what was traced and compiled."""
    return f"{spent.seconds:.2g} s for {spent.traced} traced and {spent.compiled} compiled programs"


def fold_lanes(X, y, **params):
    """Return a lane for each fold, visiting its rows in their order; the folds share one table, as in a search."""
    lanes, table = [], X.astype("float32")
    for fold in range(FOLDS):
        rows = np.flatnonzero(np.arange(len(X)) % FOLDS != fold)
        lane = KerasClassifier(shuffle=False, random_state=fold, **params).make_lane(table[rows], y[rows])
        lanes.append(replace(lane, train=lane.train.within(table, rows)))
    return lanes


def train(lanes, on_epoch=None):
    """Train lanes by the engine that their hyperparameters ask for."""
    return KerasClassifier().train_lanes(lanes, on_epoch)


@dataclass(frozen=True)
class KerasFit:
    """What ``fit`` did with a lane.

    Parameters
    ----------
    losses : list of float
        One for each epoch.
    seconds : float
        From nothing to the trained network.
    epoch_seconds : float
        Of an epoch after the first, which has the tracing (median).
    """

    losses: list[float]
    seconds: float
    epoch_seconds: float


def keras_fit(lane):
    """Train a lane by one call of ``fit``, on the same batches and from the same weights as the engines do."""
    start = time.perf_counter()
    values, part = lane.hyperparameters, lane.train
    model = network.build(values, part.X.shape[1:], lane.output, lane.seed)
    model.compile(
        make_optimizer(values, math.ceil(len(part) / values["batch_size"]) * lane.epochs),
        make_loss(lane.output.loss, values["dtype"]),
        weighted_metrics=[make_metric(lane.task, lane.output)],
    )
    ends = []
    fitted = model.fit(
        part.features(),
        part.y,
        batch_size=values["batch_size"],
        epochs=lane.epochs,
        shuffle=values["shuffle"],
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))],
        verbose=0,
    )
    return KerasFit(fitted.history["loss"], time.perf_counter() - start, float(np.median(np.diff(ends))))


def check_losses(trained, fits):
    """Assert that the losses of every epoch are equal; return what to say of it."""
    ours, theirs = (
        np.array(losses) for losses in ([lane.history["loss"] for lane in trained], [f.losses for f in fits])
    )
    np.testing.assert_allclose(ours, theirs, rtol=LOSS_TOLERANCE)
    difference = np.abs(ours / theirs - 1).max()
    return f"losses of every epoch, to {difference:.0e} (last: {ours[:, -1].mean():.4f})"


def check_accuracies(ours, theirs):
    """Assert that accuracies (seeds, folds) have equal means; return what to say of it."""
    differences = np.ravel(ours) - np.ravel(theirs)  # of the same fold: how hard a fold is cancels out
    error = differences.std(ddof=1) / math.sqrt(differences.size)
    assert abs(differences.mean()) <= STANDARD_ERRORS * error
    return f"accuracy {np.mean(ours):.3f} and {np.mean(theirs):.3f}, standard error {error:.3f}"
