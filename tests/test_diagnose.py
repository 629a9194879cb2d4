"""The command ``tuner diagnose``: models and data from files, and what studies have stored."""

from xml.etree import ElementTree

import keras
import numpy as np
import optuna
import pytest
from click.testing import CliRunner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import create_trial

from tuner import cli
from tuner.errors import DataError, ModelFileError, SearchError
from tuner.evaluation import Outcome
from tuner.health.diagnosis import judge
from tuner.rounds import attributes
from tuner.spaces import quiet
from tuner.testing.health import make_measurements


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def diagnosed(monkeypatch):
    """What the diagnosis is called with."""
    calls = []

    def diagnose(model, X, y, **settings):
        calls.append((model, X, y, settings))
        return judge([make_measurements("dead")])

    monkeypatch.setattr("tuner.health.diagnose", diagnose, raising=False)
    return calls


@pytest.fixture
def model():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
    network.compile("sgd", "mean_squared_error")
    network.save("model.keras")
    return network


X, Y = np.arange(30.0).reshape(10, 3), np.arange(10.0)


def run(*arguments):
    result = CliRunner().invoke(cli.tuner, ["diagnose", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_saved_model_is_diagnosed_on_arrays(model, diagnosed):
    np.savez("data.npz", X=X, y=Y)
    result = run("model.keras", "data.npz")
    assert result.exit_code == 0 and result.output.strip() == str(judge([make_measurements("dead")])).strip()
    [(loaded, given_X, given_y, settings)] = diagnosed
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])
    np.testing.assert_array_equal(given_X, X)
    np.testing.assert_array_equal(given_y, Y)
    assert settings == {"epochs": 5, "batch_size": 32}


def test_options_reach_the_diagnosis_and_pictures_are_written(model, diagnosed, tmp_path):
    np.savez("data.npz", x_train=X, y_train=Y, x_test=X)
    result = run("model.keras", "data.npz", "--epochs", 2, "--batch-size", 8, "--plots", "deep/er")
    assert diagnosed[0][3] == {"epochs": 2, "batch_size": 8}
    for name in ("health_map.svg", "health_profile.svg"):
        assert name in result.output
        ElementTree.parse(tmp_path / "deep" / "er" / name)


@pytest.mark.parametrize(("options", "column"), [((), 3), (("--target", "b"), 1)])
def test_a_table_has_its_target_last_or_where_it_is_said(model, diagnosed, options, column):
    table = np.column_stack([X, Y])
    np.savetxt("data.csv", table, delimiter=",", header="a,b,c,d", comments="")
    run("model.keras", "data.csv", *options)
    [(_, given_X, given_y, _)] = diagnosed
    np.testing.assert_array_equal(given_y, table[:, column])
    np.testing.assert_array_equal(given_X, np.delete(table, column, axis=1))


def write_csv(text):
    with open("data.csv", "w") as file:
        file.write(text)
    return "data.csv"


def write_npz(**arrays):
    np.savez("data.npz", **arrays)
    return "data.npz"


def write_text(name):
    with open(name, "w") as file:
        file.write("nothing of the kind")
    return name


BAD_DATA = {
    "missing": (lambda: "data.npz", "there is no data file data.npz"),
    "other arrays": (lambda: write_npz(images=X), "holds the arrays images; X and y"),
    "no archive": (lambda: write_text("data.npz"), "data.npz cannot be read"),
    "objects": (lambda: write_npz(X=X, y=np.array(list("abcdefghij"))), "y must be an array of numbers; got <U1"),
    "rows": (lambda: write_npz(X=X, y=Y[:3]), "X has 10 rows and y has 3"),
    "another shape": (lambda: write_npz(X=X[:, :2], y=Y), r"takes inputs of shape \(n, 3\).*X of shape \(n, 2\)"),
    "more dimensions": (lambda: write_npz(X=X[..., None], y=Y), r"X of shape \(n, 3, 1\)"),
    "another ending": (lambda: write_text("data.txt"), "must be a .npz file .* or a .csv file"),
    "text": (lambda: write_csv("a,b,c,d\n1,2,three,4\n"), "column 'c' must hold numbers; got for instance 'three'"),
    "holes": (lambda: write_csv("a,b,c,d\n1,,3,4\n"), "column 'b' has 1 empty cells"),
    "one column": (lambda: write_csv("a;b\n1;2\n"), "features and a target are expected, separated by commas"),
    "empty": (lambda: write_csv(""), "cannot be read as CSV"),
}


@pytest.mark.parametrize(("data", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_data_that_cannot_be_used_are_an_error_that_says_why(model, diagnosed, data, message):
    with pytest.raises(DataError, match=message):
        run("model.keras", data())
    assert not diagnosed


LABELS = np.arange(10) % 2
BAD_TARGETS = {
    "labels": ("sparse_categorical_crossentropy", 10 + LABELS, r"y of shape \(n\).*label value of 1[01].*\[0, 3\)"),
    "columns": ("categorical_crossentropy", np.ones((10, 5)), r"X of shape \(n, 3\) and y of shape \(n, 5\).*target"),
}


@pytest.mark.parametrize(("loss", "targets", "message"), BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_targets_that_the_loss_does_not_take_are_one_line_that_says_what_was_given(loss, targets, message):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")])
    network.compile("sgd", loss)
    network.save("model.keras")
    with pytest.raises(
        DataError, match=f"model.keras cannot be trained on data.npz.*{message}.*classes from 0"
    ) as caught:
        run("model.keras", write_npz(X=X, y=targets), "--epochs", 1)
    assert "\n" not in str(caught.value) and "{{" not in str(caught.value)


@keras.saving.register_keras_serializable("tuner_tests")
class Subclassed(keras.Model):
    """A network whose own code calls the layers, and which does not say what shape its inputs have."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.last = keras.layers.Dense(1)

    def call(self, inputs):
        return self.last(inputs)


def test_a_subclassed_model_is_diagnosed_on_what_it_was_built_for():
    network = Subclassed()
    network.compile("sgd", "mean_squared_error")
    network(X)
    network.save("model.keras")
    assert "health score" in run("model.keras", write_npz(X=X / 30, y=Y / 10), "--epochs", 1).output
    with pytest.raises(DataError, match=r"cannot be trained on data.npz, with X of shape \(n, 2\)"):
        run("model.keras", write_npz(X=X[:, :2], y=Y), "--epochs", 1)


def test_an_unknown_target_is_an_error_that_names_the_columns(model, diagnosed):
    with pytest.raises(DataError, match="no column 'z' for the target; it has a, b"):
        run("model.keras", write_csv("a,b\n1,2\n"), "--target", "z")


def test_a_model_that_cannot_be_used_is_an_error_that_says_why(diagnosed):
    data = write_npz(X=X, y=Y)
    with pytest.raises(ModelFileError, match="there is no model missing.keras"):
        run("missing.keras", data)
    with pytest.raises(ModelFileError, match="broken.keras cannot be loaded as a Keras model"):
        run(write_text("broken.keras"), data)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]).save("plain.keras")
    with pytest.raises(ModelFileError, match="without an optimizer: compile it"):
        run("plain.keras", data)


# Studies --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def study():
    """A study of six trials: dead with large learning rates, one of them never measured."""
    with quiet():
        made = optuna.create_study(
            study_name="digits", storage=JournalStorage(JournalFileBackend("journal.log")), direction="maximize"
        )
    for i in range(12):
        health = judge([make_measurements("dead" if i % 2 else "healthy")]) if i < 11 else None
        outcome = Outcome(test_scores=[{"score": 0.9 - i / 100}], start_time=1.0, end_time=2.0, health=health)
        rate = 0.5 if i % 2 else 0.001
        made.add_trial(
            create_trial(
                value=0.9 - i / 100,
                params={"rate": rate},
                distributions={"rate": optuna.distributions.FloatDistribution(1e-4, 1, log=True)},
                user_attrs=attributes(outcome),
            )
        )
    return ["--study", "digits", "--storage", "journal.log"]


def test_a_study_lists_the_verdicts_of_its_trials_and_what_the_sick_ones_share(study):
    lines = run(*study).output.splitlines()
    verdict = judge([make_measurements("dead")]).verdict
    assert lines[0] == "trial   0  complete    0.9000  health 1.00  healthy"
    assert verdict in lines[1] and lines[11].endswith("not measured")
    assert lines[12].startswith("health: 5 of 11 trials were sick")
    assert any("mostly with rate > 0.0224 (5 of 5 sick; else 0 of 6)" in line for line in lines[12:])


def test_a_trial_of_a_study_shows_its_whole_report(study):
    shown = run(*study, "--trial", 1).output
    assert shown.startswith(judge([make_measurements("dead")]).verdict) and "try " in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--study", "iris", "--storage", "journal.log"], r"no study 'iris' in journal.log \(its studies: 'digits'\)"),
        (["--study", "digits", "--storage", "other.log"], r"no study 'digits' in other.log \(its studies: none\)"),
        (["--study", "digits"], "no study 'digits' in mlruns/journal.log"),
        (["--study", "digits", "--storage", "journal.log", "--trial", "99"], r"trial 99 \(its trials: 0 to 11\)"),
        (["--study", "digits", "--storage", "journal.log", "--trial", "11"], "trial 11 of 'digits' says nothing"),
    ],
)
def test_what_no_study_has_is_an_error_that_says_what_there_is(study, arguments, message, tmp_path):
    with pytest.raises(SearchError, match=message):
        run(*arguments)
    assert not (tmp_path / "other.log").exists() and not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["model.keras"], ["model.keras", "data.npz", "--trial", "1"], ["model.keras", "--study", "digits"]],
)
def test_it_is_either_a_model_or_a_study(arguments):
    result = run(*arguments)
    assert result.exit_code == 2 and "Usage" in result.output
