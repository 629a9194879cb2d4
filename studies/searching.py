"""Which search finds the best hyperparameters at equal budget, and how optimistic is the best validation score?

Bergstra & Bengio ("Random search for hyper-parameter optimization", 2012): where few hyperparameters matter, a grid
wastes its trials on the others. The best of many validation scores is a maximum, so it promises more than new data will
give (Cawley & Talbot, "On over-fitting in model selection", 2010). Nested cross-validation shows how much: each search
runs within the training part of an outer fold, a fifth of which validates, and its winner meets the outer fold once.
"""

from functools import partial

import numpy as np
from optuna.distributions import FloatDistribution
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from tuner import Answer, KerasClassifier, OptunaSearchCV, RandomThenFineSampler, Study
from tuner.report import plots, tables

SEARCHES = ("grid", "random", "random_then_fine", "tpe")
BUDGETS = (1, 2, 4, 8, 16, 32)
WORDS = {"score": "best validation score so far"}
ranges = {
    "learning_rate": FloatDistribution(1e-4, 1.0, log=True),
    "momentum": FloatDistribution(0.1, 0.95),
    "initializer_scale": FloatDistribution(0.003, 1.0, log=True),
    "weight_decay": FloatDistribution(1e-6, 1e-1, log=True),
}
points = {
    "learning_rate": [1e-4, 2e-3, 5e-2, 1.0],
    "momentum": [0.3, 0.8],
    "initializer_scale": [0.02, 0.2],
    "weight_decay": [1e-5, 1e-2],
}
inner = OptunaSearchCV(
    KerasClassifier(units=16, hidden_layers=1, optimizer="momentum", kernel_initializer="random_uniform", epochs=10),
    ranges,
    n_trials=BUDGETS[-1],
    cv=StratifiedShuffleSplit(1, test_size=0.2),
    scoring="accuracy",
    error_score=0.0,
    health=False,
)


def digits(n):
    X, y = load_digits(return_X_y=True)
    return X[:n] / 16, y[:n]


def space(trial, seeds=(0, 1, 2)):
    kind, seed = trial.suggest_categorical("search", SEARCHES), trial.suggest_categorical("seed", seeds)
    sampler = RandomThenFineSampler(BUDGETS[-1] // 2, seed=seed) if kind == "random_then_fine" else kind
    return {"sampler": sampler, "random_state": seed, "param_distributions": points if kind == "grid" else ranges}


def best_of(n):
    """Return a scorer that tells how good the best of the first n trials looked within the outer fold."""
    return lambda search, X, y: search.cv_results_["mean_test_score"][:n].max()


study = Study(
    "searching",
    lambda: digits(600),
    inner,
    space,
    cv=StratifiedKFold(5, shuffle=True, random_state=0),
    scoring={"outer": "accuracy"} | {f"best_of_{n}": best_of(n) for n in BUDGETS},
    sampler="grid",
    n_trials=100,
    refit=False,
    quick={
        "data": lambda: digits(300),
        "cv": StratifiedKFold(3, shuffle=True, random_state=0),
        "space": partial(space, seeds=(0,)),
        "estimator__estimator__epochs": 5,
    },
)


def answer(search):
    scored = tables.scores(search)
    scored["optimism"] = scored[f"best_of_{BUDGETS[-1]}"] - scored["outer"]
    found = scored.groupby("search", sort=False)
    table = found[[f"best_of_{n}" for n in BUDGETS] + ["outer", "optimism"]].mean()
    table["optimism_error"] = found["optimism"].std() / np.sqrt(found.size())
    mean, error = scored["optimism"].mean(), scored["optimism"].std() / np.sqrt(len(scored))
    best, outer = table[f"best_of_{BUDGETS[-1]}"], table["outer"]
    beaten = outer["random"] > outer["grid"]
    text = (
        f"With {BUDGETS[-1]} trials each, {outer.idxmax()} finds the networks that do best on new data "
        f"({outer.max():.3f}), {outer.idxmin()} those that do worst ({outer.min():.3f}); random search "
        f"{'beats the grid, as' if beaten else 'does not beat the grid, against what'} Bergstra & Bengio found. The "
        f"best validation score exceeds the score on the outer fold by {mean:+.3f} ± {error:.3f}: "
        f"{'it is optimistic' if mean > 2 * error else 'no optimism shows, the winner is refitted on more rows'}."
    )
    long = scored.melt(["search", "fold", "seed"], [f"best_of_{n}" for n in BUDGETS], "trials", "score")
    long["trials"] = long["trials"].str.rpartition("_")[2].astype(int)
    return Answer(
        text,
        table.reset_index(),
        plots.lines(long, "trials", "score", "search", log="x", labels=WORDS),
        claims={
            "more trials never look worse": (table.iloc[:, : len(BUDGETS)].diff(axis=1).iloc[:, 1:] >= 0).all(
                axis=None
            ),
            "every search finds networks that beat guessing": outer.min() > 0.3,
            "the best of all trials looks better than the first": (best > table["best_of_1"]).all(),
        },
    )
