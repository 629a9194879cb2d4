"""The errors of tuner: each says what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.health.report import HealthReport


class TunerError(Exception):
    """Base class of every error that tuner raises on purpose."""


class HyperparameterError(TunerError, ValueError):
    """A hyperparameter, or a search space, has an unknown name or a value out of its range."""


class DataError(TunerError, ValueError):
    """The data cannot be trained on, or do not match what was fitted."""


class NonFiniteLossError(TunerError, ArithmeticError):
    """The loss, or a weight, became NaN or infinite.

    Parameters
    ----------
    epoch : int
        The epoch, counted from 1, in which it happened.
    history : mapping of str to sequence of float
        The per-epoch series up to and including that epoch.
    health : HealthReport, optional
        What was measured until then.
    """

    def __init__(self, epoch: int, history: Mapping[str, Sequence[float]], health: HealthReport | None = None):
        super().__init__(epoch, history, health)
        self.epoch = epoch
        self.history = history
        self.health = health

    def __str__(self) -> str:
        return (
            f"non-finite loss: the loss or a weight became NaN or infinite in epoch {self.epoch} (training loss "
            f"{self.history['loss'][-1]:.4g}). Lower learning_rate, set clipnorm, or standardise the inputs."
        )


class SearchError(TunerError, RuntimeError):
    """A search cannot start, or ended without a usable trial."""


class StudyFileError(TunerError):
    """A study file cannot be read, or does not declare a study."""


class ModelFileError(TunerError):
    """A saved model cannot be read, or cannot be trained."""


class StorageError(TunerError, ConnectionError):
    """An Optuna storage cannot be reached."""


class TrackingError(TunerError, ConnectionError):
    """A tracking store cannot be reached or written."""


def in_one_line(error: BaseException) -> str:
    """Return what an error is: its class and the first line of what it says."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of the known names, else an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
