"""Which initialiser for which activation, and does the loss change that?

Glorot & Bengio 2010 chose the variance of the weights, 2 / (in + out), for units that are linear around 0. He et al.
2015 found that ReLU, which passes half of the signal, needs 2 / in, or the error shrinks by the root of 2 in every
layer. Here six hidden layers are measured before training, and trained at the better of two learning rates of
Adam. LSUV (Mishkin & Matas 2016) looks at the data: it makes the variance of every layer's output 1.
"""

import pandas as pd
from data import mnist_holdout, stand_in

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
few = {"activation": ["relu"], "kernel_initializer": ["random_uniform", "glorot_normal", "he_normal", "lsuv"]}
studies = tuple(
    Study(
        f"initialization, {name}",
        estimator=KerasClassifier(hidden_layers=6, units=50, epochs=10, **loss),
        space=space,
        **mnist_holdout(2000, 1000),
        n_trials=None,
        random_state=0,
        refit=False,
        quick={"space": space | few | {"learning_rate": [0.01]}, "estimator__epochs": 3},
    )
    for name, loss in LOSSES.items()
)


def answer(*searches):
    def of_both(table, *measures):
        parts = {name: table(search, *measures) for name, search in zip(LOSSES, searches, strict=True)}
        return pd.concat(parts, names=["loss"]).reset_index("loss")

    kinds = ["loss", "activation", "kernel_initializer"]
    errors = of_both(tables.layers, "error_rms").query("epoch == 0")
    errors = errors.pivot_table("error_rms", [*kinds, "random_state"], "layer", sort=False)
    best = tables.at_best(of_both(tables.scores, 0.0), "learning_rate", kinds)
    table = best.groupby(kinds, sort=False)["score"].mean().to_frame()
    table.insert(0, "error_per_layer", ((errors["hidden_2"] / errors["hidden_6"]) ** (1 / 4)).groupby(kinds).mean())
    means = table.groupby(kinds[1:], sort=False).mean()
    parts = []
    for activation, score in means["score"].groupby("activation", sort=False):
        score = score.droplevel("activation")
        he, glorot, lsuv = (score.filter(like=name).max() for name in ("he_", "glorot_", "lsuv"))
        best_of_all = f"{score.idxmax()} suits {activation} best, {score.max():.3f}"
        parts.append(f"{best_of_all} (He {he:.3f}, Glorot {glorot:.3f}, LSUV {lsuv:.3f})")
    agreement = table["score"].unstack("loss").corr("spearman").iloc[0, 1]
    relu = means.loc["relu"]
    kept, shrunk = relu["error_per_layer"][["he_normal", "glorot_normal"]]
    ahead = relu["score"].filter(like="he_").mean() - relu["score"].filter(like="glorot_").mean()
    text = (
        f"{'; '.join(parts)}; the scores with the two losses have a rank correlation of {agreement:.2f}. With ReLU the "
        f"error keeps {kept:.2f} of its size from layer to layer by He's variance and {shrunk:.2f} by Glorot's, in "
        "theory 1 and 0.71; He's scores "
        f"{'better, as the textbook has it' if ahead > MATTERS else 'no better, against the textbook'}.{stand_in()}"
    )
    claims = {
        "He's variance keeps the error of ReLU": abs(kept - 1) < 0.15,
        "Glorot's shrinks it by the square root of 2": abs(shrunk - 0.5**0.5) < 0.1,
        "weights drawn without regard to the width are worst for ReLU": relu["score"].idxmin() == "random_uniform",
    }
    labels = {"score": "test accuracy"}
    figure = plots.heat_map(best, "kernel_initializer", "activation", "score", "loss", labels=labels)
    return Answer(text, table.reset_index(), figure, claims)
