import mlflow
import mlflow.utils.autologging_utils as autologging
import pytest
from sklearn.linear_model import LinearRegression

from tuner.tracking.autolog import autologging_off

X, Y = [[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0]


@pytest.fixture
def sklearn_autolog(tmp_path, monkeypatch):
    """A user's own autologging, into a store of their own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own.db")
    monkeypatch.chdir(tmp_path)
    mlflow.sklearn.autolog(log_models=False, silent=True)
    yield mlflow.MlflowClient()
    mlflow.sklearn.autolog(disable=True, silent=True)


# MLflow's tables use what SQLAlchemy 2.1 deprecates.
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_a_users_autologging_makes_no_runs_within_a_search_and_is_on_again_afterwards(sklearn_autolog):
    with autologging_off():
        LinearRegression().fit(X, Y)
        with autologging_off():  # a search within a search
            LinearRegression().fit(X, Y)
        LinearRegression().fit(X, Y)
    assert sklearn_autolog.search_runs(["0"]) == []

    LinearRegression().fit(X, Y)
    assert len(sklearn_autolog.search_runs(["0"])) == 1


def test_autologging_is_on_again_after_an_error():
    with pytest.raises(KeyError), autologging_off():
        raise KeyError
    assert not autologging._AUTOLOGGING_GLOBALLY_DISABLED


def test_what_the_user_switched_off_stays_off():
    with autologging.disable_autologging():
        with autologging_off():
            pass
        assert autologging._AUTOLOGGING_GLOBALLY_DISABLED
