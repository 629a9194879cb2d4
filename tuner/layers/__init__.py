"""Layers that Keras lacks."""

from tuner.layers.activations import Maxout, get_activation, penalized_tanh, scaled_sigmoid
from tuner.layers.choices import ELEMENTWISE, ChosenActivation, OptionalNormalization
from tuner.layers.hooks import replaced
from tuner.layers.lsuv import LSUV, lsuv_layers, to_unit_variance

__all__ = [
    "ELEMENTWISE",
    "LSUV",
    "ChosenActivation",
    "Maxout",
    "OptionalNormalization",
    "get_activation",
    "lsuv_layers",
    "penalized_tanh",
    "replaced",
    "scaled_sigmoid",
    "to_unit_variance",
]
