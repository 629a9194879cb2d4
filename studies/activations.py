"""Which activation trains at which depth?

Among them are the scaled sigmoid 4σ(x) - 2 and the penalised tanh, with which Xu, Huang & Li 2016 want to show that
saturation is not what keeps sigmoid networks from training, but their slope and mean at 0. Every activation has the
initialiser that the toolkit pairs it with, and the better of two learning rates of Adam.
"""

from data import mnist_holdout, stand_in

from tuner import Answer, KerasClassifier, Study
from tuner.report import plots, tables

ACTIVATIONS = ["sigmoid", "scaled_sigmoid", "tanh", "penalized_tanh", "softsign", "relu", "leaky_relu", "elu", "selu"]
LAYERS = ["prelu", "maxout"]  # with weights or pieces of their own, so programs of their own
ENOUGH = 0.9  # of the best score of all: such a network trains
space = {
    "activation": [*ACTIVATIONS, *LAYERS],
    "hidden_layers": [1, 4, 8, 16],
    "learning_rate": [0.001, 0.01],
    "random_state": [0, 1, 2],
}
few = {"activation": ["sigmoid", "scaled_sigmoid"], "hidden_layers": [1, 6], "learning_rate": [0.01]}
study = Study(
    "activations",
    estimator=KerasClassifier(units=30, epochs=10),
    space=space,
    **mnist_holdout(2000, 1000),
    n_trials=None,
    random_state=0,
    refit=False,
    quick={"space": space | few | {"random_state": [0, 1]}, "estimator__epochs": 4},
)


def answer(search):
    kinds = ["activation", "hidden_layers"]
    best = tables.at_best(tables.scores(search, failed=0.0), "learning_rate", kinds)
    score = best.groupby(kinds, sort=False)["score"].mean().unstack()
    last = max(score.columns)
    trains = score >= ENOUGH * score.max(axis=None)
    deepest = trains.mul(trains.columns).max(axis=1)  # 0 where no depth trains
    able = ", ".join(deepest.index[deepest == last])
    unable = ", ".join(f"{name} to {depth}" for name, depth in deepest.items() if depth < last)
    mended = score.loc["scaled_sigmoid", last] - score.loc["sigmoid", last]
    explains = "may explain" if deepest["scaled_sigmoid"] <= deepest["sigmoid"] else "does not explain"
    text = (
        f"{last} hidden layers train with {able or 'no activation'}, best with {score[last].idxmax()} "
        f"({score[last].max():.3f}); the rest less deep: {unable or 'none'}. Scaling the sigmoid to slope 1 and mean 0 "
        f"is worth {mended:+.3f} there: saturation alone {explains} its failure.{stand_in()}"
    )
    claims = {
        "the sigmoid is the first to fail with depth": deepest["sigmoid"] == deepest.min() < last,
        "the scaled sigmoid outdoes the sigmoid where it is deep": mended > 0.1,
    }
    figure = plots.heat_map(best, "hidden_layers", "activation", "score", labels={"score": "test accuracy"})
    return Answer(text, score.add_prefix("layers ").assign(deepest=deepest).reset_index(), figure, claims)
