"""What is measured of a network in training: names, shapes, and the container that diagnosis and plots read.

NumPy only. `tuner.health.measures` computes the numbers, inside the compiled program or beside plain Keras.

Notations
---------
A network is measured on one fixed *probe* of P training rows, before the first epoch and after every epoch, in training
mode and without any change to its state. L layers are those with a weight matrix or kernel (dense, convolution,
recurrent, embedding), in the order in which they are first called. With w a layer's weights of two dimensions or more,
g the gradient of the probe's loss (penalties included) by these, z and a the values before and after the
layer's activation function on the probe, and δ the gradient of the sum of the rows' losses by z, the measures are:

For each layer (`LAYER_MEASURES`)

- ``grad_norm``: ‖g‖; ``grad_rms``: the root mean square of g; ``grad_zeros``: the share of its entries that are
  exactly 0
- ``error_rms``: the root mean square of δ, the error that is propagated back to the layer (Nielsen, "Neural networks
  and deep learning", chapter 5; Glorot & Bengio 2010, fig. 7)
- ``weight_norm``: ‖w‖
- ``update_ratio``: ‖Δw‖ / ‖w‖ with Δw what the epoch's last update did to w, whatever the optimizer; NaN before the
  first epoch (Karpathy, cs231n, "Babysitting the learning process": about 1e-3)
- ``activation_mean``, ``activation_variance``: over all values of a
- ``signal_variance``: the variance over the probe's rows, as a mean over units: what of the input still shows
- ``saturation``: the share of a within `SATURATION_MARGIN` of its range from an asymptote; for activations that are
  bounded on both sides
- ``saturation_index``: Rakitianskaia & Engelbrecht, "Measuring saturation in neural networks", SSCI 2015: the mean over
  bins of the absolute mean of a scaled to [-1, 1], weighted by their counts; for an even number of bins that is the
  mean absolute scaled value. 0.5 for uniformly spread values, 1 for a saturated layer
- ``saturated_units``: the share of units that are saturated on `SATURATED_ROWS` of the probe
- ``dead_units``: the share of units whose slope is below 1e-6 on the whole probe: no gradient that float32 would notice
  reaches their weights
- ``slope``: the root mean square of σ'(z)
- ``local_slope``: the root mean square of w·σ'(z), by which an error shrinks on its way through one connection
  (Nielsen, chapter 5: with a sigmoid's slope of at most 0.25, |w| < 4 shrinks it)
- ``non_finite``: for how many units weights or gradients, activations, or errors are NaN, infinite, or too large for
  their squares to be numbers; a unit counts up to three times

For the network (`NETWORK_MEASURES`)

- ``loss``: of the probe in training mode; ``grad_norm``: of the weights of all layers together
- ``input_mean``, ``input_rms``, ``input_max``: mean, root mean square and largest absolute value of what the first
  layer sees
- ``input_offset``: the root mean square of the features' means, in units of the root mean square of their deviations
- ``input_spread``: the standard deviation over features of log10 of their root mean squares, but for features that
  are 0 throughout
- ``output_saturation``: the share of the outputs within the margin of an asymptote
- ``output_wrong``: the share of the outputs that are saturated at the wrong end, further from the target than half of
  the range: with squared error they hardly learn
- ``non_finite``: over all layers and the loss
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

#: How near to an asymptote a value is saturated, as a share of the activation's range: |tanh| > 0.95, and a sigmoid
#: below 0.025 or above 0.975. There these have slopes below a tenth of their largest.
SATURATION_MARGIN = 0.025

#: The share of the probe on which a saturated unit is saturated.
SATURATED_ROWS = 0.9

LAYER_MEASURES = (
    "grad_norm",
    "grad_rms",
    "grad_zeros",
    "error_rms",
    "weight_norm",
    "update_ratio",
    "activation_mean",
    "activation_variance",
    "signal_variance",
    "saturation",
    "saturation_index",
    "saturated_units",
    "dead_units",
    "slope",
    "local_slope",
    "non_finite",
)

NETWORK_MEASURES = (
    "loss",
    "grad_norm",
    "input_mean",
    "input_rms",
    "input_max",
    "input_offset",
    "input_spread",
    "output_saturation",
    "output_wrong",
    "non_finite",
)


@dataclass(frozen=True)
class LayerFacts:
    """What is known of a layer without measuring.

    Parameters
    ----------
    name : str
        Unique in the network: ``"hidden_1"``, or ``"encoder/dense"`` for a layer of a nested model.
    kind : str
        The class of the layer: ``"Dense"``.
    activation : str
        Keras's name of the activation function that follows the layer, ``"linear"`` without one, ``"unknown"`` for one
        of the user's own.
    units : int
        Features or channels of the layer's output.
    fan_in : int
        The number of inputs of a unit.
    n_weights : int
        The number of its trainable weights of two dimensions or more.
    """

    name: str
    kind: str
    activation: str
    units: int
    fan_in: int
    n_weights: int


@dataclass(frozen=True)
class NetworkFacts:
    """What is known of a network and its training without measuring; None is unknown.

    Parameters
    ----------
    layers : tuple of LayerFacts
        In the order of their first call, the output layer last.
    loss : str
        Keras's name of the loss function: ``"categorical_crossentropy"``.
    optimizer : str
        The name of the optimizer's class in lower case: ``"adam"``, ``"sgd"``.
    learning_rate : float or None
        The rate that training began with.
    momentum : float or None
    clipnorm : float or None
        What bounds the gradient, its norm or its values.
    task : {"binary", "multiclass", "multilabel", "regression", None}
    normalization : bool
        Whether the network has a normalisation layer.
    residual : bool
        Whether any layer adds one signal to another.
    kernel_initializer : str or None
        Of the built-in network, as it was asked for; ``"auto"`` is resolved.
    bias_initializer : str or None
        Of the built-in network.
    batch_size, n_rows : int or None
        Rows of a batch, and of the training part.
    baseline_loss : float or None
        The training loss of the best constant prediction, where the loss is one for which that is known.
    baseline_accuracy : float or None
        Of a classification, the accuracy on the training part of always naming the commonest class.
    notes : tuple of str
        What could not be measured, and why.
    """

    layers: tuple[LayerFacts, ...]
    loss: str = "unknown"
    optimizer: str = "unknown"
    learning_rate: float | None = None
    momentum: float | None = None
    clipnorm: float | None = None
    task: str | None = None
    normalization: bool = False
    residual: bool = False
    kernel_initializer: str | None = None
    bias_initializer: str | None = None
    batch_size: int | None = None
    n_rows: int | None = None
    baseline_loss: float | None = None
    baseline_accuracy: float | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Measurements:
    """What was measured of one network (one fold) so far.

    Parameters
    ----------
    facts : NetworkFacts
    epochs : list of int, length E
        How many epochs the network had been trained for; 0 is before the first.
    layers : list of array of shape (L, len(LAYER_MEASURES)), length E
    network : list of array of shape (len(NETWORK_MEASURES),), length E
    history : mapping of str to list of float
        The engine's series, one value for each trained epoch: ``loss``, ``val_loss``, ``test_loss``, ``accuracy`` and
        so on. The same object as the lane's history, so it grows with it; it may begin before `epochs` does.
    """

    facts: NetworkFacts
    epochs: list[int] = field(default_factory=list)
    layers: list[np.ndarray] = field(default_factory=list)
    network: list[np.ndarray] = field(default_factory=list)
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def add(self, epoch: int, layers: np.ndarray, network: np.ndarray) -> None:
        """Take what was measured after `epoch` epochs; the first time, no update has been seen."""
        if not self.epochs:
            layers = layers.copy()
            layers[:, LAYER_MEASURES.index("update_ratio")] = np.nan
        self.epochs.append(epoch)
        self.layers.append(layers)
        self.network.append(network)

    def layer(self, measure: str) -> np.ndarray:
        """Return one measure of all layers, (E, L)."""
        index = LAYER_MEASURES.index(measure)
        values = [values[:, index] for values in self.layers]
        return np.array(values, dtype=float).reshape(len(self.epochs), len(self.facts.layers))

    def of_network(self, measure: str) -> np.ndarray:
        """Return one measure of the network, (E,)."""
        index = NETWORK_MEASURES.index(measure)
        return np.array([values[index] for values in self.network], dtype=float)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; numbers that are not finite as the strings "nan", "inf" and "-inf"."""
        shape = (len(self.epochs), len(self.facts.layers), len(LAYER_MEASURES))
        by_layer = np.moveaxis(np.array(self.layers, dtype=float).reshape(shape), -1, 0)
        by_network = np.array(self.network, dtype=float).reshape(-1, len(NETWORK_MEASURES)).T
        return {
            "facts": asdict(self.facts),
            "epochs": list(self.epochs),
            "layers": dict(zip(LAYER_MEASURES, _plain(by_layer), strict=True)),
            "network": dict(zip(NETWORK_MEASURES, _plain(by_network), strict=True)),
            "history": {name: _plain(np.asarray(series, dtype=float)) for name, series in self.history.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurements:
        """Return what `to_dict` wrote."""
        facts = values["facts"]
        layers = tuple(LayerFacts(**layer) for layer in facts["layers"])
        by_layer = np.stack([_numbers(values["layers"][name]) for name in LAYER_MEASURES], axis=-1)
        by_network = np.stack([_numbers(values["network"][name]) for name in NETWORK_MEASURES], axis=-1)
        shape = (len(values["epochs"]), len(layers), len(LAYER_MEASURES))
        return cls(
            facts=NetworkFacts(**{**facts, "layers": layers, "notes": tuple(facts["notes"])}),
            epochs=list(values["epochs"]),
            layers=list(by_layer.reshape(shape)),
            network=list(by_network),
            history={name: _numbers(series).tolist() for name, series in values["history"].items()},
        )


def _plain(values: np.ndarray) -> Any:
    """Return an array as nested lists of numbers of five digits, which JSON can hold."""
    values = np.asarray(values, dtype=float)
    finite = np.isfinite(values)
    usual = finite & (np.abs(values) > 1e-16) & (np.abs(values) < 1e16)  # beyond, powers of ten are not exact
    some = np.where(usual, values, 1.0)
    power = np.floor(np.log10(np.abs(some))) - 4
    unit = 10.0 ** np.abs(power)
    rounded = np.where(power < 0, np.rint(some * unit) / unit, np.rint(some / unit) * unit)
    rounded = np.where(usual, rounded, values)
    if finite.all():
        return rounded.tolist()
    plain = rounded.astype(object)
    plain[~finite] = [str(value) for value in values[~finite]]
    return plain.tolist()


def _numbers(values: Any) -> np.ndarray:
    return np.array(values, dtype=object).astype(float)


def clipping(config: Mapping[str, Any]) -> float | None:
    """Return the bound on gradients in an optimizer's configuration, whichever of the three it is."""
    bounds = (config.get(name) for name in ("clipnorm", "global_clipnorm", "clipvalue"))
    return next((float(bound) for bound in bounds if bound is not None), None)


def baseline_loss(loss: str, y: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """Return the loss of the best constant prediction, None where we know of no closed form.

    Parameters
    ----------
    loss : str
        Keras's name of the loss function.
    y : array of shape (n, k)
        Targets as the loss has them; (n, 1) indices for a sparse loss.
    weight : array of shape (n,), optional

    Returns
    -------
    float or None
        For cross-entropy the entropy of the targets' mean, for the squared error their variance, for the absolute
        error their mean distance from the median (of the rows as they are, whatever their weights).
    """
    if not len(y) or y.ndim != 2:
        return None
    y = np.asarray(y, dtype=float)
    if weight is not None and not weight.any():
        weight = None
    if loss == "sparse_categorical_crossentropy":
        if y.shape[1] != 1 or not (y >= 0).all():  # sequences, or rows that the loss ignores
            return None
        counts = np.bincount(y[:, 0].astype(int), weight)
        return float(_entropy(counts / counts.sum()).sum())
    mean = np.average(y, axis=0, weights=weight)
    if not np.isfinite(mean).all():
        return None
    if loss == "categorical_crossentropy":
        return float(_entropy(mean).sum())
    if loss == "binary_crossentropy":
        return float((_entropy(mean) + _entropy(1 - mean)).mean())
    if loss == "mean_squared_error":
        return float(np.average((y - mean) ** 2, axis=0, weights=weight).mean())
    if loss == "mean_absolute_error":
        return float(np.average(np.abs(y - np.median(y, axis=0)), axis=0, weights=weight).mean())
    return None


def baseline_accuracy(task: str | None, y: np.ndarray) -> float | None:
    """Return the accuracy of always naming the commonest class, None where there are no classes that exclude another.

    Parameters
    ----------
    task : str or None
        As `NetworkFacts` has it.
    y : array of shape (n, k)
        Targets as the loss has them: a column of each class, or one column, of two classes or of indices.
    """
    if task not in ("binary", "multiclass") or not len(y) or y.ndim != 2 or not np.isfinite(y).all():
        return None
    if y.shape[1] > 1:
        classes = y.argmax(axis=1)
    else:
        classes = y[:, 0] if task == "multiclass" else y[:, 0] > 0.5
    return float(np.unique(classes, return_counts=True)[1].max() / len(y))


def _entropy(p: np.ndarray) -> np.ndarray:
    return -p * np.log(np.where(p > 0, p, 1))
