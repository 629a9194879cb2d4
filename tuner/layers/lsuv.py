"""Layer-sequential unit variance: initial weights that data have scaled.

Mishkin & Matas, "All you need is a good init", ICLR 2016, algorithm 1. From an orthonormal start, layer by layer from
the inputs to the outputs, the last one included, a kernel is divided by the standard deviation of its layer's outputs
on a batch. Outputs are those before the activation, and without the bias, which no kernel could make smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from tuner.backend import keras
from tuner.layers.hooks import replaced

#: How far from 1 the variance may stay, and how often a kernel is divided at most: as in the first author's code,
#: github.com/ducha-aiki/LSUV-pytorch.
TOLERANCE = 0.1
ITERATIONS = 10

_DENSE = (keras.layers.Dense, keras.layers.EinsumDense)
_CONVOLUTIONS = (
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
    *(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose),
)


@keras.saving.register_keras_serializable("tuner")
class LSUV(keras.initializers.Orthogonal):
    """The orthonormal start; `to_unit_variance` scales the layers that have it."""


def lsuv_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the dense and convolutional layers of a model whose kernels have been initialised with `LSUV`."""
    layers = (layer for layer in model._flatten_layers() if isinstance(layer, _DENSE + _CONVOLUTIONS))
    return [layer for layer in layers if isinstance(layer.kernel_initializer, LSUV)]


def to_unit_variance(model: keras.Model, layers: Sequence[keras.layers.Layer], X: Any) -> None:
    """Divide the kernels of some layers of a model so that their outputs have variance 1, in the order of their calls.

    Batch normalisation uses the statistics of the batch, as it does in training, and dropout drops nothing. Only the
    kernels change.

    Parameters
    ----------
    model : keras.Model
    layers : sequence of keras.layers.Layer
        Dense or convolutional ones. A kernel stays as it is if its outputs do not vary or are not finite.
    X : array of shape (n, ...)
        The batch.
    """
    waiting = {id(layer) for layer in layers}

    def scaling(layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if id(layer) in waiting:
                waiting.remove(id(layer))
                with replaced(layer, "activation", lambda activation: None):
                    _scale(layer.kernel, lambda: original(inputs) - original(keras.ops.zeros_like(inputs[:1])))
            return original(inputs, *args, **kwargs)

        return call

    def as_in_training(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda inputs, *args, **kwargs: original(inputs, *args, **{**kwargs, "training": True})

    state = [(variable, np.asarray(variable)) for variable in model.non_trainable_variables]
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced(layer, "call", partial(scaling, layer)))
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                stack.enter_context(replaced(layer, "call", as_in_training))
        model(X, training=False)
    for variable, value in state:  # moving averages
        variable.assign(value)


def _scale(kernel: Any, outputs: Callable[[], Any]) -> None:
    """Divide a kernel by the standard deviation of the outputs until their variance is near 1."""
    for _ in range(ITERATIONS):
        values = np.asarray(outputs())
        rounding = 10 * np.finfo(values.dtype).eps
        with np.errstate(all="ignore"):
            variance, square = np.var(values, dtype=float), np.mean(np.square(values, dtype=float))
            scaled = np.asarray(kernel) / np.sqrt(variance)
        varies = rounding**2 * square < variance < np.inf
        if not varies or abs(variance - 1) <= TOLERANCE or not np.isfinite(scaled).all():
            return
        kernel.assign(scaled)
