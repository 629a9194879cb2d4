"""Gradient health: what is measured of a network in training, and what it says."""

from tuner.health.summary import HEALTHY_ENOUGH, health_constraint

__all__ = ["HEALTHY_ENOUGH", "health_constraint"]
