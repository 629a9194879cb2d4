"""A program: the training of many lanes of one structure as one function of TensorFlow.

Written for one lane, vectorised over all of them: `tf.vectorized_map` turns the update of one network into that of L
networks, `tf.while_loop` repeats it over the batches of an epoch, and XLA compiles the whole. What differs between
lanes (weights, rows, rates, seeds) is an argument with a leading axis of length L.

Notations
---------
- L lanes; B rows in a batch; S updates in the longest epoch; R rows in all tables together; D dropout layers
- ``rates``: (L, S), the learning rate of every update; ``factors``: (L, V), by which it is multiplied for each of V
  trainable variables, (L, 0) where there are no layer-wise rates; ``numbers``: the optimizer's other numbers by name,
  each (L,); ``dropout``: (L, D), the rates of dropout layers; ``mask_seeds``: (L, D), their seeds in this epoch
- ``parts``: what is measured after the epoch, by the prefix of its series
- ``trainable``, ``state``, ``slots``: lists of the lanes' weights, other variables (moving averages, choices) and
  optimizer variables, each (L, ...)
- ``X``: (R, ...), all tables one below the other; a lane's part has ``rows``: (L, n), their numbers in X; ``y``:
  (L, n, k); ``weight``: (L, n); ``count``: (L,), how many of the n are real, the others are padding
- ``order``: (L, S * B), the positions in the part which the batches visit one after the other
- ``steps``: (L,), how many updates each lane makes; a lane that has stopped makes none, and stays as it is. All lanes
  make their last update together: the batches and rates of one that makes fewer begin later
- ``probe``: ``rows``, ``y`` and ``weight`` of P rows as in a part, ``mask_seeds`` (L, D), and ``low`` and ``high`` as
  `tuner.health.measures` has them; empty where health is not measured
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

import cloudpickle
import numpy as np

from tuner import network
from tuner.backend import expected_tracing, keras
from tuner.backend import tensorflow as tf
from tuner.engine.base import Lane
from tuner.engine.compilation import LANE_NUMBERS, make_loss, metric_function, optimizer_config, scale_rates
from tuner.engine.vectorizing import VectorizedLayers
from tuner.health.measures import PROBE_ROWS, Probe
from tuner.hyperparameters import NETWORK, widths

#: How many programs are kept. A program of a small network holds 9 MB.
CACHE_SIZE = 32

#: How many programs a process compiles. TensorFlow keeps what XLA has compiled for good, 12 MB for each; a search in
#: which every trial has a structure of its own goes on with graphs that are not compiled, and can be let go.
COMPILED_AT_MOST = 64

# Rows at a time, over all lanes, when parts are measured or outputs asked for: bounds the memory.
_ROWS_AT_A_TIME = 8192


@dataclass
class Statistics:
    """What this process has spent on programs: how many it has traced and compiled, and the seconds for both."""

    traced: int = 0
    compiled: int = 0
    seconds: float = 0.0


statistics = Statistics()


# Structure ------------------------------------------------------------------------------------------------------------


def alternatives_of(lane: Lane) -> network.Alternatives | None:
    """Return the alternatives of which the lane's network is one, if its program can stand for all of them."""
    given = lane.alternatives
    return given if given is not None and lane.state is None and given.include(lane.hyperparameters) else None


def structure_of(lane: Lane, model: keras.Model | None = None) -> Hashable:
    """Return what lanes of one program share; the sizes of the data are in `Shape`.

    Parameters
    ----------
    lane : Lane
    model : keras.Model, optional
        The lane's network, where it is a custom one.
    """
    values = lane.hyperparameters
    shape: tuple[Any, ...]
    if values["model"] is not None:
        shape = (_identity(values["model"]), _canonical(model, values))
    else:
        alternatives = alternatives_of(lane)
        kind = alternatives or (_identity(values["activation"]), values["batch_normalization"])
        shape = (widths(values["units"], values["hidden_layers"]), values["residual"], bool(values["dropout"]), kind)
    cls, config = optimizer_config(values, 1)
    numbers = tuple(name for name in LANE_NUMBERS if _varies(name, config))
    fixed = {name: value for name, value in config.items() if name not in (*numbers, "learning_rate", "name")}
    given = lane.output
    # What accuracy is measured by; several classes are told apart by the largest output, whatever the targets.
    ends = (given.threshold, given.targets) if lane.task == "multilabel" or given.units == 1 else None
    output = (given.units, _identity(given.activation), _identity(given.loss), ends)
    return (
        *(shape, output, lane.task, lane.train.X.shape[1:], values["dtype"], values["batch_size"], values["health"]),
        *(cls, _json(fixed), numbers, values["layerwise_learning_rates"] is not None),
    )


def _varies(name: str, config: Mapping[str, Any]) -> bool:
    """Whether an optimizer computes with the number; Keras leaves out what a momentum of 0 would do."""
    return config.get(name) is not None and (name == "weight_decay" or config[name] > 0)


def _identity(thing: Any) -> Hashable:
    """Return what two equal things share though ``clone`` has copied them.

    What is not Keras's own is known by all that it holds: code, closure, attributes. Only a function of a module that
    can be imported is known by its name.
    """
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if (getattr(thing, "__module__", None) or type(thing).__module__).startswith("keras."):
        if hasattr(type(thing), "get_config"):
            return type(thing), _json(thing.get_config())
        if isinstance(thing, FunctionType) and "<" not in thing.__qualname__:
            return thing.__module__, thing.__qualname__  # every layer has wrapped methods of its own, such as build
        return thing
    try:
        return hashlib.sha256(cloudpickle.dumps(thing)).digest()
    except Exception:  # whatever an object raises that cannot travel: it is equal to itself only
        return object()


def _json(config: Any) -> str:
    return json.dumps(config, default=repr, sort_keys=True)


# What a custom model is given, and lanes may differ in: it shows in the values of weights, and in rates.
_LANES_OWN = {name for name, hyperparameter in NETWORK.items() if hyperparameter.kind == "lane"}
_NAMES = {"name", "keras_history", "input_layers", "output_layers"}


def _canonical(model: Any, values: Mapping[str, Any]) -> Hashable:
    """Return what tells a custom network's computation: its arguments, its configuration, its layers' functions.

    The configuration comes without what lanes may differ in: seeds and initialisers of Keras's own layers, dropout
    rates, and names. Keras numbers names through; they become numbers in the order of their appearance. A model of a
    class of its own has no configuration to rely on, and is known by all its arguments.
    """
    given = {**{name: values[name] for name in NETWORK}, **(values["model_params"] or {})}
    configured = isinstance(model, keras.Sequential) or type(model).__name__ == "Functional"
    layers = model._flatten_layers()
    own_names = {layer.name for layer in layers}
    numbers: dict[str, int] = {}

    def cleaned(thing: Any, of_keras: bool = True, is_name: bool = False) -> Any:
        if isinstance(thing, dict):
            if "class_name" in thing and isinstance(thing.get("config"), dict):
                of_keras = (thing.get("module") or "").startswith("keras")
                if of_keras and thing["class_name"] == "Dropout":
                    thing = {**thing, "config": {**thing["config"], "rate": thing["config"]["rate"] > 0}}
            kept = (k for k in thing if not (of_keras and (k == "seed" or k.endswith("_initializer"))))
            return {k: cleaned(thing[k], of_keras, is_name or k in _NAMES) for k in kept}
        if isinstance(thing, list | tuple):
            return [cleaned(value, of_keras, is_name) for value in thing]
        if is_name and isinstance(thing, str) and thing in own_names:
            return numbers.setdefault(thing, len(numbers))
        return thing

    config = ""
    if configured:
        try:
            config = _json(cleaned(model.get_config()))
        except Exception:  # a layer that has none
            configured = False
    if configured:
        given = {name: value for name, value in given.items() if name not in _LANES_OWN}
    functions = tuple(_identity(v) for layer in layers for v in vars(layer).values() if isinstance(v, FunctionType))
    arguments = tuple((name, _identity(value)) for name, value in sorted(given.items()))
    return arguments, config, tuple(map(type, layers)), functions


@dataclass(frozen=True)
class Shape:
    """The sizes that a program is made for.

    Parameters
    ----------
    lanes : int
    rows : int
        In all tables together.
    train : int
        The rows of the longest training part.
    parts : tuple of (str, int)
        The prefix and the longest length of the other parts.
    batch_size : int
    padded : bool
        Whether any lane's last batch may not be full.
    probe : int
        The rows on which health is measured, 0 if it is not.
    """

    lanes: int
    rows: int
    train: int
    parts: tuple[tuple[str, int], ...]
    batch_size: int
    padded: bool
    probe: int

    @classmethod
    def of(cls, lanes: Sequence[Lane], rows: int) -> Shape:
        """Return the shape for some lanes, with room for folds that are a little longer."""
        longest = max(len(lane.train) for lane in lanes)
        batch_size = min(lanes[0].hyperparameters["batch_size"], longest)
        lengths: dict[str, int] = {}
        for lane in lanes:
            for prefix, part in lane.parts.items():
                lengths[prefix] = max(lengths.get(prefix, 0), roomy(len(part)))
        return cls(
            lanes=len(lanes),
            rows=rows,
            train=roomy(longest),
            parts=tuple(sorted(lengths.items())),
            batch_size=batch_size,
            padded=any(len(lane.train) % batch_size for lane in lanes),
            probe=PROBE_ROWS if lanes[0].hyperparameters["health"] else 0,
        )

    def holds(self, other: Shape) -> bool:
        """Whether a program of this shape serves the other without computing for more than twice the lanes."""
        mine, theirs = dict(self.parts), dict(other.parts)
        return (
            other.lanes <= self.lanes <= 2 * other.lanes
            and other.batch_size == self.batch_size
            and other.padded <= self.padded
            and other.probe == self.probe
            and mine.keys() == theirs.keys()
            and all(theirs[name] <= mine[name] <= 2 * theirs[name] for name in mine)
            and all(getattr(other, n) <= getattr(self, n) <= 2 * getattr(other, n) for n in ("rows", "train"))
        )

    @property
    def steps(self) -> int:
        """The most updates in an epoch."""
        return -(-self.train // self.batch_size)


def roomy(n: int) -> int:
    """Return a number of rows with room for folds a little longer: rounded up to five binary digits, at most by 6 %."""
    unit = 1 << max(0, n.bit_length() - 5)
    return -(-n // unit) * unit


def measured_rows(lanes: int, length: int) -> int:
    """Return how many rows of a part are measured at a time."""
    return min(length, max(1, _ROWS_AT_A_TIME // lanes))


# Programs -------------------------------------------------------------------------------------------------------------


@dataclass
class Arguments:
    """What a program is called with beside the variables; see Notations. All but `X` are (L, ...)."""

    X: Any
    train: dict[str, Any]
    order: Any
    rates: Any
    factors: Any
    numbers: dict[str, Any]
    dropout: Any
    mask_seeds: Any
    steps: Any
    parts: dict[str, dict[str, Any]]
    probe: dict[str, Any]


class Program:
    """One compiled structure of one shape.

    Parameters
    ----------
    lane : Lane
        One of those that it is made for.
    shape : Shape
    compiled : bool
        Whether XLA compiles it; a graph that is run as it is costs less to make and more to run.

    Raises
    ------
    NotImplementedError
        If the network cannot be vectorised.
    """

    def __init__(self, lane: Lane, shape: Shape, *, compiled: bool):
        self.shape = shape
        self.alternatives = alternatives_of(lane)
        self.dtype = lane.hyperparameters["dtype"]
        values = lane.hyperparameters
        self.template = network.build(values, lane.train.X.shape[1:], lane.output, lane.seed, self.alternatives)
        self.layers = VectorizedLayers(self.template)
        cls, config = optimizer_config(values, 1)
        self.numbers = [name for name in LANE_NUMBERS if _varies(name, config)]
        self.layerwise = values["layerwise_learning_rates"] is not None
        with network.precision(self.dtype):
            self.optimizer = _optimizer_in_lanes(cls, {**config, "learning_rate": 1.0}, self.template)
        self.loss = make_loss(lane.output.loss, self.dtype)
        self.metric_name, self.metric = metric_function(lane.task, lane.output)
        self.trainable = self.template.trainable_variables
        self.state = self.template.non_trainable_variables
        self._n_penalties = sum(variable.regularizer is not None for variable in self.trainable)
        self.slots = [v for v in self.optimizer.variables if v is not self.optimizer._learning_rate]
        self.defaults = [[np.asarray(v) for v in part] for part in (self.trainable, self.state, self.slots)]
        self._check_loss(lane)
        if values["model"] is not None:
            self._check_rows_are_independent(lane)
        self.probe: Probe | None = None
        if shape.probe:
            self.probe = Probe(self.template, np.zeros((1, *lane.train.X.shape[1:]), self.dtype), renumber=True)
        self._epoch = tf.function(self._train_epoch, jit_compile=compiled, autograph=False)
        self._forward = tf.function(self._infer, autograph=False, reduce_retracing=True)
        self._compiled = compiled
        self._made = False

    def epoch(self, variables: Any, arguments: Arguments) -> tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Train every lane for an epoch.

        Returns
        -------
        variables : as given
        measured : dict of str to array of shape (L, 2)
            Loss and metric of the training part (``""``) and of the others, by their prefix.
        health : dict of str to array of shape (L, ...)
            What `Probe.finish` makes the measures of; empty if health is not measured.
        """
        with network.precision(self.dtype):
            variables, measured, health = self._epoch(variables, vars(arguments))
        return variables, _as_arrays(measured), _as_arrays(health)

    def idle(self, arguments: Arguments) -> Arguments:
        """Return arguments with which an epoch changes nothing, and only health is measured."""
        parts = {name: {**part, "count": tf.zeros_like(part["count"])} for name, part in arguments.parts.items()}
        return replace(arguments, steps=tf.zeros_like(arguments.steps), parts=parts)

    def outputs(self, trainable: Sequence[Any], state: Sequence[Any], lane: int, X: Any) -> np.ndarray:
        """Return the outputs (n, k) of one lane for any number of rows, given the variables of all."""
        i, starts = tf.constant(lane), range(0, X.shape[0], _ROWS_AT_A_TIME)
        chunks = (network.as_dense(X[start : start + _ROWS_AT_A_TIME]) for start in starts)
        with network.precision(self.dtype), expected_tracing():
            parts = [self._forward(trainable, state, i, tf.convert_to_tensor(chunk)).numpy() for chunk in chunks]
        return np.concatenate(parts)

    def unused(self, lane: Lane) -> set[int]:
        """Return the ``id`` of every variable of the program that the lane's own network does not have."""
        if self.alternatives is None:
            return set()
        return self.alternatives.unused(self.template, lane.hyperparameters)

    def make(self, variables: Any, arguments: Arguments) -> None:
        """Trace the program, and compile it, by a call without updates; it is done once.

        Raises
        ------
        Exception
            Whatever the network's code, the vectorisation or the compiler raises.
        """
        if self._made:
            return
        start = time.perf_counter()
        idle = self.idle(arguments)
        with network.precision(self.dtype):
            if self._compiled:
                self._epoch(variables, vars(idle))
                statistics.compiled += 1
            else:
                self._epoch.get_concrete_function(variables, vars(idle))
        self._made = True
        statistics.seconds += time.perf_counter() - start

    # What is traced ---------------------------------------------------------------------------------------------------

    def _train_epoch(self, variables: Any, given: Any) -> Any:
        statistics.traced += 1
        size, lanes = self.shape.batch_size, self.shape.lanes
        train = given["train"]
        last = tf.reduce_max(given["steps"])

        def body(step: Any, variables: Any, sums: Any) -> Any:
            own = step - (last - given["steps"])  # the lane's own count; it is below 0 before the lane begins
            positions = tf.slice(given["order"], [0, step * size], [lanes, size])
            real = own[:, None] * size + tf.range(size) < train["count"][:, None]
            batch = {
                "X": tf.gather(given["X"], tf.gather(train["rows"], positions, batch_dims=1)),
                "y": tf.gather(train["y"], positions, batch_dims=1),
                "weight": tf.gather(train["weight"], positions, batch_dims=1) * tf.cast(real, self.dtype),
                "real": tf.cast(real, self.dtype),
                "rate": given["rates"][:, step],
                "step": own,
                "on": own >= 0,
                **{name: given[name] for name in ("factors", "numbers", "dropout", "mask_seeds")},
            }
            variables, added = _over_lanes(self._update, (variables, batch))
            return step + 1, variables, sums + added

        def phase(i: Any, variables: Any, before: Any, sums: Any) -> Any:
            # All updates but the last, then the last one: the weights in between are kept at no cost to each step.
            before = variables[0]
            first, end = tf.where(i == 0, 0, tf.maximum(last - 1, 0)), tf.where(i == 0, last - 1, last)
            _, variables, sums = tf.while_loop(lambda step, *_: step < end, body, (first, variables, sums))
            return i + 1, variables, before, sums

        start = (0, variables, variables[0], tf.zeros((lanes, 4), self.dtype))
        _, variables, before, sums = tf.while_loop(lambda i, *_: i < 2, phase, start)
        measured = {"": tf.math.divide_no_nan(sums[:, 0::2], sums[:, 1::2])}
        for prefix, part in given["parts"].items():
            measured[prefix] = self._measure(variables, given["X"], part)
        health: dict[str, Any] = {}
        if self.probe is not None:
            probe = {**given["probe"], "X": tf.gather(given["X"], given["probe"]["rows"]), "dropout": given["dropout"]}
            observed = _over_lanes(self._observe, (variables[:2], probe))
            health = self.probe.reduce(observed, variables[0], before, probe["low"], probe["high"])
        return variables, measured, health

    def _observe(self, given: Any) -> Any:
        """Pass the probe through one lane."""
        (trainable, state), batch = given
        assert self.probe is not None
        layers = self.layers.given(rates=batch["dropout"], seeds=batch["mask_seeds"], step=tf.constant(0))

        def forward() -> tuple[Any, Any]:
            with layers:
                outputs, _, losses = self._call(trainable, state, batch["X"], training=True)
                return outputs, tf.add_n([self.loss(batch["y"], outputs, batch["weight"]), *losses])

        return self.probe.observe(trainable, forward, batch["y"])

    def _update(self, given: Any) -> Any:
        """Make one update of one lane; return its variables, and what it adds to the sums of its epoch."""
        (trainable, state, slots), batch = given
        layers = self.layers.given(
            valid=batch["real"] if self.shape.padded else None,
            rates=batch["dropout"],
            seeds=batch["mask_seeds"],
            step=batch["step"],
        )
        with tf.GradientTape() as tape, layers:
            tape.watch(trainable)
            outputs, new_state, losses = self._call(trainable, state, batch["X"], training=True)
            loss = tf.add_n([self.loss(batch["y"], outputs, batch["weight"]), *losses])
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, trainable)
        if any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients):
            # Keras squares the gradients of a row that a batch has twice before it adds them up.
            raise NotImplementedError("the gradients of embeddings are sparse")
        new_trainable, new_slots = self._apply(trainable, slots, gradients, batch)
        old, new = (trainable, state, slots), (new_trainable, new_state, new_slots)
        variables = tf.nest.map_structure(lambda a, b: tf.where(batch["on"], a, b), new, old)
        # Loss and metric as `fit` reports them: the mean of the batches' losses, each counted by its rows, and the
        # mean of the metric over the rows by their weights.
        rows, weight = tf.reduce_sum(batch["real"]), tf.reduce_sum(batch["weight"])
        metric = tf.reduce_sum(self._metric(batch["y"], outputs) * batch["weight"])
        added = tf.stack([loss * rows, rows, metric, weight])
        return variables, tf.where(batch["on"], added, tf.zeros_like(added))

    def _call(self, trainable: Any, state: Any, X: Any, *, training: bool) -> tuple[Any, list[Any], list[Any]]:
        """Call one lane's network; return the outputs, the other variables after that, and the losses of layers.

        Not ``stateless_call``, which passes by ``Model.__call__`` and so by how Keras tells the layers inside whether
        they are trained. Like ``fit``, it does not tell a model that does not ask.
        """
        told = {"training": training} if self.template._call_has_training_arg else {}
        mapping = [*zip(self.trainable, trainable, strict=True), *zip(self.state, state, strict=True)]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = self.template(X, **told)
            losses = self.template.losses
        if len(scope.state_mapping) > len(mapping):
            raise NotImplementedError("the network changes a variable that is not its own")
        if len(losses) > self._n_penalties:
            raise NotImplementedError("a layer adds a loss when it is called")
        return outputs, [scope.get_current_value(v) for v in self.state], losses

    def _apply(self, trainable: Any, slots: Any, gradients: Any, batch: Any) -> tuple[list[Any], list[Any]]:
        """Return weights and optimizer variables after the optimizer's update."""
        mapping = [*zip(self.trainable, trainable, strict=True), *zip(self.slots, slots, strict=True)]
        mapping.append((self.optimizer._learning_rate, tf.cast(batch["rate"], self.optimizer._learning_rate.dtype)))
        for name in self.numbers:
            setattr(self.optimizer, name, _LaneNumber(batch["numbers"][name]))
        if self.layerwise:
            scale_rates(self.optimizer, [batch["factors"][i] for i in range(len(self.trainable))])
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.optimizer.apply(gradients)
        current = scope.get_current_value
        return [current(v) for v in self.trainable], [current(v) for v in self.slots]

    def _measure(self, variables: Any, X: Any, part: Any) -> Any:
        """Return loss and metric (L, 2) of a part."""
        lanes, length = part["rows"].shape
        size = measured_rows(lanes, length)

        def body(chunk: Any, sums: Any) -> Any:
            here = {
                name: tf.slice(v, [0, chunk * size, 0][: len(v.shape)], [lanes, size, *v.shape[2:]])
                for name, v in part.items()
                if name != "count"
            }
            real = tf.cast(chunk * size + tf.range(size) < part["count"][:, None], self.dtype)
            batch = (tf.gather(X, here["rows"]), here["y"], here["weight"] * real)
            added = _over_lanes(self._evaluate, (variables[:2], batch))
            return chunk + 1, sums + added

        last = -(-tf.reduce_max(part["count"]) // size)
        start = (0, tf.zeros((lanes, 3), self.dtype))
        _, sums = tf.while_loop(lambda chunk, _: chunk < last, body, start)
        means = tf.math.divide_no_nan(sums[:, :2], sums[:, 2:])
        if not self._n_penalties:
            return means
        penalties = _over_lanes(self._penalties, variables[:2])
        return means + tf.stack([penalties, tf.zeros_like(penalties)], axis=1)

    def _evaluate(self, given: Any) -> Any:
        """Return the weighted sums of loss and metric, and the weight, of some rows of one lane."""
        (trainable, state), (X, y, weight) = given
        outputs, _, _ = self._call(trainable, state, X, training=False)
        total = tf.reduce_sum(weight)
        return tf.stack(
            [self.loss(y, outputs, weight) * total, tf.reduce_sum(self._metric(y, outputs) * weight), total]
        )

    def _penalties(self, given: Any) -> Any:
        """Return the sum of the losses that layers add, for one lane."""
        trainable, state = given
        mapping = zip([*self.trainable, *self.state], [*trainable, *state], strict=True)
        with keras.StatelessScope(state_mapping=list(mapping)):
            return tf.add_n([tf.zeros((), self.dtype), *(tf.cast(v, self.dtype) for v in self.template.losses)])

    def _metric(self, y: Any, outputs: Any) -> Any:
        return tf.cast(tf.reshape(self.metric(y, outputs), [-1]), self.dtype)

    def _infer(self, trainable: Any, state: Any, lane: Any, X: Any) -> Any:
        return self._call([v[lane] for v in trainable], [v[lane] for v in state], X, training=False)[0]

    def _check_loss(self, lane: Lane) -> None:
        """Refuse a loss that is not the mean of its rows': parts are measured in pieces, and batches are padded."""
        outputs = np.random.default_rng(0).uniform(0.1, 0.9, size=(3, lane.output.units)).astype(self.dtype)
        y, weight = lane.train.y[np.arange(3) % len(lane.train)], np.ones(3, self.dtype)
        with network.precision(self.dtype):
            whole, two, one = (float(self.loss(y[i], outputs[i], weight[i])) for i in (slice(3), slice(2), slice(2, 3)))
        if not math.isclose(whole, (2 * two + one) / 3, rel_tol=1e-4, abs_tol=1e-6):
            raise NotImplementedError("the loss of a batch is not the mean of the losses of its rows")

    def _check_rows_are_independent(self, lane: Lane) -> None:
        """Refuse a network through which the padding of a batch would reach its real rows."""
        rows = np.arange(4) % len(lane.train)
        X, real = np.array(network.as_dense(lane.train.features(rows))), tf.constant([1, 1, 1, 0], self.dtype)
        rates, seeds = np.zeros(self.layers.n_dropouts), tf.zeros(self.layers.n_dropouts, tf.int32)
        (trainable, state, _), results = self.defaults, []
        with network.precision(self.dtype):
            for padding in (X[0].copy(), X[1] + 1):
                X[3] = padding
                with self.layers.given(valid=real, rates=rates, seeds=seeds, step=tf.constant(0)):
                    outputs, new_state, losses = self._call(trainable, state, tf.constant(X), training=True)
                results.append([outputs[:3], *new_state, *losses])
        if not all(np.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True) for a, b in zip(*results, strict=True)):
            raise NotImplementedError("the rows of a batch act on each other in a way that is not batch normalisation")


def _as_arrays(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in tensors.items()}


def _over_lanes(function: Callable[[Any], Any], stacked: Any) -> Any:
    """Vectorise a function of one lane; an operation that does not vectorise is an error."""
    plain = tf.autograph.experimental.do_not_convert(function)
    return tf.vectorized_map(plain, stacked, fallback_to_while_loop=False)


class _LaneNumber:
    """A number above 0 to Python, which decides by it what to trace; a lane's own tensor to TensorFlow."""

    def __init__(self, tensor: Any):
        self.tensor = tensor
        self.dtype = tensor.dtype

    def __gt__(self, other: float) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __mul__(self, other: Any) -> Any:
        return self.tensor * other

    def __sub__(self, other: Any) -> Any:
        return self.tensor - other

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return self.tensor if dtype is None else tf.cast(self.tensor, dtype)


def _optimizer_in_lanes(cls: type, config: dict[str, Any], model: keras.Model) -> keras.optimizers.Optimizer:
    """Make an optimizer that updates plain tensors inside a ``keras.StatelessScope``.

    Raises
    ------
    NotImplementedError
        If the optimizer does what only variables of TensorFlow can do.
    """
    if issubclass(cls, keras.optimizers.ScheduleFreeAdamW):  # reads a variable after it has assigned to it
        raise NotImplementedError("ScheduleFreeAdamW relies on TensorFlow's variables")
    for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
        if config.get(name):  # Keras decides by a condition in the graph, which does not vectorise
            raise NotImplementedError(f"an optimizer with {name}={config[name]} does something else in some steps")
    optimizer = type(cls.__name__, (cls, _Stateless), {"add_variable_from_reference": _noting_owner})(**config)
    optimizer._owners = {}
    optimizer.build(model.trainable_variables)
    return optimizer


def _general(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(_FOR_TENSORFLOW, self), name)(*args, **kwargs)

    return method


# Keras's optimizers for TensorFlow update ``tf.Variable``, through a distribution strategy. The class that they share
# with the other backends updates whatever the scope holds: its methods take the place of TensorFlow's, and stand behind
# those of the optimizer itself.
_FOR_TENSORFLOW = keras.optimizers.Optimizer.__mro__[1]
_TAKEN_BACK = (
    *("assign", "assign_add", "assign_sub", "_apply_weight_decay", "_backend_update_step"),
    "_overwrite_model_variables_with_average_value",
)
_Stateless = type(
    "_Stateless",
    (keras.optimizers.Optimizer,),
    {**{name: _general(name) for name in _TAKEN_BACK}, "_var_key": lambda self, variable: id(variable)},
)


def _noting_owner(self: Any, reference_variable: Any, *args: Any, **kwargs: Any) -> Any:
    """Make an optimizer variable, and note which weight it belongs to."""
    variable = super(type(self), self).add_variable_from_reference(reference_variable, *args, **kwargs)
    self._owners[id(variable)] = id(reference_variable)
    return variable


# The cache ------------------------------------------------------------------------------------------------------------

_programs: OrderedDict[tuple[Hashable, Shape, bool], Program] = OrderedDict()


def discard(program: Program) -> None:
    """Forget a program that cannot be made."""
    for key in [key for key, kept in _programs.items() if kept is program]:
        del _programs[key]


def program_for(lanes: Sequence[Lane], structure: Hashable, shape: Shape, *, compiled: bool) -> Program:
    """Return a program for lanes of one structure: one that there is, if it fits, or a new one.

    Parameters
    ----------
    lanes : sequence of Lane
    structure : hashable
        See `structure_of`.
    shape : Shape
    compiled : bool
        Whether it is worth compiling.
    """
    may_compile = statistics.compiled < COMPILED_AT_MOST
    for kind in [True, False] if compiled and not may_compile else [compiled]:
        fitting = [key for key in _programs if key[0] == structure and key[2] == kind and key[1].holds(shape)]
        if fitting:
            key = min(fitting, key=lambda key: key[1].lanes)  # an idle lane costs as much as another
            _programs.move_to_end(key)
            return _programs[key]
    compiled = compiled and may_compile
    program = _programs[structure, shape, compiled] = Program(lanes[0], shape, compiled=compiled)
    while len(_programs) > CACHE_SIZE:
        _programs.popitem(last=False)
    return program
