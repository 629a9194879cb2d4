"""Are the hidden units of a trained sigmoid network close to 0 or 1?

The question is disputed. Glorot & Bengio (2010) saw the top hidden layer of sigmoid networks pushed to 0 first and
desaturate late, if at all, and tanh networks saturate from the first layer up. An activation counts as saturated here
within a fortieth of its range from an asymptote: below 0.025 or above 0.975 for a sigmoid.
"""

from functools import partial

import numpy as np
from data import mnist_split, stand_in, unit_mnist

from tuner import Answer, KerasClassifier, Study
from tuner.backend import keras
from tuner.health.measurements import SATURATION_MARGIN
from tuner.report import plots, tables


def held_out(network, X, y):
    """Return the accuracy, and the shares of saturated activations in the first and the top hidden layer."""
    layers = [layer.output for layer in network.model_.layers if layer.name.endswith("activation")][:-1]
    first, top = keras.Model(network.model_.inputs, [layers[0], layers[-1]]).predict_on_batch(X)
    low, high = (-1, 1) if network.activation == "tanh" else (0, 1)
    near = (high - low) * SATURATION_MARGIN
    shares = {name: np.mean((a < low + near) | (a > high - near)) for name, a in (("first", first), ("top", top))}
    return {"accuracy": network.score(X, y), **shares}


space = {"activation": ["sigmoid", "tanh"], "hidden_layers": [1, 2, 3, 4, 5], "random_state": [0, 1, 2]}
study = Study(
    "saturation",
    partial(unit_mnist, 10_000, 2_000),
    KerasClassifier(units=50, optimizer="sgd", learning_rate=0.5, batch_size=10, epochs=40),
    space,
    cv=mnist_split(10_000, 2_000),
    scoring=held_out,
    n_trials=None,
    refit=False,
    quick={
        "data": partial(unit_mnist, 1_000, 500),
        "cv": mnist_split(1_000, 500),
        "space": space | {"hidden_layers": [1, 3], "random_state": [0]},
        "estimator__epochs": 10,
    },
)


def answer(search):
    kinds = ["activation", "hidden_layers"]
    hidden = tables.layers(search, "saturation", "activation_mean").query("from_top > 0")
    last = hidden["epoch"].max()
    trained = (
        hidden[hidden["epoch"] == last].groupby([*kinds, "trial"], sort=False)["saturation"].agg(["first", "last"])
    )
    table = trained.groupby(kinds, sort=False).mean().set_axis(["first layer", "top layer"], axis=1)
    scores = tables.scores(search).groupby(kinds, sort=False)[["first", "top", "accuracy"]].mean()
    table = table.join(scores.set_axis(["first, held out", "top, held out", "accuracy"], axis=1)).reset_index()
    deep = hidden[hidden["hidden_layers"] == hidden["hidden_layers"].max()]
    by_epoch = deep.groupby(["activation", "depth", "epoch"])["saturation"].mean()
    peak = {name: by_epoch[name].groupby("depth").max().idxmax() for name in space["activation"]}
    sigmoid = table[table["activation"] == "sigmoid"]
    top = deep[(deep["activation"] == "sigmoid") & (deep["from_top"] == 1)].groupby("epoch")["activation_mean"].mean()
    gap = (table["first layer"] - table["first, held out"]).abs().max()
    most = sigmoid[["first layer", "top layer"]].to_numpy().max()
    first, topmost = (
        f"{sigmoid[name].min():.0%} to {sigmoid[name].max():.0%}" for name in ("first layer", "top layer")
    )
    text = (
        f"{'Many are' if most > 0.5 else 'Mostly not'}: after {last} epochs {first} of the activations of a sigmoid "
        f"network's first hidden layer are saturated, by depth, and {topmost} of the top one's; held-out images "
        f"differ by at most {gap:.1%} in the first. In the deepest networks hidden layer {peak['sigmoid']} saturates "
        f"most with sigmoid and {peak['tanh']} with tanh (Glorot & Bengio: the top one, and the first). The sigmoid's "
        f"top layer has mean activations from {top.min():.2f} to {top.max():.2f} on the way: it "
        f"{'is' if top.min() < 0.1 else 'is not'} pushed to 0.{stand_in()}"
    )
    claims = {
        "held-out images saturate as training images do": gap < 0.1,
        "no sigmoid unit starts saturated": hidden.query("epoch == 0")["saturation"].max() < 0.2,
    }
    labels = {"saturation": "saturated share", "depth": "hidden layer", "activation": ""}
    return Answer(text, table, plots.lines(deep, "epoch", "saturation", "depth", "activation", labels=labels), claims)
