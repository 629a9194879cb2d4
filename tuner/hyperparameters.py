"""Every hyperparameter once: its name, default, constraint, kind and default search range.

The estimators take their constructor parameters from here, `check` is the one validation that a value passes however it
arrived (constructor, ``set_params`` or a search), and `tuner.search_space` reads the ranges. Importing this module
imports neither TensorFlow nor Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from tuner.errors import HyperparameterError, did_you_mean

# Sources of the default search ranges: learning rates as in Bengio, "Practical recommendations for gradient-based
# training of deep architectures" (2012), section 3.1.1 (1e-6 to 1 for standardised inputs, typically near 1e-2),
# narrowed to what Adam and momentum use; the rest are the alternatives that the field compares.


class Constraint:
    """What a value must satisfy: `accepts` decides, ``str()`` says it in words."""

    def accepts(self, value: Any) -> bool:
        """Return whether the value is allowed."""
        raise NotImplementedError

    def hint(self, value: Any) -> str:
        """Return what may have been meant, or an empty string."""
        return ""


@dataclass(frozen=True)
class Number(Constraint):
    """A finite number between two bounds, which are allowed themselves unless declared open."""

    low: float = -math.inf
    high: float = math.inf
    integer: bool = False
    low_open: bool = False
    high_open: bool = False

    def accepts(self, value: Any) -> bool:
        """Return whether the value is allowed."""
        if isinstance(value, bool) or not isinstance(value, Integral if self.integer else Real):
            return False
        value = float(value)
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        kind = "an integer" if self.integer else "a number"
        bounds = []
        if self.low > -math.inf:
            bounds.append(f"{'>' if self.low_open else '>='} {self.low:g}")
        if self.high < math.inf:
            bounds.append(f"{'<' if self.high_open else '<='} {self.high:g}")
        return f"{kind} {' and '.join(bounds)}".strip()


@dataclass(frozen=True)
class Options(Constraint):
    """One of a few plain values."""

    values: tuple[Any, ...]

    def accepts(self, value: Any) -> bool:
        """Return whether the value is allowed."""
        value = value.item() if isinstance(value, np.generic) else value
        # `1 == True` in Python, but batch_size=True is a mistake: compare types as well.
        return any(type(value) is type(option) and value == option for option in self.values)

    def hint(self, value: Any) -> str:
        """Return the closest known name."""
        return did_you_mean(value, [v for v in self.values if isinstance(v, str)]) if isinstance(value, str) else ""

    def __str__(self) -> str:
        return " or ".join(repr(value) for value in self.values)


@dataclass(frozen=True)
class Instance(Constraint):
    """Anything that a predicate recognises."""

    predicate: Callable[[Any], bool]
    words: str

    def accepts(self, value: Any) -> bool:
        """Return whether the value is allowed."""
        return self.predicate(value)

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class KerasName(Constraint):
    """A name, or an instance, that a Keras module such as ``keras.activations`` knows."""

    module: Literal["activations", "initializers", "losses", "optimizers"]
    aliases: tuple[str, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Return whether the value is allowed."""
        from tuner.backend import keras, optimizer_classes

        if isinstance(value, str):
            if value in self.aliases:
                return True
            if self.module == "optimizers":
                return value.lower() in optimizer_classes()
            try:
                return getattr(keras, self.module).get(value) is not None
            except Exception:  # whatever a class raises that cannot be made without arguments
                return False
        if self.module == "activations":  # a layer has weights, which would be shared and never fresh
            return callable(value) and not isinstance(value, type | keras.layers.Layer)
        if self.module == "losses":
            return isinstance(value, keras.losses.Loss) or (callable(value) and not isinstance(value, type))
        base = {"initializers": keras.initializers.Initializer, "optimizers": keras.optimizers.Optimizer}[self.module]
        return isinstance(value, base)

    def hint(self, value: Any) -> str:
        """Return the closest known name."""
        from tuner.backend import keras, optimizer_classes

        if not isinstance(value, str):
            return ""
        if self.module == "optimizers":
            names = list(optimizer_classes())
        else:
            names = [name for name in dir(getattr(keras, self.module)) if name.islower() and name[0] != "_"]
        return did_you_mean(value, [name for name in (*names, *self.aliases) if self.accepts(name)])

    def __str__(self) -> str:
        return {
            "activations": "the name of an activation of Keras or a function (for a layer, write a model)",
            "initializers": "the name of an initializer of Keras or a keras Initializer",
            "losses": "the name of a loss of Keras, a keras Loss or a function",
            "optimizers": "the name of an optimizer of Keras or a keras Optimizer",
        }[self.module]


@dataclass(frozen=True)
class LogRange:
    """A default search range, uniform in the logarithm."""

    low: float
    high: float


@dataclass(frozen=True)
class Choices:
    """A default search range of a few values."""

    values: tuple[Any, ...]


Kind = Literal["lane", "structure", "training"]


@dataclass(frozen=True)
class Hyperparameter:
    """One constructor parameter of the Keras estimators.

    Parameters
    ----------
    name : str
    default : object
    accepted : tuple of Constraint
        A value must satisfy one of them.
    kind : {"lane", "structure", "training"}
        Whether lanes of one compiled program may differ in it ("lane"), must share it ("structure"), or whether it
        only concerns how training is run ("training").
    search : LogRange or Choices, optional
        The range that `tuner.search_space` proposes.
    """

    name: str
    default: Any
    accepted: tuple[Constraint, ...]
    kind: Kind
    search: LogRange | Choices | None = None

    def check(self, value: Any) -> None:
        """Raise `HyperparameterError` unless the value is allowed."""
        if any(constraint.accepts(value) for constraint in self.accepted):
            return
        expected = ", or ".join(map(str, self.accepted))
        hint = next(filter(None, (constraint.hint(value) for constraint in self.accepted)), "")
        raise HyperparameterError(f"{self.name} must be {expected}; got {value!r}.{hint}")


def _is_units(value: Any) -> bool:
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
        return False
    return len(value) > 0 and all(map(Number(1, integer=True).accepts, value))


def _is_factors(value: Any) -> bool:
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
        return False
    return len(value) > 0 and all(map(_POSITIVE.accepts, value))


def _is_range(value: Any) -> bool:
    pair = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes) and len(value) == 2
    return pair and all(map(Number().accepts, value)) and value[0] < value[1]


def _is_class_weight(value: Any) -> bool:
    weights = list(value.values()) if isinstance(value, Mapping) else []
    return all(map(Number(0).accepts, weights)) and any(weights)


def _is_model(value: Any) -> bool:
    from tuner.backend import keras

    return callable(value) and not isinstance(value, keras.layers.Layer)


def _is_keywords(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _is_schedule(value: Any) -> bool:
    from tuner.backend import keras

    return isinstance(value, keras.optimizers.schedules.LearningRateSchedule)


def _is_callbacks(value: Any) -> bool:
    from tuner.backend import keras

    return isinstance(value, Sequence) and all(isinstance(c, keras.callbacks.Callback) for c in value)


_NONE = Options((None,))
_BOOL = Options((False, True))
_POSITIVE = Number(0, low_open=True)
_COUNT = Number(1, integer=True)
_AUTO = Options(("auto",))


def _table(*rows: Hyperparameter) -> dict[str, Hyperparameter]:
    return {row.name: row for row in rows}


#: The network; a custom ``model`` callable may name any of these in its signature.
NETWORK: Mapping[str, Hyperparameter] = _table(
    Hyperparameter("hidden_layers", None, (Number(0, integer=True), _NONE), "structure"),
    Hyperparameter(
        "units", 64, (_COUNT, Instance(_is_units, "a sequence of such integers, one per hidden layer")), "structure"
    ),
    Hyperparameter(
        "activation",
        "relu",
        (KerasName("activations"),),
        "structure",
        Choices(("relu", "elu", "selu", "gelu", "tanh", "sigmoid")),
    ),
    Hyperparameter(
        "kernel_initializer",
        "auto",
        (KerasName("initializers", aliases=("auto",)),),
        "lane",
        Choices(("glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_normal", "orthogonal")),
    ),
    Hyperparameter("initializer_scale", None, (_POSITIVE, _NONE), "lane"),
    Hyperparameter("bias_initializer", "zeros", (KerasName("initializers"),), "lane"),
    Hyperparameter(
        "batch_normalization",
        None,
        (Options((None, "before", "after")),),
        "structure",
        Choices((None, "before", "after")),
    ),
    Hyperparameter("dropout", 0.0, (Number(0, 1, high_open=True),), "lane"),
    Hyperparameter("residual", False, (_BOOL,), "structure"),
    Hyperparameter("output_activation", "auto", (KerasName("activations", aliases=("auto",)),), "structure"),
    Hyperparameter("loss", "auto", (KerasName("losses", aliases=("auto",)),), "structure"),
)

#: How the network is trained.
TRAINING: Mapping[str, Hyperparameter] = _table(
    Hyperparameter("optimizer", "adam", (KerasName("optimizers", aliases=("momentum", "nesterov")),), "structure"),
    Hyperparameter("learning_rate", None, (_POSITIVE, _NONE), "lane", LogRange(1e-4, 1e-1)),
    Hyperparameter("momentum", None, (Number(0, 1, high_open=True), _NONE), "lane"),
    Hyperparameter(
        "learning_rate_schedule",
        None,
        (Options((None, "cosine", "exponential", "step")), Instance(_is_schedule, "a Keras LearningRateSchedule")),
        "lane",
    ),
    Hyperparameter(
        "layerwise_learning_rates",
        None,
        (_POSITIVE, _NONE, Instance(_is_factors, "a sequence of such numbers, one per layer")),
        "lane",
    ),
    Hyperparameter("weight_decay", None, (Number(0), _NONE), "lane"),
    Hyperparameter("clipnorm", None, (_POSITIVE, _NONE), "lane"),
    Hyperparameter("batch_size", 32, (_COUNT,), "structure"),
    Hyperparameter("epochs", 20, (_COUNT,), "training"),
    Hyperparameter("early_stopping", False, (_BOOL,), "training"),
    Hyperparameter("validation_fraction", 0.1, (Number(0, 1, low_open=True, high_open=True),), "training"),
    Hyperparameter("n_iter_no_change", 10, (_COUNT,), "training"),
    Hyperparameter("tol", 1e-4, (Number(0),), "training"),
    Hyperparameter(
        "class_weight",
        None,
        (Options((None, "balanced")), Instance(_is_class_weight, "a dict of weights >= 0 by class, not all 0")),
        "lane",
    ),
    Hyperparameter(
        "target_range", None, (_NONE, Instance(_is_range, "a pair of numbers, the lower one first")), "lane"
    ),
    Hyperparameter("shuffle", True, (_BOOL,), "training"),
    Hyperparameter(
        "callbacks", None, (_NONE, Instance(_is_callbacks, "a sequence of keras Callback instances")), "training"
    ),
    Hyperparameter("warm_start", False, (_BOOL,), "training"),
    Hyperparameter(
        "random_state",
        None,
        (
            Number(0, 2**32 - 1, integer=True),
            _NONE,
            Instance(lambda v: isinstance(v, np.random.RandomState), "a numpy RandomState"),
        ),
        "lane",
    ),
    Hyperparameter("verbose", 0, (Number(0, integer=True), _BOOL), "training"),
    Hyperparameter("dtype", "float32", (Options(("float32", "float64")),), "structure"),
    Hyperparameter("health", True, (_BOOL,), "structure"),
    Hyperparameter("engine", "auto", (Options(("auto", "stacked", "keras")),), "training"),
    Hyperparameter(
        "model", None, (_NONE, Instance(_is_model, "a function that returns a new keras.Model")), "structure"
    ),
    Hyperparameter(
        "model_params",
        None,
        (_NONE, Instance(_is_keywords, "a dict of the model callable's own parameters by name")),
        "structure",
    ),
)

HYPERPARAMETERS: Mapping[str, Hyperparameter] = {**NETWORK, **TRAINING}

# `initializer_scale` is the half-width or standard deviation of these; the others derive theirs from the layer's size.
SCALED_INITIALIZERS = ("random_uniform", "uniform", "random_normal", "normal", "truncated_normal")
_SCALED = {name.replace("_", "") for name in SCALED_INITIALIZERS}  # Keras also takes the names of the classes


def check(values: Mapping[str, Any]) -> None:
    """Raise `HyperparameterError` unless every value is allowed by itself and together with the others.

    Parameters
    ----------
    values : mapping of str to object
        All parameters of a Keras estimator by name.
    """
    for name, value in values.items():
        HYPERPARAMETERS[name].check(value)
    units, hidden_layers = values["units"], values["hidden_layers"]
    if not isinstance(units, Integral) and hidden_layers not in (None, len(units)):
        raise HyperparameterError(
            f"units has {len(units)} entries but hidden_layers={hidden_layers}: give one entry per hidden layer, or "
            "leave hidden_layers at None."
        )
    scale, initializer = values["initializer_scale"], values["kernel_initializer"]
    plain = isinstance(initializer, str) and initializer.lower().replace("_", "") in _SCALED
    if scale is not None and not plain:
        raise HyperparameterError(
            f"initializer_scale={scale!r} needs kernel_initializer to be one of {', '.join(SCALED_INITIALIZERS)}; got "
            f"{initializer!r}. Set one of these, or leave initializer_scale at None."
        )
    if values["learning_rate"] is not None and not isinstance(values["learning_rate_schedule"], str | None):
        raise HyperparameterError(
            f"learning_rate={values['learning_rate']!r} stands beside a schedule object, which has its own rate: leave "
            "one of the two at None, or name the schedule ('cosine', 'exponential', 'step')."
        )
    if values["layerwise_learning_rates"] is not None and values["model"] is None:
        layerwise_factors(values["layerwise_learning_rates"], len(widths(units, hidden_layers)) + 1)
    if values["callbacks"] and values["engine"] == "stacked":
        raise HyperparameterError(
            "engine='stacked' cannot call Keras callbacks, which expect one model and its batches: use engine='auto' "
            "or 'keras', or leave callbacks at None."
        )
    if values["model_params"] and values["model"] is None:
        raise HyperparameterError(
            f"model_params={dict(values['model_params'])!r} needs a model callable to pass them to; model is None."
        )


def widths(units: int | Sequence[int], hidden_layers: int | None) -> tuple[int, ...]:
    """Return the number of units of every hidden layer; two layers where neither parameter says how many."""
    if isinstance(units, Integral):
        return (int(units),) * (2 if hidden_layers is None else hidden_layers)
    return tuple(int(width) for width in units)  # type: ignore[union-attr]


def layerwise_factors(given: float | Sequence[float], n: int) -> list[float]:
    """Return the factors of the learning rates of n layers, first to last.

    Parameters
    ----------
    given : float or sequence of float
        A sequence has the factors themselves. A number is the decay from the last layer, whose factor is 1, to each
        layer before it, counted from 0: ``given ** (n - 1 - i)``. Howard & Ruder, "Universal language model fine-tuning
        for text classification" (2018), section 3.2, take 1 / 2.6.
    n : int

    Raises
    ------
    HyperparameterError
        If the sequence has another length.
    """
    if not isinstance(given, Sequence | np.ndarray):
        with np.errstate(over="ignore"):  # what overflows is told by the loss
            return (np.float64(given) ** np.arange(n - 1, -1, -1)).tolist()
    if len(given) != n:
        raise HyperparameterError(
            f"layerwise_learning_rates has {len(given)} entries, but the network has {n} layers with weights: give one "
            "factor per layer, first to last (the built-in network: every hidden layer, then the output), or a number, "
            "the decay from the last layer to the first."
        )
    return [float(factor) for factor in given]
