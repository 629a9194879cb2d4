"""Randomness as pure functions of (random_state, layer or epoch), shared by every engine.

Each function hashes its arguments with NumPy's ``SeedSequence``, whose output is the same on every platform and does
not depend on what was drawn before. The step within an epoch enters through the counter that Keras's stateful seed
generators increment at every call, which starts at zero in each epoch.
"""

from __future__ import annotations

import numpy as np

_WEIGHTS, _ORDER, _MASK, _SPLIT, _PROBE, _SCALE = range(6)


def _draw(seed: int, *key: int) -> int:
    # 31 bits: Keras adds offsets to seeds that must fit a signed 32-bit integer.
    return int(np.random.SeedSequence([seed, *key]).generate_state(1)[0] >> 1)


def _permutation(n: int, seed: int, *key: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(_draw(seed, *key))).permutation(n)


def weight_seed(seed: int, index: int) -> int:
    """Return the seed of the initial values of a weight, counted from 0 at the input, kernel before bias."""
    return _draw(seed, _WEIGHTS, index)


def mask_seed(seed: int, layer: int, epoch: int) -> int:
    """Return the seed of the random masks that a layer draws in an epoch; the step is the generator's counter."""
    return _draw(seed, _MASK, layer, epoch)


def split_seed(seed: int) -> int:
    """Return the seed of the split that early stopping watches."""
    return _draw(seed, _SPLIT)


def probe_rows(seed: int, n_samples: int, n_rows: int) -> np.ndarray:
    """Return which samples (n_rows,) health is measured on; where there are fewer, some come more than once."""
    return np.resize(_permutation(n_samples, seed, _PROBE)[:n_rows], n_rows)


def scaling_rows(seed: int, n_samples: int, n_rows: int) -> np.ndarray:
    """Return which samples, at most n_rows, initial weights are scaled by."""
    return _permutation(n_samples, seed, _SCALE)[:n_rows]


def batch_order(seed: int, epoch: int, n_samples: int) -> np.ndarray:
    """Return the order (n_samples,) in which an epoch visits the samples."""
    return _permutation(n_samples, seed, _ORDER, epoch)
