"""Hyperparameters and the shape of the data in, an uncompiled ``keras.Model`` out.

A hidden layer is a block: dense, batch normalisation where it comes "before", the residual shortcut, the activation,
batch normalisation where it comes "after", dropout. With ``residual=True`` the block's input is added before the
activation (He et al., "Deep residual learning for image recognition", 2016, fig. 2); where the widths differ it passes
through a linear projection without bias (their option B).
"""

from __future__ import annotations

import functools
import inspect
import math
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from tuner import seeds
from tuner.backend import keras
from tuner.errors import HyperparameterError
from tuner.hyperparameters import NETWORK, layerwise_factors, widths
from tuner.layers import ChosenActivation, OptionalNormalization

# He et al. 2015 derive variance 2/fan_in for rectifiers, Klambauer et al. 2017 1/fan_in for SELU, Glorot & Bengio 2010
# 2/(fan_in + fan_out) for activations that are linear around zero. The smooth relatives of ReLU are paired with it.
_HE_ACTIVATIONS = frozenset(
    "relu relu6 leaky_relu elu celu gelu silu swish hard_silu hard_swish mish squareplus sparse_plus".split()
)

#: What a model callable is given by the estimator, where its signature names it.
GIVEN = frozenset(("input_shape", "n_outputs", *NETWORK))

_CATEGORICAL = frozenset(
    "categorical_crossentropy categorical_focal_crossentropy sparse_categorical_crossentropy "
    "categorical_generalized_cross_entropy kl_divergence".split()
)
_PER_CLASS = frozenset(("binary_crossentropy", "binary_focal_crossentropy"))
_MARGIN = frozenset(("hinge", "squared_hinge", "categorical_hinge"))
_BOUNDED = (*_PER_CLASS, "poisson")  # a negative target has no likelihood


def _name(identifier: Any) -> str:
    """Return the snake-case name of a function, an instance or a name."""
    while isinstance(identifier, functools.partial):
        identifier = identifier.func
    if not isinstance(identifier, str):
        identifier = getattr(identifier, "__name__", None) or type(identifier).__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier).lower()


def activation_name(activation: Any) -> str:
    """Return the name of an activation as Keras calls the function, whichever of its names was given."""
    return _name(keras.activations.get(activation))


def loss_name(loss: Any) -> str:
    """Return the name of a loss as Keras calls the function, whichever of its names or classes was given."""
    found = loss if callable(loss) else keras.losses.get(loss)
    return _name(getattr(found, "fn", found))


@dataclass(frozen=True)
class Output:
    """What the last layer gives, and the loss that judges it.

    Parameters
    ----------
    units : int
        One per class, label or target; a single one for two classes, unless the classes compete in a softmax.
    activation, loss : str, callable or object
        Never "auto".
    sparse : bool
        Whether the loss wants the index of the class, (n, 1), instead of one column per class.
    logits : bool
        Whether the loss applies the output activation itself, so that the outputs are not probabilities.
    threshold : float
        The value above which a single output means "yes".
    targets : tuple of two float
        What stands for "no" and for "yes" in the targets of a classification that are not indices.
    """

    units: int
    activation: Any
    loss: Any
    sparse: bool
    logits: bool
    threshold: float
    targets: tuple[float, float] = (0.0, 1.0)


def resolve_output(task: str, n: int, hyperparameters: Mapping[str, Any]) -> Output:
    """Choose what "auto" stands for in ``output_activation`` and ``loss``.

    Softmax goes with cross-entropy, sigmoid with binary cross-entropy (two classes, or a yes or no per class or label),
    identity with squared error for regression, and identity with a loss that was made with ``from_logits=True``.

    Parameters
    ----------
    task : {"binary", "multiclass", "multilabel", "regression"}
    n : int
        The number of classes, labels or targets.
    hyperparameters : mapping of str to object

    Raises
    ------
    HyperparameterError
        If ``loss="auto"`` is asked to judge an activation that it does not know how to pair in a classification, or a
        loss has no use for ``target_range``.
    """
    activation, loss = hyperparameters["output_activation"], hyperparameters["loss"]
    classes_compete = task in ("binary", "multiclass")
    if loss == "auto":
        kind = _name(activation)
        if task == "regression":
            loss = "mean_squared_error"
        elif kind == "linear":
            cross_entropy = keras.losses.CategoricalCrossentropy if classes_compete else keras.losses.BinaryCrossentropy
            loss = cross_entropy(from_logits=True)
        elif kind == "sigmoid" or (kind == "auto" and task != "multiclass"):
            loss = "binary_crossentropy"
        elif kind in ("softmax", "auto") and classes_compete:
            loss = "categorical_crossentropy"
        else:
            raise HyperparameterError(
                f"loss='auto' does not know what to pair with output_activation={activation!r} for a {task} target: "
                "name the loss, or use softmax, sigmoid or linear."
            )
    kind = loss_name(loss)
    config: Mapping[str, Any] = loss.get_config() if hasattr(loss, "get_config") else {}
    logits = bool(config.get("from_logits", False))
    targets = (0.0, 1.0)
    if (given := hyperparameters.get("target_range")) is not None:
        targets = float(given[0]), float(given[1])
        _check_targets(targets, kind, loss, logits)
    low, middle = targets[0], sum(targets) / 2
    if activation == "auto":
        if task == "regression" or logits or kind in _MARGIN:
            activation = "linear"
        elif task == "multilabel" or kind in _PER_CLASS:
            activation = "sigmoid"
        else:
            activation = "softmax" if task == "multiclass" or kind in _CATEGORICAL else "sigmoid"
        if given is not None and activation != "linear":  # a softmax cannot reach the ends for every class at once
            activation = "tanh" if low < 0 else "sigmoid"
    single = task == "binary" and _name(activation) != "softmax" and kind not in _CATEGORICAL
    return Output(
        units=1 if single else n,
        activation=activation,
        loss=loss,
        sparse=kind == "sparse_categorical_crossentropy",
        logits=logits,
        threshold=0.0 if kind in _MARGIN else math.log(middle / (1 - middle)) if logits else middle,
        targets=targets,
    )


def _check_targets(targets: tuple[float, float], kind: str, loss: Any, logits: bool) -> None:
    """Raise unless the loss can be given targets other than 0 and 1."""
    problem = ""
    if kind in _CATEGORICAL:
        problem = "judges the classes of a row together, as shares of one"
    elif kind in _MARGIN:
        problem = "wants -1 and 1, which it makes of the classes itself"
    elif (kind in _BOUNDED or logits) and not 0 <= targets[0] < targets[1] <= 1:
        problem = "wants probabilities, from 0 to 1"
    if problem:
        raise HyperparameterError(
            f"target_range={targets} does not go with loss={loss!r}, which {problem}: use 'mean_squared_error' with "
            "output_activation 'sigmoid' or 'tanh', or leave target_range at None."
        )


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Let Keras compute in a dtype inside the block, whatever the caller's global setting is."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let the seeds that Keras draws for initialisers and layers without one follow from `seed` inside the block.

    Keras draws them from Python's ``random``; its state outside the block is untouched.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def build(
    hyperparameters: Mapping[str, Any],
    input_shape: Sequence[int],
    output: Output,
    seed: int,
    alternatives: Alternatives | None = None,
) -> keras.Model:
    """Build the network with fresh weights.

    Parameters
    ----------
    hyperparameters : mapping of str to object
        All parameters of the estimator.
    input_shape : sequence of int
        The shape of one sample.
    output : Output
    seed : int
        The initial weights are a function of it, of the layer and of the hyperparameters.
    alternatives : Alternatives, optional
        Makes the network that stands for all of them, instead of the one that the hyperparameters choose; not for a
        custom ``model``.

    Returns
    -------
    keras.Model
        Built and uncompiled; ``model(X)`` of shape (n, ...) gives (n, ``output.units``).

    Raises
    ------
    HyperparameterError
        If a custom ``model`` callable returns something else.
    """
    with precision(hyperparameters["dtype"]):
        if hyperparameters["model"] is None:
            try:
                return _built_in(hyperparameters, input_shape, output, seed, alternatives)
            except (TypeError, ValueError) as error:  # an initialiser that does not fit a bias, and the like
                raise HyperparameterError(f"Keras cannot build the network: {error}") from error
        with _seeded(seeds.weight_seed(seed, 0)):
            return _custom(hyperparameters, input_shape, output)


@dataclass(frozen=True)
class Alternatives:
    """Activations and batch normalisations between which networks differ that are otherwise of one shape.

    Parameters
    ----------
    activations : tuple of str
        Of `tuner.layers.ELEMENTWISE`.
    normalizations : tuple of {None, "before", "after"}
    """

    activations: tuple[str, ...]
    normalizations: tuple[str | None, ...]

    def include(self, hyperparameters: Mapping[str, Any]) -> bool:
        """Return whether the network that the hyperparameters choose is one of them."""
        return (
            hyperparameters["model"] is None
            and hyperparameters["activation"] in self.activations
            and hyperparameters["batch_normalization"] in self.normalizations
        )

    def choose(self, model: keras.Model, hyperparameters: Mapping[str, Any]) -> dict[int, int]:
        """Return the values, by ``id`` of the variable, that make `model` the network that was chosen."""
        values = {}
        for layer in model.layers:
            if isinstance(layer, ChosenActivation):
                values[id(layer.choice)] = self.activations.index(hyperparameters["activation"])
            elif isinstance(layer, OptionalNormalization):
                values[id(layer.on)] = int(layer.name.endswith(f"_{hyperparameters['batch_normalization']}"))
        return values

    def unused(self, model: keras.Model, hyperparameters: Mapping[str, Any]) -> set[int]:
        """Return the ``id`` of every variable of `model` that the network that was chosen does not have."""
        chosen = self.choose(model, hyperparameters)
        found = set(chosen)
        for layer in model.layers:
            if isinstance(layer, OptionalNormalization) and not chosen[id(layer.on)]:
                found |= {id(variable) for variable in layer.variables}
        return found


@dataclass(frozen=True)
class _Dense:
    """A dense layer of the built-in network; its activation is that with which "auto" pairs the initialiser."""

    index: int
    name: str
    fan_in: int
    units: int
    activation: Any
    use_bias: bool

    def initializers(self, hyperparameters: Mapping[str, Any], seed: int) -> tuple[Any, Any]:
        """Return the initialisers of kernel and bias."""
        kernel_seed, bias_seed = (seeds.weight_seed(seed, 2 * self.index + i) for i in (0, 1))
        kernel = auto_initializer(hyperparameters["kernel_initializer"], self.activation)
        return (
            initializer(kernel, hyperparameters["initializer_scale"], kernel_seed),
            initializer(hyperparameters["bias_initializer"], None, bias_seed),
        )


def _dense_layers(hyperparameters: Mapping[str, Any], input_shape: Sequence[int], output: Output) -> dict[str, _Dense]:
    """Return the dense layers of the built-in network by name, in the order in which their seeds are counted."""
    found: list[tuple[str, int, int, Any, bool]] = []
    width = input_shape[-1]
    for i, units in enumerate(widths(hyperparameters["units"], hyperparameters["hidden_layers"]), start=1):
        found.append((f"hidden_{i}", width, units, hyperparameters["activation"], True))
        if hyperparameters["residual"] and width != units:
            found.append((f"hidden_{i}_projection", width, units, "linear", False))
        width = units
    found.append(("output", width, output.units, output.activation, True))
    return {entry[0]: _Dense(index, *entry) for index, entry in enumerate(found)}


def fresh_values(
    model: keras.Model,
    hyperparameters: Mapping[str, Any],
    input_shape: Sequence[int],
    output: Output,
    seed: int,
) -> dict[int, np.ndarray]:
    """Return the initial values that `build` would give to the weights of dense layers, without building a network.

    Parameters
    ----------
    model : keras.Model
        A built-in network of the same shape.
    hyperparameters, input_shape, output, seed
        As in `build`.

    Returns
    -------
    dict of int to array
        By ``id`` of the variable in `model`.
    """
    values = {}
    for dense in _dense_layers(hyperparameters, input_shape, output).values():
        layer = model.get_layer(dense.name)
        variables = [layer.kernel, layer.bias] if dense.use_bias else [layer.kernel]
        for variable, fresh in zip(variables, dense.initializers(hyperparameters, seed), strict=False):
            values[id(variable)] = np.asarray(fresh(variable.shape, variable.dtype))
    return values


def _built_in(
    hyperparameters: Mapping[str, Any],
    input_shape: Sequence[int],
    output: Output,
    seed: int,
    alternatives: Alternatives | None,
) -> keras.Model:
    activation, normalization = hyperparameters["activation"], hyperparameters["batch_normalization"]
    probe = np.zeros((1, 2), hyperparameters["dtype"])
    if (shape := _activation(activation, "probe")(probe).shape) != (1, 2):  # Keras takes it for granted
        raise ValueError(f"activation {_name(activation)!r} turns 2 units into {shape[-1]}.")
    specified = _dense_layers(hyperparameters, input_shape, output)

    def dense(name: str) -> keras.layers.Dense:
        layer = specified[name]
        kernel, bias = layer.initializers(hyperparameters, seed)
        return keras.layers.Dense(
            layer.units, use_bias=layer.use_bias, kernel_initializer=kernel, bias_initializer=bias, name=name
        )

    def normalize(x: Any, position: str, name: str) -> Any:
        if alternatives is not None:
            if position in alternatives.normalizations:
                return OptionalNormalization(name=f"{name}_{position}")(x)
        elif position == normalization:
            return keras.layers.BatchNormalization(name=name)(x)
        return x

    def activate(x: Any, name: str) -> Any:
        if alternatives is not None:
            return ChosenActivation(alternatives.activations, name=name)(x)
        return _activation(activation, name)(x)

    x = inputs = keras.Input(tuple(input_shape), name="input")
    for i, units in enumerate(widths(hyperparameters["units"], hyperparameters["hidden_layers"]), start=1):
        name = f"hidden_{i}"
        shortcut = x
        x = dense(name)(x)
        x = normalize(x, "before", f"{name}_normalization")
        if hyperparameters["residual"]:
            if shortcut.shape[-1] != units:
                shortcut = dense(f"{name}_projection")(shortcut)
            x = keras.layers.Add(name=f"{name}_shortcut")([x, shortcut])
        x = activate(x, f"{name}_activation")
        x = normalize(x, "after", f"{name}_normalization")
        if hyperparameters["dropout"]:
            x = keras.layers.Dropout(hyperparameters["dropout"], name=f"{name}_dropout")(x)
    x = dense("output")(x)
    x = _activation(output.activation, "output_activation")(x)
    return keras.Model(inputs, x, name="network")


@keras.saving.register_keras_serializable("tuner")
class FunctionActivation(keras.layers.Layer):
    """An activation without a name by which Keras could find it again: a lambda, a ``functools.partial``.

    A saved model holds the layer's name in its place; `from_bytes` is given the function by that name.
    """

    def __init__(self, function: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.function = keras.saving.get_registered_object(function) if isinstance(function, str) else function

    def call(self, inputs: Any) -> Any:
        """Return the activations."""
        return self.function(inputs)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration with the name in place of the function."""
        return super().get_config() | {"function": self.name}


def _activation(activation: Any, name: str) -> keras.layers.Layer:
    if isinstance(activation, str) or getattr(activation, "__name__", "<lambda>") != "<lambda>":
        return keras.layers.Activation(activation, name=name)
    return FunctionActivation(activation, name=name)


def auto_initializer(identifier: Any, activation: Any) -> Any:
    """Return what "auto" stands for beside an activation: He for the ReLU family, LeCun for SELU, else Glorot."""
    if identifier != "auto":
        return identifier
    kind = _name(activation)
    if kind in _HE_ACTIVATIONS:
        return "he_normal"
    return "lecun_normal" if kind == "selu" else "glorot_uniform"


def initializer(identifier: Any, scale: float | None, seed: int) -> keras.initializers.Initializer:
    """Return a fresh initialiser with a scale and, unless it brings its own, a seed.

    Parameters
    ----------
    identifier : str or keras.initializers.Initializer
    scale : float, optional
        Half-width of the uniform, standard deviation of the (truncated) normal initialiser.
    seed : int
    """
    instance = keras.initializers.get(identifier)
    config = instance.get_config()
    if scale is not None:
        config |= {"minval": -scale, "maxval": scale} if "minval" in config else {"stddev": scale}
    if config.get("seed", 0) is None:
        config["seed"] = seed
    elif scale is None:
        return instance
    return type(instance).from_config(config)


def own_parameters(model: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters of a model callable that are not given by the estimator, with their defaults.

    A parameter without a default maps to ``inspect.Parameter.empty``.
    """
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: parameter.default
        for name, parameter in inspect.signature(model).parameters.items()
        if name not in GIVEN and parameter.kind not in variadic
    }


def takes_anything(model: Callable[..., Any]) -> bool:
    """Return whether a model callable accepts keyword arguments that its signature does not name."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(model).parameters.values())


def _custom(hyperparameters: Mapping[str, Any], input_shape: Sequence[int], output: Output) -> keras.Model:
    function = hyperparameters["model"]
    offered = {
        **{name: hyperparameters[name] for name in NETWORK},
        "kernel_initializer": auto_initializer(hyperparameters["kernel_initializer"], hyperparameters["activation"]),
        "input_shape": tuple(input_shape),
        "n_outputs": output.units,
        "output_activation": output.activation,
        "loss": output.loss,
    }
    named = inspect.signature(function).parameters
    arguments = {name: value for name, value in offered.items() if name in named}
    model = function(**arguments, **(hyperparameters["model_params"] or {}))
    if not isinstance(model, keras.Model):
        raise HyperparameterError(
            f"model must return a keras.Model; {_name(function)} returned {model!r} of type {type(model).__name__}."
        )
    if getattr(model, "compiled", False):
        raise HyperparameterError(
            f"model must return an uncompiled keras.Model; {_name(function)} compiled it. The estimator compiles with "
            "its own optimizer and loss: remove the call of compile."
        )
    given = model(np.zeros((1, *input_shape), hyperparameters["dtype"]), training=False)
    if getattr(given, "shape", None) != (1, output.units):
        shape = "several outputs" if not hasattr(given, "shape") else f"(n, {', '.join(map(str, given.shape[1:]))})"
        raise HyperparameterError(
            f"model must give outputs of shape (n, {output.units}); {_name(function)} gives {shape}. Let it name "
            "n_outputs and end in a layer with that many units."
        )
    return model


#: Rows for which outputs are computed at a time; bounds the memory, also of sparse rows that are made dense.
ROWS_AT_A_TIME = 1024


def outputs(model: keras.Model, X: Any) -> np.ndarray:
    """Return the model's outputs (n, k) in inference mode.

    The model is called eagerly: a traced function costs half a second for each new model and each new batch length,
    more than the rows of most tables.

    Parameters
    ----------
    model : keras.Model
    X : array or sparse matrix of shape (n, ...)
        Of the dtype that the model computes in.
    """
    with precision(X.dtype.name):
        parts = [
            np.asarray(model(as_dense(X[start : start + ROWS_AT_A_TIME]), training=False))
            for start in range(0, X.shape[0], ROWS_AT_A_TIME)
        ]
    return np.concatenate(parts)


def rate_factors(model: keras.Model, hyperparameters: Mapping[str, Any]) -> list[float] | None:
    """Return the factor of the learning rate of every trainable variable, in their order; None if all have the same.

    The layers are the blocks of the built-in network, a hidden layer with its normalisation and projection being one;
    of a custom model the entries of ``model.layers`` that have trainable weights.

    Parameters
    ----------
    model : keras.Model
    hyperparameters : mapping of str to object
        All parameters of the estimator.

    Raises
    ------
    HyperparameterError
        If ``layerwise_learning_rates`` has not one entry for each layer, or weights are of no layer.
    """
    given = hyperparameters["layerwise_learning_rates"]
    if given is None:
        return None
    blocks: dict[Any, int] = {}
    owner: dict[int, int] = {}
    for layer in model.layers:
        named = re.match(r"hidden_\d+|output", layer.name) if hyperparameters["model"] is None else None
        for variable in layer.trainable_variables:
            owner.setdefault(id(variable), blocks.setdefault(named[0] if named else id(layer), len(blocks)))
    factors = layerwise_factors(given, len(blocks))
    if homeless := [variable.path for variable in model.trainable_variables if id(variable) not in owner]:
        raise HyperparameterError(
            f"layerwise_learning_rates={given!r} does not say how fast the model learns {homeless[0]!r}, which belongs "
            "to none of its layers: put it into a layer, or leave layerwise_learning_rates at None."
        )
    return [factors[owner[id(variable)]] for variable in model.trainable_variables]


def mask_states(model: keras.Model) -> list[Any]:
    """Return the variables that random masks (dropout, noise) are drawn from, in the order of their seeds."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def reset_masks(model: keras.Model, seed: int, epoch: int) -> None:
    """Let the random masks of an epoch (dropout, noise) follow from `seed`; the step counts within the epoch."""
    for layer, state in enumerate(mask_states(model)):
        state.assign([seeds.mask_seed(seed, layer, epoch), 0])


def as_dense(X: Any) -> np.ndarray:
    """Return an array or a sparse matrix as an array."""
    return X if isinstance(X, np.ndarray) else X.toarray()


def _custom_objects(model: keras.Model) -> dict[str, Any]:
    """Return the classes and functions by name that Keras cannot find by itself when it loads the model."""
    found: dict[str, Any] = {}
    for layer in model._flatten_layers():
        if isinstance(layer, FunctionActivation):
            found[layer.name] = layer.function
            continue
        for thing in (layer, *vars(layer).values()):
            thing = thing if isinstance(thing, FunctionType) else type(thing)
            if not thing.__module__.startswith(("keras.", "builtins", "tensorflow.", "tuner.")):
                found[thing.__name__] = thing
    return found


def to_bytes(model: keras.Model) -> tuple[bytes, dict[str, Any]]:
    """Return a model as the bytes of a ``.keras`` file, and the custom classes and functions that it needs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes(), _custom_objects(model)


def from_bytes(content: bytes, custom_objects: Mapping[str, Any], dtype: str) -> keras.Model:
    """Return the uncompiled model that `to_bytes` wrote."""
    with tempfile.TemporaryDirectory() as folder, precision(dtype):
        path = Path(folder) / "model.keras"
        path.write_bytes(content)
        # Lambda layers are code; whoever unpickles an estimator has already decided to trust it.
        return keras.models.load_model(path, custom_objects=dict(custom_objects), compile=False, safe_mode=False)
