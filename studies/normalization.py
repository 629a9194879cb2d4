"""Does batch normalisation, before or after the activation, widen the range of learning rates that train?

Ioffe & Szegedy 2015 normalise before the activation, and train at rates where the plain network fails. Here plain
gradient descent trains three hidden layers on MNIST, at every half decade of learning rates. A rate trains if its mean
score over seeds is at least nine tenths of the best one of its activation; a network that overflows scores 0.
"""

import numpy as np
from data import mnist_holdout, stand_in

from tuner import Answer, KerasClassifier, Study
from tuner.report import plots, tables

ENOUGH = 0.9  # of the best score
space = {
    "activation": ["sigmoid", "relu"],
    "batch_normalization": [None, "before", "after"],
    "learning_rate": [float(f"{10**power:.2g}") for power in np.arange(-3, 2.1, 0.5)],
    "random_state": [0, 1, 2],
}
study = Study(
    "normalization",
    estimator=KerasClassifier(hidden_layers=3, units=30, optimizer="sgd", epochs=10),
    space=space,
    **mnist_holdout(2000, 1000),
    n_trials=None,
    random_state=0,
    refit=False,
    quick={"space": space | {"activation": ["sigmoid"], "random_state": [0, 1]}, "estimator__epochs": 4},
)


def answer(search):
    kinds = ["activation", "batch_normalization"]
    scored = tables.scores(search, failed=0.0)
    means = scored.groupby([*kinds, "learning_rate"], sort=False)["score"].mean().reset_index()
    trains = means[means["score"] >= ENOUGH * means.groupby("activation")["score"].transform("max")]
    rates = trains.groupby(kinds, sort=False)["learning_rate"]
    table = means.groupby(kinds, sort=False).agg(best_score=("score", "max"))
    table = table.assign(rates=rates.count(), lowest=rates.min(), highest=rates.max()).fillna({"rates": 0})
    width, n = table["rates"].astype(int).unstack(), means["learning_rate"].nunique()
    parts = [
        f"With {kind} units {row['None']} of {n} learning rates train without batch normalisation, {row['before']} "
        f"with it before the activation and {row['after']} after it."
        for kind, row in width.iterrows()
    ]
    gain = width[["before", "after"]].sub(width["None"], axis=0)
    wider = (gain > 0).all(axis=None)
    verdict = f"{'widens' if wider else 'against the textbook does not widen'} the range everywhere"
    better = "before" if gain["before"].sum() > gain["after"].sum() else "after"
    place = "Both places do equally" if gain["before"].sum() == gain["after"].sum() else f"It does more {better} it"
    text = f"{' '.join(parts)} Batch normalisation {verdict}. {place}.{stand_in()}"
    labels = {"batch_normalization": "batch normalisation", "score": "test accuracy"}
    return Answer(
        text,
        table.reset_index(),
        plots.lines(scored, "learning_rate", "score", "batch_normalization", "activation", log="x", labels=labels),
        claims={"with sigmoid units, normalising widens the range": (gain.loc["sigmoid"] > 0).all()},
    )
