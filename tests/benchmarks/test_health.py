"""What does it cost to measure health always, and what does pruning by it save?"""

import numpy as np
import pytest
from digits import CV, X, search, warm_up, y
from measuring import check_accuracies, compiling, fold_lanes, scaled, told, training_watched
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import RandomSampler
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from table import Row, speedup
from test_folds import epoch_seconds

from tuner import KerasClassifier, OptunaSearchCV

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow 3.17 on SQLAlchemy 2.1
    pytest.mark.filterwarnings("ignore:.* trials failed:sklearn.exceptions.FitFailedWarning"),  # sick corners
]

N_TRIALS = scaled(24, least=8)
REPEATS = 5
WITHOUT = "the same without health"

#: Half of it is sick: depths at which sigmoids pass no gradient on, weights that silence or saturate every layer.
SICK_SPACE = {
    "hidden_layers": CategoricalDistribution([2, 12, 20]),
    "optimizer": CategoricalDistribution(["sgd", "momentum"]),
    "activation": CategoricalDistribution(["relu", "tanh", "sigmoid"]),
    "initializer_scale": FloatDistribution(1e-4, 1.0, log=True),
    "learning_rate": FloatDistribution(1e-4, 1.0, log=True),
}


def share(work, ours, theirs, limit, **more):
    """Return the row of a claim that something costs no more than a share of what it is added to."""
    ratio = ours / theirs
    return Row(work, WITHOUT, more.pop("unit"), ours, theirs, ratio, f"≤ {limit} %", 100 * ratio <= limit, **more)


def test_cost_in_the_digits_study(tracker, record):
    warm_up(tracker)
    seconds, scores, spent = {}, {}, {}
    for health in ("record", None):
        with compiling() as spent[health]:
            search(tracker, 8, health=health)
    for _ in range(REPEATS):
        for health in ("record", None):
            with pytest.MonkeyPatch.context() as monkeypatch:
                spans = training_watched(monkeypatch)
                results = search(tracker, N_TRIALS, health=health).cv_results_
            seconds.setdefault(health, []).append(sum(end - start for start, end in spans))
            scores[health] = np.stack([results[f"split{fold}_test_score"] for fold in range(CV.n_splits)], axis=1)
    ours, theirs = (float(np.median(seconds[health])) for health in ("record", None))
    row = share(
        f"gradient health of a digits study of {N_TRIALS} trials, Adam",
        ours,
        theirs,
        105,
        unit="s of training",
        equal=check_accuracies(scores["record"], scores[None]),
        remark=f"medians of {REPEATS} studies each, in turn; compiling is apart: {told(spent['record'])} with health, "
        f"{told(spent[None])} without",
    )
    record(row, at_least=0)
    assert row.ratio < 1.5


def test_cost_of_a_large_network(mnist, record):
    X, y = (part[: scaled(60_000, least=500)] for part in mnist)
    params = {"units": (512,), "activation": "tanh", "batch_size": 128, "epochs": 3}
    lanes = {health: fold_lanes(X, y, health=health, **params) for health in (True, False)}
    seconds = {health: [] for health in lanes}
    for _ in range(REPEATS):
        for health, own in lanes.items():
            seconds[health].append(epoch_seconds(own))
    ours, theirs = (float(np.median(seconds[health])) for health in (True, False))
    row = share(
        "gradient health of MNIST 784-512-10, batch size 128, 5 folds, Adam",
        ours,
        theirs,
        102,
        unit="s per epoch",
        remark=f"medians of {REPEATS} trainings each, in turn",
    )
    record(row, at_least=0)
    assert row.ratio < 1.2


def test_pruning_by_health(tracker, record):
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

    run("record", epochs=3)  # compiles what both use
    theirs, everything = run("record", epochs=30)
    ours, pruned = run("prune", epochs=30)
    assert pruned.best_score_ == everything.best_score_
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
            remark=f"{states.count('pruned')} of {len(states)} trials were pruned; both find their programs compiled",
        ),
        at_least=1,
    )
