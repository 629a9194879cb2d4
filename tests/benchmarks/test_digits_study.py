"""A study of 60 trials on the digits, everything included: what does a trial cost, here and with other tools?"""

import time
from dataclasses import dataclass

import mlflow
import numpy as np
import optuna
import pytest
from digits import BATCH_SIZE, CV, EPOCHS, SPACE, UNITS, X, mlp, search, warm_up, y
from measuring import check_accuracies, compiling, scaled, timed, told, training_watched, uncovered
from mlflow.entities import Metric, Param
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BruteForceSampler, TPESampler
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from table import speedup

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow 3.17 on SQLAlchemy 2.1
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),  # BruteForceSampler
]

N_TRIALS = scaled(60, least=4)
WORK = f"digits study of {N_TRIALS} trials, Adam"

#: A network that all three tools can build, for equal scores: scikit-learn's one initialiser is Glorot's, uniform.
COMMON = {
    "activation": "relu",
    "batch_normalization": None,
    "kernel_initializer": "glorot_uniform",
    "learning_rate": 1e-3,
}
SEEDS = range(3)


@dataclass(frozen=True)
class OurStudy:
    seconds_per_trial: float
    accuracies: np.ndarray  # of COMMON, (seeds, folds)
    remark: str


@pytest.fixture(scope="module")
def ours(tracker):
    warm_up(tracker)
    with pytest.MonkeyPatch.context() as monkeypatch, compiling() as compiled:
        spans = training_watched(monkeypatch)
        start = time.perf_counter()
        study = search(tracker, N_TRIALS)
        end = time.perf_counter()
    outside = uncovered(spans, start, end)
    assert set(study.cv_results_["state"]) == {"complete"}, "a trial that fails costs less"
    assert compiled.traced, "the study must pay for its programs: run it before the others"

    same = {name: CategoricalDistribution([value]) for name, value in COMMON.items()}
    seeds = {"random_state": CategoricalDistribution(list(SEEDS))}
    scored = search(tracker, len(SEEDS), space=same | seeds, sampler=BruteForceSampler()).cv_results_
    return OurStudy(
        (end - start) / N_TRIALS,
        np.stack([scored[f"split{fold}_test_score"] for fold in range(CV.n_splits)], axis=1),
        f"{end - start:.3g} s in all, {outside:.2g} s of them outside training; compiling {told(compiled)}",
    )


def their_seconds_per_trial(make_network, space, asked, tracker):
    """Run the trials that are asked for, each a run of its own in MLflow; return the mean of their seconds."""
    client = mlflow.MlflowClient(tracker.uri)
    experiment = client.create_experiment(make_network.__name__)
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=0, multivariate=True))
    for params in asked:
        study.enqueue_trial(params)

    def run_trial():
        trial = study.ask(space)
        scores = cross_val_score(make_pipeline(StandardScaler(), make_network(**trial.params)), X, y, cv=CV)
        study.tell(trial, scores.mean())
        run = client.create_run(experiment).info
        metrics = {"mean_test_score": scores.mean(), **{f"split{i}_test_score": s for i, s in enumerate(scores)}}
        client.log_batch(
            run.run_id,
            metrics=[Metric(name, float(value), 0, 0) for name, value in metrics.items()],
            params=[Param(name, str(value)) for name, value in trial.params.items()],
        )
        client.set_terminated(run.run_id)

    return float(np.mean([timed(run_trial)[0] for _ in asked]))


def their_accuracies(make_network, **params):
    """Return the accuracies (seeds, folds)."""
    return [
        cross_val_score(make_pipeline(StandardScaler(), make_network(random_state=seed, **params)), X, y, cv=CV)
        for seed in SEEDS
    ]


def scikeras(random_state=0, **params):
    from scikeras.wrappers import KerasClassifier

    learning_rate = params.pop("learning_rate")
    return KerasClassifier(
        model=keras_network,
        loss="sparse_categorical_crossentropy",
        optimizer="adam",
        optimizer__learning_rate=learning_rate,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        random_state=random_state,
        verbose=0,
        **{f"model__{name}": value for name, value in params.items()},
    )


def keras_network(activation, batch_normalization, kernel_initializer):
    """Build what our estimator builds from the same hyperparameters."""
    from tuner.backend import keras

    layers = [keras.Input(X.shape[1:])]
    for units in UNITS:
        layers.append(keras.layers.Dense(units, kernel_initializer=kernel_initializer))
        layers.append(keras.layers.Activation(activation))
        if batch_normalization is not None:
            layers.insert(-1 if batch_normalization == "before" else len(layers), keras.layers.BatchNormalization())
    return keras.Sequential([*layers, keras.layers.Dense(10, "softmax")])


def test_study_against_scikeras(ours, tracker, record):
    asked = [{"batch_normalization": choice} for choice in SPACE["batch_normalization"].choices]
    theirs = their_seconds_per_trial(scikeras, SPACE, asked, tracker)
    equal = check_accuracies(ours.accuracies, their_accuracies(scikeras, **COMMON))
    row = speedup(
        WORK,
        "SciKeras, Optuna, MLflow",
        "s per trial",
        ours.seconds_per_trial,
        theirs,
        50,
        equal=equal,
        remark=f"{ours.remark}; theirs is the mean of {len(asked)} trials, one of each batch normalisation",
    )
    record(row, at_least=20)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer. Maximum iterations:sklearn.exceptions.ConvergenceWarning")
def test_study_against_mlp(ours, tracker, record):
    space = {
        "activation": CategoricalDistribution(["relu", "tanh", "logistic"]),
        "learning_rate_init": SPACE["learning_rate"],
    }
    n_trials = scaled(8, least=2)
    theirs = their_seconds_per_trial(mlp, space, [{}] * n_trials, tracker)
    equal = check_accuracies(ours.accuracies, their_accuracies(mlp, activation="relu", learning_rate_init=1e-3))
    row = speedup(
        WORK,
        "MLPClassifier, Optuna, MLflow",
        "s per trial",
        ours.seconds_per_trial,
        theirs,
        5,
        equal=equal,
        remark=f"theirs is the mean of {n_trials} trials; it searches activation and learning rate only",
    )
    record(row, at_least=2)
