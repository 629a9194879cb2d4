"""Layers that Keras lacks."""

from tuner.layers.choices import ELEMENTWISE, ChosenActivation, Optional

__all__ = ["ELEMENTWISE", "ChosenActivation", "Optional"]
