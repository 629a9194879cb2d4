"""The measures of gradient health as operations of TensorFlow: one network, one probe batch.

`tuner.health.measurements` defines every measure. It takes three steps: `Probe.observe` passes the probe through one
network (vectorised over the lanes, or eagerly beside plain Keras), `Probe.reduce` sums over rows and over the inputs of
units, on the device, and `Probe.finish` makes the measures of these sums. Both engines do all three, so they give the
same numbers; no raw gradient leaves the device.

Notations
---------
- P rows in the probe; l lanes; L layers (*sites*); a site is a layer with trainable weights of two dimensions or more
- n, u: the values of a site, n = P times positions (pixels, time steps) for each of u units; U units of all sites
- f, v: a kernel as a table, f inputs of each of v units; V units of all kernels

Whatever has the same n, or the same f, is laid side by side and summed at once: compiling costs by the number of sums,
and XLA adds the columns of a table at once, but a single column one value at a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tuner import network, seeds
from tuner.backend import keras
from tuner.backend import tensorflow as tf
from tuner.health.measurements import LAYER_MEASURES, SATURATED_ROWS, SATURATION_MARGIN, LayerFacts
from tuner.layers import ELEMENTWISE, ChosenActivation, Maxout, replaced

#: The rows of the probe. A unit that is active on 5 % of the data shows as dead on 48 rows once in 12 cases, one that
#: is on 10 % once in 157. More rows cost more: an epoch of the digits has 45 steps of 32 rows, 5 % of them 72 rows.
PROBE_ROWS = 48

#: A slope that no float32 weight notices: its rounding is 6e-8 of a value.
NO_SLOPE = 1e-6

#: The asymptotes of the activations that are bounded on both sides. The scaled sigmoid 4σ(x) − 2 and the penalised
#: tanh, tanh(x) above 0 and tanh(x) / 4 below: Xu, Huang & Li, "Revise saturated activation functions", 2016.
RANGES = {
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "sparse_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "sparsemax": (0.0, 1.0),
    "scaled_sigmoid": (-2.0, 2.0),
    "penalized_tanh": (-0.25, 1.0),
}

_UNBOUNDED = (ELEMENTWISE - RANGES.keys()) | {"glu", "log_softmax", "prelu", "threshold"}

# Layers that are activations. Activation and the like hold a function, which names itself.
_ACTIVATION_LAYERS = {
    keras.layers.ReLU: "relu",
    keras.layers.LeakyReLU: "leaky_relu",
    keras.layers.PReLU: "prelu",
    keras.layers.ELU: "elu",
    keras.layers.Softmax: "softmax",
    Maxout: "maxout",
}

_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
)
_RECURRENT = (keras.layers.RNN,)

#: The measures of the layers and those of the network, see `tuner.health.measurements`.
Measured: TypeAlias = tuple[np.ndarray, np.ndarray]

_OF_UNITS = ("mean", "variance", "near", "index", "slope", "largest_slope", "error")
_OF_KERNELS = ("gradient", "zeros", "weight", "earlier", "change")


@dataclass
class _Call:
    """What one call of a site showed.

    Parameters
    ----------
    inputs : tensor or None
        What the layer was given, if it is one tensor.
    z, a : tensor of shape (P, ..., u)
        Before and after the activation.
    slope : tensor of the shape of z, or None where it is unknown
    activation : str
    pieces : int
        How many values the layer computes for each of its units; `z` is the chosen one.
    """

    inputs: Any
    z: Any
    a: Any
    slope: Any
    activation: str = "linear"
    pieces: int = 1


@dataclass
class _Site:
    """A layer that is measured, and the calls of the present pass."""

    name: str
    layer: Any
    variables: list[Any]
    axis: int = -1
    calls: list[_Call] = field(default_factory=list)


class Observed(NamedTuple):
    """What the probe showed of a network; with a leading axis of l lanes after vectorisation.

    Parameters
    ----------
    loss : tensor of shape ()
    inputs : tensor of shape (n, d)
        What the first site sees; no rows where it is no single tensor of numbers.
    wrong : tensor of shape (P, k)
        1 where an output is further from its target than half of the range; no rows where that cannot be told.
    a, slope, error : list of tensor of shape (n, u)
        Of each site; the slope is 0 where it is unknown.
    gradients : list of tensor of shape (f, v)
        Of each kernel.
    """

    loss: Any
    inputs: Any
    wrong: Any
    a: list[Any]
    slope: list[Any]
    error: list[Any]
    gradients: list[Any]


class Probe:
    """Measures a network.

    Parameters
    ----------
    model : keras.Model
        Built. Its own state and its layers stay as they are.
    X : array, or whatever the model takes, with a few rows
        To find out in which order the layers are called, and what shape they give.
    renumber : bool, default=False
        Whether to count the names that Keras gave anew. It counts through all networks of a process, so that those of
        two folds would have different names.

    Attributes
    ----------
    layers : tuple of LayerFacts
    notes : tuple of str
        What cannot be measured, and why.
    normalization, residual : bool
        Whether there is a normalisation layer, and whether signals are added to one another.
    """

    def __init__(self, model: keras.Model, X: Any, *, renumber: bool = False):
        self.model = model
        everything = model._flatten_layers(include_self=False)
        self.normalization = any(isinstance(layer, _NORMALIZATIONS) for layer in everything)
        self.residual = any(isinstance(layer, keras.layers.Add) for layer in everything)
        self._position = {id(v): i for i, v in enumerate(model.trainable_variables)}
        inside = {id(inner) for layer in everything if isinstance(layer, _RECURRENT) for inner in _below(layer)}
        own = [layer for layer in everything if id(layer) not in inside]
        names = _names(model, renumber)
        candidates, taken = [], set()
        for layer in sorted(own, key=lambda layer: len(_below(layer))):  # a wrapper has the weights of what is inside
            variables = [v for v in self._variables(layer) if id(v) not in taken]
            taken |= {id(v) for v in variables}
            if any(len(v.shape) > 1 for v in variables) and not _is_activation(layer):  # PReLU of images
                candidates.append(_Site(names[id(layer)], layer, variables, _unit_axis(layer)))
        self._sites = candidates
        self._activations = [layer for layer in own if _is_activation(layer)]
        self._order: list[_Site] = []
        with keras.StatelessScope(), self._recording(None):
            call_in_training(model, X)
        self._sites = [site for site in self._order if site.calls]  # in the order of their first call
        self.layers = tuple(self._facts(site) for site in self._sites)
        self.notes = tuple(self._notes(candidates))
        self._has_slope = [all(_is_elementwise(call) for call in site.calls) for site in self._sites]
        self._kernels = [self._position[id(v)] for site in self._sites for v in site.variables if len(v.shape) > 1]
        owners = [i for i, site in enumerate(self._sites) for v in site.variables if len(v.shape) > 1]
        fans = [math.prod(model.trainable_variables[i].shape[:-1]) for i in self._kernels]
        self._by_rows = _alike(
            [_rows(site, [call.a for call in site.calls], "float32").shape[0] for site in self._sites]
        )
        self._by_fan = _alike(fans)
        self._units = _places(self._by_rows, [layer.units for layer in self.layers])
        widths = [model.trainable_variables[i].shape[-1] for i in self._kernels]
        columns = _places(self._by_fan, widths)
        self._columns = [
            [c for c, owner in zip(columns, owners, strict=True) if owner == i] for i in range(len(self._sites))
        ]
        for site in self._sites:
            site.calls = []

    def _variables(self, layer: Any) -> list[Any]:
        found = layer.trainable_variables if isinstance(layer, _RECURRENT) else layer._trainable_variables
        return [v for v in found if id(v) in self._position]

    def _facts(self, site: _Site) -> LayerFacts:
        units = int(site.calls[0].a.shape[site.axis])
        kernel = next(v for v in site.variables if len(v.shape) > 1)
        return LayerFacts(
            name=site.name,
            kind=type(site.layer).__name__,
            activation=site.calls[-1].activation,
            units=units,
            fan_in=max(1, math.prod(kernel.shape) // (units * site.calls[0].pieces)),
            n_weights=sum(math.prod(v.shape) for v in site.variables if len(v.shape) > 1),
        )

    def _notes(self, candidates: Sequence[_Site]) -> Iterator[str]:
        if not candidates:
            yield "no layer has trainable weights of two dimensions or more: there are no gradients to judge"
        for site in candidates:
            if site not in self._sites:
                yield f"layer {site.name!r} is not called in a training step, or gives several outputs: not measured"
        for facts in self.layers:
            if facts.activation == "unknown":
                yield f"the range of the activation of layer {facts.name!r} is unknown: its saturation is not judged"

    # -- the pass --------------------------------------------------------------------------------------------------

    @contextmanager
    def _recording(self, tape: Any) -> Iterator[None]:
        """Note what sites and activations compute inside the block."""
        self._order = []
        for site in self._sites:
            site.calls = []
        with ExitStack() as stack:
            for site in self._sites:
                stack.enter_context(replaced(site.layer, "call", _wrapped(self._site_call, site, tape)))
                function = getattr(site.layer, "activation", None)
                inside = callable(function) and not isinstance(function, keras.layers.Layer)
                if inside and not isinstance(site.layer, _RECURRENT):
                    wrapper = _wrapped(self._function_call, site, tape)
                    stack.enter_context(replaced(site.layer, "activation", wrapper))
            for layer in self._activations:
                stack.enter_context(replaced(layer, "call", _wrapped(self._activation_call, layer, tape)))
            yield

    def _site_call(self, site: _Site, tape: Any, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if site not in self._order:
            self._order.append(site)
        seen = len(site.calls)
        outputs = original(*args, **kwargs)
        a = outputs[0] if isinstance(outputs, list | tuple) and outputs else outputs  # and the states
        if len(site.calls) == seen and tf.is_tensor(a) and len(a.shape) > 1:  # no activation of its own has noted it
            recurrent = isinstance(site.layer, _RECURRENT)
            name = _activation_name(getattr(site.layer, "activation", None)) if recurrent else "linear"
            site.calls.append(_Call(None, a, a, None if recurrent else tf.ones_like(a), name))
        if len(site.calls) > seen and args and tf.is_tensor(args[0]):
            site.calls[-1].inputs = args[0]
        return outputs

    def _function_call(
        self, site: _Site, tape: Any, original: Callable[..., Any], z: Any, *args: Any, **kw: Any
    ) -> Any:
        a = original(z, *args, **kw)
        slope = _slope(lambda value: original(value, *args, **kw), z, tape)
        site.calls.append(_Call(None, z, a, slope, _activation_name(original)))
        return a

    def _activation_call(
        self, layer: Any, tape: Any, original: Callable[..., Any], z: Any, *args: Any, **kw: Any
    ) -> Any:
        """Note an activation that is a layer: it belongs to the layer after which it is named, or called."""
        a = original(z, *args, **kw)
        site = self._site_before(layer, z)
        if site is None:
            return a
        if isinstance(layer, Maxout):  # every unit passes on the piece that is largest, as it is
            site.calls[-1] = _Call(site.calls[-1].inputs, a, a, tf.ones_like(a), "maxout", layer.pieces)
            return a
        if isinstance(layer, ChosenActivation):
            name, slope = "chosen", layer.slope
        else:
            name = _ACTIVATION_LAYERS.get(type(layer)) or _activation_name(
                getattr(layer, "activation", None) or getattr(layer, "function", None)
            )
            slope = _slope(lambda value: original(value, *args, **kw), z, tape)
        site.calls[-1] = _Call(site.calls[-1].inputs, z, a, slope, name)
        return a

    def _site_before(self, layer: Any, z: Any) -> _Site | None:
        """Return the layer whose activation this is: in the built-in network by its name, else the latest one."""
        named = [site for site in self._order if layer.name == f"{site.layer.name}_activation"]
        for site in (*named, *reversed(self._order)):
            if site.calls and site.calls[-1].activation == "linear":
                return site if site.calls[-1].a.shape[site.axis] == z.shape[site.axis] else None
        return None

    def observe(self, trainable: Sequence[Any], forward: Callable[[], tuple[Any, Any]], y: Any) -> Observed:
        """Pass the probe through one network.

        Parameters
        ----------
        trainable : sequence of tensor
            The values of ``model.trainable_variables`` that `forward` computes with.
        forward : callable
            Calls the model on the probe in training mode without a change of state; gives the outputs, and the loss
            with all penalties. It is called inside a ``GradientTape``.
        y : tensor of shape (P, k), or whatever the loss takes
        """
        with tf.GradientTape() as tape, self._recording(tape):
            tape.watch(trainable)
            outputs, loss = forward()
        sites = self._sites
        kernels = [trainable[i] for i in self._kernels]
        values = [call.z for site in sites for call in site.calls]
        gradients = tape.gradient(loss, [*kernels, *values], unconnected_gradients="zero")
        errors = iter(gradients[len(kernels) :])
        dtype = tf.float64 if loss.dtype == tf.float64 else tf.float32  # half precision cannot hold squares
        observed = Observed(
            loss=tf.cast(loss, dtype),
            inputs=self._inputs(dtype),
            wrong=self._wrong(outputs, y, dtype),
            a=[_rows(site, [call.a for call in site.calls], dtype) for site in sites],
            slope=[
                _rows(site, [call.slope if known else tf.zeros_like(call.a) for call in site.calls], dtype)
                for site, known in zip(sites, self._has_slope, strict=True)
            ],
            error=[_rows(site, [next(errors) for _ in site.calls], dtype) for site in sites],
            # Embeddings have sparse gradients.
            gradients=[tf.cast(_table(tf.convert_to_tensor(g)), dtype) for g in gradients[: len(kernels)]],
        )
        for site in sites:
            site.calls = []
        return observed

    def _inputs(self, dtype: Any) -> Any:
        inputs = self._sites[0].calls[0].inputs if self._sites else None
        if inputs is None or not inputs.dtype.is_floating:  # the rows of an embedding have no scale
            return tf.zeros((0, 1), dtype)
        return tf.cast(tf.reshape(inputs, [-1, inputs.shape[-1]]), dtype)

    def _wrong(self, outputs: Any, y: Any, dtype: Any) -> Any:
        last = self._sites[-1].calls[-1].a if self._sites else None
        one = tf.is_tensor(outputs) and (tf.is_tensor(y) or isinstance(y, np.ndarray))  # not several outputs
        if last is None or not one or outputs.shape != last.shape:
            return tf.zeros((0, 1), dtype)
        y = tf.cast(y, dtype)
        y = y[:, tf.newaxis] if len(y.shape) == 1 else y
        low, high = RANGES.get(self.layers[-1].activation, (0.0, 0.0))
        if y.shape[-1] == 1 and outputs.shape[-1] > 1 and len(y.shape) == len(outputs.shape):  # the index of the class
            y = tf.one_hot(tf.cast(y[..., 0], "int32"), outputs.shape[-1], dtype=dtype)
        if low == high or y.shape != outputs.shape:
            return tf.zeros((0, 1), dtype)
        return _table(tf.cast(tf.abs(tf.cast(outputs, dtype) - y) > 0.5 * (high - low), dtype))

    def reduce(
        self, observed: Observed, trainable: Sequence[Any], before: Sequence[Any], low: Any, high: Any
    ) -> dict[str, Any]:
        """Return sums over rows and inputs, (l, ...), small enough to leave the device.

        Parameters
        ----------
        observed : Observed
            Of l lanes.
        trainable, before : sequence of tensor of shape (l, ...)
            The trainable variables, and what they were before the last update; the same ones where there was none.
        low, high : tensor of shape (l, U)
            The asymptotes of every unit; 0 and 1 where there are none.
        """
        loss = observed.loss
        sums: dict[str, Any] = {"loss": loss}
        dtype = loss.dtype
        low, high = tf.cast(low, dtype), tf.cast(high, dtype)
        if self._sites:
            by_unit: dict[str, list[Any]] = {}
            for members in self._by_rows:
                a, slope, error = (_beside(of, members) for of in (observed.a, observed.slope, observed.error))
                units = slice(self._units[members[0]].start, self._units[members[-1]].stop)
                scaled = _scaled(a, low[:, units], high[:, units])
                mean = tf.reduce_mean(a, axis=1)
                for name, value in {
                    "mean": mean,
                    "variance": tf.reduce_mean(tf.math.squared_difference(a, mean[:, None]), axis=1),
                    "near": tf.reduce_mean(tf.cast(scaled > 1 - 2 * SATURATION_MARGIN, dtype), axis=1),
                    "index": tf.reduce_mean(scaled, axis=1),
                    "slope": tf.reduce_mean(tf.square(slope), axis=1),
                    "largest_slope": tf.reduce_max(tf.abs(slope), axis=1),
                    "error": tf.reduce_mean(tf.square(error), axis=1),
                }.items():
                    by_unit.setdefault(name, []).append(value)
            sums |= {name: tf.concat(values, axis=1) for name, values in by_unit.items()}
            by_kernel: dict[str, list[Any]] = {}
            now, then = ([tf.cast(_tables(of[i]), dtype) for i in self._kernels] for of in (trainable, before))
            for members in self._by_fan:
                gradient, new, old = (_beside(tables, members) for tables in (observed.gradients, now, then))
                for name, value in {
                    "gradient": tf.reduce_sum(tf.square(gradient), axis=1),
                    "zeros": tf.reduce_sum(tf.cast(tf.equal(gradient, 0), dtype), axis=1),
                    "weight": tf.reduce_sum(tf.square(new), axis=1),
                    "earlier": tf.reduce_sum(tf.square(old), axis=1),
                    "change": tf.reduce_sum(tf.math.squared_difference(new, old), axis=1),
                }.items():
                    by_kernel.setdefault(name, []).append(value)
            sums |= {name: tf.concat(values, axis=1) for name, values in by_kernel.items()}
        if observed.inputs.shape[1]:
            x = observed.inputs
            sums["input_mean"], sums["input_square"] = tf.reduce_mean(x, axis=1), tf.reduce_mean(tf.square(x), axis=1)
            sums["input_max"] = tf.reduce_max(tf.abs(x), axis=1)
        if observed.wrong.shape[1]:
            units = self._units[-1]
            near = _scaled(observed.a[-1], low[:, units], high[:, units]) > 1 - 2 * SATURATION_MARGIN
            sums["wrong"] = tf.reduce_mean(tf.cast(near, dtype) * observed.wrong, axis=1)
        return sums

    def bounds(self, layers: Sequence[LayerFacts]) -> tuple[np.ndarray, np.ndarray]:
        """Return the asymptotes of every unit, (U,) each, for layers with these activations; else 0 and 1."""
        low, high = np.zeros(self._n_units), np.ones(self._n_units)
        for layer, units in zip(layers, self._units, strict=True):
            low[units], high[units] = RANGES.get(layer.activation, (0.0, 1.0))
        return low, high

    @property
    def _n_units(self) -> int:
        return max((units.stop for units in self._units), default=0)

    def finish(self, sums: Mapping[str, np.ndarray], layers: Sequence[Sequence[LayerFacts]]) -> list[Measured]:
        """Return the measures of every lane.

        Parameters
        ----------
        sums : mapping of str to array of shape (l, ...)
            What `reduce` gave.
        layers : sequence of l sequences of LayerFacts
            Those of each lane, whose activations may differ.

        Returns
        -------
        list of two arrays for each lane
            (L, len(LAYER_MEASURES)) and (len(NETWORK_MEASURES),).
        """
        sums = {name: np.asarray(values, dtype=float) for name, values in sums.items()}
        with np.errstate(all="ignore"):  # what overflows or is NaN is what we want to know
            by_layer = np.array([self._of_site(i, sums, layers) for i in range(len(self._sites))])
            by_layer = by_layer.reshape(len(self._sites), len(LAYER_MEASURES), len(layers)).transpose(2, 0, 1)
            of_network = self._of_network(sums, by_layer)
        return list(zip(by_layer, of_network, strict=True))

    def _of_site(
        self, i: int, sums: Mapping[str, np.ndarray], layers: Sequence[Sequence[LayerFacts]]
    ) -> list[np.ndarray]:
        unit = {name: sums[name][:, self._units[i]] for name in _OF_UNITS}
        columns, n = self._columns[i], self.layers[i].n_weights
        kernel = {name: sum(sums[name][:, c].sum(axis=1) for c in columns) for name in _OF_KERNELS}
        bad_weights = sum(np.sum(~np.isfinite(sums["gradient"] + sums["weight"])[:, c], axis=1) for c in columns)
        bounded = np.array([own[i].activation in RANGES for own in layers])
        near, index = unit["near"], unit["index"]
        slope, nan = unit["slope"], np.full(len(bounded), math.nan)
        saturation = [near.mean(axis=1), index.mean(axis=1), (near >= SATURATED_ROWS).mean(axis=1)]
        slopes = [nan, nan, nan]
        if self._has_slope[i]:
            by_unit = sums["weight"][:, columns[0]] / self.layers[i].fan_in
            local = (by_unit if by_unit.shape == slope.shape else by_unit.mean(axis=1, keepdims=True)) * slope
            dead = (unit["largest_slope"] < NO_SLOPE).mean(axis=1)
            slopes = [dead, np.sqrt(slope.mean(axis=1)), np.sqrt(local.mean(axis=1))]
        mean, variance = unit["mean"], unit["variance"]
        return [
            np.sqrt(kernel["gradient"]),
            np.sqrt(kernel["gradient"] / n),
            kernel["zeros"] / n,
            PROBE_ROWS * np.sqrt(unit["error"].mean(axis=1)),
            np.sqrt(kernel["weight"]),
            np.sqrt(kernel["change"] / kernel["earlier"]),
            mean.mean(axis=1),
            variance.mean(axis=1) + mean.var(axis=1),
            variance.mean(axis=1),
            *(np.where(bounded, value, math.nan) for value in saturation),
            *slopes,
            sum(np.sum(~np.isfinite(unit[name]), axis=1) for name in ("variance", "error")) + bad_weights,
        ]

    def _of_network(self, sums: Mapping[str, np.ndarray], by_layer: np.ndarray) -> np.ndarray:
        nan = np.full(len(by_layer), math.nan)
        inputs = [nan] * 5
        if "input_mean" in sums:
            mean, square = sums["input_mean"], sums["input_square"]
            spread = np.log10(np.where(square > 0, square, np.nan)) / 2
            inputs = [
                mean.mean(axis=1),
                np.sqrt(square.mean(axis=1)),
                sums["input_max"].max(axis=1),
                np.sqrt((mean**2).mean(axis=1) / np.maximum(square - mean**2, 0).mean(axis=1)),
                _std(spread),
            ]
        outputs = [nan, nan]
        if by_layer.shape[1]:
            outputs[0] = by_layer[:, -1, LAYER_MEASURES.index("saturation")]
        if "wrong" in sums:
            outputs[1] = sums["wrong"].mean(axis=1)
        norm = np.sqrt((by_layer[:, :, LAYER_MEASURES.index("grad_norm")] ** 2).sum(axis=1))
        bad = by_layer[:, :, LAYER_MEASURES.index("non_finite")].sum(axis=1) + ~np.isfinite(sums["loss"])
        return np.stack([sums["loss"], norm, *inputs, *outputs, bad], axis=1)


def _alike(sizes: Sequence[int]) -> list[list[int]]:
    """Return the indices of equal sizes together."""
    groups: dict[int, list[int]] = {}
    for i, size in enumerate(sizes):
        groups.setdefault(size, []).append(i)
    return list(groups.values())


def _places(groups: Sequence[Sequence[int]], widths: Sequence[int]) -> list[slice]:
    """Return where each table's columns stand when the groups are laid side by side."""
    places: dict[int, slice] = {}
    first = 0
    for i in (i for members in groups for i in members):
        places[i] = slice(first, first + widths[i])
        first += widths[i]
    return [places[i] for i in range(len(widths))]


def _beside(tables: Sequence[Any], members: Sequence[int]) -> Any:
    return tables[members[0]] if len(members) == 1 else tf.concat([tables[i] for i in members], axis=2)


def call_in_training(model: keras.Model, X: Any) -> Any:
    """Call a model as ``fit`` does, which does not tell a model about training that does not ask."""
    return model(X, training=True) if model._call_has_training_arg else model(X)


def weights_of(model: keras.Model) -> list[Any]:
    """Return the present values of the trainable variables; they stay as they are when the variables change."""
    return [tf.convert_to_tensor(v.value) for v in model.trainable_variables]


def probe_masks(model: keras.Model, seed: int) -> list[tuple[Any, Any]]:
    """Return the variables that random masks are drawn from, with the values that they have for the probe."""
    states = enumerate(network.mask_states(model))
    return [(state, tf.constant([seeds.mask_seed(seed, i, 0), 0], state.dtype)) for i, state in states]


def measure_model(
    probe: Probe,
    X: Any,
    y: Any,
    loss: Callable[[Any], Any],
    before: Sequence[Any],
    *,
    layers: Sequence[LayerFacts],
    masks: Sequence[tuple[Any, Any]] = (),
) -> Measured:
    """Measure a Keras model eagerly, as it is.

    Parameters
    ----------
    probe : Probe
        Of the model.
    X : array of shape (P, ...), or whatever the model takes
    y : array of shape (P, k), or whatever the loss takes
    loss : callable
        Gives the loss of the outputs, penalties included; it is called where layers note their penalties.
    before : sequence of tensor
        The trainable variables before the last update.
    layers : sequence of LayerFacts
    masks : sequence of (Keras variable, tensor)
        The states that random layers are to draw from, in place of their own.
    """
    model = probe.model
    trainable = weights_of(model)
    given = [*zip(model.trainable_variables, trainable, strict=True), *masks]

    def forward() -> tuple[Any, Any]:
        with keras.StatelessScope(state_mapping=given, collect_losses=True):
            outputs = call_in_training(model, X)
            return outputs, loss(outputs)

    observed = probe.observe(trainable, forward, y)
    lane, now, then = tf.nest.map_structure(lambda value: value[tf.newaxis], (observed, trainable, list(before)))
    low, high = (tf.constant(side[np.newaxis], observed.loss.dtype) for side in probe.bounds(layers))
    sums = {name: values.numpy() for name, values in probe.reduce(lane, now, then, low, high).items()}
    return probe.finish(sums, [layers])[0]


def _scaled(a: Any, low: Any, high: Any) -> Any:
    """Return the distance of a (l, n, u) from the middle of its range (l, u), 1 at the asymptotes."""
    low, high = low[:, None], high[:, None]
    return tf.abs(2 * (a - low) / (high - low) - 1)


def _std(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation of every row but for its NaN; 0 for a row without numbers."""
    known = np.isfinite(values)
    n = np.maximum(known.sum(axis=1), 1)
    middle = np.where(known, values, 0).sum(axis=1) / n
    return np.sqrt((np.where(known, values - middle[:, None], 0) ** 2).sum(axis=1) / n)


def _tables(values: Any) -> Any:
    """Return weights of l lanes, (l, ..., v), as (l, f, v)."""
    return tf.reshape(values, [values.shape[0], -1, values.shape[-1]])


def _table(values: Any) -> Any:
    """Return values with the units last as (n, u)."""
    return tf.reshape(values, [-1, values.shape[-1]])


def _rows(site: _Site, values: Sequence[Any], dtype: Any) -> Any:
    """Return the values of all calls of a site as (n, u)."""
    values = [tf.cast(value, dtype) for value in values]
    flat = [_table(v if site.axis == -1 else tf.experimental.numpy.moveaxis(v, site.axis, -1)) for v in values]
    return flat[0] if len(flat) == 1 else tf.concat(flat, axis=0)


def _slope(function: Callable[[Any], Any], z: Any, tape: Any) -> Any:
    """Return the derivative of an activation at every value, apart from the tape that records the pass."""
    if not z.dtype.is_floating:
        return None
    with ExitStack() as stack:
        if tape is not None:
            stack.enter_context(tape.stop_recording())
        with tf.GradientTape() as inner:
            inner.watch(z)
            a = function(z)
        slope = inner.gradient(a, z)
    return tf.zeros_like(z) if slope is None else slope


def _is_elementwise(call: _Call) -> bool:
    """Whether the slope of every value is that of one unit: softmax and the like have none."""
    return call.slope is not None and call.a.shape == call.z.shape and call.activation not in _NOT_ELEMENTWISE


_NOT_ELEMENTWISE = {"softmax", "log_softmax", "sparsemax", "glu", "unknown"}


def _activation_name(function: Any) -> str:
    """Return Keras's name of an activation, "unknown" for one whose range we do not know."""
    if function is None:
        return "linear"
    name = getattr(function, "__name__", type(function).__name__)
    return name if name in RANGES or name in _UNBOUNDED else "unknown"


def _is_activation(layer: Any) -> bool:
    kinds = (keras.layers.Activation, ChosenActivation, *_ACTIVATION_LAYERS)
    return isinstance(layer, kinds) or type(layer).__name__ == "FunctionActivation"


def _below(layer: Any) -> list[Any]:
    return list(layer._flatten_layers(include_self=False))


def _unit_axis(layer: Any) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def _names(model: Any, renumber: bool) -> dict[int, str]:
    """Return a unique name for every layer, by its ``id``: that of the layer, or the path to it in a nested model."""
    names: dict[int, str] = {}
    taken: dict[str, int] = {}

    def own_name(layer: Any) -> str:
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)).lower()
        return kind if renumber and re.fullmatch(rf"{kind}(_\d+)?", layer.name) else layer.name

    def visit(parent: Any, path: str) -> None:
        for layer in parent._layers:
            if id(layer) in names or not isinstance(layer, keras.layers.Layer):
                continue
            name = f"{path}{own_name(layer)}"
            taken[name] = taken.get(name, -1) + 1
            names[id(layer)] = name if not taken[name] else f"{name}_{taken[name]}"
            visit(layer, f"{names[id(layer)]}/")

    visit(model, "")
    for layer in model._flatten_layers(include_self=False):
        names.setdefault(id(layer), layer.name)
    return names


def _wrapped(method: Callable[..., Any], thing: Any, tape: Any) -> Callable[[Any], Any]:
    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return method(thing, tape, original, *args, **kwargs)

        return call

    return around
