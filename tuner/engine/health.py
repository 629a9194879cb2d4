"""What an engine knows of the health of a lane: its probe, and the facts beside the measures."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

from tuner import network, seeds
from tuner.engine.base import History, Lane, Part
from tuner.engine.compilation import learning_rates, optimizer_config
from tuner.errors import in_one_line
from tuner.health.measurements import Measurements, NetworkFacts, baseline_accuracy, baseline_loss, clipping
from tuner.health.measures import PROBE_ROWS, Probe


def probe_of(lane: Lane) -> Part:
    """Return the rows on which the health of a lane is measured: a fixed sample of those that count in the loss."""
    counting = lane.train.counting()
    return lane.train.take(counting[seeds.probe_rows(lane.seed, len(counting), PROBE_ROWS)])


def measurements_of(lane: Lane, probe: Probe, history: History) -> Measurements:
    """Return what is to hold the measures of a lane: empty, or those so far where it goes on from a state."""
    measurements = Measurements(_facts(lane, probe), history=history)
    earlier = lane.state.health if lane.state is not None else None
    if earlier is not None:
        for name in ("epochs", "layers", "network"):
            getattr(measurements, name).extend(getattr(earlier, name))
    return measurements


def updates_left(lane: Lane, epochs: int) -> float:
    """Return how many updates a lane has left after some epochs, in units of the last one: by their learning rates."""
    _, config = optimizer_config(lane.hyperparameters, lane.scheduled_steps)
    rates = learning_rates(config["learning_rate"], 0, lane.steps * lane.epochs)
    last, left = rates[epochs * lane.steps - 1], rates[epochs * lane.steps :].sum()
    return float(left / last) if last > 0 else math.inf


def _facts(lane: Lane, probe: Probe) -> NetworkFacts:
    values = lane.hyperparameters
    cls, config = optimizer_config(values, lane.scheduled_steps)
    layers, built_in = probe.layers, values["model"] is None
    initializer = None
    if built_in:
        activation = network.activation_name(values["activation"])
        layers = tuple(
            replace(layer, activation=activation) if layer.activation == "chosen" else layer for layer in layers
        )
        initializer = network.auto_initializer(values["kernel_initializer"], values["activation"])
    return NetworkFacts(
        layers=layers,
        loss=network.loss_name(lane.output.loss),
        optimizer=cls.__name__.lower(),
        learning_rate=float(learning_rates(config["learning_rate"], 0, 1)[0]),
        momentum=_number(config.get("momentum")),
        clipnorm=clipping(config),
        task=lane.task,
        normalization=values["batch_normalization"] is not None if built_in else probe.normalization,
        residual=bool(values["residual"]) if built_in else probe.residual,
        kernel_initializer=initializer if isinstance(initializer, str) else None,
        bias_initializer=bias if built_in and isinstance(bias := values["bias_initializer"], str) else None,
        batch_size=int(values["batch_size"]),
        n_rows=len(lane.train),
        baseline_loss=baseline_loss(network.loss_name(lane.output.loss), lane.train.y, lane.train.sample_weight),
        baseline_accuracy=baseline_accuracy(lane.task, lane.train.y),
        notes=probe.notes,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


_said: set[str] = set()


def warn_unmeasured(error: Exception) -> None:
    """Say once that a network's health cannot be measured: that is no reason not to train it."""
    cause = in_one_line(error)
    if cause not in _said:
        _said.add(cause)
        warnings.warn(
            f"the health of the network is not measured, for it cannot be: {cause}", UserWarning, stacklevel=2
        )
