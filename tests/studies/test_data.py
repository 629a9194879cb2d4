import numpy as np
import pandas as pd
import pytest

from tuner.backend import keras
from tuner.errors import DataError


@pytest.fixture
def data(monkeypatch):
    """The module, as a study file sees it, without a network."""
    import sys
    from pathlib import Path

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.syspath_prepend(Path(__file__).parent.parent.parent / "studies")
    monkeypatch.setitem(sys.modules, "data", None)  # whatever it was comes back afterwards
    del sys.modules["data"]
    monkeypatch.setattr(keras.datasets.mnist, "load_data", offline)
    import data

    monkeypatch.setattr(data, "fetch_openml", offline)
    monkeypatch.setattr(data, "fetch_california_housing", offline)
    return data


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNER_DATA_HOME", str(tmp_path))
    return tmp_path


def test_mnist_comes_from_the_folder_with_its_own_split(data, home):
    rng = np.random.default_rng(0)
    parts = {f"x_{part}": rng.integers(0, 256, (n, 28, 28), "uint8") for part, n in (("train", 50), ("test", 20))}
    labels = {"y_train": np.arange(50, dtype="uint8") % 10, "y_test": np.arange(20, dtype="uint8") % 10}
    np.savez(home / "mnist.npz", **parts, **labels)
    holdout = data.mnist_holdout(30, 10, images=data.mnist)
    X, y = holdout["data"]()
    np.testing.assert_array_equal(X[30], parts["x_test"][0].ravel())
    np.testing.assert_array_equal(y, [*labels["y_train"][:30], *labels["y_test"][:10]])
    [(train, test)] = holdout["cv"].split()
    np.testing.assert_array_equal([*train, *test], np.arange(40))
    assert data.stand_in() == ""


def test_digits_stand_in_for_mnist_and_the_answer_says_so(data, home):
    holdout = data.mnist_holdout()
    X, y = holdout["data"]()
    [(train, test)] = holdout["cv"].split()
    assert X.shape == (1797, 64) and X.max() == 1 and len(train) + len(test) == len(X) == len(y)
    assert "scikit-learn's digits" in data.stand_in()


def test_tables_come_from_the_folder(data, home):
    (home / "adult-train.csv").write_text("39, State-gov" + ", 1" * 12 + ", <=50K\n50, ?" + ", 1" * 12 + ", >50K\n")
    (home / "adult-test.csv").write_text("25, Private" + ", 1" * 12 + ", >50K.\n")
    X, y = data.adult()
    assert X.shape == (3, 14) and X["workclass"].isna().tolist() == [False, True, False]
    assert X["workclass"].dtype == "category" and X["age"].dtype == int and y.tolist() == [0, 1, 1]
    pd.DataFrame({"rooms": [3.0], "median_house_value": [1e5]}).to_csv(home / "california_housing.csv", index=False)
    X, y = data.housing()
    assert X.columns.tolist() == ["rooms"] and y.tolist() == [1e5]


@pytest.mark.parametrize("name", ["adult", "housing"])
def test_without_file_and_network_an_error_says_what_to_do(data, home, name):
    with pytest.raises(DataError, match="TUNER_DATA_HOME.*no network.*Put the file there"):
        getattr(data, name)()
