"""Engines train lanes; `engine_for` chooses one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.engine.base import Engine


def engine_for(hyperparameters: Mapping[str, Any]) -> Engine:
    """Return the engine that the hyperparameter ``engine`` asks for.

    "auto" is the stacked engine, which hands what it cannot train to plain Keras; Keras callbacks need plain Keras.
    """
    chosen = hyperparameters["engine"]
    if chosen == "keras" or hyperparameters["callbacks"]:
        from tuner.engine.keras import KerasEngine

        return KerasEngine()
    from tuner.engine.stacked import StackedEngine

    return StackedEngine(strict=chosen == "stacked")


__all__ = ["Engine", "engine_for"]
