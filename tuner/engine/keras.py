"""The plain Keras engine, the definition of correct.

Every lane is trained by ``keras.Model.train_on_batch``, the step that ``keras.Model.fit`` repeats: with the same
batches the weights are the same. ``fit`` itself builds an input pipeline at every call, which would be once for each
lane and epoch where lanes advance epoch by epoch. `tests/benchmarks/test_keras_engine.py` compares the two.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tuner import network, seeds
from tuner.backend import expected_tracing, keras
from tuner.backend import tensorflow as tf
from tuner.engine.base import Crew, EarlyStopper, Engine, Lane, OnEpoch, Part, TrainedLane, record
from tuner.engine.compilation import compile_model, make_loss, make_metric, set_optimizer_values
from tuner.engine.health import measurements_of, probe_of, warn_unmeasured
from tuner.health.measurements import Measurements
from tuner.health.measures import Probe, measure_model, probe_masks, weights_of


class KerasEngine(Engine):
    """Trains lanes one after the other within each epoch."""

    def train(self, lanes: Sequence[Lane], on_epoch: OnEpoch | None = None) -> list[TrainedLane]:
        """Train every lane; see `Engine.train`."""
        with expected_tracing():
            return super().train(lanes, on_epoch)

    def crews(self, lanes: Sequence[Lane]) -> list[tuple[Sequence[int], Crew]]:
        """Return a crew of one for each lane."""
        return [([i], KerasCrew(lane)) for i, lane in enumerate(lanes)]


class KerasCrew(Crew):
    """One lane while it is trained."""

    def __init__(self, lane: Lane):
        self.lane = lane
        self.hyperparameters = hyperparameters = lane.hyperparameters
        self.active = [True]
        self.non_finite = False
        self.epoch = lane.state.epoch if lane.state else 0
        self.last_epoch = self.epoch + lane.epochs
        self.history = lane.first_history
        self.histories = [self.history]
        with network.precision(hyperparameters["dtype"]):
            if lane.state:
                self.model = lane.state.model
            else:
                self.model = lane.fresh_model()
            if not (lane.state and lane.state.keep_optimizer):
                compile_model(self.model, hyperparameters, lane.task, lane.output, lane.steps)
                if lane.state and lane.state.optimizer_values is not None:
                    set_optimizer_values(self.model, lane.state.optimizer_values)
            self._health: list[Measurements | None] = [None]
            if hyperparameters["health"]:
                self._measure(self._begin_measuring)
        self.stopper = EarlyStopper(hyperparameters["n_iter_no_change"], hyperparameters["tol"])
        self.best_weights: list[np.ndarray] | None = None
        self.callbacks = keras.callbacks.CallbackList(
            copy.deepcopy(hyperparameters["callbacks"] or []),
            model=self.model,
            epochs=self.last_epoch,
            steps=lane.steps,
            verbose=0,
        )
        self.model.stop_training = False
        self.callbacks.on_train_begin()

    @property
    def health(self) -> Sequence[Measurements | None]:
        """What was measured of the lane so far."""
        return self._health

    def _measure(self, step: Callable[[], None]) -> None:
        """Take a step of measuring; where it fails, the lane is trained all the same."""
        try:
            step()
        except Exception as error:  # whatever a layer raises that is called in a way it does not know
            self._health = [None]
            warn_unmeasured(error)

    def _begin_measuring(self) -> None:
        """Begin to measure health."""
        lane = self.lane
        rows = probe_of(lane)
        row = np.zeros((1, *lane.train.X.shape[1:]), self.hyperparameters["dtype"])
        self._probe = Probe(self.model, row, renumber=True)
        self._probe_rows = network.as_dense(rows.features()), rows.y, rows.sample_weight
        self._masks = probe_masks(self.model, lane.seed)
        self._before = weights_of(self.model)
        health = measurements_of(lane, self._probe, self.history)
        self._health = [health]
        if self.epoch not in health.epochs:
            self._look()

    def _look(self) -> None:
        """Measure health as it is."""
        [health] = self._health
        assert health is not None
        X, y, weight = self._probe_rows
        loss = make_loss(self.lane.output.loss, self.hyperparameters["dtype"])
        measured = measure_model(
            self._probe,
            tf.constant(X),
            tf.constant(y),
            lambda outputs: tf.add_n([loss(y, outputs, weight), *self.model.losses]),
            self._before,
            layers=health.facts.layers,
            masks=self._masks,
        )
        health.add(self.epoch, *measured)

    def train_epoch(self) -> None:
        """Train for an epoch, measure the other parts, and stop if this was the last."""
        lane, epoch = self.lane, self.epoch
        network.reset_masks(self.model, lane.seed, epoch)
        order = np.arange(len(lane.train))
        if self.hyperparameters["shuffle"]:
            order = seeds.batch_order(lane.seed, epoch, len(lane.train))
        self.callbacks.on_epoch_begin(epoch)
        with network.precision(self.hyperparameters["dtype"]):
            logs = self._train_batches(order)
            for prefix, part in lane.parts.items():
                logs |= {f"{prefix}_{name}": value for name, value in self._evaluate(part).items()}
        record(self.history, logs)
        self.callbacks.on_epoch_end(epoch, dict(logs))
        self.epoch += 1
        if self._health[0] is not None:
            with network.precision(self.hyperparameters["dtype"]):
                self._measure(self._look)
        self.non_finite = not (math.isfinite(logs["loss"]) and math.isfinite(logs.get("val_loss", 0.0)))
        improving = lane.validation is None or self._watch(logs["val_loss"])
        if self.non_finite or not improving or self.epoch == self.last_epoch or self.model.stop_training:
            self.stop(0)

    def _train_batches(self, order: np.ndarray) -> dict[str, float]:
        """Train on every batch; return the means of loss (by rows) and metric (by weight), as ``fit`` reports them."""
        part, batch_size = self.lane.train, self.hyperparameters["batch_size"]
        sums: dict[str, float] = {}
        totals: dict[str, float] = {}
        for step, start in enumerate(range(0, len(order), batch_size)):
            rows = order[start : start + batch_size]
            weights = None if part.sample_weight is None else part.sample_weight[rows]
            self.callbacks.on_train_batch_begin(step)
            # The epoch's last update is measured, and callbacks may make any the last one.
            if self._health[0] is not None and (step == self.lane.steps - 1 or self.hyperparameters["callbacks"]):
                self._before = weights_of(self.model)
            logs = self.model.train_on_batch(
                network.as_dense(part.features(rows)), part.y[rows], weights, return_dict=True
            )
            self.callbacks.on_train_batch_end(step, logs)
            for name, value in sorted(logs.items(), key=lambda item: item[0] != "loss"):  # the loss first
                share = len(rows) if name == "loss" or weights is None else float(weights.sum())
                sums[name] = sums.get(name, 0.0) + share * float(value)
                totals[name] = totals.get(name, 0.0) + share
            if self.model.stop_training:
                break
        return {name: value / totals[name] if totals[name] else 0.0 for name, value in sums.items()}

    def _evaluate(self, part: Part) -> dict[str, float]:
        """Return loss and metric of a part, as ``keras.Model.evaluate`` does.

        The loss is given the model's own outputs, for Keras finds the logits behind these; the loss of a probability
        near 0 would be cut off.
        """
        metric = make_metric(self.lane.task, self.lane.output)
        loss = make_loss(self.lane.output.loss, self.hyperparameters["dtype"])
        weights = np.ones(len(part)) if part.sample_weight is None else part.sample_weight
        total = 0.0
        for start in range(0, len(part), network.ROWS_AT_A_TIME):
            rows = slice(start, start + network.ROWS_AT_A_TIME)
            outputs = self.model(network.as_dense(part.features(rows)), training=False)
            metric.update_state(part.y[rows], outputs, sample_weight=weights[rows])
            total += float(loss(part.y[rows], outputs, weights[rows])) * float(weights[rows].sum())
        mean = total / weights.sum() if weights.any() else 0.0
        return {"loss": float(mean + sum(self.model.losses)), metric.name: float(metric.result())}

    def _watch(self, loss: float) -> bool:
        is_lowest, stop = self.stopper.update(loss)
        if is_lowest:
            self.best_weights = self.model.get_weights()
        return not stop

    def stop(self, i: int) -> None:
        """End the training, if it has not ended."""
        if not self.active[0]:
            return
        self.active[0] = False
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)
        else:  # the averages of an optimizer that averages weights
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        # The last update of all may overflow: no loss is computed after it.
        self.non_finite |= not all(np.isfinite(weight).all() for weight in self.model.get_weights())
        self.callbacks.on_train_end()

    def outputs(self, i: int, X: Any) -> np.ndarray:
        """Return the outputs (n, k) with the present weights."""
        return network.outputs(self.model, X)

    def results(self) -> list[TrainedLane]:
        """Return the trained lane."""
        model = self.model
        return [TrainedLane(lambda: model, self.history, self.epoch, self.non_finite, health=self._health[0])]
