"""The stacked engine: lanes of one structure train together as one program.

A program advances by an epoch at a call (`tuner.engine.program`); in between this module hears the losses, keeps the
histories, watches for early stopping, and hands out the batch orders of the next epoch.
"""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse

from tuner import network, seeds
from tuner.backend import keras
from tuner.backend import tensorflow as tf
from tuner.engine.base import Crew, EarlyStopper, Engine, Lane, Part, TrainedLane, record
from tuner.engine.compilation import compile_model, learning_rates, optimizer_config, set_optimizer_values
from tuner.engine.health import measurements_of, probe_of
from tuner.engine.keras import KerasCrew
from tuner.engine.program import Arguments, Program, Shape, discard, measured_rows, program_for, roomy, structure_of
from tuner.errors import HyperparameterError, TunerError, in_one_line
from tuner.health.measurements import Measurements
from tuner.hyperparameters import widths

#: Bytes of data and variables that the lanes of one program may hold.
MEMORY_BUDGET = 2**30

#: Bytes of weights, optimizer variables and gradients up to which more lanes make a step cheaper: what a step touches
#: then stays in the processor's cache (digits, 64-64: 18 us a lane and step with 5 lanes, 13 us with 40).
CACHE_BUDGET = 2**23

#: Updates from which on XLA is worth its half second: it saves about 0.1 ms on each update of a small network, and a
#: fit is seldom the only one of its structure.
COMPILED_FROM = 500

#: Epochs after which the measures of health are made of what was observed in them: until then an epoch of a large
#: network holds 0.1 MB.
OBSERVED_AT_MOST = 32

#: How many trials of a search are taken to have one structure.
RECURRENCES = 5


class StackedEngine(Engine):
    """Trains all lanes of one structure in one program.

    Parameters
    ----------
    strict : bool, default=False
        Raise where a network cannot be vectorised, instead of training it with the plain Keras engine.
    """

    def __init__(self, *, strict: bool = False):
        self.strict = strict

    def crews(self, lanes: Sequence[Lane]) -> list[tuple[Sequence[int], Crew]]:
        """Return a crew for each structure, or more where the lanes would need too much memory."""
        prepared = [_Prepared.of(lane) for lane in lanes]
        groups: dict[Hashable, list[int]] = {}
        for i, one in enumerate(prepared):
            groups.setdefault(one.structure, []).append(i)
        crews: list[tuple[Sequence[int], Crew]] = []
        for structure, members in groups.items():
            room = _room([lanes[i] for i in members])
            too_large = room < 1 and any(scipy.sparse.issparse(lanes[i].train.X) for i in members)  # to be made dense
            if not self.strict and (structure in _failed or too_large):
                crews += [([i], KerasCrew(prepared[i].lane)) for i in members]
                continue
            for first in range(0, len(members), max(1, room)):
                some = members[first : first + max(1, room)]
                crews += self._crew(some, [prepared[i] for i in some])
        return crews

    def structure(self, lane: Lane) -> Hashable:
        """Return what lanes of several trials must share to be worth training together; None if it never is."""
        if lane.hyperparameters["model"] is not None or lane.hyperparameters["callbacks"]:
            return None
        return structure_of(lane), lane.hyperparameters["engine"]

    def capacity(self, lane: Lane) -> int:
        """Return how many such lanes are worth training together."""
        return min(_room([lane]), CACHE_BUDGET // max(1, 4 * _weight_bytes(lane)))

    def _crew(self, indices: Sequence[int], prepared: Sequence[_Prepared]) -> list[tuple[Sequence[int], Crew]]:
        try:
            return [(indices, StackedCrew(prepared))]
        except TunerError:  # plain Keras could not build it either
            raise
        except Exception as error:  # whatever tracing a network raises that was not written for it
            cause = in_one_line(error)
            if self.strict:
                raise HyperparameterError(
                    f"engine='stacked' cannot train this network ({cause}): use engine='auto' or 'keras'."
                ) from error
            _failed[prepared[0].structure] = None
            while len(_failed) > _FAILED_KEPT:
                _failed.popitem(last=False)
            model = prepared[0].lane.hyperparameters["model"]
            name = "the network" if model is None else getattr(model, "__name__", type(model).__name__)
            if (name, type(error)) not in _said:
                _said.add((name, type(error)))
                warnings.warn(
                    f"{name} is trained with plain Keras, which is slower, for it cannot be vectorised: {cause}",
                    UserWarning,
                    stacklevel=2,
                )
            return [([i], KerasCrew(one.lane)) for i, one in zip(indices, prepared, strict=True)]


# Structures that could not be vectorised, the latest of them, and of what has been warned.
_failed: OrderedDict[Hashable, None] = OrderedDict()
_FAILED_KEPT = 256
_said: set[tuple[str, type]] = set()


def _room(lanes: Sequence[Lane]) -> int:
    """Return how many such lanes the budget of memory holds together."""
    parts = [part for lane in lanes for part in (lane.train, *lane.parts.values())]
    tables = {id(part.X): part.X for part in parts}
    itemsize = np.dtype(lanes[0].hyperparameters["dtype"]).itemsize
    table = sum(math.prod(X.shape) for X in tables.values()) * itemsize
    rest = sum(part.y.size + 4 * len(part) for part in parts) * itemsize + 8 * sum(map(_weight_bytes, lanes))
    if len(lanes) > 1 and len(tables) == 1:  # however many lanes there are, they share it
        return max(0, MEMORY_BUDGET - table) * len(lanes) // rest
    return MEMORY_BUDGET * len(lanes) // (table + rest)


def _weight_bytes(lane: Lane) -> int:
    """Return how much memory the weights of a built-in network need."""
    values = lane.hyperparameters
    if values["model"] is not None:
        return 0
    hidden = widths(values["units"], values["hidden_layers"])
    given, pieces = [math.prod(lane.train.X.shape[1:]), *hidden], network.pieces_of(values["activation"])
    made = [*(pieces * units for units in hidden), lane.output.units]
    weights = sum((a + 1) * b for a, b in zip(given, made, strict=True))
    return weights * np.dtype(values["dtype"]).itemsize


@dataclass(frozen=True)
class _Prepared:
    """A lane with what tells its structure: the network, where it exists already, and the optimizer's settings."""

    lane: Lane
    model: keras.Model | None
    structure: Hashable

    @classmethod
    def of(cls, lane: Lane) -> _Prepared:
        values = lane.hyperparameters
        model = None
        if lane.state is not None:
            model = lane.state.model
        elif values["model"] is not None:
            model = lane.fresh_model()
        return cls(lane, model, structure_of(lane, model))


class StackedCrew(Crew):
    """Lanes of one structure while they are trained."""

    def __init__(self, prepared: Sequence[_Prepared]):
        self.lanes = lanes = [one.lane for one in prepared]
        self.models = [one.model for one in prepared]
        self.active = [True] * len(lanes)
        self.non_finite = [False] * len(lanes)
        self.epochs = [lane.state.epoch if lane.state else 0 for lane in lanes]
        self.last_epochs = [epoch + lane.epochs for epoch, lane in zip(self.epochs, lanes, strict=True)]
        self.histories = [lane.first_history for lane in lanes]
        self.stoppers = [
            EarlyStopper(lane.hyperparameters["n_iter_no_change"], lane.hyperparameters["tol"]) for lane in lanes
        ]
        tables = _Tables(lanes)
        shape = Shape.of(lanes, tables.n_rows if tables.single else roomy(tables.n_rows))
        updates = max(lane.steps * lane.epochs * (RECURRENCES if lane.recurring else 1) for lane in lanes)
        compiled = updates >= COMPILED_FROM
        self.program = program = program_for(lanes, prepared[0].structure, shape, compiled=compiled)
        self.width = program.shape.lanes  # idle lanes fill what the program has more
        self._optimizers = [_OptimizerState.of(lane, program) for lane in lanes]
        self.variables = self._first_variables()
        self.best: list[Any] | None = None
        self._health = [
            None if program.probe is None else measurements_of(lane, program.probe, history)
            for lane, history in zip(lanes, self.histories, strict=True)
        ]
        self._observed: list[tuple[dict[int, int], Mapping[str, np.ndarray]]] = []  # of which no measures are made yet
        self.arguments = self._arguments(tables)
        try:
            program.make(self.variables, self.arguments)
        except Exception:
            discard(program)
            raise
        self._measure_start()

    def _measure_start(self) -> None:
        """Measure health before the first epoch, but for lanes whose last epoch has been measured."""
        waiting = [
            i for i, health in enumerate(self._health) if health is not None and self.epochs[i] not in health.epochs
        ]
        if waiting:
            _, _, health = self.program.epoch(self.variables, self.program.idle(self.arguments))
            self._note(waiting, health)

    def _note(self, indices: Sequence[int], sums: Mapping[str, np.ndarray]) -> None:
        """Keep what was observed of the health of some lanes."""
        if self.program.probe is not None:
            self._observed.append(({i: self.epochs[i] for i in indices}, sums))
        if len(self._observed) == OBSERVED_AT_MOST:
            self._make_measures()

    def _make_measures(self) -> None:
        """Make the measures of the epochs that were observed, all at once: a call costs more than its numbers."""
        observed, self._observed = self._observed, []
        if not observed:
            return
        assert self.program.probe is not None
        own = [health.facts.layers for health in self._health if health is not None]
        own += [own[0]] * (self.width - len(own))
        sums = {name: np.concatenate([epoch[name] for _, epoch in observed]) for name in observed[0][1]}
        measured = self.program.probe.finish(sums, own * len(observed))
        for n, (epochs, _) in enumerate(observed):
            for i, epoch in epochs.items():
                health = self._health[i]
                assert health is not None
                health.add(epoch, *measured[n * self.width + i])

    @property
    def health(self) -> Sequence[Measurements | None]:
        """What was measured of the lanes so far."""
        self._make_measures()
        return self._health

    # -- training --------------------------------------------------------------------------------------------------

    def train_epoch(self) -> None:
        """Train every active lane for an epoch; a lane that has reached its end stops."""
        arguments = replace(self.arguments, **self._of_epoch(self.active.__getitem__))
        self.variables, measured, health = self.program.epoch(self.variables, arguments)
        lowest = np.zeros(self.width, dtype=bool)
        ending, trained = [], []
        for i, lane in enumerate(self.lanes):
            if not self.active[i]:
                continue
            logs: dict[str, float] = {}
            for prefix in ("", *lane.parts):
                start = f"{prefix}_" if prefix else ""
                loss, metric = map(float, measured[prefix][i])
                logs |= {f"{start}loss": loss, f"{start}{self.program.metric_name}": metric}
            record(self.histories[i], logs)
            self.epochs[i] += 1
            trained.append(i)
            self.non_finite[i] = not (math.isfinite(logs["loss"]) and math.isfinite(logs.get("val_loss", 0.0)))
            enough = False
            if lane.validation is not None:
                lowest[i], enough = self.stoppers[i].update(logs["val_loss"])
            if self.non_finite[i] or enough or self.epochs[i] == self.last_epochs[i]:
                ending.append(i)
        self._note(trained, health)
        if lowest.any():
            self._keep(lowest)
        for i in ending:
            self.stop(i)

    def stop(self, i: int) -> None:
        """End the training of lane i, if it has not ended: it makes no more updates."""
        self.active[i] = False

    def _keep(self, lowest: np.ndarray) -> None:
        """Keep the weights of the lanes whose validation loss is the lowest so far."""
        now = [*self.variables[0], *self.variables[1]]
        if self.best is None:
            self.best = now
        else:
            chosen = [lowest.reshape(-1, *[1] * (value.ndim - 1)) for value in now]
            self.best = [tf.where(c, a, b) for c, a, b in zip(chosen, now, self.best, strict=True)]

    def _kept(self, i: int) -> tuple[list[Any], list[Any]]:
        """Return the stacked weights and other variables of which lane i has its own: present, best, or averaged."""
        weights, state, slots = self.variables
        if not self.active[i] and self.best is not None and self.stoppers[i].lowest < np.inf:
            return self.best[: len(weights)], self.best[len(weights) :]
        return weights if self.active[i] else self._optimizers[i].averaged(weights, slots), state

    def outputs(self, i: int, X: Any) -> np.ndarray:
        """Return the outputs (n, k) of lane i with its present weights, those that it keeps if it has stopped."""
        return self.program.outputs(*self._kept(i), i, X)

    # -- what goes in ----------------------------------------------------------------------------------------------

    def _first_variables(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Return weights, other variables and optimizer variables, the lanes' stacked."""
        program = self.program
        weights: list[list[np.ndarray]] = []
        for lane, model in zip(self.lanes, self.models, strict=True):
            if model is not None:
                mine = [np.asarray(v) for v in (*model.trainable_variables, *model.non_trainable_variables)]
                if len(model.trainable_variables) != len(program.trainable):
                    raise NotImplementedError("layers were frozen after the network was built")
            else:
                values: dict[int, Any] = network.fresh_values(
                    program.template, lane.hyperparameters, lane.train.X.shape[1:], lane.output, lane.seed
                )
                if program.alternatives is not None:
                    values |= program.alternatives.choose(program.template, lane.hyperparameters)
                defaults = zip(program.trainable + program.state, sum(program.defaults[:2], []), strict=True)
                mine = [np.asarray(values.get(id(v), default), default.dtype) for v, default in defaults]
                if network.scaled_by_data(lane.hyperparameters):
                    mine = self._scaled(lane, mine)
            weights.append(mine)
        n = len(program.trainable)
        stacked = [self._stack(values) for values in zip(*weights, strict=True)]
        slots = [self._stack(values) for values in zip(*(o.slots for o in self._optimizers), strict=True)]
        return stacked[:n], stacked[n:], slots

    def _scaled(self, lane: Lane, values: list[np.ndarray]) -> list[np.ndarray]:
        """Return fresh values of the template's variables, the kernels scaled by the lane's rows."""
        variables = self.program.trainable + self.program.state
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        lane.scale_weights(self.program.template)
        return [np.asarray(variable) for variable in variables]

    def _stack(self, values: Sequence[np.ndarray]) -> Any:
        """Stack one array for each lane; idle lanes repeat the first."""
        return tf.constant(np.stack([*values, *[values[0]] * (self.width - len(values))]))

    def _arguments(self, tables: _Tables) -> Arguments:
        program, shape, dtype = self.program, self.program.shape, self.program.dtype
        lanes = self.lanes
        configs = [optimizer.config for optimizer in self._optimizers]
        numbers = {name: [np.asarray(config[name], dtype) for config in configs] for name in program.numbers}
        factors = [network.rate_factors(program.template, lane.hyperparameters) or [] for lane in lanes]
        rates = [self._dropout_rates(i) for i in range(len(lanes))]
        parts = {}
        for prefix, length in shape.parts:
            own = [lane.parts.get(prefix) for lane in lanes]
            size = measured_rows(self.width, length)
            parts[prefix] = self._part(own, tables, size * math.ceil(length / size))
        return Arguments(
            X=tables.stacked(shape.rows),
            train=self._part([lane.train for lane in lanes], tables, shape.train),
            **self._of_epoch(lambda i: False),
            factors=self._stack([np.asarray(own, dtype) for own in factors]),
            numbers={name: self._stack(values) for name, values in numbers.items()},
            dropout=self._stack(rates),
            parts=parts,
            probe=self._probe(tables) if shape.probe else {},
        )

    def _probe(self, tables: _Tables) -> dict[str, Any]:
        """Return the rows on which health is measured."""
        parts = [probe_of(lane) for lane in self.lanes]
        n = self.program.layers.n_dropouts
        masks = [np.array([seeds.mask_seed(lane.seed, i, 0) for i in range(n)], np.int32) for lane in self.lanes]
        part = self._part(parts, tables, self.program.shape.probe)
        assert self.program.probe is not None
        bounds = [self.program.probe.bounds(health.facts.layers) for health in self._health if health is not None]
        low, high = (
            self._stack([np.asarray(own, self.program.dtype) for own in side]) for side in zip(*bounds, strict=True)
        )
        return {
            **{name: part[name] for name in ("rows", "y", "weight")},
            **{"mask_seeds": self._stack(masks), "low": low, "high": high},
        }

    def _part(self, own: Sequence[Part | None], tables: _Tables, length: int) -> dict[str, Any]:
        example = next(part for part in own if part is not None)
        rows = np.zeros((self.width, length), np.int32)
        y = np.zeros((self.width, length, *example.y.shape[1:]), example.y.dtype)
        weight = np.zeros((self.width, length), self.program.dtype)
        count = np.zeros(self.width, np.int32)
        for i, part in enumerate(own):
            if part is not None:
                n = count[i] = len(part)
                rows[i, :n] = tables.numbers(part)
                y[i, :n] = part.y
                weight[i, :n] = 1 if part.sample_weight is None else part.sample_weight
        return {name: tf.constant(v) for name, v in (("rows", rows), ("y", y), ("weight", weight), ("count", count))}

    def _dropout_rates(self, i: int) -> np.ndarray:
        n, model = self.program.layers.n_dropouts, self.models[i]
        if model is not None:
            return np.asarray(self.program.layers.rates(model))
        return np.full(n, float(self.lanes[i].hyperparameters["dropout"]))

    def _of_epoch(self, trained: Callable[[int], bool]) -> dict[str, Any]:
        """Return the arguments that belong to an epoch: orders, rates, seeds, and updates only for `trained` lanes."""
        shape, dtype = self.program.shape, self.program.dtype
        size = shape.batch_size
        order = np.zeros((self.width, shape.steps * size), np.int32)
        rates = np.zeros((self.width, shape.steps), dtype)
        steps = np.zeros(self.width, np.int32)
        last = max((lane.steps for i, lane in enumerate(self.lanes) if trained(i)), default=0)
        mask_seeds = np.zeros((self.width, self.program.layers.n_dropouts), np.int32)
        for i, lane in enumerate(self.lanes):
            if not trained(i):
                continue
            n, epoch = len(lane.train), self.epochs[i]
            shuffled = lane.hyperparameters["shuffle"]
            first = last - lane.steps  # the lanes make their last updates together
            order[i, first * size : first * size + n] = seeds.batch_order(lane.seed, epoch, n) if shuffled else range(n)
            steps[i] = lane.steps
            rates[i, first:last] = self._optimizers[i].next_rates(lane.steps)
            mask_seeds[i] = [seeds.mask_seed(lane.seed, layer, epoch) for layer in range(mask_seeds.shape[1])]
        values = {"order": order, "rates": rates, "steps": steps, "mask_seeds": mask_seeds}
        return {name: tf.constant(value) for name, value in values.items()}

    # -- what comes out --------------------------------------------------------------------------------------------

    def results(self) -> list[TrainedLane]:
        """Return the trained lanes."""

        def of_lane(i: int, stacked: Sequence[Any]) -> list[np.ndarray]:
            return [np.asarray(v)[i].copy() for v in stacked]

        results = []
        self._make_measures()
        for i, lane in enumerate(self.lanes):
            trainable, state = self._kept(i)
            values = of_lane(i, trainable), of_lane(i, state), of_lane(i, self.variables[2])
            unused = self.program.unused(lane)
            mine = zip(self.program.trainable + self.program.state, values[0] + values[1], strict=True)
            finite = all(np.isfinite(v).all() for own, v in mine if v.dtype.kind == "f" and id(own) not in unused)
            make_model = partial(
                _make_model,
                self.program,
                replace(lane, train=lane.train.empty(), validation=None, test=None, state=None),
                steps=lane.steps,
                model=self.models[i],
                keep_optimizer=bool(lane.state and lane.state.keep_optimizer),
                values=values,
                rate=self._optimizers[i].last_rate,
            )
            trained = TrainedLane(
                make_model=make_model,
                history=self.histories[i],
                epoch=self.epochs[i],
                non_finite=self.non_finite[i] or not finite,
                forward=partial(self.program.outputs, trainable, state, i),
                health=self._health[i],
            )
            if lane.state is not None:
                trained.model  # noqa: B018 - the model is trained on in place
            results.append(trained)
        return results


class _Tables:
    """The tables of some lanes, each once, as if they lay one below the other."""

    def __init__(self, lanes: Sequence[Lane]):
        self._tables: list[Any] = []
        self._first: list[int] = []
        self._known: dict[int, int] = {}
        self.n_rows = 0
        for lane in lanes:
            for part in (lane.train, *lane.parts.values()):
                if id(part.X) not in self._known:
                    self._known[id(part.X)] = self._add(part.X)

    @property
    def single(self) -> bool:
        """Whether there is only one table."""
        return len(self._tables) == 1

    def _add(self, X: Any) -> int:
        for i, table in enumerate(self._tables):  # trials that differ only in their networks have equal folds
            if _equal(table, X):
                return i
        self._tables.append(X)
        self._first.append(self.n_rows)
        self.n_rows += X.shape[0]
        return len(self._tables) - 1

    def numbers(self, part: Part) -> np.ndarray:
        """Return the rows of a part, counted over all tables."""
        return self._first[self._known[id(part.X)]] + part.row_numbers

    def stacked(self, rows: int) -> Any:
        """Return all tables as one tensor of that many rows."""
        example = self._tables[0]
        if example.shape[0] == rows:
            return tf.convert_to_tensor(network.as_dense(example))  # tf.constant would make a second copy first
        X = np.zeros((rows, *example.shape[1:]), example.dtype)
        for first, table in zip(self._first, self._tables, strict=True):
            X[first : first + table.shape[0]] = network.as_dense(table)
        return tf.convert_to_tensor(X)


def _equal(a: Any, b: Any) -> bool:
    if a.shape != b.shape or not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return False
    return np.array_equal(a[:1], b[:1]) and np.array_equal(a, b)


class _OptimizerState:
    """Where a lane's optimizer stands.

    Attributes
    ----------
    config : dict
        The optimizer's configuration; its ``learning_rate`` is a number or a schedule.
    slots : list of array
        The values of its variables without the learning rate.
    last_rate : float
        The rate of the latest update.
    """

    def __init__(self, config: dict[str, Any], slots: list[np.ndarray], program: Program, restores_best: bool):
        self.config = config
        self._restores_best = restores_best
        self.slots = slots
        self.last_rate = math.nan if callable(config["learning_rate"]) else config["learning_rate"]
        self._program = program
        self._iterations = int(slots[0])

    @classmethod
    def of(cls, lane: Lane, program: Program) -> _OptimizerState:
        """Return the state of a fresh optimizer, or of that with which the lane goes on."""
        values, state = lane.hyperparameters, lane.state
        _, config = optimizer_config(values, lane.scheduled_steps)
        slots = program.defaults[2]
        if state is not None and state.keep_optimizer:
            optimizer = state.model.optimizer
            rate = optimizer._learning_rate  # a variable or a schedule
            config["learning_rate"] = rate if callable(rate) else float(rate)
            slots = [np.asarray(v) for v in optimizer.variables if v is not rate]
        elif state is not None and state.optimizer_values is not None:
            slots = list(state.optimizer_values)
            if len(slots) > len(program.slots):  # the rate is a variable, the second one
                config["learning_rate"] = float(slots.pop(1))
        return cls(config, slots, program, restores_best=lane.validation is not None)

    def next_rates(self, n: int) -> np.ndarray:
        """Return the learning rates (n,) of the next updates."""
        rates = learning_rates(self.config["learning_rate"], self._iterations, n)
        self._iterations += n
        self.last_rate = float(rates[-1])
        return rates

    def averaged(self, trainable: list[Any], slots: list[Any]) -> list[Any]:
        """Return the weights that a lane keeps: their moving averages, where the optimizer has these at the end."""
        if not self.config["use_ema"] or self._restores_best:
            return trainable
        values = {id(v): value for v, value in zip(self._program.slots, slots, strict=True)}
        return [values[id(v)] for v in self._program.optimizer._model_variables_moving_average]


def _make_model(
    program: Program,
    lane: Lane,
    *,
    steps: int,
    model: keras.Model | None,
    keep_optimizer: bool,
    values: tuple[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[np.ndarray]],
    rate: float,
) -> keras.Model:
    """Return a lane's network, compiled, with its weights and its optimizer's variables.

    Parameters
    ----------
    program : Program
    lane : Lane
        Without its rows.
    steps : int
        The number of updates in an epoch.
    model : keras.Model, optional
        The network, if it exists already.
    keep_optimizer : bool
        Whether it is compiled, and its optimizer stays.
    values : tuple of three sequences of array
        Of the weights, the other variables and the optimizer's variables.
    rate : float
        The learning rate.
    """
    trainable, state, slots = values
    hyperparameters = lane.hyperparameters
    if model is None:
        model = network.build(hyperparameters, lane.train.X.shape[1:], lane.output, lane.seed)
    unused = program.unused(lane)
    for variables, own, new in (
        (model.trainable_variables, program.trainable, trainable),
        (model.non_trainable_variables, program.state, state),
    ):
        of_this_network = [value for v, value in zip(own, new, strict=True) if id(v) not in unused]
        for variable, value in zip(variables, of_this_network, strict=True):
            variable.assign(value)
    with network.precision(hyperparameters["dtype"]):
        if not keep_optimizer:
            compile_model(model, hyperparameters, lane.task, lane.output, steps)
        optimizer = model.optimizer
        owners = program.optimizer._owners
        rest = iter([s for v, s in zip(program.slots, slots, strict=True) if owners.get(id(v)) not in unused])
        set_optimizer_values(
            model, [rate if v is optimizer._learning_rate else next(rest) for v in optimizer.variables]
        )
    return model
