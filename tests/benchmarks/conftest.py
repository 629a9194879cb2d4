"""What the benchmarks share: the data, a fresh MLflow store, and the list of what was measured."""

import os
from pathlib import Path

import mlflow
import numpy as np
import pytest
import table
from measuring import SHARE

from tuner.tracking.mlflow import MlflowTracker

MEASURED = pytest.StashKey[list[table.Row]]()


def pytest_configure(config):
    config.stash[MEASURED] = []


@pytest.fixture
def record(request):
    """Keep a row for the table, and fail where its ratio is below a bound."""

    def keep(row, at_least):
        request.config.stash[MEASURED].append(row)
        assert row.ratio >= at_least or SHARE < 1  # less work leaves the fixed costs as they are

    return keep


def pytest_terminal_summary(terminalreporter, config):
    if rows := config.stash[MEASURED]:
        terminalreporter.section("speed")
        terminalreporter.write_line(table.markdown(rows))


def pytest_sessionfinish(session):
    rows = session.config.stash[MEASURED]
    if rows and SHARE == 1:  # a try at less work is no result
        table.save(table.merged(table.load(), rows))


@pytest.fixture(scope="session")
def mnist():
    """The training images: X (60000, 784) in [0, 1], y (60000,)."""
    path = Path(os.environ.get("TUNER_DATA_HOME", "")) / "mnist.npz"
    if not path.is_file():
        pytest.skip("TUNER_DATA_HOME names no folder that holds mnist.npz (as keras.datasets.mnist keeps it)")
    with np.load(path) as data:
        return (data["x_train"].reshape(-1, 784) / 255).astype("float32"), data["y_train"]


@pytest.fixture(scope="session")
def tracker(tmp_path_factory):
    """A tracker with a fresh MLflow store, whose tables are there: making them is part of no measured work."""
    folder = tmp_path_factory.mktemp("mlflow")
    tracker = MlflowTracker(f"sqlite:///{folder / 'mlflow.db'}", artifact_location=str(folder / "artifacts"))
    mlflow.MlflowClient(tracker.uri).search_experiments()
    return tracker
