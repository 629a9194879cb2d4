"""Gradient health: what is measured of a network in training, and what it says."""
