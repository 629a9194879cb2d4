"""What some Keras layers need before L networks of one structure run as one vectorised program.

``tf.vectorized_map`` turns the train step of one lane into that of L lanes by replacing each operation by its batched
relative. Three kinds of layers do not come through that as plain Keras has them:

- batch normalisation, where a short last batch is padded to the length of the others: the padding must not count,
- dropout, whose random operation has no batched relative, and which XLA would let draw another mask,
- convolutions, whose operation takes one kernel only, not one for each lane.

Notations
---------
B is the length of a padded batch. A *word* is an unsigned 32-bit integer; Philox makes *blocks* of four words.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from tuner.backend import keras
from tuner.backend import tensorflow as tf

Words: TypeAlias = tuple[Any, Any, Any, Any]

# Philox4x32-10: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011: two multipliers,
# and the Weyl constants that are added to the key before each further round.
_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_INCREMENTS = 0x9E3779B9, 0xBB67AE85

# The key under which TensorFlow scrambles a pair of seeds: GenerateKey in core/kernels/stateless_random_ops.cc.
_SCRAMBLING_KEY = 0x3EC8F720, 0x02461E29

# Keras keeps seeds as int64 and gives TensorFlow their remainder: _cast_seed in keras/src/backend/tensorflow/random.py.
_SEED_MODULUS = 2**31 - 2

# A random number in [0, 1) is made of as many random bits as the mantissa stores.
_MANTISSA_BITS = {"float32": 23, "float64": 52}

_CONVOLUTIONS = keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D


@dataclass(frozen=True)
class _Given:
    """The tensors of the step that is being traced; see `VectorizedLayers.given`."""

    valid: Any = None
    rates: Any = None
    seeds: Any = None
    step: Any = None


class VectorizedLayers:
    """The layers of a template model, mended for ``tf.vectorized_map``.

    The model's exact ``BatchNormalization``, ``Dropout`` and ``Conv1D``, ``Conv2D``, ``Conv3D`` layers get another
    ``call``, in nested models, too. Outside `given` they compute what they always did. A layer of another class is left
    as it is: whether it vectorises is known when the step is traced.

    Parameters
    ----------
    model : keras.Model
        A built model that belongs to the program: it stays mended.

    Raises
    ------
    NotImplementedError
        If a layer draws random numbers other than those of plain dropout, makes statistics of batches in a way of its
        own, or has an ``activity_regularizer``, which divides by the number of rows.
    """

    def __init__(self, model: keras.Model):
        layers = model._flatten_layers()
        for layer in layers:
            _check(layer)
        dropouts = _dropouts(model)
        self.n_dropouts = len(dropouts)
        self._given = _Given()
        self._drawn: set[int] = set()
        for layer in layers:
            if type(layer) is keras.layers.BatchNormalization:
                layer.call = functools.partial(self._normalize, layer, layer.call)
            elif type(layer) in _CONVOLUTIONS and layer.groups == 1 and layer.data_format == "channels_last":
                layer.call = functools.partial(_convolve, layer, layer.call)
        for index, layer in enumerate(dropouts):
            layer.call = functools.partial(self._drop, index, layer, layer.call)

    def rates(self, model: keras.Model) -> list[float]:
        """Return the rates of the dropout layers of a model of the template's structure, in the order of `given`.

        Raises
        ------
        ValueError
            If the model has another number of dropout layers.
        """
        rates = [float(layer.rate) for layer in _dropouts(model)]
        if len(rates) != self.n_dropouts:
            raise ValueError(
                f"The template has {self.n_dropouts} dropout layers, model {model.name!r} has {len(rates)}."
            )
        return rates

    @contextmanager
    def given(self, *, valid: Any = None, rates: Any = None, seeds: Any = None, step: Any = None) -> Iterator[None]:
        """Let the model's calls inside the block use the tensors of one step of one lane.

        Parameters
        ----------
        valid : tensor of shape (B,), bool or float, optional
            Which rows are real; without it all are.
        rates : tensor of shape (n_dropouts,), float, optional
            The share that each dropout layer drops. In float64 the kept values are scaled to the last bit as by Keras.
        seeds : tensor of shape (n_dropouts,), int32, optional
            The layers' seeds, `tuner.seeds.mask_seed`, in the order of the ``seed_generator_state`` among
            ``model.variables``. Without `seeds`, dropout is that of Keras.
        step : scalar tensor, int32, optional
            The step within the epoch.
        """
        before = self._given, self._drawn
        self._given, self._drawn = _Given(valid, rates, seeds, step), set()
        try:
            yield
        finally:
            self._given, self._drawn = before

    def _normalize(
        self, layer: Any, keras_call: Callable[..., Any], inputs: Any, training: Any = None, mask: Any = None
    ) -> Any:
        """Normalise (B, ...) by the statistics of the real rows; but for them, this is ``BatchNormalization.call``."""
        valid = self._given.valid
        if valid is None or not (training and layer.trainable):
            return keras_call(inputs, training=training, mask=mask)
        if mask is not None:
            rows = tf.reshape(tf.cast(valid, "bool"), [-1] + [1] * (len(mask.shape) - 1))
            return keras_call(inputs, training=training, mask=tf.logical_and(tf.cast(mask, "bool"), rows))
        # Keras, too, can be given a mask for the rows, but then it adds 1e-7 to their number, which float64 shows.
        x = keras.ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance = _moments(x, valid, layer.axis)
        for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            average.assign(keras.ops.cast(average, x.dtype) * layer.momentum + value * (1.0 - layer.momentum))
        outputs = keras.ops.batch_normalization(
            x,
            mean,
            variance,
            axis=layer.axis,
            offset=keras.ops.cast(layer.beta, x.dtype) if layer.center else None,
            scale=keras.ops.cast(layer.gamma, x.dtype) if layer.scale else None,
            epsilon=layer.epsilon,
        )
        return keras.ops.cast(outputs, layer.compute_dtype)

    def _drop(self, index: int, layer: Any, keras_call: Callable[..., Any], inputs: Any, training: Any = False) -> Any:
        """Drop what ``Dropout.call`` would drop in this step, with the seed and the rate of the lane."""
        given = self._given
        if given.seeds is None or not training:
            return keras_call(inputs, training=training)
        if index in self._drawn:  # the second call would need the generator's next counter
            raise NotImplementedError(f"layer {layer.name!r} (Dropout) is called more than once in a step")
        self._drawn.add(index)
        rate = given.rates[index]
        keep = keep_mask(inputs.shape, inputs.dtype, rate, given.seeds[index], given.step)
        scale = tf.math.divide_no_nan(tf.constant(1.0, "float64"), 1.0 - tf.cast(rate, "float64"))
        return tf.where(keep, inputs * tf.cast(scale, inputs.dtype), tf.zeros([], inputs.dtype))


def _check(layer: Any) -> None:
    """Raise NotImplementedError if the layer is known not to come out right in a padded, vectorised step."""
    problem = None
    if layer.activity_regularizer is not None:
        problem = "has an activity_regularizer"
    elif hasattr(layer, "adapt"):
        problem = "has learnt from data what no configuration tells"
    elif isinstance(layer, keras.layers.BatchNormalization):
        if type(layer) is not keras.layers.BatchNormalization:
            problem = "is a batch normalisation of its own"
        elif layer.renorm or layer.synchronized:
            problem = f"has {'renorm' if layer.renorm else 'synchronized'}=True"
    if problem:
        raise NotImplementedError(f"layer {layer.name!r} ({type(layer).__name__}) {problem}")


def _dropouts(model: keras.Model) -> list[Any]:
    """Return the dropout layers in the order of their states among the model's variables.

    Raises
    ------
    NotImplementedError
        If a state belongs to something else.
    """
    layers = model._flatten_layers()
    owners = {
        id(layer.seed_generator.state): layer
        for layer in layers
        # A rate of 0 comes without a generator; a dtype without a known mantissa is one that lanes do not have.
        if type(layer) is keras.layers.Dropout
        and layer.rate > 0
        and layer.noise_shape is None
        and layer.compute_dtype in _MANTISSA_BITS
    }
    found = []
    for state in model.variables:
        if state.name == "seed_generator_state":
            if id(state) not in owners:
                having = [layer for layer in layers if any(variable is state for variable in layer.variables)]
                layer = min(having, key=lambda layer: len(layer._flatten_layers()))
                raise NotImplementedError(f"layer {layer.name!r} ({type(layer).__name__}) draws random numbers")
            found.append(owners[id(state)])
    return found


def _moments(x: Any, valid: Any, axis: int) -> tuple[Any, Any]:
    """Return mean and variance (c,) of x (B, ...) over all axes but `axis`, of the rows where `valid` (B,) holds."""
    rank = len(x.shape)
    axes = [i for i in range(rank) if i != axis % rank]
    weights = tf.reshape(tf.cast(valid, x.dtype), [-1] + [1] * (rank - 1))
    values_per_row = math.prod(x.shape[i] for i in axes[1:])
    n = tf.maximum(tf.reduce_sum(weights), 1.0) * values_per_row  # a step without real rows gives zeros
    mean = tf.reduce_sum(weights * x, axes, keepdims=True) / n
    # As in tf.nn.moments: the variance has no slope in the mean.
    squares = tf.math.squared_difference(x, tf.stop_gradient(mean))
    return tf.reshape(mean, [-1]), tf.reduce_sum(weights * squares, axes) / n


def _convolve(layer: Any, keras_call: Callable[..., Any], inputs: Any) -> Any:
    """Do what the layer's own ``call`` does by a product of matrices, which vectorises with the kernel, too.

    Parameters
    ----------
    layer : keras.layers.Conv1D, Conv2D or Conv3D
    keras_call : callable
        Used where a spatial dimension is unknown, as when Keras infers shapes.
    inputs : tensor of shape (B, ..., channels)

    Returns
    -------
    tensor of shape (B, ..., filters)
    """
    if None in inputs.shape[1:]:
        return keras_call(inputs)
    kernel = layer.kernel
    patches = _patches(inputs, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    columns = tf.reshape(patches, [-1, patches.shape[-1]])
    outputs = tf.matmul(columns, tf.reshape(kernel, [patches.shape[-1], layer.filters]))
    outputs = tf.reshape(outputs, [-1, *patches.shape[1:-1], layer.filters])
    if layer.use_bias:
        outputs += layer.bias
    return outputs if layer.activation is None else layer.activation(outputs)


def _patches(x: Any, size: Sequence[int], strides: Sequence[int], dilation: Sequence[int], padding: str) -> Any:
    r"""Return what the kernel sees at each of its places.

    Parameters
    ----------
    x : tensor of shape (B, ..., channels)
    size, strides, dilation : sequence of int
        One for each spatial dimension.
    padding : {"valid", "same", "causal"}
        As in https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding; "causal" is all of it on the left.

    Returns
    -------
    tensor of shape (B, ..., prod(size) * channels)
        The last axis is ordered as the kernel (\*size, channels, filters).
    """
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    if padding == "same":
        lacking = [
            max((math.ceil(n / s) - 1) * s + r - n, 0) for n, s, r in zip(x.shape[1:-1], strides, reach, strict=True)
        ]
        x = tf.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in lacking), (0, 0)])
    elif padding == "causal":
        x = tf.pad(x, [(0, 0), *((r - 1, 0) for r in reach), (0, 0)])
    ends = [n - r + 1 for n, r in zip(x.shape[1:-1], reach, strict=True)]
    seen = [
        x[
            (
                slice(None),
                *(slice(i * d, i * d + end, s) for i, d, end, s in zip(place, dilation, ends, strides, strict=True)),
            )
        ]
        for place in itertools.product(*map(range, size))
    ]
    return tf.concat(seen, axis=-1)


def keep_mask(shape: Sequence[int], dtype: Any, rate: Any, seed: Any, step: Any) -> Any:
    """Return which values Keras's dropout keeps on TensorFlow's CPU, outside XLA, as operations that vectorise.

    It is ``tf.random.stateless_uniform(shape, [seed, step], dtype=dtype) >= rate``, without the floats: a number is its
    random mantissa times a power of two, so the mantissa can be compared. It is filled row by row: the first rows do
    not depend on how many follow.

    Parameters
    ----------
    shape : sequence of int
    dtype : {"float32", "float64"}
        Of the values to be dropped.
    rate : scalar tensor, float
        The share that is dropped, from 0 to 1.
    seed, step : scalar tensor, int32
        The state of Keras's seed generator.

    Returns
    -------
    tensor of the given shape, bool
    """
    dtype = tf.as_dtype(dtype)
    bits = _MANTISSA_BITS[dtype.name]
    n_values = math.prod(shape)
    # The two words of a double give 52 bits, those of the first above those of the second.
    per_block = 4 if bits < 32 else 2
    blocks = _random_blocks(-(-n_values // per_block), seed, step)
    if bits < 32:
        mantissas = [word & _uint32(2**bits - 1) for word in blocks]
    else:
        high = [tf.cast(word & _uint32(2 ** (bits - 32) - 1), "uint64") for word in blocks[::2]]
        low = [tf.cast(word, "uint64") for word in blocks[1::2]]
        mantissas = [(a * _uint64(2**32)) | b for a, b in zip(high, low, strict=True)]
    threshold = tf.cast(tf.math.ceil(tf.cast(rate, dtype) * 2.0**bits), mantissas[0].dtype)
    # XLA fuses element by element: it would compute each block anew for each of its words, in every kernel that needs
    # the mask. It refrains from that where the last operation is expensive in its eyes, as a division of floats. So the
    # answers of a block become the bits of one number, which is divided by a 1 of which XLA does not know. On 5 lanes
    # of 32 x 64 values a mask costs 1.0 ns per value on one core.
    answers = tf.add_n([2.0**i * tf.cast(mantissa >= threshold, "float32") for i, mantissa in enumerate(mantissas)])
    answers /= tf.cast(rate >= 0, "float32")
    answers = tf.reshape(tf.tile(answers[:, None], [1, per_block]), [-1])[:n_values]
    place = tf.cast(tf.range(n_values) % per_block, "uint32")
    keep = tf.bitwise.right_shift(tf.cast(answers, "uint32"), place) & _uint32(1)
    return tf.reshape(keep > _uint32(0), shape)


def _random_blocks(n: int, seed: Any, step: Any) -> Words:
    """Return the first n blocks that TensorFlow draws for a pair of seeds, as four tensors (n,) of uint32."""
    low = [tf.cast(tf.math.floormod(half, _SEED_MODULUS), "uint32") for half in (seed, step)]
    zero = _uint32(0)
    first_key, second_key, *nonce = _philox(
        (low[0], zero, low[1], zero), (_uint32(_SCRAMBLING_KEY[0]), _uint32(_SCRAMBLING_KEY[1]))
    )
    index = tf.cast(tf.range(n), "uint32")
    zeros = tf.zeros_like(index)
    return _philox((index, zeros, zeros + nonce[0], zeros + nonce[1]), (first_key, second_key))


def _philox(counter: Words, key: tuple[Any, Any]) -> Words:
    """Return the blocks of some counters: Philox4x32-10, all words of uint32."""
    a, b, c, d = counter
    first_key, second_key = key
    for _ in range(_ROUNDS):
        (a_high, a_low), (c_high, c_low) = (_product(m, word) for m, word in zip(_MULTIPLIERS, (a, c), strict=True))
        a, b, c, d = c_high ^ b ^ first_key, c_low, a_high ^ d ^ second_key, a_low
        first_key, second_key = first_key + _uint32(_KEY_INCREMENTS[0]), second_key + _uint32(_KEY_INCREMENTS[1])
    return a, b, c, d


def _product(factor: int, word: Any) -> tuple[Any, Any]:
    """Return the high and the low word of a product."""
    product = tf.cast(word, "uint64") * _uint64(factor)
    return tf.cast(tf.bitwise.right_shift(product, _uint64(32)), "uint32"), tf.cast(product, "uint32")


def _uint32(value: Any) -> Any:
    return tf.constant(value, "uint32")


def _uint64(value: Any) -> Any:
    return tf.constant(value, "uint64")
