"""What does a network gain from a skewed target's logarithm, and does it then beat a linear model or boosted trees?

The target is the median price of a house in California's districts, from 15,000 to 500,001 USD, where it is cut off. A
squared error of dollars is that of the dear districts; one of logarithms weighs every district by its relative error.
Grinsztajn et al. ("Why do tree-based models still outperform deep learning on typical tabular data?", 2022) say trees.
"""

from functools import partial

import numpy as np
import pandas as pd
from data import housing
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tuner import Answer, KerasRegressor, Study
from tuner.report import plots, tables

MODELS, RELATIVE, DOLLARS = ["network", "ridge", "boosted trees"], "relative error", "RMSE in USD"
TARGETS = {
    "price": StandardScaler(),
    "its logarithm": make_pipeline(FunctionTransformer(np.log, np.exp, check_inverse=False), StandardScaler()),
}
SCORES = {RELATIVE: "neg_mean_absolute_percentage_error", DOLLARS: "neg_root_mean_squared_error"}
GAINS = {  # by which error falls: the relative one, that of dollars
    (True, True): "mends both",
    (True, False): "mends the first at the cost of the second",
    (False, True): "mends the second alone",
    (False, False): "mends neither, against the textbook",
}


def prepared(regressor):
    """Return a pipeline; every fold has all columns, so that all networks train as one program."""
    words = (
        FunctionTransformer(pd.get_dummies, kw_args={"dtype": "float32"}),
        make_column_selector(dtype_include="category"),
    )
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return make_pipeline(make_column_transformer(words, remainder=numbers), regressor)


def study(name, regressor, space, **quick):
    return Study(
        name,
        partial(housing, every=2),
        TransformedTargetRegressor(regressor),
        {"transformer": list(TARGETS.values())} | space,
        cv=KFold(5, shuffle=True, random_state=0),
        scoring=SCORES,
        n_trials=None,
        refit=False,
        quick={"data": partial(housing, every=10), "cv": KFold(3, shuffle=True, random_state=0), **quick},
    )


network, trees = KerasRegressor(batch_size=64, epochs=30), HistGradientBoostingRegressor(random_state=0)
inside = "regressor__kerasregressor__"
rates = {f"{inside}learning_rate": [0.001, 0.003, 0.01], f"{inside}random_state": [0, 1]}
studies = (
    study("housing", prepared(network), rates, **{f"estimator__{inside}epochs": 15}),
    study("housing-linear", prepared(Ridge()), {"regressor__ridge__alpha": [0.1, 1.0, 10.0]}),
    study("housing-trees", trees, {"regressor__learning_rate": [0.03, 0.1, 0.3]}),  # which take words and gaps as such
)


def answer(*searches):
    every = [tables.scores(search).rename(columns={"alpha": "learning_rate"}) for search in searches]
    scored = pd.concat(every, keys=MODELS, names=["model"]).reset_index(0)
    scored["target"] = scored["transformer"].map({given: name for name, given in TARGETS.items()})
    best = tables.at_best(scored, "learning_rate", ["model", "target"], RELATIVE)
    best[list(SCORES)] *= -1
    table = best.groupby(["model", "target"], sort=False)[list(SCORES)].mean()
    relative, dollars = (table[error].unstack() for error in SCORES)
    order = relative["its logarithm"].sort_values()
    folds = best.query("target == 'its logarithm'").pivot_table(RELATIVE, "fold", "model")
    ahead = folds["network"] - folds["boosted trees"]
    helps = {error: part["its logarithm"] < part["price"] for error, part in ((RELATIVE, relative), (DOLLARS, dollars))}
    text = (
        f"Trained on the logarithm, the network's relative error goes from {relative.loc['network', 'price']:.3f} to "
        f"{relative.loc['network', 'its logarithm']:.3f}, while its root mean squared error goes from "
        f"{dollars.loc['network', 'price']:,.0f} to {dollars.loc['network', 'its logarithm']:,.0f} USD: the logarithm "
        f"{GAINS[helps[RELATIVE]['network'], helps[DOLLARS]['network']]}. On the logarithm come "
        f"{', then '.join(f'{model} ({error:.3f})' for model, error in order.items())}; trees "
        f"{'win, as' if order.index[0] == 'boosted trees' else 'do not win, against what'} Grinsztajn et al. found, "
        f"the network {ahead.mean():+.3f} ± {ahead.sem():.3f} from them."
    )
    claims = {
        "the logarithm lowers the relative error of every model": helps[RELATIVE].all(),
        "the network's relative error is below ridge's": order["network"] < order["ridge"],
    }
    figure = plots.bars(best, "model", RELATIVE, "target", labels={"model": "", "target": "trained on"})
    return Answer(text, table.reset_index(), figure, claims)
