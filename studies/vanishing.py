"""How does the gradient fall from the last to the first layer with depth, activation, initialisation, normalisation?

Nielsen ("Neural networks and deep learning", chapter 5) measured sigmoid networks of 30 units a layer before training,
on 1,000 images of MNIST: the mean gradient by the biases had the norms .066 in the first and .309 in the last hidden
layer of two, .012 and .283 of three, .0030 and .285 of four. A linear layer multiplies the error by its scale w.
"""

import numpy as np
from data import mnist_holdout, stand_in
from keras.initializers import Identity, RandomNormal, VarianceScaling
from keras.losses import binary_crossentropy

from tuner import Answer, KerasClassifier, Study, network
from tuner.backend import tensorflow as tf
from tuner.report import plots, tables

NIELSEN = {2: (0.066, 0.309), 3: (0.012, 0.283), 4: (0.0030, 0.285)}
shared = {**mnist_holdout(1000, 100), "n_trials": None, "random_state": 0, "refit": False}
measured = KerasClassifier(units=30, optimizer="sgd", learning_rate=0.1, batch_size=1000, epochs=1)
space = {
    "activation": ["sigmoid", "tanh", "relu"],
    "kernel_initializer": ["glorot_normal", "he_normal"],
    "batch_normalization": [None, "before"],
    "hidden_layers": [2, 4, 8, 16],
    "random_state": [0, 1, 2],
}
scales = {"activation": ["linear"], "kernel_initializer": [Identity(w) for w in (0.01, 1.5)], "hidden_layers": [2, 8]}
few = {"space": space | {"hidden_layers": [6], "random_state": [0, 1]}}
studies = (
    Study("vanishing", estimator=measured, space=space, quick=few, **shared),
    Study("vanishing-linear", estimator=measured, space=scales | {"dtype": ["float64"]}, **shared),
)


def bias_gradients(layers, seed):
    """Return the norms of the mean gradient by the biases of hidden layers, with Nielsen's cost and initial weights."""
    start = {"bias_initializer": RandomNormal(stddev=1.0), "random_state": seed, "hidden_layers": layers, "units": 30}
    start["kernel_initializer"] = VarianceScaling(1.0, "fan_in", "untruncated_normal")
    X, y = (part[:1000] for part in shared["data"]())
    lane = KerasClassifier(**start, activation="sigmoid", output_activation="sigmoid").make_lane(X, y)
    model = network.build(lane.hyperparameters, X.shape[1:], lane.output, lane.seed)
    with tf.GradientTape() as tape:
        loss = 10 * tf.reduce_mean(binary_crossentropy(lane.train.y, model(X)))  # Keras takes the mean over outputs
    biases = [weight.value for weight in model.trainable_variables if weight.path.endswith("bias")]
    return [float(tf.norm(gradient)) for gradient in tape.gradient(loss, biases)[:-1]]


def ends(search):
    """Return, a row for each network before training, the error in its first and last hidden layer."""
    errors = tables.layers(search, "error_rms").query("epoch == 0 and from_top > 0").groupby("trial", sort=False)
    found = errors.first().assign(last=errors["error_rms"].last()).rename(columns={"error_rms": "first"})
    return found.assign(per_layer=(found["first"] / found["last"]) ** (1 / (found["hidden_layers"] - 1)))


def answer(search, linear):
    norms = {n: np.mean([bias_gradients(n, seed) for seed in range(10)], axis=0)[[0, -1]] for n in NIELSEN}
    ratios = np.array([norms[n] / published for n, published in NIELSEN.items()])
    scaled, networks = ends(linear), ends(search)
    off = (scaled["per_layer"] / [identity.gain for identity in scaled["kernel_initializer"]] - 1).abs().max()
    deepest, kinds = networks["hidden_layers"].max(), ["batch_normalization", "activation", "kernel_initializer"]
    table = networks[networks["hidden_layers"] == deepest].groupby(kinds, sort=False)
    table = table[["first", "last", "per_layer"]].mean().reset_index()
    plain, normalised = (table.set_index(kinds)["per_layer"][kind] for kind in ("None", "before"))
    text = (
        f"Nielsen's networks have gradients of {', '.join(f'{a:.2g}/{b:.2g}' for a, b in norms.values())} with 2, 3 "
        f"and 4 hidden layers, means over 10 seeds: {ratios.min():.2f} to {ratios.max():.2f} times what he saw of one. "
        f"On its way down through {deepest} hidden layers the error is multiplied, per layer, by "
        f"{', '.join(f'{value:.2f} ({a}, {k})' for (a, k), value in plain.items())}; with batch normalisation by "
        f"{normalised.min():.2f} to {normalised.max():.2f}: it "
        f"{'explodes' if normalised.max() > 1.1 else 'stays' if normalised.min() > 0.9 else 'vanishes'}. "
        f"Linear networks follow their scale to {off:.0e}.{stand_in()}"
    )
    relu = -np.log(plain["relu"])
    claims = {
        "a linear network multiplies the error by w in every layer": off < 1e-9,
        "Nielsen's norms are met within a factor of 1.5": np.abs(np.log(ratios)).max() < np.log(1.5),
        "sigmoid shrinks the error most": plain["sigmoid"].max() < plain.loc[["tanh", "relu"]].min(),
        "He suits ReLU better than Glorot": abs(relu["he_normal"]) < relu["glorot_normal"],
        "with batch normalisation nothing vanishes": normalised.min() > 0.9,
    }
    networks["start"] = networks["kernel_initializer"] + ", batch normalisation: " + networks["batch_normalization"]
    labels = {"hidden_layers": "hidden layers", "per_layer": "factor of the error, per layer", "start": ""}
    figure = plots.lines(networks, "hidden_layers", "per_layer", "activation", "start", labels=labels)
    return Answer(text, table, figure, claims)
