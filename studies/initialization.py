"""Which initialiser for which activation, and does the loss change that?

Glorot & Bengio 2010 chose the variance of the weights, 2 / (in + out), for units that are linear around 0. He et al.
2015 found that ReLU, which passes half of the signal, needs 2 / in, or the error shrinks by the root of 2 in every
layer. Here six hidden layers are measured before training, and trained at the better of two learning rates of
Adam. LSUV (Mishkin & Matas 2016) looks at the data: it makes the variance of every layer's output 1.
"""

from functools import partial

import pandas as pd
from data import mnist_split, stand_in, unit_mnist

from tuner import Answer, KerasClassifier, Study
from tuner.report import plots, tables

LOSSES = {
    "softmax, cross-entropy": {"output_activation": "softmax", "loss": "categorical_crossentropy"},
    "sigmoid, squared error": {"output_activation": "sigmoid", "loss": "mean_squared_error"},
}
INITIALIZERS = ["random_uniform", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "orthogonal", "lsuv"]
MATTERS = 0.01  # of a difference in scores
space = {
    "activation": ["relu", "tanh", "sigmoid"],
    "kernel_initializer": INITIALIZERS,
    "learning_rate": [0.001, 0.01],
    "random_state": [0, 1, 2],
}
few = {
    "activation": ["relu"],
    "kernel_initializer": ["random_uniform", "glorot_normal", "he_normal"],
    "learning_rate": [0.01],
}
studies = tuple(
    Study(
        name=f"initialization, {name}",
        data=partial(unit_mnist, 2000, 1000),
        estimator=KerasClassifier(hidden_layers=6, units=50, epochs=10, **loss),
        space=space,
        cv=mnist_split(2000, 1000),
        n_trials=None,
        random_state=0,
        refit=False,
        quick={"space": space | few, "estimator__epochs": 3},
    )
    for name, loss in LOSSES.items()
)


def answer(*searches):
    def gathered(table, *measures):
        parts = [table(search, *measures).assign(loss=name) for name, search in zip(LOSSES, searches, strict=True)]
        return pd.concat(parts)

    kinds = ["loss", "activation", "kernel_initializer"]
    errors = gathered(tables.layers, "error_rms").query("epoch == 0")
    errors = errors.pivot_table("error_rms", [*kinds, "random_state"], "layer", sort=False)
    shrinks = (errors["hidden_2"] / errors["hidden_6"]) ** (1 / 4)  # from one layer to the next
    best = tables.at_best(gathered(tables.scores, 0.0), "learning_rate", kinds)
    table = best.groupby(kinds, sort=False)["score"].mean().to_frame()
    table.insert(0, "error_per_layer", shrinks.groupby(kinds).mean())
    score, per_layer = (table[name].groupby(kinds[1:], sort=False).mean() for name in ("score", "error_per_layer"))
    parts = []
    for activation, means in score.groupby("activation", sort=False):
        means = means.droplevel("activation")
        he, glorot = (means.filter(like=name).max() for name in ("he_", "glorot_"))
        first = f"{activation} units score best with {means.idxmax()}, {means.max():.3f}"
        parts.append(f"{first} (He {he:.3f}, Glorot {glorot:.3f})")
    kept, shrunk = per_layer["relu", "he_normal"], per_layer["relu", "glorot_normal"]
    ahead = score["relu"].filter(like="he_").mean() - score["relu"].filter(like="glorot_").mean()
    return Answer(
        text=f"{'; '.join(parts)}. With ReLU the error keeps {kept:.2f} of its size from layer to layer by He's "
        f"variance and {shrunk:.2f} by Glorot's, in theory 1 and 0.71; He's scores "
        f"{'better, as the textbook has it' if ahead > MATTERS else 'no better, against the textbook'}.{stand_in()}",
        table=table.reset_index(),
        figure=plots.heat_map(
            best, "kernel_initializer", "activation", "score", "loss", labels={"score": "test accuracy"}
        ),
        claims={
            "He's variance keeps the error of ReLU": abs(kept - 1) < 0.15,
            "Glorot's shrinks it by the square root of 2": abs(shrunk - 0.5**0.5) < 0.1,
            "weights drawn without regard to the width are worst for ReLU": score["relu"].idxmin() == "random_uniform",
        },
    )
