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
WORDS = {"value": RELATIVE, "model": "", "target": "trained on"}


def rows(every):
    X, y = housing()
    return X.iloc[::every], y[::every]


def prepared(regressor):
    """Return a pipeline; every fold has all columns, so that all networks train as one program."""
    words = (
        FunctionTransformer(pd.get_dummies, kw_args={"dtype": "float32"}),
        make_column_selector(dtype_include="category"),
    )
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return make_pipeline(make_column_transformer(words, remainder=numbers), regressor)


def study(name, regressor, space, **quick):
    def searched(trial):
        target = TARGETS[trial.suggest_categorical("target", list(TARGETS))]
        chosen = {key: trial.suggest_categorical(key.rpartition("__")[2], values) for key, values in space.items()}
        return {"transformer": target, **chosen}

    return Study(
        name,
        partial(rows, every=2),
        TransformedTargetRegressor(regressor),
        searched,
        cv=KFold(5, shuffle=True, random_state=0),
        scoring=SCORES,
        sampler="grid",
        n_trials=100,
        refit=False,
        quick={"data": partial(rows, every=10), "cv": KFold(3, shuffle=True, random_state=0), **quick},
    )


studies = (
    study(
        "housing",
        prepared(KerasRegressor(batch_size=64, epochs=30)),
        {
            "regressor__kerasregressor__learning_rate": [0.001, 0.003, 0.01],
            "regressor__kerasregressor__random_state": [0, 1],
        },
        estimator__regressor__kerasregressor__epochs=15,
    ),
    study("housing-linear", prepared(Ridge()), {"regressor__ridge__alpha": [0.1, 1.0, 10.0]}),
    study(
        "housing-trees",
        HistGradientBoostingRegressor(random_state=0),  # takes categories and missing values as they are
        {"regressor__learning_rate": [0.03, 0.1, 0.3]},
    ),
)


def answer(*searches):
    scored = pd.concat([tables.scores(search) for search in searches], keys=MODELS, names=["model"]).reset_index(0)
    scored["setting"] = scored["learning_rate"].fillna(scored["alpha"])
    long = scored.melt(["model", "target", "setting", "fold"], list(SCORES), "error", "score")
    long["value"] = -long["score"]
    key = ["error", "model", "target", "setting"]
    best = long.groupby(key, sort=False)["value"].mean().groupby(key[:3], sort=False).idxmin()
    chosen = long.set_index(key).loc[list(best)].reset_index()
    table = chosen.pivot_table("value", ["model", "target"], "error", sort=False)
    relative, dollars = table[RELATIVE].unstack(), table[DOLLARS].unstack()
    order = relative.min(axis=1).sort_values()
    helps = {error: part["its logarithm"] < part["price"] for error, part in ((RELATIVE, relative), (DOLLARS, dollars))}
    text = (
        f"Trained on the logarithm, the network's relative error goes from {relative.loc['network', 'price']:.3f} to "
        f"{relative.loc['network', 'its logarithm']:.3f}, while its root mean squared error goes from "
        f"{dollars.loc['network', 'price']:,.0f} to {dollars.loc['network', 'its logarithm']:,.0f} USD: the logarithm "
        f"{GAINS[helps[RELATIVE]['network'], helps[DOLLARS]['network']]}. By relative error, each at its best, come "
        f"{', then '.join(f'{model} ({error:.3f})' for model, error in order.items())}; "
        + (
            "the trees still win, as Grinsztajn et al. found."
            if order.index[0] == "boosted trees"
            else "trees do not win here, against Grinsztajn et al."
        )
    )
    return Answer(
        text,
        table.reset_index(),
        plots.bars(chosen.query("error == @RELATIVE"), "model", "value", "target", labels=WORDS),
        claims={
            "the logarithm lowers the relative error of every model": helps[RELATIVE].all(),
            "the network's relative error is below ridge's": order["network"] < order["ridge"],
        },
    )
