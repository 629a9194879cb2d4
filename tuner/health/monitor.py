"""Health of anyone's Keras model: a callback for ``keras.Model.fit``, and a function that trains and reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from tuner import network, seeds
from tuner.backend import keras
from tuner.backend import tensorflow as tf
from tuner.errors import DataError, HyperparameterError, in_one_line
from tuner.health.diagnosis import judge
from tuner.health.measurements import Measurements, NetworkFacts, baseline_accuracy, baseline_loss, clipping
from tuner.health.measures import PROBE_ROWS, Probe, measure_model, probe_masks, weights_of
from tuner.health.report import HealthReport


class HealthMonitor(keras.callbacks.Callback):
    """Measures a network while ``keras.Model.fit`` trains it.

    Measured is what the estimators measure, on a fixed sample of the rows given here. Dropout draws the same mask for
    the probe every time; no state of the model is changed.

    Parameters
    ----------
    X : array of shape (n, ...), or a list or dict of such
        Rows of the training data, all or some, as the model takes them.
    y : array of shape (n, ...), or a list or dict of such
        Their targets.
    sample_weight : array of shape (n,), optional
        As ``fit`` is given them; where it is given a ``class_weight``, the weights of the rows that follow from it. The
        loss is judged beside that of a constant prediction under the same weights.

    Attributes
    ----------
    measurements : Measurements
        Of the latest ``fit``.
    report : HealthReport
        What they say; it can be asked for at any time, also after a ``fit`` that ended in NaN.

    Raises
    ------
    DataError
        If there is no row to measure on, or X and y differ in length.

    Notes
    -----
    With ``steps_per_execution`` above 1, ``update_ratio`` is that of the updates of one execution together.
    """

    def __init__(self, X: Any, y: Any, sample_weight: Any = None):
        super().__init__()
        n = _n_rows(X, "X")
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None and (other := _n_rows(value, name)) != n:
                raise DataError(f"{name} has {other} rows, but X has {n}: give the same rows of both.")
        rows = seeds.probe_rows(0, n, PROBE_ROWS)

        def of_probe(part: Any) -> Any:
            return None if part is None else tf.nest.map_structure(lambda v: np.asarray(v)[rows], part)

        self._X, self._y, self._weight = of_probe(X), of_probe(y), of_probe(sample_weight)
        self._all_y, self._all_weights, self._n_rows = y, sample_weight, n
        self.measurements: Measurements | None = None
        self._before: list[Any] = []

    @property
    def report(self) -> HealthReport:
        """What was measured so far, and what it says."""
        if self.measurements is None:
            raise HyperparameterError("nothing has been measured yet: pass the monitor to fit in callbacks=[...].")
        return judge([self.measurements])

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Measure the network as it is."""
        self._history: dict[str, list[float]] = {}
        self._works = True
        self.measurements = Measurements(NetworkFacts(()), history=self._history)
        self._masks = probe_masks(self.model, seed=0)
        with self._noting_errors():
            self._probe = Probe(self.model, self._X)
            self.measurements.facts = self._facts()
            self._keep()
            self._measure(0)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Let the copies of the weights go."""
        self._before.clear()

    @contextmanager
    def _noting_errors(self) -> Iterator[None]:
        """Measure as long as that works: what goes wrong is noted in the report, and does not end the training."""
        try:
            yield
        except Exception as error:  # whatever a model raises that is called in a way it does not know
            self._works = False
            assert self.measurements is not None
            note = f"the network cannot be measured: {in_one_line(error)}"
            facts = self.measurements.facts
            self.measurements.facts = replace(facts, notes=(*facts.notes, note))

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the weights before what may be the last update of the epoch."""
        steps = (self.params or {}).get("steps")
        if self._works and (steps is None or batch >= steps - (getattr(self.model, "steps_per_execution", 1) or 1)):
            self._keep()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Measure the network after an epoch."""
        n_before = max(map(len, self._history.values()), default=0)
        for name in dict.fromkeys((*self._history, *(logs or {}))):  # Keras may validate now and then only
            series = self._history.setdefault(name, [float("nan")] * n_before)
            series.append(float((logs or {}).get(name, "nan")))
        if self._works:
            with self._noting_errors():
                self._measure(n_before + 1)

    def _keep(self) -> None:
        self._before = weights_of(self.model)

    def _measure(self, epoch: int) -> None:
        assert self.measurements is not None
        measured = measure_model(
            self._probe,
            self._X,
            self._y,
            lambda outputs: self.model.compute_loss(self._X, self._y, outputs, self._weight, training=True),
            self._before,
            layers=self._probe.layers,
            masks=self._masks,
        )
        self.measurements.add(epoch, *measured)

    def _facts(self) -> NetworkFacts:
        model = self.model
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # scaling the loss is no optimizer
        config = optimizer.get_config()
        rate = config.get("learning_rate")
        loss = network.loss_name(model.loss) if isinstance(model.loss, str) or callable(model.loss) else "unknown"
        task, baseline, accuracy = _TASKS.get(loss), None, None
        if self._all_y is not None and not isinstance(self._all_y, list | tuple | dict):
            y, weights = np.asarray(self._all_y), self._all_weights
            y = y[:, np.newaxis] if y.ndim == 1 else y
            if task == "binary" and y.shape[-1] > 1:
                task = "multiclass" if y.ndim == 2 and np.allclose(y.sum(axis=1), 1) else "multilabel"
            accuracy = baseline_accuracy(task, y)
            baseline = baseline_loss(loss, y, weights)
            if baseline is not None and weights is not None:  # Keras divides by the number of rows
                baseline *= float(np.mean(weights))
        steps = (self.params or {}).get("steps")  # batches of an epoch
        return NetworkFacts(
            layers=self._probe.layers,
            loss=loss,
            optimizer=type(optimizer).__name__.lower(),
            learning_rate=float(rate) if isinstance(rate, int | float) else None,
            momentum=config.get("momentum"),
            clipnorm=clipping(config),
            task=task,
            normalization=self._probe.normalization,
            residual=self._probe.residual,
            batch_size=-(-self._n_rows // steps) if steps else None,
            n_rows=self._n_rows,
            baseline_loss=baseline,
            baseline_accuracy=accuracy,
            notes=self._probe.notes,
        )


# What a loss says about the task; squared errors are used for all of them.
_TASKS = {
    "categorical_crossentropy": "multiclass",
    "sparse_categorical_crossentropy": "multiclass",
    "binary_crossentropy": "binary",
}


def diagnose(
    model: keras.Model,
    X: Any,
    y: Any,
    *,
    epochs: int = 5,
    batch_size: int = 32,
    validation_data: Any = None,
    sample_weight: Any = None,
) -> HealthReport:
    """Train a compiled Keras model for a while and say what is wrong with it; the model is left as it was.

    Weights and optimizer are put back when the training has ended, however it ended, and metrics are reset. So it works
    for models of any class, also those that cannot be copied.

    Parameters
    ----------
    model : keras.Model
        Compiled.
    X, y, sample_weight
        What ``fit`` takes as arrays: (n, ...), or lists or dicts of them.
    epochs, batch_size : int
    validation_data : tuple, optional
        As in ``fit``; without it nothing can be said about overfitting.

    Returns
    -------
    HealthReport

    Raises
    ------
    HyperparameterError
        If the model is not compiled.
    DataError
        If the rows cannot be used.
    """
    if not getattr(model, "compiled", False):
        raise HyperparameterError(
            "diagnose trains the model and needs its optimizer and loss: call model.compile(...) first."
        )
    if epochs < 1 or batch_size < 1:
        raise HyperparameterError(f"epochs and batch_size must be at least 1; got {epochs} and {batch_size}.")
    monitor = HealthMonitor(X, y, sample_weight)
    with _put_back(model, monitor._X):
        model.fit(
            X,
            y,
            sample_weight=sample_weight,
            epochs=epochs,
            batch_size=batch_size,
            validation_data=validation_data,
            callbacks=[monitor, _StopAtNaN()],
            verbose=0,
        )
    return monitor.report


class _StopAtNaN(keras.callbacks.Callback):
    """Ends the training after an epoch whose loss is NaN or infinite: no later one can differ."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            self.model.stop_training = True


@contextmanager
def _put_back(model: keras.Model, X: Any) -> Iterator[None]:
    """Give a model back everything that training in the block changes."""
    if not model.built:
        model(tf.nest.map_structure(lambda v: v[:1], X))
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    values = [np.array(v.numpy()) for v in variables]
    history, stop = getattr(model, "history", None), getattr(model, "stop_training", False)
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        model.reset_metrics()
        model.history, model.stop_training = history, stop


def _n_rows(part: Any, name: str) -> int:
    if hasattr(part, "element_spec"):
        raise DataError(f"{name} is a tf.data.Dataset: give arrays of some of its rows.")
    arrays = tf.nest.flatten(part)
    for array in arrays:
        if hasattr(array, "toarray"):
            raise DataError(f"{name} is a sparse matrix, which Keras models do not take: pass {name}.toarray().")
    lengths = {np.shape(array)[0] if np.ndim(array) else 0 for array in arrays}
    if len(lengths) != 1:
        raise DataError(f"{name} has parts of different lengths, {sorted(lengths)}: give the same rows of all.")
    if lengths == {0}:
        raise DataError(f"{name} has no rows: health is measured on some of the training data.")
    return int(lengths.pop())
