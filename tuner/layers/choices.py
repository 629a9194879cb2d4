"""Layers whose kind is a value: what is structure in an ordinary network is data here.

Networks that differ only in activation and batch normalisation can so be lanes of one program, which is compiled once
instead of once for every combination. Every lane pays for all candidates; they are elementwise, and cheap beside a
compilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuner.backend import keras
from tuner.backend import tensorflow as tf
from tuner.layers.activations import get_activation

#: The activations that map every number by itself, and the same way in training and inference.
ELEMENTWISE = frozenset(
    "relu relu6 leaky_relu elu selu celu gelu silu swish hard_silu hard_swish mish softplus softsign squareplus "
    "sparse_plus sigmoid hard_sigmoid tanh hard_tanh tanh_shrink soft_shrink hard_shrink exponential linear "
    "sparse_sigmoid log_sigmoid scaled_sigmoid penalized_tanh".split()
)


class ChosenActivation(keras.layers.Layer):
    """One of several elementwise activations; the weight ``choice``, an integer (), says which.

    Parameters
    ----------
    activations : sequence of str
        Of `ELEMENTWISE`.

    Attributes
    ----------
    slope : tensor
        The derivative at every input of the latest call.
    """

    def __init__(self, activations: Sequence[str], **kwargs: Any):
        super().__init__(**kwargs)
        self.activations = tuple(activations)
        self._functions = [get_activation(name) for name in self.activations]

    def build(self, input_shape: Any) -> None:
        """Make the weight."""
        self.choice = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="choice")

    def call(self, inputs: Any) -> Any:
        """Return the activations.

        The derivatives are computed and chosen together with the values. Left to itself, autodiff would go back through
        every candidate, and one that overflows where it was not chosen would bring in 0 times infinity.
        """

        @tf.custom_gradient
        def chosen(x: Any, choice: Any) -> Any:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                values = [function(x) for function in self._functions]
            slopes = [tape.gradient(value, x, unconnected_gradients="zero") for value in values]
            value, slope = values[0], slopes[0]
            for i in range(1, len(values)):
                value = tf.where(choice == i, values[i], value)
                slope = tf.where(choice == i, slopes[i], slope)
            self.slope = slope
            return value, lambda upstream: (upstream * slope, None)

        return chosen(inputs, tf.convert_to_tensor(self.choice.value))


class OptionalNormalization(keras.layers.Layer):
    """Batch normalisation, or nothing; the weight ``on``, an integer (), says which."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.normalization = keras.layers.BatchNormalization()

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        self.normalization.build(input_shape)
        self.on = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="on")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the inputs, normalised or as they are.

        Where it is off, zeros are normalised: whatever overflowed there would come back as 0 times infinity.
        """
        on = tf.convert_to_tensor(self.on.value) == 1
        normalized = self.normalization(tf.where(on, inputs, tf.zeros_like(inputs)), training=training)
        return tf.where(on, normalized, inputs)
