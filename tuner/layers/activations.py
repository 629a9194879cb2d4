"""Activations that Keras lacks, and the one place that knows both Keras's and these by name."""

from __future__ import annotations

import functools
from typing import Any

from tuner.backend import keras


@keras.saving.register_keras_serializable("tuner")
def scaled_sigmoid(x: Any) -> Any:
    """Return 4σ(x) − 2, between −2 and 2 with the slope 1 at 0, as twice the tanh of x / 2: that keeps small numbers.

    Source: Xu, Huang & Li, "Revise saturated activation functions", 2016, section 3.1.
    """
    return 2 * keras.ops.tanh(x / 2)


@keras.saving.register_keras_serializable("tuner")
def penalized_tanh(x: Any) -> Any:
    """Return tanh(x) for x > 0, else tanh(x) / 4.

    Source: Xu, Huang & Li, "Revise saturated activation functions", 2016, section 3.2.
    """
    y = keras.ops.tanh(x)
    return keras.ops.where(x > 0, y, 0.25 * y)


@keras.saving.register_keras_serializable("tuner")
class Maxout(keras.layers.Layer):
    """The largest of several affine pieces; piece 1 of all units comes first, then piece 2 of all units.

    Parameters
    ----------
    pieces : int, default=2
        How many inputs (..., pieces * units) there are for each output (..., units).

    References
    ----------
    Goodfellow, Warde-Farley, Mirza, Courville & Bengio, "Maxout networks", ICML 2013.
    """

    def __init__(self, pieces: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.pieces = pieces

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Return the shape of the outputs."""
        if input_shape[-1] % self.pieces:
            raise ValueError(f"Maxout of {self.pieces} pieces wants a multiple of them; got {input_shape[-1]} inputs.")
        return (*input_shape[:-1], input_shape[-1] // self.pieces)

    def call(self, inputs: Any) -> Any:
        """Return the maxima."""
        return functools.reduce(keras.ops.maximum, keras.ops.split(inputs, self.pieces, axis=-1))

    def get_config(self) -> dict[str, Any]:
        """Return the configuration."""
        return super().get_config() | {"pieces": self.pieces}


_FUNCTIONS = {function.__name__: function for function in (scaled_sigmoid, penalized_tanh)}


def get_activation(identifier: Any) -> Any:
    """Return the function that an activation of Keras or of this package is, given its name, or itself."""
    own = _FUNCTIONS.get(identifier) if isinstance(identifier, str) else None
    return own or keras.activations.get(identifier)
