"""Which optimizer and which learning-rate schedule train best, each at its own best learning rate?

A comparison at one rate says which rate was chosen. Here every optimizer, and every schedule of two of them, is tried
at rates over four orders of magnitude; it counts what its best rate reaches, and how far others may lie from it.
"""

from functools import partial

import numpy as np
from data import mnist_split, stand_in, unit_mnist

from tuner import Answer, KerasClassifier, Study
from tuner.report import plots, tables

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")
SCHEDULED, SCHEDULES = ("momentum", "adam"), (None, "cosine", "exponential", "step")
WORDS = {
    "learning_rate": "learning rate",
    "score": "test accuracy",
    "learning_rate_schedule": "schedule",
    "optimizer": "",
}
CLOSE = 0.02  # of the best score: a rate that is as good as any


def space(trial, n_rates=9, seeds=(0, 1, 2)):
    optimizer = trial.suggest_categorical("optimizer", OPTIMIZERS)
    schedule = trial.suggest_categorical("schedule", SCHEDULES) if optimizer in SCHEDULED else None
    rates = [float(f"{rate:.1g}") for rate in np.logspace(-4, 0, n_rates)]
    return {
        "optimizer": optimizer,
        "learning_rate_schedule": schedule,
        "learning_rate": trial.suggest_categorical("learning_rate", rates),
        "random_state": trial.suggest_categorical("random_state", seeds),
    }


study = Study(
    "descent",
    partial(unit_mnist, 2000, 2000),
    KerasClassifier(units=30, hidden_layers=1, epochs=10),
    space,
    cv=mnist_split(2000, 2000),
    scoring="accuracy",
    sampler="grid",
    n_trials=1000,
    refit=False,
    quick={
        "data": partial(unit_mnist, 500, 1000),
        "cv": mnist_split(500, 1000),
        "space": partial(space, n_rates=5, seeds=(0, 1)),
        "estimator__epochs": 4,
    },
)


def at_best_rate(scored):
    """Return, a row for each group, its best rate, what that reaches, and over how many decades others come close."""
    by = ["optimizer", "learning_rate_schedule"]
    rates = scored.groupby([*by, "learning_rate"], sort=False)["score"].agg(["mean", "std"]).reset_index()
    best = rates.loc[rates.groupby(by, sort=False)["mean"].idxmax()]
    close = rates[rates["mean"] > rates.groupby(by)["mean"].transform("max") - CLOSE].groupby(by)["learning_rate"]
    return best.merge(np.log10(close.max() / close.min()).rename("decades"), on=by)


def answer(search):
    scored = tables.scores(search).sort_values(["optimizer", "learning_rate_schedule", "learning_rate"])
    tried, table = scored[scored["learning_rate_schedule"] == "None"], at_best_rate(scored)
    best = table[table["learning_rate_schedule"] == "None"].set_index("optimizer")
    adams = best.loc["adam", "learning_rate"]
    there = tried[tried["learning_rate"] == adams].groupby("optimizer")["score"].mean()
    reached = table.set_index(["optimizer", "learning_rate_schedule"])["mean"].unstack().loc[list(SCHEDULED)]
    gain = reached.drop(columns="None").sub(reached["None"], axis=0)
    noise = best["std"].mean()
    text = (
        f"At their own best rates the six lie within {np.ptp(best['mean']):.3f} of each other, {best['mean'].idxmax()} "
        f"first with {best['mean'].max():.3f} (seeds: ±{noise:.3f}). At Adam's best rate, {adams:g}, plain descent "
        f"reaches {there['sgd']:.3f}, at its own, {best.loc['sgd', 'learning_rate']:g}, {best.loc['sgd', 'mean']:.3f}. "
        f"Adam stays close to its best over {best.loc['adam', 'decades']:.1f} decades of rates, plain descent over "
        f"{best.loc['sgd', 'decades']:.1f}. The best schedule is {gain.max().idxmax()}: {gain.max().max():+.3f} for "
        f"{gain.max(axis=1).idxmax()}{', less than a seed changes' if gain.max().max() < noise else ''}.{stand_in()}"
    )
    return Answer(
        text,
        table,
        plots.lines(scored, "learning_rate", "score", "learning_rate_schedule", "optimizer", log="x", labels=WORDS),
        claims={
            "every optimizer learns at its own best rate": best["mean"].min() > 0.5,
            "plain descent needs a higher rate than Adam": best.loc["sgd", "learning_rate"] > adams,
            "at Adam's best rate plain descent is worse than at its own": there["sgd"] < best.loc["sgd", "mean"],
        },
    )
