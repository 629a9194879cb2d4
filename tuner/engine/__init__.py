"""Engines train lanes; `engine_for` chooses one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.engine.base import Engine


def engine_for(hyperparameters: Mapping[str, Any]) -> Engine:
    """Return the engine that the hyperparameter ``engine`` asks for."""
    from tuner.engine.keras import KerasEngine

    return KerasEngine()


__all__ = ["Engine", "engine_for"]
