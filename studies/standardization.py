"""What do raw pixels do to the first layer?

The pixels of MNIST run from 0 to 255. LeCun, Bottou, Orr & Müller 1998 want inputs of mean 0 and deviation 1, lest the
weighted sums saturate the units before they have learnt anything. Here a hidden layer with Glorot's weights is measured
before training, and trained at its own best learning rate. Where the sums are normal, of variance 2 / (in + out) times
the squared length of an input, the share of them beyond the point of saturation is known beforehand.
"""

import numpy as np
from data import mnist, mnist_holdout, stand_in
from scipy.stats import norm
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tuner import Answer, GlobalScaler, KerasClassifier, Study
from tuner.health.measurements import SATURATION_MARGIN
from tuner.report import plots, tables

INPUTS = {
    "0 to 255": "passthrough",
    "0 to 1": FunctionTransformer(lambda X: X / 255),
    "standardised": StandardScaler(),  # every pixel by its own mean and deviation
    "one scale": GlobalScaler(),  # all by those of all
}
space = {
    "inputs": list(INPUTS.values()),
    "network__activation": ["tanh", "sigmoid"],
    "network__learning_rate": [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0],
    "network__random_state": [0, 1, 2],
}
few = {"network__learning_rate": [0.001, 0.1], "network__random_state": [0, 1]}
network = KerasClassifier(hidden_layers=1, units=30, kernel_initializer="glorot_uniform", optimizer="sgd", epochs=10)
study = Study(
    "standardization",
    estimator=Pipeline([("inputs", "passthrough"), ("network", network)]),
    space=space,
    **mnist_holdout(2000, 1000, mnist),
    n_trials=None,
    random_state=0,
    refit=False,
    quick={"space": space | few, "estimator__network__epochs": 4},
)


def answer(search):
    def named(table):
        return table.assign(inputs=table["inputs"].map({given: name for name, given in INPUTS.items()}))

    kinds = ["activation", "inputs"]
    first = tables.layers(search, "saturation", "saturated_units").query("depth == 1 and epoch == 0")
    first = named(first.merge(tables.networks(search, "input_rms"), on=["trial", "epoch"], suffixes=("", "_")))
    n = mnist(1, 1)[0].shape[1]
    sums = first["input_rms"] * np.sqrt(n * 2 / (n + 30))  # their standard deviation
    point = np.log(1 / SATURATION_MARGIN - 1) * first["activation"].map({"tanh": 0.5, "sigmoid": 1.0})
    first["expected"] = 2 * norm.sf(point / sums)
    scored = named(tables.scores(search, failed=0.0))
    best = tables.at_best(scored, "learning_rate", kinds).groupby(kinds, sort=False)
    table = first.groupby(kinds, sort=False)[["saturation", "expected", "saturated_units"]].mean()
    table = table.assign(learning_rate=best["learning_rate"].first(), score=best["score"].mean())
    share, score = (table[name].unstack(sort=False) for name in ("saturation", "score"))
    shares = " and ".join(
        f"{row['0 to 255']:.0%} of the activations of {kind} units ({row['0 to 1']:.0%} on pixels divided by 255, "
        f"{row['standardised']:.0%} on standardised ones)"
        for kind, row in share.iterrows()
    )
    scores = "; ".join(
        f"{kind} {', '.join(f'{row[name]:.3f} ({name})' for name in INPUTS)}" for kind, row in score.iterrows()
    )
    spread, first_of = best["score"].std().unstack(sort=False), score.idxmax(axis=1)
    noise = [spread.loc[kind, [name, "standardised"]].max() for kind, name in first_of.items()]
    behind = " and ".join(score.index[score.max(axis=1) - score["standardised"] > noise])
    verdict = f"fall behind with {behind} by more than seeds deviate, against the textbook" if behind else "do best"
    text = (
        f"They saturate {shares} before training. At their best learning rates the networks score: {scores}. "
        f"Standardised inputs {verdict}.{stand_in()}"
    )
    claims = {
        "raw pixels saturate nine tenths of the first layer": (share["0 to 255"] > 0.9).all(),
        "pixels divided by 255 saturate next to none": (share["0 to 1"] < 0.02).all(),
        "the share of saturation is that of normal sums": first.eval("abs(saturation - expected)").max() < 0.1,
        "raw pixels score worst": (score.idxmin(axis=1) == "0 to 255").all(),
    }
    labels = {"score": "test accuracy"}
    figure = plots.lines(scored, "learning_rate", "score", "inputs", "activation", log="x", labels=labels)
    return Answer(text, table.reset_index(), figure, claims)
