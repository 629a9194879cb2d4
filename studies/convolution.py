"""What does a convolutional network see in images that a dense one does not?

LeCun et al. ("Gradient-based learning applied to document recognition", 1998) build in that neighbouring pixels belong
together, and that a stroke is one wherever it stands. So it should gain little once the pixels of all images have been
shuffled in the same way, which a dense network cannot even notice.
"""

from functools import partial

import numpy as np
from data import mnist_split, stand_in, unit_mnist
from keras import Input, Sequential, layers
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tuner import Answer, KerasClassifier, Study
from tuner.report import plots, tables

NEIGHBOURS = "What it sees beyond the dense one is which pixels stand side by side."


def dense(input_shape, n_outputs, output_activation, units=64):
    hidden = layers.Dense(units, "relu", kernel_initializer="he_normal")
    return Sequential([Input(input_shape), hidden, layers.Dense(n_outputs, output_activation)])


def convolutional(input_shape, n_outputs, output_activation, filters=8):
    side = int(input_shape[0] ** 0.5)
    return Sequential(
        [
            Input(input_shape),
            layers.Reshape((side, side, 1)),
            layers.Conv2D(filters, 5, 2, "same", activation="relu", kernel_initializer="he_normal"),
            layers.Conv2D(2 * filters, 3, 2, "same", activation="relu", kernel_initializer="he_normal"),
            layers.Flatten(),
            layers.Dense(n_outputs, output_activation),
        ]
    )


def shuffled(X):
    """Return the images with their pixels in another order, the same for all."""
    return X[:, np.random.default_rng(0).permutation(X.shape[1])]


space = {
    "kerasclassifier__model": [dense, convolutional],
    "functiontransformer__func": [None, shuffled],
    "kerasclassifier__random_state": [0, 1, 2],
}
study = Study(
    "convolution",
    partial(unit_mnist, 5000, 5000),
    make_pipeline(FunctionTransformer(), KerasClassifier(learning_rate=0.003, epochs=8)),
    space,
    cv=mnist_split(5000, 5000),
    scoring="accuracy",
    sampler="grid",
    n_trials=100,
    refit=False,
    quick={
        "data": partial(unit_mnist, 1000, 500),
        "cv": mnist_split(1000, 500),
        "space": space | {"kerasclassifier__random_state": [0, 1]},
        "estimator__kerasclassifier__epochs": 4,
    },
)


def answer(search):
    scored = tables.scores(search)
    scored["network"] = [model.__name__ for model in scored["model"]]
    scored["pixels"] = ["in place" if func == "None" else "shuffled" for func in scored["func"]]
    scored["error"] = 1 - scored["score"]
    table = scored.groupby(["network", "pixels"], sort=False)["error"].agg(["mean", "std"])
    error = table["mean"].unstack()
    lead = error.loc["dense"] - error.loc["convolutional"]
    cost = error["shuffled"] - error["in place"]
    text = (
        f"On images as they are the convolutional network errs on {error.loc['convolutional', 'in place']:.1%}, the "
        f"dense one on {error.loc['dense', 'in place']:.1%}. Shuffled pixels change this by "
        f"{cost['convolutional']:+.1%} and {cost['dense']:+.1%}: of a lead of {lead['in place']:+.1%} there remains "
        f"{lead['shuffled']:+.1%}. "
        + (
            NEIGHBOURS
            if lead["shuffled"] < lead["in place"] / 2 and lead["in place"] > 0
            else "The textbook has it otherwise."
        )
        + stand_in()
    )
    return Answer(
        text,
        table.reset_index(),
        plots.bars(scored, "pixels", "error", "network", labels={"error": "test error"}),
        claims={
            "the dense network hardly notices the shuffling": abs(cost["dense"]) < 0.05,
            "shuffling costs the convolutional network more than the dense one": cost["convolutional"] > cost["dense"],
        },
    )
