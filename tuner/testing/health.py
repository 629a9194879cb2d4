"""Measurements made by hand, for tests of what becomes of them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tuner.health.measurements import LAYER_MEASURES, NETWORK_MEASURES, LayerFacts, Measurements, NetworkFacts

NAN = np.nan


def make_measurements(
    kind: Literal["healthy", "dead", "exploding"] = "healthy", *, layers: int = 3, epochs: int = 5, seed: int = 0
) -> Measurements:
    """Return what was measured of a classifier of ReLU layers.

    Parameters
    ----------
    kind : {"healthy", "dead", "exploding"}
        It learns; no unit of its hidden layers ever fires; its gradients grow until they are NaN in the last epoch.
    layers : int
        With the output layer.
    epochs : int
        After how many epochs training ended.
    seed : int
        Varies the values a little, as folds do.
    """
    hidden = [LayerFacts(f"hidden_{i}", "Dense", "relu", 32, 32, 1056) for i in range(1, layers)]
    facts = NetworkFacts(
        layers=(*hidden, LayerFacts("output", "Dense", "softmax", 10, 32, 330)),
        loss="categorical_crossentropy",
        optimizer="adam",
        learning_rate=0.001,
        task="multiclass",
        kernel_initializer="he_normal",
        batch_size=32,
        n_rows=320,
        baseline_loss=2.3,
        baseline_accuracy=0.1,
    )
    measurements = Measurements(facts)
    for epoch in range(epochs + 1):
        measure(measurements, epoch, kind, last=epoch == epochs, seed=seed)
    return measurements


def measure(measurements: Measurements, epoch: int, kind: str, last: bool = False, seed: int = 0) -> None:
    """Add what is measured after `epoch` epochs, the loss included; `last` makes an exploding network NaN."""
    n = len(measurements.facts.layers)
    rng = np.random.default_rng([seed, epoch])
    fall = 0.8**epoch
    of_layers = {
        "grad_norm": np.full(n, fall),
        "grad_rms": np.full(n, 0.03 * fall),
        "grad_zeros": np.full(n, 0.1),
        "error_rms": np.linspace(0.2, 0.3, n) * fall,
        "weight_norm": np.full(n, 8.0) + 0.1 * epoch,
        "update_ratio": np.full(n, NAN if epoch == 0 else 1e-3),
        "activation_mean": np.full(n, 0.4),
        "activation_variance": np.linspace(0.6, 0.4, n),
        "signal_variance": np.linspace(0.5, 0.35, n),
        "dead_units": np.full(n, 0.02),
        "slope": np.full(n, 0.7),
        "local_slope": np.full(n, 0.18),
        "non_finite": np.zeros(n),
    }
    of_network = {
        "loss": 0.05 + 2.25 * 0.4**epoch,
        "grad_norm": np.sqrt(n) * fall,
        "input_mean": 0.0,
        "input_rms": 1.0,
        "input_max": 3.0,
        "input_offset": 0.05,
        "input_spread": 0.05,
        "output_saturation": 0.1,
        "output_wrong": 0.0,
        "non_finite": 0.0,
    }
    hidden = slice(0, n - 1)
    if kind == "dead":
        for name in ("grad_norm", "grad_rms", "error_rms", "activation_mean", "slope", "local_slope"):
            of_layers[name][hidden] = 0.0
        for name in ("activation_variance", "signal_variance", "update_ratio"):
            of_layers[name][hidden] = 0.0
        of_layers["grad_zeros"][hidden] = of_layers["dead_units"][hidden] = 1.0
        of_network["loss"] = 2.3
    if kind == "exploding":
        for name in ("grad_norm", "grad_rms", "error_rms", "activation_variance"):
            of_layers[name] = of_layers[name] * 1e3 ** (epoch + 1)
        of_network |= {"loss": 2.3 * 10.0**epoch, "grad_norm": 1e3 ** (epoch + 1)}
        if last:
            for name in ("grad_norm", "grad_rms", "error_rms", "activation_variance", "update_ratio"):
                of_layers[name] = np.full(n, NAN)
            of_layers["non_finite"] = np.full(n, 100.0)
            of_network |= {"loss": NAN, "grad_norm": NAN, "non_finite": 100.0 * n}
    values = np.stack([of_layers.get(name, np.full(n, NAN)) for name in LAYER_MEASURES], axis=1)
    noisy = np.where(values == 1, values, values * rng.uniform(0.97, 1.0, size=values.shape))  # a share of all stays
    loss = float(of_network["loss"])
    if epoch > 0:
        before = measurements.history or {"loss": [], "test_loss": []}
        measurements.history = {"loss": [*before["loss"], loss], "test_loss": [*before["test_loss"], 1.05 * loss]}
    measurements.add(epoch, noisy, np.array([of_network[name] for name in NETWORK_MEASURES]))
