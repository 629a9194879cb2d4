"""What does it cost to measure health always, and what does pruning by it save?"""

from dataclasses import replace

import numpy as np
import pytest
from digits import CV, X, search, y
from measuring import LOSS_TOLERANCE, SHARE, compiling, fold_lanes, scaled, timed, told, training_watched
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import RandomSampler
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from table import Row, speedup

from tuner import KerasClassifier, OptunaSearchCV
from tuner.engine.stacked import StackedEngine
from tuner.rounds import ROUND_SIZE

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow 3.17 on SQLAlchemy 2.1
    pytest.mark.filterwarnings("ignore:.* trials failed:sklearn.exceptions.FitFailedWarning"),  # sick corners
]

#: Half of it is sick: depths at which sigmoids pass no gradient on, weights that silence or saturate every layer.
SICK_SPACE = {
    "hidden_layers": CategoricalDistribution([2, 12, 20]),
    "optimizer": CategoricalDistribution(["sgd", "momentum"]),
    "activation": CategoricalDistribution(["relu", "tanh", "sigmoid"]),
    "initializer_scale": FloatDistribution(1e-4, 1.0, log=True),
    "learning_rate": FloatDistribution(1e-4, 1.0, log=True),
}


def in_turn(lanes):
    """Train the same lanes with and without health, an epoch of each in turn; return all seconds of epochs, and both.

    A machine's speed changes from minute to minute: what two epochs cost is compared that follow on each other.
    """
    crews, spent = {}, {}
    for health in (True, False):
        own = [replace(lane, hyperparameters={**lane.hyperparameters, "health": health}) for lane in lanes]
        with compiling() as spent[health]:
            [(_, crews[health])] = StackedEngine(strict=True).crews(own)
    seconds = {health: [] for health in crews}
    while any(crews[True].active):
        for health, crew in crews.items():
            seconds[health].append(timed(crew.train_epoch)[0])
    trained = {health: crew.results() for health, crew in crews.items()}
    for measured, plain in zip(trained[True], trained[False], strict=True):
        np.testing.assert_allclose(measured.history["loss"], plain.history["loss"], rtol=LOSS_TOLERANCE)
    remark = f"{told(spent[True])} with health, {told(spent[False])} without"
    return np.array(seconds[True]), np.array(seconds[False]), remark


def cost(work, lanes, limit, record):
    """Record what health costs, as a share of the epochs without it."""
    ours, theirs, remark = in_turn(lanes)
    ratio = float(np.median(ours / theirs))
    row = Row(
        f"gradient health, {work}",
        "the same without health",
        "s per epoch",
        float(np.median(ours)),
        float(np.median(theirs)),
        ratio,
        f"≤ {limit} %",
        100 * ratio <= limit,
        equal="losses of every epoch",
        remark=f"the median of {len(ours)} pairs of epochs; compiling is apart: {remark}",
    )
    record(row, at_least=0)
    assert ratio < 1.5 or SHARE < 1


def test_cost_in_the_digits_study(monkeypatch, record):
    rounds, train = [], StackedEngine.train
    monkeypatch.setattr(
        StackedEngine, "train", lambda self, lanes, on_epoch=None: rounds.append(lanes) or train(self, lanes, on_epoch)
    )
    search(None, ROUND_SIZE, epochs=1)
    [lanes] = rounds  # the trials of a round train together
    epochs = scaled(100, least=3)
    cost("a round of the digits study, Adam", [replace(lane, epochs=epochs) for lane in lanes], 105, record)


def test_cost_of_a_large_network(mnist, record):
    X, y = (part[: scaled(60_000, least=500)] for part in mnist)
    lanes = fold_lanes(X, y, units=(512,), activation="tanh", batch_size=128, epochs=scaled(8, least=2))
    cost("MNIST 784-512-10, batch size 128, 5 folds, Adam", lanes, 102, record)


def test_pruning_by_health(record):
    def run(health, epochs):
        network = KerasClassifier(kernel_initializer="random_normal", units=32, epochs=epochs, random_state=0)
        space = {f"kerasclassifier__{name}": values for name, values in SICK_SPACE.items()}
        with pytest.MonkeyPatch.context() as monkeypatch:
            spans = training_watched(monkeypatch)
            found = OptunaSearchCV(
                make_pipeline(StandardScaler(), network),
                space,
                cv=CV,
                n_trials=scaled(40, least=8),
                sampler=RandomSampler(seed=0),
                random_state=0,
                refit=False,
                health=health,
            ).fit(X, y)
        return sum(end - start for start, end in spans), found

    spent = {}
    for health in ("prune", "record"):  # the trials of the first train alone: its programs are narrower
        with compiling() as spent[health]:
            run(health, epochs=3)
    pairs = []
    for _ in range(scaled(3, least=1)):
        theirs, everything = run("record", epochs=30)
        ours, pruned = run("prune", epochs=30)
        assert pruned.best_score_ == everything.best_score_
        pairs.append((ours, theirs))
    pairs.sort(key=lambda pair: pair[1] / pair[0])
    ours, theirs = pairs[len(pairs) // 2]
    states = list(pruned.cv_results_["state"])
    record(
        speedup(
            "a digits study with sick corners, pruned by health",
            "the same, not pruned",
            "s of training",
            ours,
            theirs,
            2,
            equal=f"best accuracy {pruned.best_score_:.4f}",
            remark=f"the median of {len(pairs)} pairs; {states.count('pruned')} of {len(states)} trials were pruned; "
            f"compiling is apart: {told(spent['prune'])} to prune, {told(spent['record'])} more not to",
        ),
        at_least=1,
    )
