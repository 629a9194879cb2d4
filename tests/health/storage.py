"""What was measured of many networks, in one small file: what `judge` reads, in two bytes a number.

A number keeps the sign, the exponent and seven bits of a float32 (bfloat16: a relative error of 0.2 % at most, and NaN,
infinities and 0 as they are), a number of a series eight bits more. Series are kept whole; of a long training measured
epochs are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tuner.health.measurements import LAYER_MEASURES, NETWORK_MEASURES, LayerFacts, Measurements, NetworkFacts

#: What the diagnosis reads of the layers and of the network at all epochs, and of them before training only; the rest
#: is not stored, and comes back as NaN.
LAYER_STORED = ("grad_norm", "error_rms", "update_ratio", "saturation", "dead_units", "non_finite")
NETWORK_STORED = ("loss", "grad_norm", "output_wrong", "non_finite")
LAYER_BEFORE = ("weight_norm",)
NETWORK_BEFORE = ("input_mean", "input_rms", "input_max", "input_offset", "input_spread")

#: Trainings of more epochs are measured at the first few and at every fourth.
LONG, FEW, EVERY = 20, 3, 4


def kept(epochs: Sequence[int]) -> list[int]:
    """Return the places of the measured epochs that are stored."""
    if len(epochs) <= LONG:
        return list(range(len(epochs)))
    return [i for i, epoch in enumerate(epochs) if epoch < FEW or epoch % EVERY == 0 or i == len(epochs) - 1]


def _rounded(values: np.ndarray, n_bits: int) -> np.ndarray:
    """Return the bits of float32 numbers whose last `n_bits` are rounded to 0."""
    with np.errstate(over="ignore"):
        bits = np.asarray(values, dtype="float32").view("uint32")
    magnitude = bits & 0x7FFFFFFF
    half, step, infinite = 1 << (n_bits - 1), 1 << n_bits, 0x7F800000
    mask = 0xFFFFFFFF - (step - 1)
    rounded = np.minimum((magnitude + half) & mask, 0x7F7FFFFF & mask)
    rounded = np.where((magnitude > 0) & (rounded == 0), step, rounded)  # what is small is not 0
    rounded = np.where(magnitude == infinite, infinite, np.where(magnitude > infinite, 0x7FC00000, rounded))
    return (rounded | (bits & 0x80000000)).astype("uint32")


def _bytes(values: list[np.ndarray], n: int) -> np.ndarray:
    """Return the first n bytes of all numbers, (n, size): the first bytes of all, then the second, and so on."""
    flat = np.concatenate([np.ravel(array) for array in values]) if values else np.array([])
    bits = _rounded(flat, 32 - 8 * n)
    return np.stack([(bits >> shift & 0xFF).astype("uint8") for shift in (24, 16, 8)[:n]])


def _numbers(planes: np.ndarray) -> np.ndarray:
    bits = np.zeros(planes.shape[1], dtype="uint32")
    for plane, shift in zip(planes, (24, 16, 8), strict=False):
        bits |= plane.astype("uint32") << shift
    return bits.view("float32").astype(float)


def write(path: Path, networks: Mapping[str, Sequence[Measurements]]) -> None:
    """Store the measurements of the folds of every network."""
    plain: list[dict] = []
    streams: dict[str, list[np.ndarray]] = {}

    def put(name: str, values: np.ndarray) -> None:
        streams.setdefault(name, []).append(values)

    for key, folds in networks.items():
        for measured in folds:
            places = kept(measured.epochs)
            epochs = [measured.epochs[i] for i in places]
            lengths = {name: len(series) for name, series in measured.history.items()}
            plain.append({"key": key, "facts": asdict(measured.facts), "epochs": epochs, "series": lengths})
            for measure in LAYER_STORED:
                put("layer " + measure, measured.layer(measure)[places].T)
            for measure in LAYER_BEFORE:
                put("layer " + measure, measured.layer(measure)[:1])
            for measure in NETWORK_STORED:
                put("network " + measure, measured.of_network(measure)[places])
            for measure in NETWORK_BEFORE:
                put("network " + measure, measured.of_network(measure)[:1])
            for name, series in measured.history.items():
                put("series " + name, np.asarray(series, dtype=float))
    arrays = {name: _bytes(values, 3 if name.startswith("series") else 2) for name, values in streams.items()}
    head = np.frombuffer(json.dumps(plain).encode(), dtype="uint8")
    np.savez_compressed(path, networks=head, **arrays)


def read(path: Path) -> dict[str, list[Measurements]]:
    """Return what `write` stored, as far as it was stored."""
    with np.load(path) as stored:
        plain = json.loads(stored["networks"].tobytes())
        streams = {name: _numbers(stored[name]) for name in stored.files if name != "networks"}
    taken = dict.fromkeys(streams, 0)

    def take(name: str, n: int) -> np.ndarray:
        taken[name] += n
        return streams[name][taken[name] - n : taken[name]]

    found: dict[str, list[Measurements]] = {}
    for entry in plain:
        facts = entry["facts"]
        facts = NetworkFacts(
            **{**facts, "layers": tuple(LayerFacts(**layer) for layer in facts["layers"]), "notes": ()}
        )
        n_epochs, n_layers = len(entry["epochs"]), len(facts.layers)
        layers = np.full((n_epochs, n_layers, len(LAYER_MEASURES)), np.nan)
        network = np.full((n_epochs, len(NETWORK_MEASURES)), np.nan)
        for measure in LAYER_STORED:
            values = take("layer " + measure, n_epochs * n_layers).reshape(n_layers, n_epochs)
            layers[:, :, LAYER_MEASURES.index(measure)] = values.T
        for measure in LAYER_BEFORE:
            layers[:1, :, LAYER_MEASURES.index(measure)] = take("layer " + measure, n_layers)
        for measure in NETWORK_STORED:
            network[:, NETWORK_MEASURES.index(measure)] = take("network " + measure, n_epochs)
        for measure in NETWORK_BEFORE:
            network[:1, NETWORK_MEASURES.index(measure)] = take("network " + measure, 1)
        history = {name: take("series " + name, n).tolist() for name, n in entry["series"].items()}
        measured = Measurements(facts, list(entry["epochs"]), list(layers), list(network), history)
        found.setdefault(entry["key"], []).append(measured)
    return found
