"""The plain Keras engine, the definition of correct.

Every lane is trained by ``keras.Model.train_on_batch``, the step that ``keras.Model.fit`` repeats: with the same
batches the weights are the same. ``fit`` itself builds an input pipeline at every call, which would be once for each
lane and epoch where lanes advance epoch by epoch. `tests/benchmarks/test_keras_engine.py` compares the two.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np

from tuner import network, seeds
from tuner.backend import expected_tracing, keras, tensorflow
from tuner.engine.base import EarlyStopper, Engine, History, Lane, OnEpoch, Part, TrainedLane
from tuner.engine.compilation import make_loss, make_metric, make_optimizer


class KerasEngine(Engine):
    """Trains lanes one after the other within each epoch."""

    def train(self, lanes: Sequence[Lane], on_epoch: OnEpoch | None = None) -> list[TrainedLane]:
        """Train every lane; see `Engine.train`."""
        with expected_tracing():
            return self._train([_Run(lane) for lane in lanes], on_epoch)

    def _train(self, runs: Sequence[_Run], on_epoch: OnEpoch | None) -> list[TrainedLane]:
        epoch = 0
        while any(run.active for run in runs):
            for run in runs:
                if run.active:
                    run.train_epoch()
            if on_epoch is not None:
                histories = [run.history for run in runs]
                for i in on_epoch(epoch, histories, lambda i, X: network.outputs(runs[i].model, X)):
                    runs[i].stop()
            epoch += 1
        return [run.result() for run in runs]


class _Run:
    """One lane while it is trained."""

    def __init__(self, lane: Lane):
        self.lane = lane
        self.hyperparameters = hyperparameters = lane.hyperparameters
        self.output = lane.output
        self.active = True
        self.non_finite = False
        self.epoch = lane.state.epoch if lane.state else 0
        self.last_epoch = self.epoch + lane.epochs
        self.history: History = (
            {name: list(series) for name, series in lane.state.history.items()} if lane.state else {}
        )
        with network.precision(hyperparameters["dtype"]):
            if lane.state:
                self.model = lane.state.model
            else:
                self.model = network.build(hyperparameters, lane.train.X.shape[1:], self.output, lane.seed)
            if not (lane.state and lane.state.keep_optimizer):
                self._compile()
        self.stopper = EarlyStopper(hyperparameters["n_iter_no_change"], hyperparameters["tol"])
        self.best_weights: list[np.ndarray] | None = None
        self.callbacks = keras.callbacks.CallbackList(
            copy.deepcopy(hyperparameters["callbacks"] or []),
            model=self.model,
            epochs=self.last_epoch,
            steps=math.ceil(len(lane.train) / hyperparameters["batch_size"]),
            verbose=0,
        )
        self.model.stop_training = False
        self.callbacks.on_train_begin()

    def _compile(self) -> None:
        hyperparameters = self.hyperparameters
        steps = math.ceil(len(self.lane.train) / hyperparameters["batch_size"])
        optimizer = make_optimizer(hyperparameters, steps * hyperparameters["epochs"])
        if not tensorflow.distribute.has_strategy():
            # One replica has nothing to reduce. TensorFlow's all_reduce registers a gradient function at every trace
            # and for good, which would keep the graph of every network ever trained: 8 MB for each small fit (Keras
            # 3.15, TensorFlow 2.21). So this optimizer, which is the lane's own, goes without its private method.
            optimizer._all_reduce_sum_gradients = list
        self.model.compile(
            optimizer=optimizer,
            loss=make_loss(self.output.loss, hyperparameters["dtype"]),
            weighted_metrics=[make_metric(self.lane.task, self.output)],
            # XLA costs a second for each new model, which fits of a minute and less do not earn back.
            jit_compile=False,
        )
        values = self.lane.state.optimizer_values if self.lane.state else None
        if values is not None:
            optimizer.build(self.model.trainable_variables)
            for variable, value in zip(optimizer.variables, values, strict=True):
                variable.assign(value)

    def train_epoch(self) -> None:
        lane, epoch = self.lane, self.epoch
        network.reset_masks(self.model, lane.seed, epoch)
        order = np.arange(len(lane.train))
        if self.hyperparameters["shuffle"]:
            order = seeds.batch_order(lane.seed, epoch, len(lane.train))
        self.callbacks.on_epoch_begin(epoch)
        with network.precision(self.hyperparameters["dtype"]):
            logs = self._train_batches(order)
            for prefix, part in (("val", lane.validation), ("test", lane.test)):
                if part is not None:
                    logs |= {f"{prefix}_{name}": value for name, value in self._evaluate(part).items()}
        n_before = max(map(len, self.history.values()), default=0)
        for name in dict.fromkeys((*self.history, *logs)):  # early stopping may come and go between warm starts
            series = self.history.setdefault(name, [math.nan] * n_before)
            series.append(logs.get(name, math.nan))
        self.callbacks.on_epoch_end(epoch, dict(logs))
        self.epoch += 1
        self.non_finite = not (math.isfinite(logs["loss"]) and math.isfinite(logs.get("val_loss", 0.0)))
        improving = lane.validation is None or self._watch(logs["val_loss"])
        if self.non_finite or not improving or self.epoch == self.last_epoch or self.model.stop_training:
            self.stop()

    def _train_batches(self, order: np.ndarray) -> dict[str, float]:
        """Train on every batch; return the means of loss (by rows) and metric (by weight), as ``fit`` reports them."""
        part, batch_size = self.lane.train, self.hyperparameters["batch_size"]
        sums: dict[str, float] = {}
        totals: dict[str, float] = {}
        for step, start in enumerate(range(0, len(order), batch_size)):
            rows = order[start : start + batch_size]
            weights = None if part.sample_weight is None else part.sample_weight[rows]
            self.callbacks.on_train_batch_begin(step)
            logs = self.model.train_on_batch(network.dense_rows(part.X, rows), part.y[rows], weights, return_dict=True)
            self.callbacks.on_train_batch_end(step, logs)
            for name, value in sorted(logs.items(), key=lambda item: item[0] != "loss"):  # the loss first
                share = len(rows) if name == "loss" or weights is None else float(weights.sum())
                sums[name] = sums.get(name, 0.0) + share * float(value)
                totals[name] = totals.get(name, 0.0) + share
            if self.model.stop_training:
                break
        return {name: value / totals[name] if totals[name] else 0.0 for name, value in sums.items()}

    def _evaluate(self, part: Part) -> dict[str, float]:
        """Return loss and metric of a part, all of it at once: the weighted mean does not depend on batches."""
        outputs = network.outputs(self.model, part.X)
        metric = make_metric(self.lane.task, self.output)
        metric.update_state(part.y, outputs, sample_weight=part.sample_weight)
        loss = float(make_loss(self.output.loss, self.hyperparameters["dtype"])(part.y, outputs, part.sample_weight))
        return {"loss": loss + float(sum(self.model.losses)), metric.name: float(metric.result())}

    def _watch(self, loss: float) -> bool:
        is_lowest, stop = self.stopper.update(loss)
        if is_lowest:
            self.best_weights = self.model.get_weights()
        return not stop

    def stop(self) -> None:
        if not self.active:
            return
        self.active = False
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)
        else:  # the averages of an optimizer that averages weights
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        # The last update of all may overflow: no loss is computed after it.
        self.non_finite |= not all(np.isfinite(weight).all() for weight in self.model.get_weights())
        self.callbacks.on_train_end()

    def result(self) -> TrainedLane:
        return TrainedLane(self.model, self.history, self.epoch, self.non_finite)
