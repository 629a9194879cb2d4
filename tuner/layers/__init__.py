"""Layers that Keras lacks."""

from tuner.layers.choices import ELEMENTWISE, ChosenActivation, OptionalNormalization

__all__ = ["ELEMENTWISE", "ChosenActivation", "OptionalNormalization"]
