"""What ``tuner diagnose`` reads: models and data from files, and the reports that studies have stored."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.errors import DataError, ModelFileError, SearchError, TunerError

if TYPE_CHECKING:
    from tuner.health.report import HealthReport

_PAIRS = (("X", "y"), ("x_train", "y_train"), ("X_train", "y_train"))


def diagnose_files(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    target: str | None = None,
    epochs: int = 5,
    batch_size: int = 32,
) -> HealthReport:
    """Train a saved model for some epochs and say what its gradients are like.

    Parameters
    ----------
    model : str or path
        A compiled model that Keras saved, ``.keras`` or ``.h5``. The file stays as it is.
    data, target
        As `load_data` takes them.
    epochs, batch_size : int

    Raises
    ------
    ModelFileError
        If the model cannot be loaded, or has no optimizer and loss.
    DataError
        If the data cannot be read, or are not what the model takes.
    """
    X, y = load_data(data, target)
    path = Path(model)
    if not path.is_file():
        raise ModelFileError(f"there is no model {path}. Name a file that Keras wrote: model.save('model.keras').")
    from tuner.backend import keras, tensorflow

    try:
        network = keras.saving.load_model(path)
    except Exception as error:  # Keras and h5py raise all kinds
        raise ModelFileError(
            f"{path} cannot be loaded as a Keras model: {str(error).strip().splitlines()[0]} Expected a file that "
            "model.save('model.keras') wrote, whose own classes are registered."
        ) from error
    if getattr(network, "optimizer", None) is None or not getattr(network, "compiled", True):
        raise ModelFileError(f"{path} holds a model without an optimizer: compile it before it is saved.")
    expected = getattr(network, "input_shape", None)  # a subclassed model has none
    if isinstance(expected, (list, dict)):
        raise DataError(f"{path} has several inputs; a model of one input is expected.")
    if expected is not None and not _fits(expected, X.shape):
        raise DataError(
            f"{path} takes inputs of shape {_shape(expected)}, and {data} has X of shape {_shape(X.shape)}."
        )
    from tuner.health import diagnose

    try:
        return diagnose(network, X, y, epochs=epochs, batch_size=batch_size)
    except TunerError:
        raise
    except (ValueError, TypeError, tensorflow.errors.OpError) as error:
        raise DataError(
            f"{path} cannot be trained on {data}, with X of shape {_shape(X.shape)} and y of shape {_shape(y.shape)}: "
            f"{_cause(error)} Give the inputs that the model takes and the targets that its loss takes: classes from "
            "0 on, or as many columns as the model has outputs."
        ) from error


def load_data(path: str | os.PathLike[str], target: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (n, ...) and the targets (n,) or (n, k) of a file.

    Parameters
    ----------
    path : str or path
        ``.npz`` with the arrays ``X`` and ``y``, or ``x_train`` and ``y_train``; or ``.csv`` with a line of headings
        and numbers below.
    target : str, optional
        The heading of a CSV file's target; the last column by default.

    Raises
    ------
    DataError
        If the file is missing or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no data file {path}.")
    if path.suffix == ".npz":
        X, y = _from_npz(path)
    elif path.suffix == ".csv":
        X, y = _from_csv(path, target)
    else:
        raise DataError(f"{path} must be a .npz file with the arrays X and y, or a .csv file with a line of headings.")
    if len(X) != len(y) or not len(X):
        raise DataError(f"{path}: X has {len(X)} rows and y has {len(y)}; as many are expected, and at least one.")
    return X, y


def _from_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path) as arrays:
            for x_name, y_name in _PAIRS:
                if x_name in arrays and y_name in arrays:
                    X, y = arrays[x_name], arrays[y_name]
                    break
            else:
                raise DataError(
                    f"{path} holds the arrays {', '.join(arrays) or 'none'}; X and y, or x_train and y_train, are "
                    "expected."
                )
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error}. Write it with np.savez(path, X=X, y=y).") from error
    for name, array in ((x_name, X), (y_name, y)):
        if array.dtype.kind not in "biuf" or array.ndim < 1:
            raise DataError(f"{path}: {name} must be an array of numbers; got {array.dtype} of shape {array.shape}.")
    return X, y


def _from_csv(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' own errors are ValueErrors
        raise DataError(f"{path} cannot be read as CSV: {str(error).strip()}") from error
    columns = list(map(str, table.columns))
    table.columns = pd.Index(columns)
    if len(columns) < 2:
        raise DataError(f"{path} has the columns {columns}; features and a target are expected, separated by commas.")
    target = columns[-1] if target is None else target
    if target not in columns:
        raise DataError(f"{path} has no column {target!r} for the target; it has {', '.join(columns)}.")
    for name in columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise DataError(f"{path}: the column {name!r} must hold numbers; got for instance {table[name].iloc[0]!r}.")
        if table[name].isna().any():
            raise DataError(f"{path}: the column {name!r} has {int(table[name].isna().sum())} empty cells.")
    return table.drop(columns=target).to_numpy(dtype=float), table[target].to_numpy()


def _fits(expected: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    """Whether arrays of a shape are what a model takes; the rows do not matter."""
    return len(expected) == len(shape) and all(n in (None, m) for n, m in zip(expected[1:], shape[1:], strict=True))


def _cause(error: Exception) -> str:
    """Return an error in one line, without the names of TensorFlow's operations and all the labels."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith("Graph execution error"):  # what went wrong comes after where it did
        lines = [line for line in lines[2:] if not line.startswith((" ", "\t", "<"))] or lines
    line = re.sub(r"\{\{.*?\}\}|\[Op:.*|Label values: .*", "", lines[0]).strip()
    return line if line.endswith(".") else f"{line}."


def _shape(shape: tuple[Any, ...]) -> str:
    return "(" + ", ".join(["n", *("any" if size is None else str(size) for size in shape[1:])]) + ")"


def stored_report(storage: str, name: str, number: int) -> HealthReport:
    """Return what a trial of a study said of its gradients, without the numbers.

    Raises
    ------
    SearchError
        If there is no such study or trial, or the trial's gradients were not measured.
    """
    from tuner.results import health_of

    trials = {trial.number: trial for trial in _trials(storage, name)}
    if number not in trials:
        known = f"0 to {max(trials)}" if trials else "none"
        raise SearchError(f"the study {name!r} has no finished trial {number} (its trials: {known}).")
    report = health_of(trials[number])
    if report is None:
        raise SearchError(f"trial {number} of {name!r} says nothing of its gradients: they were not measured.")
    return report


def stored_verdicts(storage: str, name: str) -> list[str]:
    """Return a line for every trial of a study, its score and what was wrong with it, and what the sick ones share.

    Raises
    ------
    SearchError
        If there is no such study.
    """
    from tuner.health.summary import summarize
    from tuner.results import health_of
    from tuner.search import score_of, state_of

    lines, known = [], []
    for trial in _trials(storage, name):
        report, score = health_of(trial), score_of(trial)
        told = "not measured"
        if report is not None:
            known.append((trial.params, report.verdict, report.findings, report.score))
            besides = [c for c in dict.fromkeys(report.conditions) if c != report.verdict]
            told = f"health {report.score:.2f}  {report.verdict}" + (f"  ({', '.join(besides)})" if besides else "")
        shown = f"{score:.4f}" if score is not None else "      "
        lines.append(f"trial {trial.number:3d}  {state_of(trial):8s}  {shown:>8s}  {told}")
    return [*lines, *summarize(known).lines()]


def _trials(storage: str, name: str) -> list[Any]:
    from tuner.search import finished_trials, load_study, study_names

    study = load_study(storage, name)
    if study is None:
        known = ", ".join(map(repr, study_names(storage))) or "none"
        raise SearchError(f"there is no study {name!r} in {storage} (its studies: {known}).")
    return finished_trials(study)
