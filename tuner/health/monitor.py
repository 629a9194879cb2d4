"""Health of anyone's Keras model: a callback for ``keras.Model.fit``, and a function that trains and reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from tuner import network, seeds
from tuner.backend import keras
from tuner.backend import tensorflow as tf
from tuner.errors import DataError, HyperparameterError
from tuner.health.diagnosis import judge
from tuner.health.measurements import Measurements, NetworkFacts, baseline_loss
from tuner.health.measures import PROBE_ROWS, Probe, measure_model
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
        self._X, self._y = (tf.nest.map_structure(lambda v: np.asarray(v)[rows], part) for part in (X, y))
        self._weight = None if sample_weight is None else np.asarray(sample_weight)[rows]
        self._all_y, self._n_rows = y, n
        self.measurements: Measurements | None = None

    @property
    def report(self) -> HealthReport:
        """What was measured so far, and what it says."""
        if self.measurements is None:
            raise HyperparameterError("nothing has been measured yet: pass the monitor to fit in callbacks=[...].")
        return judge([self.measurements])

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Measure the network as it is."""
        self._probe = Probe(self.model, self._X)
        states = [v for v in self.model.variables if v.name == "seed_generator_state"]
        self._masks = [(v, tf.constant([seeds.mask_seed(0, i, 0), 0], v.dtype)) for i, v in enumerate(states)]
        self._history: dict[str, list[float]] = {}
        self.measurements = Measurements(self._facts(), history=self._history)
        self._keep()
        self._measure(0)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the weights: this may be the last update of the epoch."""
        self._keep()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Measure the network after an epoch."""
        for name, value in (logs or {}).items():
            series = self._history.setdefault(name, [])
            series.append(float(value))
        assert self.measurements is not None
        self._measure(self.measurements.epochs[-1] + 1)

    def _keep(self) -> None:
        self._before = [tf.convert_to_tensor(v.value) for v in self.model.trainable_variables]

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
        config = model.optimizer.get_config()
        rate = config.get("learning_rate")
        loss = network.loss_name(model.loss) if isinstance(model.loss, str) or callable(model.loss) else "unknown"
        y = np.asarray(self._all_y) if not isinstance(self._all_y, list | tuple | dict) else np.zeros((0, 1))
        y = y.reshape(len(y), -1) if y.ndim == 1 else y
        steps = (self.params or {}).get("steps")  # batches of an epoch
        return NetworkFacts(
            layers=self._probe.layers,
            loss=loss,
            optimizer=type(model.optimizer).__name__.lower(),
            learning_rate=float(rate) if isinstance(rate, int | float) else None,
            momentum=config.get("momentum"),
            clipnorm=config.get("clipnorm"),
            task=_TASKS.get(loss),
            normalization=self._probe.normalization,
            residual=self._probe.residual,
            batch_size=-(-self._n_rows // steps) if steps else None,
            n_rows=self._n_rows,
            baseline_loss=baseline_loss(loss, y, None),
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

    Weights, optimizer and metrics are put back when the training has ended, however it ended. So it works for models of
    any class, also those that cannot be copied.

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
