"""The data of the studies: from the folder that ``TUNER_DATA_HOME`` names, else downloaded.

The folder may hold ``mnist.npz`` as ``keras.datasets`` keeps it, ``adult-train.csv`` and ``adult-test.csv`` as the UCI
repository has them but for the comment lines, and ``california_housing.csv``.
"""

import os
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import fetch_california_housing, fetch_openml, load_digits
from sklearn.model_selection import PredefinedSplit

from tuner.errors import DataError

ADULT_COLUMNS = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain "
    "capital-loss hours-per-week native-country class"
).split()


def mnist(n_train=60_000, n_test=10_000):
    """Return X (n, 784) of 0 to 255 and y (n,): the first rows of the training part, then of the test part.

    The digits of scikit-learn stand in where MNIST is absent: `stand_in` says so.
    """
    (X, y), (X_test, y_test) = _mnist() or _digits()
    rows = np.concatenate([X[:n_train], X_test[:n_test]]).astype("float32")
    return rows, np.concatenate([y[:n_train], y_test[:n_test]])


def unit_mnist(n_train=60_000, n_test=10_000):
    """Return what `mnist` does, with pixels from 0 to 1."""
    X, y = mnist(n_train, n_test)
    return X / 255, y


def mnist_holdout(n_train=60_000, n_test=10_000, images=unit_mnist):
    """Return a study's ``data`` and its ``cv``, which trains on the training part of MNIST and scores on the rest.

    `images` is `mnist`, or a function that makes other inputs of what it gives.
    """
    (X, _), (X_test, _) = _mnist() or _digits()
    split = PredefinedSplit(np.repeat([-1, 0], [min(n_train, len(X)), min(n_test, len(X_test))]))
    return {"data": partial(images, n_train, n_test), "cv": split}


def stand_in():
    """Return the sentence that an answer ends with where the digits stood in for MNIST, else an empty string."""
    return "" if _mnist() else " MNIST was not at hand: these are scikit-learn's digits, of 8 x 8 pixels."


def adult(every=1):
    """Return the census table X (48,842 rows, 14 columns, missing values as NaN) and y, whether income is above 50K.

    `every` 4 leaves every fourth row.
    Columns of words are of pandas' categorical type.
    """
    train, test = _file("adult-train.csv"), _file("adult-test.csv")
    if train and test:
        parts = [pd.read_csv(path, names=ADULT_COLUMNS, skipinitialspace=True, na_values="?") for path in (train, test)]
        table = pd.concat(parts, ignore_index=True)
    else:
        table = _downloaded("adult", lambda: fetch_openml("adult", version=2, as_frame=True)).frame
    income = table.pop("class").astype(str).str.startswith(">50K")
    return _categorical(table)[::every], income.to_numpy().astype(int)[::every]


def housing(every=1):
    """Return California's districts X (20,640 rows; columns as their source has them) and y, median values in USD.

    `every` 2 leaves every second row.
    """
    if path := _file("california_housing.csv"):
        table = pd.read_csv(path)
        y = table.pop("median_house_value").to_numpy()
    else:
        fetched = _downloaded("California housing", lambda: fetch_california_housing(as_frame=True))
        table, y = fetched.data, fetched.target.to_numpy() * 100_000
    return _categorical(table)[::every], y[::every]


def _categorical(table):
    return table.astype({name: "category" for name in table.select_dtypes(exclude="number")})


def _file(name):
    path = Path(os.environ.get("TUNER_DATA_HOME") or os.devnull, name)
    return path if path.is_file() else None


@cache
def _mnist():
    if path := _file("mnist.npz"):
        with np.load(path) as arrays:
            parts = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    else:
        from tuner.backend import keras

        try:
            parts = keras.datasets.mnist.load_data()
        except Exception:  # offline: whatever urllib or the file system raises
            return None
    return [(X.reshape(len(X), -1), y.astype(int)) for X, y in parts]


@cache
def _digits():
    X, y = load_digits(return_X_y=True)
    X = X * (255 / 16)
    return [(X[:1437], y[:1437]), (X[1437:], y[1437:])]


def _downloaded(name, fetch):
    try:
        return fetch()
    except Exception as error:
        raise DataError(
            f"{name} is not in the folder that TUNER_DATA_HOME names ({os.environ.get('TUNER_DATA_HOME')!r}), and the "
            f"download failed: {type(error).__name__}: {error}. Put the file there, or run this once online."
        ) from error
