"""Down to which depth do plain networks train, and residual blocks, with and without batch normalisation?

He et al. ("Deep residual learning for image recognition", 2016) add the input of a block to it before the activation:
the gradient then has a way around every layer. Their blocks are normalised, too; here each cure is also tried alone.
"""

from functools import partial

import numpy as np
from data import mnist_split, stand_in, unit_mnist

from tuner import Answer, KerasClassifier, Study
from tuner.report import plots, tables

KINDS = {
    (False, "None"): "plain",
    (False, "before"): "normalised",
    (True, "None"): "residual",
    (True, "before"): "both",
}
WORDS = {"hidden_layers": "hidden layers", "score": "test accuracy"}
HALF = 2**-0.5  # half of the units pass the error on, through weights of variance 1/n


def grid(depths, seeds):
    return {
        "hidden_layers": depths,
        "residual": [False, True],
        "batch_normalization": [None, "before"],
        "random_state": seeds,
    }


full, quick = grid([2, 10, 20, 50], [0, 1, 2]), grid([2, 6], [0])
study = Study(
    "residual",
    partial(unit_mnist, 2000, 2000),
    KerasClassifier(units=16, kernel_initializer="glorot_normal", learning_rate=0.003, batch_size=50, epochs=10),
    full,
    cv=mnist_split(2000, 2000),
    scoring="accuracy",
    sampler="grid",
    n_trials=100,
    refit=False,
    quick={
        "data": partial(unit_mnist, 500, 500),
        "cv": mnist_split(500, 500),
        "space": quick,
        "estimator__epochs": 4,
    },
)


def answer(search):
    scored = tables.scores(search)
    errors = tables.layers(search, "error_rms").query("epoch == 0 and from_top > 0")
    hidden = errors[errors["layer"].str.fullmatch(r"hidden_\d+")].groupby("trial")["error_rms"]
    scored = scored.join((hidden.first() / hidden.last()).rename("ratio"), on="trial")
    scored["network"] = [KINDS[kind] for kind in zip(scored["residual"], scored["batch_normalization"], strict=True)]
    by = ["network", "hidden_layers"]
    table = scored.groupby(by, sort=False).agg(
        score=("score", "mean"),
        score_std=("score", "std"),
        gradient_ratio=("ratio", lambda r: np.exp(np.log(r).mean())),
    )
    score, ratio = table["score"].unstack("network"), table["gradient_ratio"].unstack("network")
    least, most = score.index.min(), score.index.max()
    trains = (score > score.loc[least].max() / 2).apply(lambda column: max(column.index[column], default=0))
    shrinks = ratio.loc[most] ** (1 / (most - 1))
    text = (
        f"The plain network trains down to {trains['plain']} of {most} hidden layers, with batch normalisation to "
        f"{trains['normalised']}, with residual blocks to {trains['residual']}, with both to {trains['both']} (more "
        f"than half of the best accuracy at {least}). Each layer of the plain one multiplies the gradient by "
        f"{shrinks['plain']:.2f} before training (expected of rectifiers and Glorot's variance: {HALF:.2f}), each "
        f"residual block by {shrinks['residual']:.2f}. At {most} layers {score.loc[most].idxmax()} does best: "
        f"{score.loc[most].max():.2f} against {score.loc[most, 'plain']:.2f}"
        f"{'' if score.loc[most].idxmax() in ('residual', 'both') else ', not what He et al. found'}.{stand_in()}"
    )
    return Answer(
        text,
        table.reset_index(),
        plots.lines(scored, "hidden_layers", "score", "network", labels=WORDS),
        claims={
            "the plain network's gradient shrinks from layer to layer": shrinks["plain"] < 0.9,
            "residual blocks let more of the gradient through": shrinks["residual"] > shrinks["plain"],
            "the shallowest networks of all kinds learn": score.loc[least].min() > 0.3,
        },
    )
