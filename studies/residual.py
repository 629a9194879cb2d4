"""Down to which depth do plain networks train, and residual blocks, with and without batch normalisation?

He et al. ("Deep residual learning for image recognition", 2016) add the input of a block to it before the activation:
the gradient then has a way around every layer. Their blocks are normalised, too; here each cure is also tried alone.
"""

import numpy as np
from data import mnist_holdout, stand_in

from tuner import Answer, KerasClassifier, Study
from tuner.report import plots, tables

KINDS = {
    (False, "None"): "plain",
    (False, "before"): "normalised",
    (True, "None"): "residual",
    (True, "before"): "residual, normalised",
}
HALF = 2**-0.5  # half of the units pass the error on, through weights of variance 1/n
space = {
    "hidden_layers": [2, 10, 20, 50],
    "residual": [False, True],
    "batch_normalization": [None, "before"],
    "random_state": [0, 1, 2],
}
few = {"space": space | {"hidden_layers": [2, 6], "random_state": [0, 1]}, "estimator__epochs": 4}
study = Study(
    "residual",
    estimator=KerasClassifier(
        units=16, kernel_initializer="glorot_normal", learning_rate=0.003, batch_size=50, epochs=10
    ),
    space=space,
    **mnist_holdout(2000, 2000),
    n_trials=None,
    refit=False,
    quick=mnist_holdout(500, 500) | few,
)


def answer(search):
    errors = tables.layers(search, "error_rms").query("epoch == 0 and from_top > 0")
    hidden = errors[errors["layer"].str.fullmatch(r"hidden_\d+")].groupby("trial")["error_rms"]
    scored = tables.scores(search, failed=0.0).join((hidden.first() / hidden.last()).rename("ratio"), on="trial")
    scored["network"] = [KINDS[kind] for kind in zip(scored["residual"], scored["batch_normalization"], strict=True)]
    scored["ratio"] = np.log10(scored["ratio"])
    table = scored.groupby(["network", "hidden_layers"], sort=False).agg(
        score=("score", "mean"), score_std=("score", "std"), log10_gradient_ratio=("ratio", "mean")
    )
    score, ratio = table["score"].unstack("network"), 10 ** table["log10_gradient_ratio"].unstack("network")
    least, most = score.index.min(), score.index.max()
    trains = (score > score.loc[least].max() / 2).apply(lambda column: max(column.index[column], default=0))
    shrinks, best = ratio.loc[most] ** (1 / (most - 1)), score.loc[most].idxmax()
    text = (
        f"The plain network trains down to {trains['plain']} of {most} hidden layers, with batch normalisation to "
        f"{trains['normalised']}, with residual blocks to {trains['residual']}, with both to "
        f"{trains['residual, normalised']} (more than half of the best accuracy at {least}). Each layer of the plain "
        f"one multiplies the gradient by {shrinks['plain']:.2f} before training (expected of rectifiers and Glorot's "
        f"variance: {HALF:.2f}), each residual block by {shrinks['residual']:.2f}. At {most} layers the best networks "
        f"are {best}, {score.loc[most, best]:.2f} against {score.loc[most, 'plain']:.2f}"
        f"{'' if best.startswith('residual') else ', not what He et al. found'}.{stand_in()}"
    )
    claims = {
        "the plain network's gradient shrinks from layer to layer": shrinks["plain"] < 0.9,
        "residual blocks let more of the gradient through": shrinks["residual"] > shrinks["plain"],
        "the shallowest networks of all kinds learn": score.loc[least].min() > 0.3,
    }
    figure = plots.lines(scored, "hidden_layers", "score", "network", labels={"score": "test accuracy"})
    return Answer(text, table.reset_index(), figure, claims)
