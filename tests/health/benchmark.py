"""A benchmark of healthy and sick networks, labelled by what becomes of them in training and by nothing else.

A network falls *short* where its held-out score stays well below the best of its task. What it suffers from is found
out by treating it: every intervention changes a single thing, and the condition whose intervention restores the score
is one that the network has. No label reads a gradient, an activation or a weight.

``python tests/health/benchmark.py --labels`` trains the networks that rules are chosen on (some hours on one core) and
writes labels.json, ``--held-out`` trains the others and adds theirs; ``--summary`` counts what is there; ``--relabel``
applies changed definitions to the stored skills. What has been trained is kept in raw.jsonl, and not trained again.
``--measure`` trains the networks themselves once more (an hour or two) and writes what is measured of them to
measurements.npz (those of the first draw were measured on probes of 64 rows, before they had 48); ``--judge`` says how
well the diagnosis tells their conditions from that; ``--remedies`` tries what the reports propose and writes
remedies.json, and ``--markdown`` prints a table of both for the README.

How the diagnosis is scored
---------------------------
- All findings of a report count as named, consequences as well.
- For a condition c a network is a *negative* when it does well, or when it falls short, and some intervention restores
  it, but none of those for c. Networks that nothing restores may have several conditions at once, c among them: they
  are not judged, and neither are those between short and well. For oscillation those are no negatives whose score does
  oscillate, but of which no rate that was tried both calms and restores it.
- A network that does well and has no condition, but gets a verdict, is a false alarm. That it oscillates is none where
  its score does.
- It is a *positive* when one of the interventions for c restores it. Where several do, each by itself, naming any one
  of their conditions is a full answer: a report that names another one but not c does not count for c; one that names
  none of them is a miss for all. The conditions that are no intervention's (`BY_THEMSELVES`) have to be named, and the
  `SYMPTOMS` among them answer for no other.
- Limits and rules, and the definitions below, were chosen on one part of the networks; most limits lie in the middle
  of a range in which they judge these alike. On those held out nothing was chosen but the order of the remedies
  of saturated units. Two definitions are younger than their labels: what smaller steps do not show, below, and that
  networks which do oscillate are no negatives for it. Both come from networks that were chosen on; the second came
  when those held out had been judged once.

What interventions show
-----------------------
Most conditions have an intervention of their own. An unbounded activation treats two: it keeps units from saturating
and errors from fading, so it shows both. Vanishing gradients take a second hidden layer, and a loss that stayed finite.
Cross-entropy shows saturated outputs only where larger steps do not help as much, as it makes larger gradients too.
Smaller steps do not show that steps were too large where few noisy rows are fitted ever more closely, since they also
keep a network from that, as stopping early does.
Batch normalisation removes more than one condition, and so shows none: networks that only it restores are not judged.

Notations
---------
- score: accuracy, or R2 of a regression, on the held-out rows after an epoch
- skill: (score - trivial) / (reference - trivial); trivial is the score of the best constant, reference a high quantile
  of the scores of the task's networks of the first draw; a network whose loss is not finite at the end has none, which
  counts as 0
- picked: the skill of the epoch whose loss is lowest on further rows, which stand for those of early stopping
- jump: the mean change of the skill from epoch to epoch, up or down, in the second half of the training
- "most seeds": at least two of three
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import storage
from sklearn.datasets import load_digits, make_classification, make_friedman1
from small_networks import first_epochs

from tuner import KerasClassifier, KerasRegressor
from tuner.backend import keras
from tuner.engine import program
from tuner.engine.base import Lane, Part, TrainedLane
from tuner.engine.compilation import optimizer_config
from tuner.engine.program import structure_of
from tuner.engine.stacked import StackedEngine
from tuner.evaluation import SICK_EPOCHS
from tuner.health.diagnosis import fatal, judge
from tuner.health.measurements import Measurements
from tuner.network import Alternatives

HERE = Path(__file__).parent
LABELS = HERE / "labels.json"
MEASUREMENTS = HERE / "measurements.npz"
REMEDIES = HERE / "remedies.json"
RAW = HERE / "raw.jsonl"

SEEDS = (0, 1, 2)
#: Skills below and above which a network falls short or does well; what is between is not judged.
SHORT, WELL = 0.75, 0.9
#: The skill with which an intervention has restored a network.
RESTORED = 0.85
#: How much better the picked epoch is than the last one of a network that overfits.
OVERFITTING_GAIN = 0.15
#: The skill below which nothing has been learned.
STALLED = 0.1
#: The jump from which on the score oscillates, as a share of what there is to learn.
OSCILLATING = 0.08
#: The jump from which on smaller rates are tried.
UNSTEADY = 0.05
#: The quantile of the networks' mean scores that is the reference of a task.
REFERENCE = 0.95

ACTIVATIONS = ("elu", "gelu", "leaky_relu", "relu", "selu", "sigmoid", "softsign", "tanh")
BOUNDED = ("sigmoid", "softsign", "tanh")
NORMALIZATIONS = (None, "before", "after")
INPUT_SCALES = ("none", "x100", "x0.01", "+30", "spread")

#: Depths of which there are residual networks, networks that classify by squared error, and Adam: every kind is a
#: program of its own, and compiling it takes longer than training.
RESIDUAL_FROM, SQUARED_ERROR_TO, ADAM_TO = 5, 3, 8

#: Lanes of one program.
WIDTH = 48


# Tasks ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What networks are to learn.

    Parameters
    ----------
    make : callable
        Gives X (n, d) and y (n,).
    rows : tuple of int
        For training, for the score, and for picking an epoch.
    hidden_layers : tuple of int
        The depths of its networks.
    epochs : int
    share : float
        Of the networks.
    rates : float
        Sensible learning rates are so many times the usual ones.
    regression : bool
    noisy : bool
        Whether there are few rows and much noise, so that whoever fits them closely overfits.
    """

    make: Callable[[], tuple[np.ndarray, np.ndarray]]
    rows: tuple[int, int, int]
    hidden_layers: tuple[int, ...]
    epochs: int
    share: float
    rates: float = 1.0
    regression: bool = False
    noisy: bool = False


def _digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], y[order]


def _binary() -> tuple[np.ndarray, np.ndarray]:
    return make_classification(
        2000, 20, n_informative=4, n_redundant=6, n_clusters_per_class=6, class_sep=1.5, flip_y=0.0, random_state=1
    )


def _friedman() -> tuple[np.ndarray, np.ndarray]:
    return make_friedman1(2000, 10, noise=1.0, random_state=0)


def _noisy() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(
        1650, 20, n_informative=8, n_redundant=0, n_clusters_per_class=1, class_sep=1.5, flip_y=0.0, random_state=1
    )
    return X, np.where(np.random.default_rng(1).random(len(y)) < 0.25, 1 - y, y)


def _noisy_friedman() -> tuple[np.ndarray, np.ndarray]:
    return make_friedman1(1650, 10, noise=5.0, random_state=1)


TASKS: Mapping[str, Task] = {
    "digits": Task(_digits, (1000, 500, 297), (1, 2, 3, 5, 8, 20), 12, 0.28),
    "binary": Task(_binary, (1000, 500, 500), (1, 2, 3, 5, 12), 12, 0.26),
    "friedman": Task(_friedman, (1000, 500, 500), (2, 3, 5, 12), 12, 0.26, rates=0.5, regression=True),
    "noisy": Task(_noisy, (150, 1000, 500), (1, 2, 3), 60, 0.1, noisy=True),
    "noisy_friedman": Task(_noisy_friedman, (150, 1000, 500), (1, 2, 3), 60, 0.1, 0.5, regression=True, noisy=True),
}


@dataclass(frozen=True)
class Data:
    """The rows of a task.

    Parameters
    ----------
    table : array of shape (5 n, d)
        The n rows in every scale of the inputs, one below the other: lanes of one program share one table.
    y : array of shape (n,)
    parts : dict of str to array
        The numbers of the rows of each part, among n.
    """

    table: np.ndarray
    y: np.ndarray
    parts: dict[str, np.ndarray]

    def rows(self, part: str, input_scale: str) -> np.ndarray:
        """Return the rows of the table that are a part in a scale."""
        return INPUT_SCALES.index(input_scale) * len(self.y) + self.parts[part]


@cache
def data(task: str) -> Data:
    """Return the rows of a task; the inputs are standardised on the training rows, and so are targets that are real."""
    X, y = TASKS[task].make()
    ends = np.cumsum([0, *TASKS[task].rows])
    parts = {name: np.arange(a, b) for name, a, b in zip(("train", "test", "val"), ends[:-1], ends[1:], strict=True)}
    X, y = X[: ends[-1]], y[: ends[-1]]
    train = parts["train"]
    deviation = X[train].std(axis=0)
    X = (X - X[train].mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    if TASKS[task].regression:
        y = (y - y[train].mean()) / y[train].std()
    scales = np.random.default_rng(0).permutation(np.geomspace(1e-2, 1e3, X.shape[1]))
    return Data(np.concatenate([X, 100 * X, 0.01 * X, X + 30, X * scales]).astype("float32"), y, parts)


def trivial(task: str) -> float:
    """Return the score of the best constant."""
    if TASKS[task].regression:
        return 0.0
    y = data(task).y[data(task).parts["test"]]
    return float(np.unique(y, return_counts=True)[1].max() / len(y))


# Networks -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """A network and its training, in plain values.

    Parameters
    ----------
    task : str
    hidden_layers, units : int
    activation : str
    kernel_initializer : str
    initializer_scale : float or None
    bias_initializer : float
        The value of all biases.
    batch_normalization : {None, "before", "after"}
    residual : bool
    optimizer : {"sgd", "momentum", "adam"}
    learning_rate : float
    clipnorm : float or None
    input_scale : str
        Of `INPUT_SCALES`: how the standardised inputs are spoilt.
    loss : {"cross-entropy", "squared error"}
    """

    task: str
    hidden_layers: int
    units: int = 32
    activation: str = "relu"
    kernel_initializer: str = "auto"
    initializer_scale: float | None = None
    bias_initializer: float = 0.0
    batch_normalization: str | None = None
    residual: bool = False
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    clipnorm: float | None = None
    input_scale: str = "none"
    loss: str = "cross-entropy"

    @property
    def classifies(self) -> bool:
        return not TASKS[self.task].regression

    @property
    def exists(self) -> bool:
        """Whether the benchmark has networks of this kind, see `RESIDUAL_FROM`."""
        if self.residual and self.hidden_layers < RESIDUAL_FROM:
            return False
        if self.optimizer == "adam" and self.hidden_layers > ADAM_TO:
            return False
        if not (self.classifies and self.loss == "squared error"):
            return True
        few = self.task == "noisy" or (self.task == "binary" and self.optimizer == "adam")
        return self.hidden_layers <= SQUARED_ERROR_TO and not self.residual and not few

    def estimator(self, seed: int) -> KerasClassifier | KerasRegressor:
        """Return the network, not fitted."""
        params: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                *("hidden_layers", "units", "activation", "kernel_initializer", "initializer_scale", "residual"),
                *("batch_normalization", "optimizer", "learning_rate", "clipnorm"),
            )
        }
        params |= {"epochs": TASKS[self.task].epochs, "batch_size": 32, "random_state": seed}
        if self.bias_initializer:
            params["bias_initializer"] = keras.initializers.Constant(self.bias_initializer)
        if not self.classifies:
            return KerasRegressor(**params)
        if self.loss == "squared error":
            params["loss"] = "mean_squared_error"
            params["output_activation"] = "softmax" if self.task == "digits" else "sigmoid"
        return KerasClassifier(**params)


def lanes_of(config: Config, seeds: Iterable[int] = SEEDS) -> list[Lane]:
    """Return the lanes that train a network, one for each seed; their held-out rows are those of the score."""
    rows = data(config.task)

    def part(name: str) -> tuple[np.ndarray, np.ndarray]:
        return rows.table[rows.rows(name, config.input_scale)], rows.y[rows.parts[name]]

    return [config.estimator(seed).make_lane(*part("train"), None, *part("test")) for seed in seeds]


# Sampling -------------------------------------------------------------------------------------------------------------
# What is drawn how often only moves frequencies: the labels come from training.

_USUAL_RATES = {"sgd": (0.05, 0.5), "momentum": (0.01, 0.08), "adam": (0.002, 0.02)}
_ALL_RATES = {"sgd": (1e-4, 10.0), "momentum": (1e-5, 1.0), "adam": (1e-6, 1.0)}
_DEPTHS = {1: 0.17, 2: 0.26, 3: 0.22, 5: 0.17, 8: 0.16, 12: 0.12, 20: 0.1}
_ACTIVATIONS = {
    **{"relu": 0.3, "tanh": 0.15, "leaky_relu": 0.1, "elu": 0.1, "selu": 0.1, "gelu": 0.1},
    **{"softsign": 0.08, "sigmoid": 0.07},
}


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")


def _pick(rng: np.random.Generator, weights: Mapping[Any, float] | Sequence[Any]) -> Any:
    weights = weights if isinstance(weights, Mapping) else dict.fromkeys(weights, 1.0)
    values = list(weights)
    p = np.array(list(weights.values()), float)
    return values[rng.choice(len(values), p=p / p.sum())]


def _depth(rng: np.random.Generator, task: str, least: int = 1, most: int = 20) -> int:
    found = {n: _DEPTHS[n] for n in TASKS[task].hidden_layers if least <= n <= most}
    return _pick(rng, found or {max(TASKS[task].hidden_layers): 1.0})


def _task(rng: np.random.Generator) -> str:
    return _pick(rng, {name: task.share for name, task in TASKS.items()})


def _healthy(rng: np.random.Generator) -> Config:
    """Draw a network of which there is no reason to expect trouble."""
    task = _task(rng)
    depth = _depth(rng, task)
    optimizer = _pick(rng, ("sgd", "momentum", "adam"))
    low, high = (rate * TASKS[task].rates for rate in _USUAL_RATES[optimizer])
    if depth >= 8:  # deep networks want smaller steps
        low, high = low / 3, high / 5
    if TASKS[task].epochs > 12 and rng.random() < 0.5:  # a small rate is what keeps a network from overfitting
        low, high = low / 30, high / 10
    activation = _pick(rng, _ACTIVATIONS)
    if activation == "sigmoid" and depth > 2:
        activation = "tanh"
    return Config(
        task=task,
        hidden_layers=depth,
        activation=activation,
        kernel_initializer=_pick(rng, {"auto": 0.7, "glorot_uniform": 0.15, "he_normal": 0.15}),
        batch_normalization=_pick(rng, {None: 0.7, "before": 0.2, "after": 0.1}),
        residual=depth >= RESIDUAL_FROM and rng.random() < 0.4,
        optimizer=optimizer,
        learning_rate=_log_uniform(rng, low, high),
        loss="squared error" if TASKS[task].regression else "cross-entropy",
    )


def _random(rng: np.random.Generator) -> Config:
    """Draw a network in which several things may be wrong."""
    config = _healthy(rng)
    optimizer, squared = config.optimizer, rng.random() < 0.25 and config.hidden_layers <= SQUARED_ERROR_TO
    initializer, scale = _initializer(rng) if rng.random() < 0.5 else ("auto", None)
    return replace(
        config,
        activation=_pick(rng, _ACTIVATIONS),
        kernel_initializer=initializer,
        initializer_scale=scale,
        bias_initializer=-2.0 if rng.random() < 0.1 else 0.0,
        learning_rate=_log_uniform(rng, *_ALL_RATES[optimizer]) if rng.random() < 0.5 else config.learning_rate,
        input_scale=_pick(rng, {"none": 0.5, "x100": 0.125, "x0.01": 0.125, "+30": 0.125, "spread": 0.125}),
        loss="squared error" if squared else config.loss,
        residual=config.residual and not (squared and config.classifies),
    )


def _initializer(rng: np.random.Generator) -> tuple[str, float | None]:
    name = _pick(rng, {"glorot_uniform": 0.2, "he_normal": 0.2, "random_normal": 0.6})
    return name, _pick(rng, (0.01, 0.1, 0.3, 1.0, 3.0)) if name == "random_normal" else None


def _one_fault(rng: np.random.Generator) -> Config:
    """Draw a network that ought to be healthy, and spoil one thing."""
    spoil = _pick(rng, _FAULTS)
    config = _healthy(rng)
    if spoil in (_vanishing, _squared_error, _dead):
        while TASKS[config.task].epochs > 12 or (spoil is _squared_error and not config.classifies):
            config = _healthy(rng)
    return spoil(rng, config)


def _spoilt_inputs(rng: np.random.Generator, config: Config) -> Config:
    return replace(config, batch_normalization=None, input_scale=_pick(rng, INPUT_SCALES[1:]))


def _spoilt_initialization(rng: np.random.Generator, config: Config) -> Config:
    if rng.random() < 0.2:
        return replace(config, bias_initializer=-2.0, batch_normalization=None)
    scale = _pick(rng, {0.01: 0.35, 0.1: 0.15, 1.0: 0.3, 3.0: 0.2})
    return replace(config, kernel_initializer="random_normal", initializer_scale=scale, batch_normalization=None)


def _small_rate(rng: np.random.Generator, config: Config) -> Config:
    return replace(config, learning_rate=float(f"{config.learning_rate / _log_uniform(rng, 15, 1000):.3g}"))


def _large_rate(rng: np.random.Generator, config: Config) -> Config:
    return replace(config, learning_rate=float(f"{config.learning_rate * _log_uniform(rng, 5, 60):.3g}"))


def _squared_error(rng: np.random.Generator, config: Config) -> Config:
    """Squared error after a sigmoid or a softmax; it hurts where the rate is low or the outputs begin saturated."""
    task = _pick(rng, {"digits": 0.65, "binary": 0.35})
    optimizer = _pick(rng, {"sgd": 0.4, "momentum": 0.35, "adam": 0.25})
    low, high = _USUAL_RATES[optimizer]
    depth = _depth(rng, task, most=SQUARED_ERROR_TO)
    config = replace(
        config,
        **{"task": task, "hidden_layers": depth, "optimizer": optimizer, "residual": False, "loss": "squared error"},
        learning_rate=_log_uniform(rng, low / 3, high / 3),
        batch_normalization=None,
    )
    if rng.random() < 0.3:
        return replace(config, kernel_initializer="random_normal", initializer_scale=_pick(rng, (0.3, 1.0, 3.0)))
    return config


def _exploding(rng: np.random.Generator, config: Config) -> Config:
    """Gradients that are too large for plain SGD, for one of several reasons."""
    optimizer = _pick(rng, ("sgd", "momentum"))
    low, high = (rate * TASKS[config.task].rates for rate in _USUAL_RATES[optimizer])
    config = replace(config, optimizer=optimizer, learning_rate=_log_uniform(rng, low, high), batch_normalization=None)
    kind = rng.random()
    if kind < 0.4:
        scale = 1.0 if config.hidden_layers < 5 else 0.3
        return replace(config, kernel_initializer="random_normal", initializer_scale=scale)
    if kind < 0.5:
        return replace(config, input_scale=_pick(rng, ("x100", "+30", "spread")))
    return replace(config, learning_rate=float(f"{config.learning_rate * _log_uniform(rng, 2, 10):.3g}"))


def _dead(rng: np.random.Generator, config: Config) -> Config:
    """Rectifiers that begin below zero, or are driven there."""
    config = replace(config, activation="relu", batch_normalization=None, residual=False)
    if rng.random() < 0.7:
        depth = _depth(rng, config.task, most=5)
        return replace(config, hidden_layers=depth, bias_initializer=_pick(rng, (-1.5, -2.0, -3.0, -4.0)))
    return replace(config, learning_rate=float(f"{config.learning_rate * _log_uniform(rng, 4, 20):.3g}"))


def _saturated(rng: np.random.Generator, config: Config) -> Config:
    """Bounded activations far from zero."""
    config = replace(config, activation=_pick(rng, BOUNDED), batch_normalization=None)
    kind = rng.random()
    if kind < 0.4:  # the sigmoid does not need anything else
        depth = _depth(rng, config.task, least=3, most=5)
        return replace(config, activation="sigmoid", hidden_layers=depth, residual=False)
    if kind < 0.65:
        return replace(config, input_scale=_pick(rng, ("x100", "+30", "spread")))
    return replace(config, kernel_initializer="random_normal", initializer_scale=_pick(rng, (1.0, 3.0)))


def _vanishing(rng: np.random.Generator, config: Config) -> Config:
    """Deep networks, in which gradients become smaller from layer to layer."""
    depth = _depth(rng, config.task, least=5)
    config = replace(config, hidden_layers=depth, residual=False, batch_normalization=None)
    if rng.random() < 0.5:
        return replace(config, activation=_pick(rng, BOUNDED))
    return replace(config, kernel_initializer="random_normal", initializer_scale=_pick(rng, (0.01, 0.1)))


_FAULTS: Mapping[Callable[[np.random.Generator, Config], Config], float] = {
    _spoilt_inputs: 0.2,
    _spoilt_initialization: 0.06,
    _small_rate: 0.08,
    _large_rate: 0.17,
    _squared_error: 0.1,
    _exploding: 0.14,
    _dead: 0.13,
    _saturated: 0.12,
    _vanishing: 0.06,
}


def _rare(rng: np.random.Generator) -> Config:
    """Draw a network with a condition that one seldom meets alone; all of one depth, for the sake of compiling."""
    task = _pick(rng, ("digits", "binary", "friedman"))
    kind = _pick(rng, {"dead": 0.19, "exploding": 0.23, "saturated": 0.21, "squared error": 0.12, "oscillating": 0.25})
    optimizer = _pick(rng, ("sgd", "momentum") if kind in ("exploding", "squared error") else tuple(_USUAL_RATES))
    if kind == "squared error":
        task = "digits"
    low, high = (rate * TASKS[task].rates for rate in _USUAL_RATES[optimizer])
    config = Config(
        task=task,
        hidden_layers=3,
        activation=_pick(rng, _ACTIVATIONS),
        optimizer=optimizer,
        learning_rate=_log_uniform(rng, low, high),
        loss="squared error" if TASKS[task].regression or kind == "squared error" else "cross-entropy",
    )
    if kind == "dead":
        bias, faster = _pick(rng, (-2.0, -3.0, -4.0)), _log_uniform(rng, 1, 3)
        return replace(config, activation="relu", bias_initializer=bias, learning_rate=config.learning_rate * faster)
    if kind == "exploding":
        if rng.random() < 0.4 and task != "friedman":
            return replace(config, kernel_initializer="random_normal", initializer_scale=1.0)
        return replace(config, learning_rate=config.learning_rate * _log_uniform(rng, 2, 6))
    if kind == "saturated":
        config = replace(config, activation=_pick(rng, BOUNDED))
        if rng.random() < 0.5:
            return replace(config, activation="sigmoid")
        if rng.random() < 0.5:
            return replace(config, learning_rate=config.learning_rate / _log_uniform(rng, 2, 5))
        return replace(config, kernel_initializer="random_normal", initializer_scale=1.0)
    if kind == "oscillating":
        config = replace(config, learning_rate=config.learning_rate * _log_uniform(rng, 4, 30))
        if rng.random() < 0.5:
            return replace(config, activation=_pick(rng, BOUNDED))
        return replace(config, batch_normalization=_pick(rng, NORMALIZATIONS[1:]))
    return config


def sample(n: int, seed: int, common: float) -> list[Config]:
    """Draw n different networks: healthy ones, ones with one fault, ones with anything, and ones with a rare fault.

    Parameters
    ----------
    n, seed : int
    common : float
        The share of those that are not drawn for a condition that is rare.
    """
    rng = np.random.default_rng(seed)
    found: dict[Config, None] = {}
    while len(found) < n:
        if len(found) < int(common * n):
            config = _pick(rng, {_healthy: 0.34, _one_fault: 0.51, _random: 0.15})(rng)
        else:
            config = _rare(rng)
        # So large an initialisation overflows in deep networks at the first batch, and shows nothing else.
        if config.exists and not ((config.initializer_scale or 0) >= 1 and config.hidden_layers > 5):
            found[replace(config, learning_rate=float(f"{config.learning_rate:.3g}"))] = None
    return list(found)


@dataclass(frozen=True)
class Draw:
    """Networks that were drawn together.

    Parameters
    ----------
    n, seed : int
    common : float
        See `sample`: how many are drawn, also of those that are left out, from which random numbers, and how many of
        them of the common kinds.
    deepest : int
        Deeper networks are left out: to compile a program of theirs takes longer than to train many others.
    held : bool
        Whether they are for the test alone.
    """

    n: int
    seed: int
    common: float
    deepest: int
    held: bool


#: The networks of the benchmark, in the order in which they were drawn: those after the first two were added, of rare
#: faults, of common ones and of both, as there were too few to choose on, or to judge by.
DRAWS = (
    Draw(1040, 0, 0.77, 20, held=False),
    Draw(700, 1, 0.65, 12, held=True),
    Draw(1000, 2, 0.0, 3, held=False),
    Draw(850, 3, 1.0, 3, held=False),
    Draw(800, 4, 0.65, 5, held=True),
    Draw(800, 5, 0.5, 5, held=False),
)


@cache
def _drawn() -> tuple[tuple[Config, ...], ...]:
    """Return the networks of all draws, each once."""
    known: set[Config] = set()
    drawn = []
    for draw in DRAWS:
        found = sample(draw.n, draw.seed, draw.common)
        drawn.append(tuple(c for c in found if c.hidden_layers <= draw.deepest and c not in known))
        known.update(drawn[-1])
    return tuple(drawn)


def networks(*, held: bool) -> list[Config]:
    """Return the networks that were drawn for the test alone, or those that limits and rules were chosen on."""
    return [config for draw, drawn in zip(DRAWS, _drawn(), strict=True) if draw.held == held for config in drawn]


# Interventions --------------------------------------------------------------------------------------------------------


def interventions(config: Config) -> dict[str, Config]:
    """Return the networks that differ from one in a single condition, by the name of what is changed."""
    rate = config.learning_rate
    plain = {"kernel_initializer": "auto", "initializer_scale": None, "bias_initializer": 0.0}
    changes: dict[str, dict[str, Any]] = {
        "standardised": {"input_scale": "none"},
        "initialized": plain,
        "cross-entropy": {"loss": "cross-entropy"} if config.classifies else {},
        **{f"rate x{factor}": {"learning_rate": rate * factor} for factor in (10, 100)},
        **{f"rate /{factor}": {"learning_rate": rate / factor} for factor in (10, 100)},
        "clipped": {"clipnorm": 1.0},
        "leaky": {"activation": "leaky_relu"} if config.activation == "relu" else {},
        "normalized": {"batch_normalization": "before"},
        "elu": {"activation": "elu"} if config.activation in BOUNDED else {},
        "residual": {"residual": True},
    }
    changed = {name: replace(config, **change) for name, change in changes.items()}
    return {name: other for name, other in changed.items() if other != config and other.exists}


#: The interventions of which any one shows a condition; the others need more than that, see `conditions_of`.
RESTORING: Mapping[str, tuple[str, ...]] = {
    "unscaled_inputs": ("standardised",),
    "poor_initialization": ("initialized",),
    "saturated_outputs": ("cross-entropy",),
    "update_too_small": ("rate x10", "rate x100"),
    "update_too_large": ("rate /10", "rate /100"),
    "exploding_gradients": ("clipped",),
    "dead_units": ("leaky",),
    "saturated_units": ("elu",),
    "vanishing_gradients": ("residual", "elu"),
}
#: What no single intervention shows, see `conditions_of`; the symptoms have no intervention of their own.
SYMPTOMS = ("non_finite", "stalled_loss")
BY_THEMSELVES = ("overfitting", "oscillating_loss", *SYMPTOMS)
CONDITIONS = (*RESTORING, *BY_THEMSELVES)


# Training -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a network with one seed.

    Parameters
    ----------
    finite : bool
    score, picked : float
        After the last epoch, and after the one with the lowest loss on the rows for picking it.
    jump : float
        See Notations, in scores.
    worst_loss : float
        The largest training loss of an epoch.
    fell : bool
        Whether the training loss fell from the picked epoch to the last one.
    """

    finite: bool
    score: float
    picked: float
    jump: float
    worst_loss: float
    fell: bool

    @classmethod
    def of(cls, config: Config, trained: TrainedLane) -> Outcome:
        history = trained.history
        if config.classifies:
            scores = np.array(history["test_accuracy"])
        else:
            y = data(config.task).y[data(config.task).parts["test"]]
            scores = 1 - np.array(history["test_loss"]) / y.var()
        scores = np.maximum(np.nan_to_num(scores, nan=-9, neginf=-9), -9)
        loss = np.nan_to_num(history["loss"], nan=np.inf)
        best = int(np.argmin(np.nan_to_num(history["val_loss"], nan=np.inf)))
        jumps = np.abs(np.diff(scores))[-(TASKS[config.task].epochs // 2) :]
        jump = jumps.mean() if len(jumps) else 0.0
        score, picked, mean_jump = (round(float(value), 5) for value in (scores[-1], scores[best], jump))
        return cls(
            finite=not trained.non_finite,
            score=score,
            picked=picked,
            jump=mean_jump,
            worst_loss=min(float(loss.max()), 1e38),
            fell=bool(loss[-1] < loss[best]),
        )


# A norm that no gradient reaches short of overflow, so that clipping is a number in which lanes of a program differ.
_UNCLIPPED = 1e18


def _company(config: Config, *, shared: bool) -> list[Lane]:
    """Return the lanes of a network for training together with others.

    Parameters
    ----------
    config : Config
    shared : bool
        Whether lanes with and without clipping and momentum share a program.
    """
    rows, lanes = data(config.task), []
    for lane in lanes_of(config):
        # The epoch is picked afterwards, so that the lane has to go on to the end: no lane stops before.
        values = {**lane.hyperparameters, "n_iter_no_change": 10**6}
        if shared:
            values["clipnorm"] = config.clipnorm or _UNCLIPPED
            if config.optimizer == "sgd":
                values["momentum"] = 1e-12
        numbers = {name: rows.rows(name, config.input_scale) for name in rows.parts}
        own = config.estimator(0)
        own.make_lane(rows.table[numbers["train"]], rows.y[rows.parts["train"]])
        y_val = own._encode(rows.y[rows.parts["val"]], lane.output)
        assert lane.test is not None
        lanes.append(
            replace(
                lane,
                hyperparameters=values,
                train=Part(rows.table, lane.train.y, rows=numbers["train"]),
                test=Part(rows.table, lane.test.y, rows=numbers["test"]),
                validation=Part(rows.table, y_val, rows=numbers["val"]),
                alternatives=Alternatives(ACTIVATIONS, NORMALIZATIONS),
                recurring=True,
            )
        )
    return lanes


class Results:
    """Outcomes by network, kept in a file line by line."""

    def __init__(self, path: Path):
        self.path = path
        self.outcomes: dict[tuple[Config, bool], list[Outcome]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            key = (Config(**entry["config"]), entry["shared"])
            self.outcomes[key] = [Outcome(*outcome) for outcome in entry["outcomes"]]

    def __getitem__(self, config: Config) -> list[Outcome]:
        """Return the outcomes, those of the training without company where there are any."""
        return self.outcomes.get((config, False)) or self.outcomes[config, True]

    def __contains__(self, config: Config) -> bool:
        return (config, True) in self.outcomes

    def train(self, configs: Iterable[Config], *, shared: bool = True) -> None:
        """Train the networks of which there is no outcome, structure by structure, small ones first."""
        todo = [config for config in dict.fromkeys(configs) if (config, shared) not in self.outcomes]
        for chunk, trained in _trained(todo, shared=shared):
            with self.path.open("a") as file:
                for config, lanes in zip(chunk, trained, strict=True):
                    outcomes = [Outcome.of(config, lane) for lane in lanes]
                    self.outcomes[config, shared] = outcomes
                    plain = [list(asdict(outcome).values()) for outcome in outcomes]
                    file.write(json.dumps({"config": asdict(config), "shared": shared, "outcomes": plain}) + "\n")


def _trained(
    configs: Iterable[Config], *, shared: bool, width: int = WIDTH
) -> Iterator[tuple[Sequence[Config], list[list[TrainedLane]]]]:
    """Train networks structure by structure, small ones first, and yield some with their lanes as they are ready."""
    groups: dict[Hashable, dict[Config, list[Lane]]] = defaultdict(dict)
    for config in configs:
        lanes = _company(config, shared=shared)
        groups[config.task, structure_of(lanes[0])][config] = lanes
    start, ordered = time.perf_counter(), sorted(groups.values(), key=lambda group: _size(next(iter(group))))
    for i, group in enumerate(ordered, start=1):
        for chunk in _chunks(list(group), width // len(SEEDS)):
            lanes = [lane for config in chunk for lane in group[config]]
            filled = [lanes[j % len(lanes)] for j in range(max(len(lanes), width))]
            trained = StackedEngine(strict=True).train(filled)
            yield chunk, [trained[len(SEEDS) * j : len(SEEDS) * (j + 1)] for j in range(len(chunk))]
        example = next(iter(group))
        print(
            f"{time.perf_counter() - start:6.0f} s: {i}/{len(ordered)} {example.task} {example.hidden_layers} "
            f"{example.optimizer} {example.loss} {example.residual}: {len(group)} networks",
            flush=True,
        )


def _size(config: Config) -> tuple[Any, ...]:
    return config.hidden_layers, config.residual, config.task


def _chunks(items: Sequence[Config], size: int) -> Iterator[Sequence[Config]]:
    n = -(-len(items) // size)
    for i in range(n):
        yield items[i * len(items) // n : (i + 1) * len(items) // n]


def _overflows(config: Config, outcomes: Sequence[Outcome]) -> bool:
    """Whether the norm of the gradient may have overflowed, which clipping turns into a gradient of 0."""
    grown = any(outcome.finite and outcome.worst_loss > 1e12 for outcome in outcomes)
    return config.optimizer != "adam" and grown


# Labels ---------------------------------------------------------------------------------------------------------------


def _most(flags: Iterable[bool]) -> bool:
    flags = list(flags)
    return 2 * sum(flags) > len(flags)


def _skills(scale: tuple[float, float], outcomes: Sequence[Outcome], name: str = "score") -> list[float | None]:
    """Return the skills of the seeds; None where the loss is not finite."""
    low, high = scale
    return [
        round(max((getattr(outcome, name) - low) / (high - low), -9.0), 3) if outcome.finite else None
        for outcome in outcomes
    ]


def _at_least(skills: Iterable[float | None], bound: float) -> bool:
    return _most((skill or 0.0) >= bound for skill in skills)


def _state(skills: Sequence[float | None]) -> str:
    if _most((skill or 0.0) < SHORT for skill in skills):
        return "short"
    return "well" if _at_least(skills, WELL) else "between"


def _oscillates(jumps: Sequence[float | None]) -> bool:
    return _at_least(jumps, OSCILLATING)


def _restored(network: Mapping[str, Any]) -> set[str]:
    """Return the interventions that restore a network of labels.json."""
    return {name for name, entry in network["interventions"].items() if _at_least(entry["skills"], RESTORED)}


def conditions_of(network: Mapping[str, Any]) -> list[str]:
    """Return the conditions of a network of labels.json: those whose intervention restores it.

    "overfitting" and "oscillating_loss" compare a network with itself, and do not ask whether it falls short.
    """
    treated, skills, jumps = network["interventions"], network["skills"], network["jumps"]
    found = {}
    restored = _restored(network)
    short = _state(skills) == "short"
    lost = _most(skill is None for skill in skills)
    bounded = network["config"]["activation"] in BOUNDED
    for condition, names in RESTORING.items():
        found[condition] = short and not restored.isdisjoint(names)
    found["saturated_units"] &= bounded
    # Cross-entropy makes larger gradients as well: where larger steps do as much, that is what was wanting.
    found["saturated_outputs"] &= restored.isdisjoint(RESTORING["update_too_small"])
    # To fit few rows less closely helps as well, and smaller steps do.
    found["update_too_large"] &= not (TASKS[network["config"]["task"]].noisy and _most(network["fell"]))
    # With one hidden layer there is no way on which a gradient could vanish, and what blew up had no small ones.
    found["vanishing_gradients"] &= network["config"]["hidden_layers"] > 1 and not lost
    finite = [name for name, entry in treated.items() if _most(skill is not None for skill in entry["skills"])]
    # Where the training loss rose as well, training has failed, and not fitted too closely; and where the score jumps
    # as far from epoch to epoch, the last one was bad luck.
    by_seed = zip(skills, network["picked"], network["fell"], jumps, strict=True)
    found["overfitting"] = _most(
        fell and skill is not None and picked - skill >= max(OVERFITTING_GAIN, 2 * jump)
        for skill, picked, fell, jump in by_seed
    )
    found["non_finite"] = lost and bool(finite)
    # What overfits has learned its training rows, however little that is worth on others.
    nothing = _most(skill is not None and skill < STALLED for skill in skills) and not found["overfitting"]
    found["stalled_loss"] = short and bool(restored) and nothing
    calmed = {name for name in restored & set(RESTORING["update_too_large"]) if not _oscillates(treated[name]["jumps"])}
    found["oscillating_loss"] = _oscillates(jumps) and bool(calmed)
    return [condition for condition in CONDITIONS if found[condition]]


def _treated(config: Config, skills: Sequence[float | None], jumps: Sequence[float | None]) -> dict[str, Config]:
    """Return the interventions to try: all of them, only smaller rates where the network oscillates on a good level."""
    if _state(skills) == "short":
        return interventions(config)
    if _at_least(jumps, UNSTEADY):
        return {name: other for name, other in interventions(config).items() if name.startswith("rate /")}
    return {}


def _jumps(scale: tuple[float, float], outcomes: Sequence[Outcome]) -> list[float | None]:
    low, high = scale
    return [round(min(outcome.jump / (high - low), 9.0), 3) if outcome.finite else None for outcome in outcomes]


def _scales(results: Results) -> dict[str, tuple[float, float]]:
    """Return the trivial score and the reference of every task, of which there are networks that have been trained."""
    means: dict[str, list[float]] = defaultdict(list)
    for config in _drawn()[0]:
        if config in results:
            scores = [outcome.score if outcome.finite else trivial(config.task) for outcome in results[config]]
            means[config.task].append(float(np.mean(scores)))
    return {
        task: (round(trivial(task), 4), round(float(np.quantile(values, REFERENCE)), 4))
        for task, values in means.items()
    }


def _entry(results: Results, config: Config, scale: tuple[float, float]) -> dict[str, Any] | None:
    """Return the labels of a network; None as long as interventions have not been trained."""
    outcomes = results[config]
    skills, jumps = _skills(scale, outcomes), _jumps(scale, outcomes)
    entry: dict[str, Any] = {
        "config": asdict(config),
        "state": _state(skills),
        "R": [],
        "scores": [round(outcome.score, 3) for outcome in outcomes],
        "skills": skills,
        "picked": _skills(scale, outcomes, "picked"),
        "fell": [outcome.fell for outcome in outcomes],
        "jumps": jumps,
        "interventions": {},
    }
    for name, other in _treated(config, skills, jumps).items():
        if other not in results:
            return None
        found = _skills(scale, results[other])
        treated: dict[str, Any] = {"skills": found, "mean": round(float(np.mean([s or 0.0 for s in found])), 3)}
        if name.startswith("rate /"):
            treated["jumps"] = _jumps(scale, results[other])
        entry["interventions"][name] = treated
    entry["R"] = conditions_of(entry)
    return entry


def _known_scales(path: Path) -> dict[str, tuple[float, float]]:
    """Return the trivial score and the reference of every task that were found on the networks chosen on."""
    return {task: (scale["trivial"], scale["reference"]) for task, scale in _read(path)["tasks"].items()}


def save(
    results: Results, configs: Sequence[Config], scales: Mapping[str, tuple[float, float]], *, held: bool, path: Path
) -> None:
    """Write the labels of one part of the networks, as far as they have been trained; the other part stays."""
    trained = (config for config in configs if config in results)
    entries = (_entry(results, config, scales[config.task]) for config in trained)
    found = [{**entry, "held_out": held} for entry in entries if entry is not None]
    others = [entry for entry in _read(path)["networks"] if entry["held_out"] != held] if path.exists() else []
    tasks = {task: {"trivial": low, "reference": high} for task, (low, high) in scales.items()}
    _write({"tasks": tasks, "networks": sorted(found + others, key=lambda entry: entry["held_out"])}, path)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _write(stored: Mapping[str, Any], path: Path) -> None:
    lines = map(json.dumps, stored["networks"])
    path.write_text(f'{{"tasks": {json.dumps(stored["tasks"])},\n"networks": [\n' + ",\n".join(lines) + "\n]}\n")


def relabel(path: Path = LABELS) -> None:
    """Judge the stored skills anew, after a definition has changed; nothing is trained."""
    stored = _read(path)
    for entry in stored["networks"]:
        entry |= {"state": _state(entry["skills"]), "R": conditions_of(entry)}
    _write(stored, path)


def generate(raw: Path, path: Path, *, held: bool) -> None:
    """Train the networks of one part, and the interventions of those that fall short, and write the labels."""
    program.COMPILED_AT_MOST = program.CACHE_SIZE = 1000  # memory is no concern here
    configs, results = networks(held=held), Results(raw)
    for depth in (1, 2, 3, 5, 20):  # there are labels early, of shallow networks
        some = [config for config in configs if config.hidden_layers <= depth]
        results.train(some)
        results.train([config for config in some if _overflows(config, results[config])], shared=False)
        scales = _known_scales(path) if held else _scales(results)
        others: list[Config] = []
        for config in some:
            scale, outcomes = scales[config.task], results[config]
            others += _treated(config, _skills(scale, outcomes), _jumps(scale, outcomes)).values()
        results.train(others)
        save(results, configs, scales, held=held, path=path)
        print(f"depths to {depth}\n{summary(path)}", flush=True)


# What others read -----------------------------------------------------------------------------------------------------


@cache
def _stored() -> dict[str, Any]:
    return _read(LABELS)


def labels() -> list[dict[str, Any]]:
    """Return the labels, one entry for each of `configs`.

    An entry has "config", "held_out", "state" ("short", "well" or "between"), "R" (the conditions whose intervention
    restores the network), and by seed "scores", "skills", "picked", "fell" and "jumps"; "interventions" has by name
    "skills", "mean" and, of smaller rates, "jumps". None stands for a seed whose loss was not finite at the end.
    """
    return _stored()["networks"]


def configs() -> list[Config]:
    """Return the networks that are labelled."""
    return [Config(**entry["config"]) for entry in labels()]


# Judging --------------------------------------------------------------------------------------------------------------


def measure(path: Path = MEASUREMENTS) -> None:
    """Train the labelled networks, not their interventions, and store what is measured of them."""
    program.COMPILED_AT_MOST = program.CACHE_SIZE = 1000  # memory is no concern here
    found: dict[Config, list[Measurements]] = {}
    for chunk, trained in _trained(configs(), shared=True):
        found |= {
            config: [_own(config, lane.health) for lane in lanes] for config, lanes in zip(chunk, trained, strict=True)
        }
    storage.write(path, {_key(config): found[config] for config in configs()})


def _own(config: Config, measured: Measurements | None) -> Measurements:
    """Return what was measured with the facts of the network alone, not of its company, see `_company`."""
    assert measured is not None
    _, values = optimizer_config(lanes_of(config, [0])[0].hyperparameters, 1)
    facts = replace(measured.facts, momentum=values.get("momentum"), clipnorm=values.get("clipnorm"))
    # The rows for picking an epoch are the label's, and not the diagnosis's.
    history = {name: series for name, series in measured.history.items() if not name.startswith("val_")}
    return replace(measured, facts=facts, history=history)


def retrained(configs: Sequence[Config]) -> list[tuple[str, list[Measurements]]]:
    """Train networks, and return the state of each and what was measured of it."""
    found = {}
    for chunk, several in _trained(configs, shared=True, width=len(SEEDS) * len(configs)):
        for config, lanes in zip(chunk, several, strict=True):
            scale = _stored()["tasks"][config.task]
            outcomes = [Outcome.of(config, lane) for lane in lanes]
            state = _state(_skills((scale["trivial"], scale["reference"]), outcomes))
            found[config] = state, [_own(config, lane.health) for lane in lanes]
    return [found[config] for config in configs]


def _key(config: Config) -> str:
    return json.dumps(asdict(config))


@cache
def _measured() -> dict[str, list[Measurements]]:
    return storage.read(MEASUREMENTS)


def stored_measurements(config: Config) -> list[Measurements]:
    """Return what was measured of a labelled network, as far as the diagnosis reads it, one for each of `SEEDS`."""
    return _measured()[_key(config)]


def expected(entry: Mapping[str, Any], named: Collection[str], condition: str) -> bool | None:
    """Return whether a report that names some conditions should name this one; None where that does not count."""
    restoring = set(entry["R"])
    if condition in restoring:
        others = (restoring & set(named)) - {condition, *SYMPTOMS}
        full = condition in named or condition in BY_THEMSELVES or not others
        return True if full else None
    if condition == "oscillating_loss" and _oscillates(entry["jumps"]):
        return None
    if entry["state"] == "short" and not _restored(entry).isdisjoint(RESTORING.get(condition, ())):
        return None
    known = entry["state"] == "well" or (entry["state"] == "short" and not restoring.isdisjoint(RESTORING))
    return False if known else None


@dataclass
class Score:
    """How a condition was judged: counts of networks."""

    named: int = 0
    positives: int = 0
    silent: int = 0
    negatives: int = 0

    @property
    def sensitivity(self) -> float:
        return self.named / self.positives if self.positives else math.nan

    @property
    def specificity(self) -> float:
        return self.silent / self.negatives if self.negatives else math.nan


def judged(*, held: bool) -> tuple[dict[str, Score], float]:
    """Judge the stored measurements of one part of the networks.

    Returns
    -------
    scores : dict of str to Score
    alarms : float
        The share of false alarms among the networks that do well and have no condition.
    """
    scores, alarms = {condition: Score() for condition in CONDITIONS}, []
    for entry in labels():
        if entry["held_out"] != held:
            continue
        report = judge(stored_measurements(Config(**entry["config"])))
        if entry["state"] == "well" and not entry["R"]:
            true = {"oscillating_loss"} if _oscillates(entry["jumps"]) else set()
            alarms.append(any(cause.condition not in true for cause in report.causes))
        for condition, score in scores.items():
            should = expected(entry, report.conditions, condition)
            does = condition in report.conditions
            if should is not None and should:
                score.positives, score.named = score.positives + 1, score.named + does
            elif should is not None:
                score.negatives, score.silent = score.negatives + 1, score.silent + (not does)
    return scores, float(np.mean(alarms))


def table() -> str:
    """Return the scores of both parts in words."""
    lines = []
    for name, held in (("chosen on", False), ("held out", True)):
        scores, alarms = judged(held=held)
        lines.append(f"{name:20}{'sensitivity':>20}{'specificity':>20}")
        for condition, s in scores.items():
            found, passed = f"{s.sensitivity:.3f}" if s.positives else "-", f"{s.specificity:.3f}"
            counts = f"{s.named}/{s.positives}", f"{s.silent}/{s.negatives}"
            lines.append(f"{condition:20}{counts[0]:>12}{found:>8}{counts[1]:>12}{passed:>8}")
        lines.append(f"{alarms:.1%} of the networks without a condition get a false verdict\n")
    return "\n".join(lines)


def given_up(config: Config) -> bool:
    """Whether a search that prunes by health would end a network within the first epochs."""
    measured = stored_measurements(config)
    facts = measured[0].facts
    steps = math.ceil(facts.n_rows / facts.batch_size)
    return any(
        fatal([first_epochs(m, n) for m in measured], steps * (TASKS[config.task].epochs - n))
        for n in range(1, SICK_EPOCHS + 1)
    )


# Remedies -------------------------------------------------------------------------------------------------------------


#: How many networks of a condition are treated, and by how much the mean skill has to rise to be better.
TREATED, BETTER = 12, 0.05


def treated(config: Config, edit: Mapping[str, Any]) -> Config:
    """Return a network after the remedy of a finding; early stopping leaves it as it is."""
    changes: dict[str, Any] = {}
    for name, value in edit.items():
        if name == "inputs":
            changes["input_scale"] = "none"
        elif name == "loss":
            changes["loss"] = "cross-entropy"
        elif name == "learning_rate":
            changes[name] = float(f"{math.sqrt(value[0] * value[1]):.3g}")
        elif name == "bias_initializer":
            changes[name] = 0.0
        elif name == "kernel_initializer":
            changes |= {name: value, "initializer_scale": None}
        elif name not in ("output_activation", "early_stopping"):
            changes[name] = value
    return replace(config, **changes)


def _until_picked(measured: Measurements) -> Measurements:
    """Return what was measured until the epoch whose loss on the rows for picking it was lowest."""
    best = int(np.argmin(np.nan_to_num(np.asarray(measured.history["val_loss"]), nan=np.inf)))
    return first_epochs(measured, best + 1)


def try_remedies(path: Path = REMEDIES) -> None:
    """Treat held-out networks as their reports say first, and store what becomes of them.

    For every condition there are up to `TREATED` networks that fall short and of whose report it is a cause. A remedy
    is compared with the share of all interventions that make the network as much better: what a random one does.
    """
    program.COMPILED_AT_MOST = program.CACHE_SIZE = 1000
    cases: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for place, entry in enumerate(labels()):
        if entry["held_out"] and entry["state"] == "short":
            for cause in judge(stored_measurements(Config(**entry["config"]))).causes:
                if cause.remedies:
                    cases[cause.condition].append((place, dict(cause.remedies[0].edit)))
    for condition, found in cases.items():
        cases[condition] = found[:: -(-len(found) // TREATED)]
    todo = dict.fromkeys(treated(configs()[place], edit) for found in cases.values() for place, edit in found)
    trained = {
        config: lanes
        for chunk, several in _trained(todo, shared=True, width=15)
        for config, lanes in zip(chunk, several, strict=True)
    }
    stored = {}
    for condition in CONDITIONS:
        results = []
        for place, edit in cases.get(condition, ()):
            entry = labels()[place]
            config = treated(configs()[place], edit)
            scale = _stored()["tasks"][config.task]
            stopped = "early_stopping" in edit
            outcomes = [Outcome.of(config, lane) for lane in trained[config]]
            skills = _skills((scale["trivial"], scale["reference"]), outcomes, "picked" if stopped else "score")
            measured = [_own(config, _until_picked(m) if stopped else m) for m in (t.health for t in trained[config])]
            before, after = _mean(entry["skills"]), _mean(skills)
            random = [other["mean"] >= before + BETTER for other in entry["interventions"].values()]
            results.append(
                {
                    "place": place,
                    "edit": edit,
                    "before": round(before, 3),
                    "after": round(after, 3),
                    "gone": condition not in judge(measured).conditions,
                    "better": after >= before + BETTER,
                    "random": round(float(np.mean(random)), 3),
                }
            )
        stored[condition] = results
    path.write_text(json.dumps(stored, indent=1) + "\n")


def _mean(skills: Iterable[float | None]) -> float:
    return float(np.mean([skill or 0.0 for skill in skills]))


def remedies(path: Path = REMEDIES) -> dict[str, dict[str, float]]:
    """Return for every condition how often its remedy helped.

    Returns
    -------
    dict of str to dict
        "n" networks; the shares of them whose report no longer finds the condition ("gone") and whose mean skill is
        better by `BETTER` ("better"), and the share of the interventions that achieve the latter ("random").
    """
    stored = json.loads(path.read_text())
    return {
        condition: {"n": len(results)}
        | {name: _mean(r[name] for r in results) for name in ("gone", "better", "random")}
        for condition, results in stored.items()
        if results
    }


def markdown() -> str:
    """Return how the held-out networks are judged and treated, as a table for the README."""
    treatments = remedies()
    lines = [
        "| condition | networks | sensitivity | specificity | remedy: networks | gone | better | random edit better |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    scores, alarms = judged(held=True)
    for condition, score in scores.items():
        treatment = treatments.get(condition)
        found = f"{score.sensitivity:.3f}" if score.positives else "-"
        cells = [f"`{condition}`", str(score.positives), found, f"{score.specificity:.3f}"]
        cells += [f"{treatment['n']}"] if treatment else ["-"]
        cells += [f"{treatment[name]:.0%}" if treatment else "-" for name in ("gone", "better", "random")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + f"\n\n{alarms:.1%} of the networks without a condition get a false verdict."


def summary(path: Path = LABELS) -> str:
    """Count the labels."""
    stored = _read(path)
    networks = stored["networks"]
    lines = [f"{task}: {values}" for task, values in stored["tasks"].items()]
    lines.append(f"{len(networks)} networks: {dict(Counter(entry['state'] for entry in networks))}")
    for task in stored["tasks"]:
        counts = Counter(entry["state"] for entry in networks if entry["config"]["task"] == task)
        lines.append(f"  {task}: {dict(counts)}")
    counts = Counter(condition for entry in networks for condition in entry["R"])
    lines += [f"{condition}: {counts[condition]}" for condition in CONDITIONS]
    short = [entry for entry in networks if entry["state"] == "short"]
    lines.append(f"short and restored by nothing: {sum(not entry['R'] for entry in short)}")
    lines.append(f"short with one condition: {sum(len(entry['R']) == 1 for entry in short)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", action="store_true", help="train what is chosen on, and write labels.json")
    parser.add_argument("--held-out", action="store_true", help="the same of what is held out")
    parser.add_argument("--relabel", action="store_true", help="judge the stored skills anew, without training")
    parser.add_argument("--summary", action="store_true", help="count the labels")
    parser.add_argument("--measure", action="store_true", help="train, and write measurements.npz")
    parser.add_argument("--judge", action="store_true", help="say how well the diagnosis tells the conditions")
    parser.add_argument("--markdown", action="store_true", help="the same of the held-out part, as a table")
    parser.add_argument("--remedies", action="store_true", help="train, and write remedies.json")
    parser.add_argument("--raw", type=Path, default=RAW, help="where outcomes are kept on the way")
    parser.add_argument("--path", type=Path, default=LABELS)
    arguments = parser.parse_args()
    if arguments.labels or arguments.held_out:
        generate(arguments.raw, arguments.path, held=arguments.held_out)
    if arguments.relabel:
        relabel(arguments.path)
    if arguments.summary:
        print(summary(arguments.path))
    if arguments.measure:
        measure()
    if arguments.remedies:
        try_remedies()
    if arguments.judge or arguments.markdown:
        print(markdown() if arguments.markdown else table())


if __name__ == "__main__":
    main()
