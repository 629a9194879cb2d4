"""What a network is trained with: optimizer, learning-rate schedule, loss and metric, made from hyperparameters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from tuner.backend import keras, optimizer_classes, tensorflow
from tuner.errors import HyperparameterError
from tuner.network import Output, rate_factors

# SGD under the names of the textbooks; 0.9 is the momentum of Sutskever et al. 2013 that became customary.
_SGD_VARIANTS: Mapping[str, dict[str, Any]] = {
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
}

#: The numbers, beside the learning rate, in which the optimizers of lanes of one program may differ.
LANE_NUMBERS = ("momentum", "weight_decay", "clipnorm")


@cache
def _defaults(name: str) -> tuple[Any, Mapping[str, Any]]:
    """Return an optimizer's class and default configuration by its lower-case name."""
    cls = optimizer_classes()[name]
    return cls, cls().get_config()


def optimizer_config(hyperparameters: Mapping[str, Any], total_steps: int) -> tuple[Any, dict[str, Any]]:
    """Return the class and the configuration of an optimizer.

    ``learning_rate``, ``momentum``, ``weight_decay`` and ``clipnorm`` override the optimizer's own value where they are
    not None.

    Parameters
    ----------
    hyperparameters : mapping of str to object
    total_steps : int
        The number of updates that a named schedule spans.

    Raises
    ------
    HyperparameterError
        If the optimizer has no momentum, or if a number stands beside a schedule object.
    """
    chosen = hyperparameters["optimizer"]
    if isinstance(chosen, str):
        variant = _SGD_VARIANTS.get(chosen, {})
        cls, defaults = _defaults("sgd" if variant else chosen.lower())
        config = {**defaults, **variant}
    else:
        cls, config = type(chosen), _config(chosen)
    if "learning_rate" not in config:
        raise HyperparameterError(f"optimizer={chosen!r} wraps another one: give that one itself.")
    for name in LANE_NUMBERS:
        value = hyperparameters[name]
        if value is None:
            continue
        if name not in config:
            raise HyperparameterError(
                f"{name}={value!r} does not apply to optimizer={chosen!r}, which has none: leave {name} at None, or "
                "use 'sgd', 'nesterov' or 'rmsprop'."
            )
        config[name] = value
    config["learning_rate"] = _learning_rate(hyperparameters, config["learning_rate"], total_steps)
    return cls, config


def make_optimizer(hyperparameters: Mapping[str, Any], total_steps: int) -> keras.optimizers.Optimizer:
    """Make a fresh optimizer; see `optimizer_config`.

    Raises
    ------
    HyperparameterError
        Also if Keras refuses the values.
    """
    cls, config = optimizer_config(hyperparameters, total_steps)
    try:
        return cls.from_config(config)
    except (TypeError, ValueError) as error:
        chosen = hyperparameters["optimizer"]
        raise HyperparameterError(f"optimizer={chosen!r} cannot be made from its configuration: {error}") from error


def scale_rates(optimizer: keras.optimizers.Optimizer, factors: Sequence[Any]) -> None:
    """Let an optimizer train every variable with a learning rate of its own, weight decay included.

    It takes the rate at two places, where it decays weights and where it updates a variable. The methods of this one
    object change, and neither its class nor its configuration does: a saved model knows no other optimizer.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
    factors : sequence of float or scalar tensor
        By which the rate is multiplied, for each trainable variable.
    """
    cls = type(optimizer)

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> Any:
        factor = factors[optimizer._get_variable_index(variable)]
        return cls.update_step(optimizer, gradient, variable, learning_rate * factor)

    def apply_weight_decay(variables: Iterable[Any]) -> None:
        for variable in variables:
            rate = cls._get_current_learning_rate(optimizer) * factors[optimizer._get_variable_index(variable)]
            optimizer._get_current_learning_rate = lambda rate=rate: rate
            cls._apply_weight_decay(optimizer, [variable])
            del optimizer._get_current_learning_rate

    optimizer.update_step = update_step
    optimizer._apply_weight_decay = apply_weight_decay


def _config(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    try:
        return optimizer.get_config()
    except NotImplementedError as error:  # of a schedule inside
        raise HyperparameterError(
            f"optimizer={optimizer!r} cannot be made anew: {error} Or give the schedule as learning_rate_schedule."
        ) from error


def _learning_rate(hyperparameters: Mapping[str, Any], own: Any, total_steps: int) -> Any:
    """Return the rate or the schedule; `own` is the optimizer's, a dict where it is a serialised schedule."""
    rate, schedule = hyperparameters["learning_rate"], hyperparameters["learning_rate_schedule"]
    if schedule is not None and not isinstance(schedule, str):
        return schedule  # a function of the step, without state
    if isinstance(own, dict) and (rate is not None or schedule is not None):
        given = f"learning_rate={rate!r}" if rate is not None else f"learning_rate_schedule={schedule!r}"
        raise HyperparameterError(
            f"{given} stands beside an optimizer whose learning rate is a schedule object: leave one of the two out."
        )
    rate = own if rate is None else rate
    if schedule == "cosine":  # to 0
        return keras.optimizers.schedules.CosineDecay(rate, total_steps)
    if schedule == "exponential":  # to 1 %
        return keras.optimizers.schedules.ExponentialDecay(rate, total_steps, 0.01)
    if schedule == "step":  # a tenth from one half on, a hundredth from three quarters on; Keras includes the boundary
        boundaries = [math.ceil(total_steps * share) - 1 for share in (0.5, 0.75)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [rate, rate / 10, rate / 100])
    return rate


class FunctionLoss(keras.losses.Loss):
    """A loss function ``(y_true, y_pred) -> (n,)`` as a Keras loss."""

    def __init__(self, function: Any, **kwargs: Any):
        super().__init__(name=re.sub(r"\W", "", getattr(function, "__name__", "")) or "loss", **kwargs)
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each sample."""
        return self.function(y_true, y_pred)


@cache
def _loss_classes() -> dict[Any, type]:
    """Return Keras's classes of losses by the functions that they call."""
    base = keras.losses.Loss
    classes = (c for c in vars(keras.losses).values() if isinstance(c, type) and issubclass(c, base) and c is not base)
    return {cls().fn: cls for cls in classes if hasattr(cls(), "fn")}


def make_loss(loss: Any, dtype: str) -> keras.losses.Loss:
    """Make a loss that divides by the sum of the sample weights.

    With Keras's default a batch's loss is divided by its number of rows, so that a weight of 2 is not the same as a row
    given twice; with ``mean_with_sample_weight`` it is.
    """
    weighted: dict[str, Any] = {"reduction": "mean_with_sample_weight", "dtype": dtype}
    found = keras.losses.get(loss)
    if not isinstance(found, keras.losses.Loss):
        cls = _loss_classes().get(found)  # a saved model can be loaded by Keras alone where the loss is its own
        return cls(**weighted) if cls else FunctionLoss(found, **weighted)
    try:
        return type(found).from_config(found.get_config() | weighted)
    except (TypeError, NotImplementedError) as error:
        raise HyperparameterError(
            f"loss={loss!r} cannot be made anew from its configuration ({error}): give {type(found).__name__} a "
            "get_config, and a constructor that passes name, reduction and dtype on."
        ) from error


@keras.saving.register_keras_serializable("tuner")
class RangeAccuracy(keras.metrics.BinaryAccuracy):
    """The share of outputs on the same side of the middle as their targets, for targets other than 0 and 1.

    Parameters
    ----------
    middle : float
        Between the target of "no" and that of "yes".
    threshold : float
        The same of the outputs.
    """

    def __init__(self, middle: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.middle = middle

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Add a batch."""
        return super().update_state(keras.ops.greater(y_true, self.middle), y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration."""
        return super().get_config() | {"middle": self.middle}


def make_metric(task: str, output: Output) -> keras.metrics.Metric:
    """Make the metric that is recorded beside the loss: accuracy, or the mean absolute error of a regression."""
    if task == "regression":
        return keras.metrics.MeanAbsoluteError(name="mean_absolute_error")
    if output.sparse:
        return keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    if task == "multilabel" or output.units == 1:
        named: dict[str, Any] = {"name": "accuracy", "threshold": output.threshold}
        if output.targets == (0, 1):
            return keras.metrics.BinaryAccuracy(**named)
        return RangeAccuracy(sum(output.targets) / 2, **named)
    return keras.metrics.CategoricalAccuracy(name="accuracy")


def metric_function(task: str, output: Output) -> tuple[str, Callable[[Any, Any], Any]]:
    """Return the name of that metric and the function ``(y_true, y_pred) -> (n,)`` of which it is the weighted mean.

    Accuracy is written anew: Keras's ``argmax`` for TensorFlow reinterprets bits, which does not vectorise.
    """
    tf = tensorflow
    if task == "regression":
        return "mean_absolute_error", keras.losses.mean_absolute_error
    if task == "multilabel" or output.units == 1:
        middle = sum(output.targets) / 2
        return "accuracy", lambda y, outputs: tf.reduce_mean(
            tf.cast(tf.equal(y > middle, outputs > output.threshold), outputs.dtype), axis=-1
        )
    if output.sparse:
        return "accuracy", lambda y, outputs: tf.equal(tf.cast(y[:, 0], "int64"), tf.argmax(outputs, axis=1))
    return "accuracy", lambda y, outputs: tf.equal(tf.argmax(y, axis=1), tf.argmax(outputs, axis=1))


def compile_model(
    model: keras.Model, hyperparameters: Mapping[str, Any], task: str, output: Output, steps: int
) -> None:
    """Compile a network with a fresh optimizer, for epochs of that many steps."""
    optimizer = make_optimizer(hyperparameters, steps * hyperparameters["epochs"])
    if (factors := rate_factors(model, hyperparameters)) is not None:
        scale_rates(optimizer, factors)
    if not tensorflow.distribute.has_strategy():
        # One replica has nothing to reduce. TensorFlow's all_reduce registers a gradient function at every trace
        # and for good, which would keep the graph of every network ever trained: 8 MB for each small fit (Keras
        # 3.15, TensorFlow 2.21). So this optimizer, which is the lane's own, goes without its private method.
        optimizer._all_reduce_sum_gradients = list
    # Keras 3.15 loses what an optimizer assigns while it is built within a traced step (ScheduleFreeAdamW).
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer=optimizer,
        loss=make_loss(output.loss, hyperparameters["dtype"]),
        weighted_metrics=[make_metric(task, output)],
        # XLA costs a second for each new model, which fits of a minute and less do not earn back.
        jit_compile=False,
    )


def set_optimizer_values(model: keras.Model, values: Iterable[np.ndarray | float]) -> None:
    """Give the variables of the optimizer of a model that `compile_model` has compiled their values."""
    for variable, value in zip(model.optimizer.variables, values, strict=True):
        variable.assign(value)


def learning_rates(rate: Any, first: int, n: int) -> np.ndarray:
    """Return the learning rate (n,) of some updates, which are counted from `first`.

    Parameters
    ----------
    rate : float, dict or LearningRateSchedule
        As in an optimizer's configuration.
    first, n : int
    """
    if isinstance(rate, dict):
        rate = keras.optimizers.schedules.deserialize(rate)
    if not callable(rate):
        return np.full(n, float(rate))
    if n == 0:
        return np.zeros(0)
    steps = np.arange(first, first + n)
    try:  # Keras's own schedules are elementwise
        series = np.asarray(rate(steps), dtype=float)
        if series.shape == (n,) and np.isclose(series[-1], float(rate(steps[-1]))):
            return series
    except Exception:  # whatever a schedule raises that was written for a single step
        pass
    return np.array([float(rate(step)) for step in steps])
