"""Are the hidden units of a trained sigmoid network close to 0 or 1?

The question is disputed. Glorot & Bengio (2010) saw the top hidden layer of sigmoid networks pushed to 0 first and
desaturate late, if at all, and tanh networks saturate from the first layer up. An activation counts as saturated here
within a fortieth of its range from an asymptote: below 0.025 or above 0.975 for a sigmoid. Networks of every depth are
trained at the better of two learning rates.
"""

import numpy as np
from data import mnist_holdout, stand_in

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


space = {
    "activation": ["sigmoid", "tanh"],
    "hidden_layers": [1, 2, 3, 4, 5],
    "learning_rate": [0.1, 0.5],
    "random_state": [0, 1, 2],
}
few = {"hidden_layers": [1, 3], "learning_rate": [0.5], "random_state": [0, 1]}
study = Study(
    "saturation",
    estimator=KerasClassifier(units=50, optimizer="sgd", batch_size=10, epochs=40),
    space=space,
    **mnist_holdout(10_000, 2_000),
    scoring=held_out,
    n_trials=None,
    refit=False,
    quick=mnist_holdout(1_000, 500) | {"space": space | few, "estimator__epochs": 10},
)


def answer(search):
    kinds, names = ["activation", "hidden_layers"], ["first layer", "top layer"]
    best = tables.at_best(tables.scores(search), "learning_rate", kinds, "accuracy")
    hidden = tables.layers(search, "saturation", "activation_mean").query("from_top > 0")
    hidden = hidden[hidden["trial"].isin(best["trial"])]
    trained = hidden.query("epoch == epoch.max()").groupby([*kinds, "trial"], sort=False)["saturation"]
    table = trained.agg(["first", "last"]).groupby(kinds, sort=False).mean().set_axis(names, axis=1)
    scores = best.groupby(kinds, sort=False)[["first", "top", "accuracy"]].mean()
    table = table.join(scores.set_axis(["first, held out", "top, held out", "accuracy"], axis=1))
    deep = hidden.query("hidden_layers == hidden_layers.max()")
    course = deep.groupby(["activation", "depth", "epoch"])["saturation"].mean().reset_index()
    tenth = course.query("saturation > 0.1").sort_values(["epoch", "saturation"], ascending=[True, False])
    earliest = {
        name: next(iter(tenth.loc[tenth["activation"] == name, "depth"]), "none") for name in space["activation"]
    }
    above = course.query("activation == 'sigmoid' and depth == depth.max()").set_index("epoch")["saturation"]
    top = deep.query("activation == 'sigmoid' and from_top == 1").groupby("epoch")["activation_mean"].mean()
    gap = (table["first layer"] - table["first, held out"]).abs().max()
    ends = table.loc["sigmoid", names].agg(["min", "max"])
    first, topmost = (f"{ends[name]['min']:.0%} to {ends[name]['max']:.0%}" for name in names)
    text = (
        f"{'Many are' if ends.max(axis=None) > 0.5 else 'Mostly not'}: after {hidden['epoch'].max()} epochs {first} of "
        f"the activations of a sigmoid network's first hidden layer are saturated, by depth, and {topmost} of the top "
        f"one's; held-out images differ by at most {gap:.1%} in the first. In the deepest sigmoid networks the first "
        f"hidden layer of which a tenth is saturated is number {earliest['sigmoid']}, where Glorot & Bengio saw the "
        f"top one; there mean activations {'fall, as they saw,' if top.min() < 0.1 else 'do not fall'} to "
        f"{top.min():.2f}, and the saturated share peaks at {above.max():.0%} and ends at {above.iloc[-1]:.0%}. With "
        f"tanh it is number {earliest['tanh']}, {'as' if earliest['tanh'] == 1 else 'not as'} they saw.{stand_in()}"
    )
    started = hidden.query("activation == 'sigmoid' and epoch == 0")["saturation"].max()
    claims = {
        "held-out images saturate as training images do": gap < 0.1,
        "sigmoid units do not start saturated": started < 0.01,
        "training saturates some of them": ends.max(axis=None) > 0.1,
    }
    labels = {"saturation": "saturated share", "depth": "hidden layer", "activation": ""}
    figure = plots.lines(deep, "epoch", "saturation", "depth", "activation", labels=labels)
    return Answer(text, table.reset_index(), figure, claims)
