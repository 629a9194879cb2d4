"""Which search finds the best hyperparameters at equal budget, and how optimistic is the best validation score?

Bergstra & Bengio ("Random search for hyper-parameter optimization", 2012): where few hyperparameters matter, a grid
wastes its trials on the others. The best of many validation scores is a maximum, so it promises more than new data will
give (Cawley & Talbot, "On over-fitting in model selection", 2010). Nested cross-validation shows how much: each search
runs within the training part of an outer fold, a fifth of which validates, and its winner meets the outer fold once.
"""

from functools import partial

from optuna.distributions import FloatDistribution
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from tuner import Answer, KerasClassifier, OptunaSearchCV, RandomThenFineSampler, Study
from tuner.report import plots, tables

SEARCHES = ("grid", "random", "random_then_fine", "tpe")
BUDGETS = (1, 2, 4, 8, 16, 32)
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
network = KerasClassifier(
    units=16, hidden_layers=1, optimizer="momentum", kernel_initializer="random_uniform", epochs=10
)
inner = {
    "n_trials": BUDGETS[-1],
    "cv": StratifiedShuffleSplit(1, test_size=0.2, random_state=0),
    "error_score": 0.0,
    "health": False,
}


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


few = {"data": partial(digits, 300), "space": partial(space, seeds=(0,)), "estimator__estimator__epochs": 5}
study = Study(
    "searching",
    partial(digits, 600),
    OptunaSearchCV(network, ranges, **inner),
    space,
    cv=StratifiedKFold(5, shuffle=True, random_state=0),
    scoring={"outer": "accuracy"} | {f"best_of_{n}": best_of(n) for n in BUDGETS},
    n_trials=None,
    refit=False,
    quick=few | {"cv": StratifiedKFold(3, shuffle=True, random_state=0)},
)


def answer(search):
    scored, budgets = tables.scores(search).sort_values("search"), [f"best_of_{n}" for n in BUDGETS]
    scored["optimism"] = scored[budgets[-1]] - scored["outer"]
    found = scored.groupby("search")
    table = found[[*budgets, "outer", "optimism"]].mean()
    table["optimism_error"] = found["optimism"].sem()
    outer, by_fold = table["outer"], scored.groupby("fold")["optimism"].mean()
    mean, error = by_fold.mean(), by_fold.sem()
    ahead = scored.pivot_table("outer", ["fold", "seed"], "search").eval("random - grid")
    text = (
        f"With {BUDGETS[-1]} trials each, {outer.idxmax()} finds the networks that do best on new data "
        f"({outer.max():.3f}), {outer.idxmin()} those that do worst ({outer.min():.3f}); random search lies "
        f"{ahead.mean():+.3f} ± {ahead.sem():.3f} from the grid, which it beats in Bergstra & Bengio's networks. The "
        f"best validation score exceeds the outer one by {mean:+.3f} ± {error:.3f}: "
        f"{'it is optimistic' if mean > 2 * error else 'no optimism shows, the winner is refitted on more rows'}."
    )
    claims = {
        "the best validation score promises more than new data give": mean > 0,
        "every search finds networks that beat guessing": outer.min() > 0.3,
        "the best of all trials looks better than the first": (table[budgets[-1]] > table[budgets[0]]).all(),
    }
    long = scored.melt(["search", "fold", "seed"], budgets, "trials", "best_validation_score_so_far")
    long["trials"] = long["trials"].str.rpartition("_")[2].astype(int)
    figure = plots.lines(long, "trials", "best_validation_score_so_far", "search", log="x")
    return Answer(text, table.reset_index(), figure, claims)
