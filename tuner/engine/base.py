"""The contract of an engine: lanes in, trained lanes out.

Notations
---------
A *lane* is one network to be trained: a fold of a trial, or a single fit. With n rows, d features and k outputs its
arrays are

- ``X``: (n, d), or (n, ...) for a custom model; a NumPy array of the lane's dtype, or a SciPy CSR matrix,
- ``y``: (n, k) of the lane's dtype, as the loss wants it: one column per class, label or target; a single column of 0
  and 1 for two classes with one output; (n, 1) indices of the classes where ``output.sparse``,
- ``sample_weight``: (n,) of the lane's dtype, or None; class weights are already multiplied in.

Epochs are counted from 0 over the life of the weights: a lane that goes on from a `LaneState` after 5 epochs trains
epoch 5 next. Batch orders and dropout masks are functions of (seed, epoch, step), see `tuner.seeds`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import keras

    from tuner.network import Output

History: TypeAlias = dict[str, list[float]]
Predict: TypeAlias = Callable[[int, Any], np.ndarray]
OnEpoch: TypeAlias = Callable[[int, Sequence[History], Predict], Iterable[int]]


@dataclass(frozen=True)
class Part:
    """Rows that are used together: features, encoded targets and weights (see Notations)."""

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None = None

    def __len__(self) -> int:
        return self.X.shape[0]


@dataclass(frozen=True)
class LaneState:
    """Where a lane goes on.

    Parameters
    ----------
    model : keras.Model
        Its weights are trained on, in place.
    epoch : int
        The epochs that it has been trained for.
    history : mapping of str to sequence of float
        The series so far, which the lane continues.
    keep_optimizer : bool
        Whether the model is compiled and goes on with its optimizer as it is.
    optimizer_values : sequence of array, optional
        The values of the optimizer's variables for a model that is not compiled (it was pickled).
    """

    model: keras.Model
    epoch: int
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    keep_optimizer: bool = False
    optimizer_values: Sequence[np.ndarray] | None = None


@dataclass(frozen=True)
class Lane:
    """One network to be trained.

    Parameters
    ----------
    hyperparameters : mapping of str to object
        The estimator's checked parameters, by name.
    seed : int
        Fixes initial weights, batch orders and dropout masks.
    task : {"binary", "multiclass", "multilabel", "regression"}
    output : Output
        What the last layer gives, and the loss.
    train : Part
        What the weights are fitted on.
    epochs : int
        How many epochs to train from here.
    validation : Part, optional
        What early stopping watches; without it there is no early stopping.
    test : Part, optional
        The held-out fold. Its loss is recorded and never acted upon.
    state : LaneState, optional
        Where to go on from; without it the lane begins with fresh weights.
    """

    hyperparameters: Mapping[str, Any]
    seed: int
    task: str
    output: Output
    train: Part
    epochs: int
    validation: Part | None = None
    test: Part | None = None
    state: LaneState | None = None


@dataclass(frozen=True)
class TrainedLane:
    """A lane after training.

    Parameters
    ----------
    model : keras.Model
        Compiled, with the weights of the last epoch, or of the best one where early stopping watched.
    history : dict of str to list of float
        Per-epoch series: ``loss`` and the task's metric on the training part, ``val_...`` on the part that early
        stopping watches, ``test_...`` on the held-out fold.
    epoch : int
        The number of epochs that the weights have been trained for over their life, whichever was best.
    non_finite : bool
        Whether the loss of the last recorded epoch, or a weight after it, is NaN or infinite; training ended there, and
        the weights are of no use.
    """

    model: keras.Model
    history: History
    epoch: int
    non_finite: bool


class Engine(ABC):
    """Trains lanes together, epoch by epoch."""

    @abstractmethod
    def train(self, lanes: Sequence[Lane], on_epoch: OnEpoch | None = None) -> list[TrainedLane]:
        """Train every lane.

        Parameters
        ----------
        lanes : sequence of Lane
        on_epoch : callable, optional
            ``on_epoch(epoch, histories, predict)`` is called once after every epoch, counted from 0 within this call,
            while any lane is still training. ``histories`` holds the lanes' histories so far in the order of `lanes`;
            ``predict(i, X)`` gives the outputs (n, k) of lane i with its present weights (the weights it will keep,
            if it has stopped) on any X. It returns the indices of the lanes to stop.

        Returns
        -------
        list of TrainedLane
            In the order of `lanes`.
        """


class EarlyStopper:
    """Decides after every epoch whether the loss still improves.

    An epoch is an improvement when its loss is lower than the best so far by more than `tol`; training stops after
    `n_iter_no_change` epochs in a row without one, as in scikit-learn's ``MLPClassifier``. The best epoch is the one
    with the lowest loss, improvement or not.
    """

    def __init__(self, n_iter_no_change: int, tol: float):
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.lowest = np.inf
        self._reference = np.inf
        self._waited = 0

    def update(self, loss: float) -> tuple[bool, bool]:
        """Take the loss of an epoch; return whether it is the lowest so far, and whether to stop."""
        is_lowest = loss < self.lowest
        self.lowest = min(self.lowest, loss)
        if loss < self._reference - self.tol:
            self._reference, self._waited = loss, 0
        else:
            self._waited += 1
        return is_lowest, self._waited >= self.n_iter_no_change
