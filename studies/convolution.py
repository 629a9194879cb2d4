"""What does a convolutional network see in images that a dense one does not?

LeCun et al. ("Gradient-based learning applied to document recognition", 1998) build in that neighbouring pixels belong
together, and that a stroke is one wherever it stands. So it should gain little once the pixels of all images have been
shuffled in the same way, which a dense network cannot even notice.
"""

import numpy as np
from data import mnist_holdout, stand_in
from keras import Input, Sequential, layers
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tuner import Answer, KerasClassifier, Study
from tuner.report import plots, tables


def dense(input_shape, n_outputs, output_activation):
    hidden = layers.Dense(64, "relu", kernel_initializer="he_normal")
    return Sequential([Input(input_shape), hidden, layers.Dense(n_outputs, output_activation)])


def convolutional(input_shape, n_outputs, output_activation):
    side, start = int(input_shape[0] ** 0.5), {"activation": "relu", "kernel_initializer": "he_normal"}
    first, second = layers.Conv2D(8, 5, 2, "same", **start), layers.Conv2D(16, 3, 2, "same", **start)
    output = [layers.Flatten(), layers.Dense(n_outputs, output_activation)]
    return Sequential([Input(input_shape), layers.Reshape((side, side, 1)), first, second, *output])


def shuffled(X):
    """Return the images with their pixels in another order, the same for all."""
    return X[:, np.random.default_rng(0).permutation(X.shape[1])]


study = Study(
    "convolution",
    estimator=make_pipeline(FunctionTransformer(), KerasClassifier(learning_rate=0.003, epochs=8)),
    space={
        "kerasclassifier__model": [dense, convolutional],
        "functiontransformer__func": [None, shuffled],
        "kerasclassifier__random_state": [0, 1, 2],
    },
    **mnist_holdout(5000, 5000),
    n_trials=None,
    refit=False,
    quick=mnist_holdout(1000, 500) | {"estimator__kerasclassifier__epochs": 4},
)


def answer(search):
    scored = tables.scores(search)
    scored["network"] = [model.__name__ for model in scored["model"]]
    scored["pixels"] = np.where(scored["func"] == "None", "in place", "shuffled")
    scored["error"] = 1 - scored["score"]
    table = scored.groupby(["network", "pixels"], sort=False)["error"].agg(["mean", "std"])
    error = table["mean"].unstack()
    lead, cost = error.loc["dense"] - error.loc["convolutional"], error["shuffled"] - error["in place"]
    sides = lead["shuffled"] < lead["in place"] / 2 and lead["in place"] > 0
    text = (
        f"On images as they are the convolutional network errs on {error.loc['convolutional', 'in place']:.1%}, the "
        f"dense one on {error.loc['dense', 'in place']:.1%}. Shuffled pixels change this by "
        f"{cost['convolutional']:+.1%} and {cost['dense']:+.1%}: it "
        f"{'sees' if sides else 'gains, against the textbook, not by'} which pixels stand side by side.{stand_in()}"
    )
    claims = {
        "the dense network hardly notices the shuffling": abs(cost["dense"]) < 0.05,
        "shuffling costs the convolutional network more than the dense one": cost["convolutional"] > cost["dense"],
    }
    figure = plots.bars(scored, "pixels", "error", "network", labels={"error": "test error"})
    return Answer(text, table.reset_index(), figure, claims)
