"""Does a network read a real table better than a linear model or boosted trees do?

The table is the census of 1994: numbers beside words, some of them missing, and one row in four of the class that
counts. Grinsztajn et al. ("Why do tree-based models still outperform deep learning on typical tabular data?", 2022) say
no. Class weights ask a second thing: what do they change, the order of the rows (AUC) or only where the line is drawn?
"""

from functools import partial

import pandas as pd
from data import adult
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tuner import Answer, KerasClassifier, Study
from tuner.report import plots, tables

MODELS = ["network", "logistic regression", "boosted trees"]


def prepared(classifier):
    """Return a pipeline; a missing word is a category of its own, and every fold has all columns: one program."""
    words = FunctionTransformer(pd.get_dummies, kw_args={"dummy_na": True, "dtype": "float32"})
    numbers = (StandardScaler(), make_column_selector(dtype_include="number"))
    return make_pipeline(make_column_transformer(numbers, remainder=words), classifier)


def study(name, classifier, space, **quick):
    return Study(
        name,
        partial(adult, every=4),
        classifier,
        space,
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
        scoring={"auc": "roc_auc", "balanced_accuracy": "balanced_accuracy"},
        n_trials=None,
        refit=False,
        quick={"data": partial(adult, every=16), "cv": StratifiedKFold(3, shuffle=True, random_state=0), **quick},
    )


def spaces(prefix, **values):
    return {f"{prefix}{name}": given for name, given in ({"class_weight": [None, "balanced"]} | values).items()}


rates = spaces("kerasclassifier__", learning_rate=[0.0003, 0.001, 0.003], random_state=[0, 1])
network = prepared(KerasClassifier(units=32, batch_size=128, epochs=10))
linear = prepared(LogisticRegression(max_iter=1000))
trees = HistGradientBoostingClassifier(random_state=0)  # takes categories and missing values as they are
studies = (
    study("adult", network, rates, estimator__kerasclassifier__epochs=5),
    study("adult-linear", linear, spaces("logisticregression__", C=[0.1, 1.0, 10.0])),
    study("adult-trees", trees, spaces("", learning_rate=[0.03, 0.1, 0.3])),
)


def answer(*searches):
    every = [tables.scores(search).rename(columns={"C": "learning_rate"}) for search in searches]
    scored = pd.concat(every, keys=MODELS, names=["model"]).reset_index(0)
    chosen = tables.at_best(scored, "learning_rate", ["model", "class_weight"], "auc")
    table = chosen.groupby(["model", "class_weight"], sort=False).agg(
        auc=("auc", "mean"), auc_std=("auc", "std"), balanced_accuracy=("balanced_accuracy", "mean")
    )
    plain = chosen[chosen["class_weight"] == "None"].pivot_table("auc", "fold", "model")
    mean, ahead = plain.mean(), plain["network"] - plain["boosted trees"]
    auc, drawn = (table[name].unstack() for name in ("auc", "balanced_accuracy"))
    moved = (auc["balanced"] - auc["None"]).abs()
    text = (
        f"In the same {len(plain)} folds the AUC is {', '.join(f'{mean[name]:.3f} ({name})' for name in MODELS)}: "
        f"{mean.idxmax()} first, {'as' if mean.idxmax() == 'boosted trees' else 'against what'} Grinsztajn et al. "
        f"found, the network {ahead.mean():+.3f} ± {ahead.sem():.3f} from the trees. Balanced class weights move its "
        f"AUC by {moved['network']:.3f} and its balanced accuracy from {drawn.loc['network', 'None']:.3f} to "
        f"{drawn.loc['network', 'balanced']:.3f}: they move the line, "
        f"{'hardly' if moved['network'] < 0.01 else 'and also'} the order of the rows."
    )
    claims = {
        "the network's AUC is near logistic regression's, or above": mean["network"]
        > mean["logistic regression"] - 0.03,
        "class weights move no model's AUC by more than 0.02": moved.max() < 0.02,
        "class weights raise every model's balanced accuracy": (drawn["balanced"] > drawn["None"]).all(),
    }
    long = chosen.rename(columns={"auc": "AUC", "balanced_accuracy": "balanced accuracy"})
    long = long.melt(["model", "class_weight"], ["AUC", "balanced accuracy"], "measure", "value")
    long["what is missing to 1"] = 1 - long["value"]
    figure = plots.bars(long, "model", "what is missing to 1", "class_weight", "measure", labels={"model": ""})
    return Answer(text, table.reset_index(), figure, claims)
