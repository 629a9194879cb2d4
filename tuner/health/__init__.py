"""Gradient health: what is measured of a network in training, what was wrong with it, and what would mend it.

The estimators and the search measure by themselves. `HealthMonitor` and `diagnose` do it for any ``keras.Model``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.health.monitor import HealthMonitor as HealthMonitor
    from tuner.health.monitor import diagnose as diagnose
    from tuner.health.report import HealthReport as HealthReport
    from tuner.health.summary import HEALTHY_ENOUGH as HEALTHY_ENOUGH
    from tuner.health.summary import health_constraint as health_constraint

_HOMES = {
    "HEALTHY_ENOUGH": "tuner.health.summary",
    "HealthMonitor": "tuner.health.monitor",
    "HealthReport": "tuner.health.report",
    "diagnose": "tuner.health.monitor",
    "health_constraint": "tuner.health.summary",
}

__all__ = list(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _HOMES:  # only when it is used: judging needs no TensorFlow
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tuner.health' has no attribute {name!r}")
