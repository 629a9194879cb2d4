"""The contract of an engine: lanes in, trained lanes out.

Notations
---------
A *lane* is one network to be trained: a fold of a trial, or a single fit. With n rows, d features and k outputs its
arrays are

- ``X``: (n, d), or (n, ...) for a custom model; a NumPy array of the lane's dtype, or a SciPy CSR matrix,
- ``y``: (n, k) of the lane's dtype, as the loss wants it: one column per class, label or target; a single column of 0
  and 1 for two classes with one output; (n, 1) indices of the classes where ``output.sparse``,
- ``sample_weight``: (n,) of the lane's dtype, or None; class weights are already multiplied in.

Where folds are rows of one table, ``X`` is the table, the same object in every lane, and ``rows`` (n,) says which rows.

Epochs are counted from 0 over the life of the weights: a lane that goes on from a `LaneState` after 5 epochs trains
epoch 5 next. Batch orders and dropout masks are functions of (seed, epoch, step), see `tuner.seeds`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tuner import network, seeds

if TYPE_CHECKING:
    import keras

    from tuner.health.measurements import Measurements
    from tuner.network import Alternatives, Output

History: TypeAlias = dict[str, list[float]]
Predict: TypeAlias = Callable[[int, Any], np.ndarray]
OnEpoch: TypeAlias = Callable[[int, Sequence[History], Predict, Sequence["Measurements | None"]], Iterable[int]]


#: The training rows by which initial weights are scaled, where they are: a batch, large enough for a stable variance.
SCALING_ROWS = 256


@dataclass(frozen=True)
class Part:
    """Rows that are used together: features, encoded targets and weights (see Notations).

    Parameters
    ----------
    X : array or CSR matrix of shape (m, ...)
    y : array of shape (n, k)
    sample_weight : array of shape (n,), optional
    rows : array of int of shape (n,), optional
        The rows of `X` that belong to the part; all of them if it is not given.
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None = None
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, positions: np.ndarray) -> Part:
        """Return the part of the part at some positions; the table stays the same."""
        weights = None if self.sample_weight is None else self.sample_weight[positions]
        return Part(self.X, self.y[positions], weights, self.row_numbers[positions])

    def counting(self) -> np.ndarray:
        """Return the positions of the rows that count in the loss; all of them if none does."""
        counting = np.arange(len(self)) if self.sample_weight is None else np.flatnonzero(self.sample_weight)
        return counting if len(counting) else np.arange(len(self))

    def empty(self) -> Part:
        """Return a part without rows that has the shapes of this one."""
        return Part(self.X[:0].copy(), self.y[:0].copy())

    def within(self, table: Any, numbers: np.ndarray) -> Part:
        """Return the part as rows of a larger table, of which `X` holds the rows `numbers`."""
        return Part(table, self.y, self.sample_weight, numbers[self.row_numbers])

    def features(self, positions: Any = slice(None)) -> Any:
        """Return the features at some positions of the part."""
        if self.rows is None:
            return self.X if isinstance(positions, slice) and positions == slice(None) else self.X[positions]
        return self.X[self.rows[positions]]

    @property
    def row_numbers(self) -> np.ndarray:
        """The rows of `X` that belong to the part."""
        return np.arange(len(self.y)) if self.rows is None else self.rows


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
    health : Measurements, optional
        What was measured so far, which the lane continues.
    """

    model: keras.Model
    epoch: int
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    keep_optimizer: bool = False
    optimizer_values: Sequence[np.ndarray] | None = None
    health: Measurements | None = None


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
    alternatives : Alternatives, optional
        Other lanes may have these activations and normalisations, so that one program is to serve all of them.
    recurring : bool
        Whether more lanes of this structure are expected.
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
    alternatives: Alternatives | None = None
    recurring: bool = False

    def fresh_model(self) -> keras.Model:
        """Return the network with the weights that it is to begin with."""
        model = network.build(self.hyperparameters, self.train.X.shape[1:], self.output, self.seed)
        if network.scaled_by_data(self.hyperparameters):
            self.scale_weights(model)
        return model

    def scale_weights(self, model: keras.Model) -> None:
        """Scale the fresh weights of a model by rows that the lane trains on; see `network.scale_weights`."""
        counting = self.train.counting()
        rows = counting[seeds.scaling_rows(self.seed, len(counting), SCALING_ROWS)]
        network.scale_weights(model, self.hyperparameters, network.as_dense(self.train.features(rows)))

    @property
    def parts(self) -> dict[str, Part]:
        """The parts that are measured after every epoch, by the prefix of their series."""
        both = {"val": self.validation, "test": self.test}
        return {prefix: part for prefix, part in both.items() if part is not None}

    @property
    def first_history(self) -> History:
        """The series that training begins with, as lists of their own: those of the state, or none."""
        return {name: list(series) for name, series in self.state.history.items()} if self.state else {}

    @property
    def steps(self) -> int:
        """The number of updates in an epoch."""
        return math.ceil(len(self.train) / self.hyperparameters["batch_size"])

    @property
    def scheduled_steps(self) -> int:
        """The number of updates that a named learning-rate schedule spans."""
        return self.steps * self.hyperparameters["epochs"]


@dataclass
class TrainedLane:
    """A lane after training.

    Parameters
    ----------
    make_model : callable
        Gives the network, compiled, with the weights of the last epoch, or of the best one where early stopping
        watched. It is called once, when somebody asks for the model.
    history : dict of str to list of float
        Per-epoch series: ``loss`` and the task's metric on the training part, ``val_...`` on the part that early
        stopping watches, ``test_...`` on the held-out fold.
    epoch : int
        The number of epochs that the weights have been trained for over their life, whichever was best.
    non_finite : bool
        Whether the loss of the last recorded epoch, or a weight after it, is NaN or infinite; training ended there, and
        the weights are of no use.
    forward : callable, optional
        Gives the outputs (n, k) for features without the model having been made.
    health : Measurements, optional
        What was measured before the first epoch and after each; None where the hyperparameter ``health`` is False.
    """

    make_model: Callable[[], keras.Model]
    history: History
    epoch: int
    non_finite: bool
    forward: Callable[[Any], np.ndarray] | None = None
    health: Measurements | None = None

    @cached_property
    def model(self) -> keras.Model:
        """The trained network."""
        model = self.make_model()
        self.make_model, self.forward = (lambda: model), None  # they hold the weights once more
        return model

    def outputs(self, X: Any) -> np.ndarray:
        """Return the network's outputs (n, k) for features (n, ...) of the lane's dtype."""
        if self.forward is None:  # whoever has the model may have changed it
            return network.outputs(self.model, X)
        return self.forward(X)


class Crew(ABC):
    """Some of the lanes of a call of `Engine.train`, which an engine advances together.

    Attributes
    ----------
    histories : list of dict
        The histories of the lanes so far.
    active : list of bool
        Whether each lane is still in training.
    """

    histories: list[History]
    active: list[bool]

    @property
    @abstractmethod
    def health(self) -> Sequence[Measurements | None]:
        """What was measured of the lanes so far; None for a lane whose hyperparameter ``health`` is False."""

    @abstractmethod
    def train_epoch(self) -> None:
        """Train every active lane for an epoch; a lane that has reached its end stops."""

    @abstractmethod
    def stop(self, i: int) -> None:
        """End the training of lane i, if it has not ended."""

    @abstractmethod
    def outputs(self, i: int, X: Any) -> np.ndarray:
        """Return the outputs (n, k) of lane i with its present weights."""

    @abstractmethod
    def results(self) -> list[TrainedLane]:
        """Return the trained lanes."""


class Engine(ABC):
    """Trains lanes together, epoch by epoch."""

    @abstractmethod
    def crews(self, lanes: Sequence[Lane]) -> list[tuple[Sequence[int], Crew]]:
        """Divide lanes into crews; return each with the indices of its lanes."""

    def structure(self, lane: Lane) -> Hashable:
        """Return what lanes of several trials must share to be worth training together; None if it never is."""
        return None

    def capacity(self, lane: Lane) -> int:
        """Return how many such lanes are worth training together."""
        return 1

    def train(self, lanes: Sequence[Lane], on_epoch: OnEpoch | None = None) -> list[TrainedLane]:
        """Train every lane.

        Parameters
        ----------
        lanes : sequence of Lane
        on_epoch : callable, optional
            ``on_epoch(epoch, histories, predict, health)`` is called once after every epoch, counted from 0 within
            this call, while any lane is still training. ``histories`` holds the lanes' histories so far in the order
            of `lanes`, and ``health`` what was measured of them; ``predict(i, X)`` gives the outputs (n, k) of lane i
            with its present weights (the weights it will keep, if it has stopped) on any X. It returns the indices of
            the lanes to stop.

        Returns
        -------
        list of TrainedLane
            In the order of `lanes`.
        """
        crews = self.crews(lanes)
        place = {i: (crew, j) for indices, crew in crews for j, i in enumerate(indices)}

        def predict(i: int, X: Any) -> np.ndarray:
            crew, j = place[i]
            return crew.outputs(j, X)

        epoch = 0
        while any(any(crew.active) for _, crew in crews):
            for _, crew in crews:
                if any(crew.active):
                    crew.train_epoch()
            if on_epoch is not None:
                histories = [place[i][0].histories[place[i][1]] for i in range(len(lanes))]
                for i in on_epoch(epoch, histories, predict, _Health([place[i] for i in range(len(lanes))])):
                    crew, j = place[i]
                    crew.stop(j)
            epoch += 1
        results = {i: lane for indices, crew in crews for i, lane in zip(indices, crew.results(), strict=True)}
        return [results[i] for i in range(len(lanes))]


class _Health(Sequence[Any]):
    """What was measured of the lanes of several crews, which a crew works out when it is looked at."""

    def __init__(self, places: Sequence[tuple[Crew, int]]):
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return _Health(self._places[i])
        crew, j = self._places[i]
        return crew.health[j]


def record(history: History, logs: Mapping[str, float]) -> None:
    """Append an epoch to a history; early stopping may come and go between warm starts, which leaves gaps of NaN."""
    n_before = max(map(len, history.values()), default=0)
    for name in dict.fromkeys((*history, *logs)):
        history.setdefault(name, [math.nan] * n_before).append(logs.get(name, math.nan))


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
