"""Hyperparameter tuning and cross-validation for Keras networks.

Importing this package imports none of TensorFlow, scikit-learn, Optuna or MLflow; each public name does so when it is
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.answer import Answer as Answer
    from tuner.errors import NonFiniteLossError as NonFiniteLossError
    from tuner.errors import TunerError as TunerError
    from tuner.estimators import KerasClassifier as KerasClassifier
    from tuner.estimators import KerasRegressor as KerasRegressor
    from tuner.preprocessing import GlobalScaler as GlobalScaler
    from tuner.samplers import RandomThenFineSampler as RandomThenFineSampler
    from tuner.search import OptunaSearchCV as OptunaSearchCV
    from tuner.spaces import search_space as search_space
    from tuner.study import Study as Study
    from tuner.validation import cross_validate as cross_validate

__version__ = "0.1.0"

_HOMES = {
    "Answer": "tuner.answer",
    "GlobalScaler": "tuner.preprocessing",
    "KerasClassifier": "tuner.estimators",
    "KerasRegressor": "tuner.estimators",
    "NonFiniteLossError": "tuner.errors",
    "OptunaSearchCV": "tuner.search",
    "RandomThenFineSampler": "tuner.samplers",
    "Study": "tuner.study",
    "TunerError": "tuner.errors",
    "cross_validate": "tuner.validation",
    "search_space": "tuner.spaces",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tuner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
