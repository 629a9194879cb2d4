"""What does cross-entropy mend that squared error cannot?

The error that a sigmoid output sends back is 2 (y - t) σ'(z) with squared error: next to nothing where the output is
saturated, however wrong it is. With cross-entropy it is y - t. LeCun et al. ("Efficient backprop", 1998) move the
targets off the asymptotes, to 0.1 and 0.9, instead. Here outputs stand alone, without hidden layers, and begin near one
half or saturated, each at its own best learning rate of plain gradient descent.
"""

import numpy as np
import pandas as pd
from data import mnist_holdout, stand_in

from tuner import Answer, KerasClassifier, Study
from tuner.backend import keras
from tuner.backend import tensorflow as tf
from tuner.report import plots, tables

SQUARED, ENTROPY = "sigmoid, squared error", "sigmoid, cross-entropy"
OUTPUTS = {
    SQUARED: {"output_activation": "sigmoid", "loss": "mean_squared_error"},
    ENTROPY: {"output_activation": "sigmoid", "loss": "binary_crossentropy"},
    "sigmoid, squared error, targets 0.1 and 0.9": {
        "output_activation": "sigmoid",
        "loss": "mean_squared_error",
        "target_range": (0.1, 0.9),
    },
    "softmax, squared error": {"output_activation": "softmax", "loss": "mean_squared_error"},
    "softmax, cross-entropy": {"output_activation": "softmax", "loss": "categorical_crossentropy"},
}
space = {
    "initializer_scale": [0.01, 1.0],
    "learning_rate": [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0],
    "random_state": [0, 1, 2],
}
common = {"hidden_layers": 0, "kernel_initializer": "random_normal", "optimizer": "sgd", "epochs": 20}
few = {"learning_rate": [0.1, 1.0], "random_state": [0, 1]}
studies = tuple(
    Study(
        f"output_loss, {name}",
        estimator=KerasClassifier(**common, **output),
        space=space,
        **mnist_holdout(2000, 1000),
        n_trials=None,
        random_state=0,
        refit=False,
        quick={"space": space | few, "estimator__epochs": 5},
    )
    for name, output in OUTPUTS.items()
)


def errors():
    """Return by how much dL/dz of single sigmoid outputs is off the formula, for cross-entropy and squared error."""
    z, t = tf.constant(np.tile(np.linspace(-12, 12, 49), 2)), tf.constant(np.repeat([0.0, 1.0], 49))
    y = tf.sigmoid(z)
    formulas = {"binary_crossentropy": y - t, "mean_squared_error": 2 * (y - t) * y * (1 - y)}
    for name, formula in formulas.items():
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = tf.reduce_sum(keras.losses.get(name)(t[:, None], keras.activations.sigmoid(z)[:, None]))
        yield np.abs(tape.gradient(loss, z) - formula).max()


def answer(*searches):
    def of_all(table, *measures):
        parts = {name: table(search, *measures) for name, search in zip(OUTPUTS, searches, strict=True)}
        rows = pd.concat(parts, names=["output"]).reset_index().sort_values("initializer_scale", kind="stable")
        return rows.assign(start=rows["initializer_scale"].map({0.01: "small", 1.0: "large"}))

    kinds = ["start", "output"]
    begun = of_all(tables.networks, "loss", "output_saturation", "output_wrong").query("epoch == 0")
    begun["error_rms"] = of_all(tables.layers, "error_rms").query("epoch == 0")["error_rms"]
    best = tables.at_best(of_all(tables.scores, 0.0), "learning_rate", kinds)
    table = begun.groupby(kinds, sort=False)[["output_saturation", "output_wrong", "error_rms"]].mean()
    table["learning_rate"] = best.groupby(kinds)["learning_rate"].first()
    score = table["score"] = best.groupby(kinds)["score"].mean()
    # Keras takes the mean of the ten outputs, so that the error of cross-entropy is (y - t) / 10; the root mean square
    # of y - t is that of the squared error of the same weights.
    by_output = begun.set_index("output")
    measured = 10 * by_output.loc[ENTROPY, "error_rms"].to_numpy() / np.sqrt(by_output.loc[SQUARED, "loss"].to_numpy())
    gap = {start: score[start, ENTROPY] - score[start, SQUARED] for start in ("small", "large")}
    scored = {start: "; ".join(f"{name} {score[start, name]:.3f}" for name in OUTPUTS) for start in gap}
    wrong = table.loc[("large", SQUARED), "output_wrong"]
    text = (
        f"With large initial weights {wrong:.0%} of the sigmoid outputs are saturated at the wrong end; "
        f"{scored['large']}. With small ones, {scored['small']}. Cross-entropy in place of squared error is worth "
        f"{gap['large']:+.3f} from the saturated start and {gap['small']:+.3f} from the other: the error that it sends "
        f"back is y - t to within {np.abs(measured - 1).max():.0e} of it.{stand_in()}"
    )
    by_entropy, by_squares = errors()
    claims = {
        "sigmoid and cross-entropy send back y - t": by_entropy < 1e-12,
        "sigmoid and squared error send back 2 (y - t) σ'(z)": by_squares < 1e-12,
        "in the networks too, cross-entropy sends back y - t": np.abs(measured - 1).max() < 1e-4,
        "large weights saturate a quarter of the outputs at the wrong end": wrong > 0.25,
        "cross-entropy leaves a saturated start behind better": gap["large"] > 0.1,
    }
    curves = of_all(tables.histories).merge(best[["output", "trial"]])
    figure = plots.lines(curves, "epoch", "test_accuracy", "output", "start", labels={"start": "initial weights"})
    return Answer(text, table.reset_index(), figure, claims)
