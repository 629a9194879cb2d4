"""Which optimizer and which learning-rate schedule train best, each at its own best learning rate?

A comparison at one rate says which rate was chosen. Here every optimizer, and every schedule of two of them, is tried
at rates over four orders of magnitude; it counts what its best rate reaches, and how far others may lie from it.
"""

from functools import partial

import numpy as np
from data import mnist_holdout, stand_in

from tuner import Answer, KerasClassifier, Study
from tuner.report import plots, tables

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")
SCHEDULED, SCHEDULES = ("momentum", "adam"), (None, "cosine", "exponential", "step")
CLOSE = 0.02  # of the best score: a rate that is as good as any


def space(trial, n_rates=9, seeds=(0, 1, 2)):
    optimizer = trial.suggest_categorical("optimizer", OPTIMIZERS)
    schedule = trial.suggest_categorical("schedule", SCHEDULES) if optimizer in SCHEDULED else None
    rates = [float(f"{rate:.1g}") for rate in np.logspace(-4, 0, n_rates)]
    rate, seed = trial.suggest_categorical("learning_rate", rates), trial.suggest_categorical("random_state", seeds)
    return {"optimizer": optimizer, "learning_rate_schedule": schedule, "learning_rate": rate, "random_state": seed}


study = Study(
    "descent",
    estimator=KerasClassifier(units=30, hidden_layers=1, epochs=10),
    space=space,
    **mnist_holdout(2000, 2000),
    n_trials=None,
    refit=False,
    quick=mnist_holdout(500, 1000) | {"space": partial(space, n_rates=5, seeds=(0, 1)), "estimator__epochs": 4},
)


def answer(search):
    kinds, rate = ["optimizer", "learning_rate_schedule"], "learning_rate"
    scored = tables.scores(search, failed=0.0).sort_values([*kinds, rate])
    means = scored.groupby([*kinds, rate])["score"].agg(["mean", "std"]).reset_index()
    close = means[means["mean"] > means.groupby(kinds)["mean"].transform("max") - CLOSE].groupby(kinds)[rate]
    table = means.loc[means.groupby(kinds)["mean"].idxmax()]
    table = table.merge(np.log10(close.max() / close.min()).rename("decades"), on=kinds)
    best = table[table["learning_rate_schedule"] == "None"].set_index("optimizer")
    sgd, adam, order = best.loc["sgd"], best.loc["adam"], best["mean"].sort_values()
    at_adams = means[means[rate] == adam[rate]].set_index(kinds).loc[("sgd", "None"), "mean"]
    reached = table.set_index(kinds)["mean"].unstack().loc[list(SCHEDULED)]
    gain = reached.drop(columns="None").sub(reached["None"], axis=0).stack()
    noise = best["std"].mean()
    text = (
        f"At their own best rates the six lie within {np.ptp(order):.3f} of each other (seeds: ±{noise:.3f}), "
        f"{order.index[-1]} first with {order.iloc[-1]:.3f}; at Adam's, {adam[rate]:g}, plain descent reaches "
        f"{at_adams:.3f}, at its own, {sgd[rate]:g}, {sgd['mean']:.3f}. Adam stays close to its best over "
        f"{adam['decades']:.1f} decades of rates, plain descent over {sgd['decades']:.1f}. The best schedule is "
        f"{gain.idxmax()[1]}: {gain.max():+.3f} for "
        f"{gain.idxmax()[0]}{', less than a seed changes' if gain.max() < noise else ''}.{stand_in()}"
    )
    claims = {
        "every optimizer learns at its own best rate": order.iloc[0] > 0.5,
        "plain descent needs a higher rate than Adam": sgd[rate] > adam[rate],
        "at Adam's best rate plain descent is worse than at its own": at_adams < sgd["mean"],
    }
    labels = {"score": "test accuracy", "learning_rate_schedule": "schedule", "optimizer": ""}
    figure = plots.lines(scored, rate, "score", "learning_rate_schedule", "optimizer", log="x", labels=labels)
    return Answer(text, table, figure, claims)
