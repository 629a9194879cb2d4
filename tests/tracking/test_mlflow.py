import json
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen
from xml.etree import ElementTree

import mlflow
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tuner import Answer, KerasClassifier
from tuner.errors import TrackingError
from tuner.health.diagnosis import HealthReport, judge
from tuner.health.summary import summarize
from tuner.testing.health import make_measurements
from tuner.testing.trackers import TrackerTestCase, make_result, make_study, make_trial
from tuner.tracking.base import TrackingWarning
from tuner.tracking.mlflow import (
    HEALTH_METRICS,
    HEALTH_NUMBERS,
    METRICS_PER_BATCH,
    PARAM_LENGTH,
    VIEW_TAG,
    MlflowTracker,
    first_call,
    health_json,
    health_series,
    store_uri,
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One store for all tests here, each with an experiment of its own: to create one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    with first_call(uri):
        mlflow.MlflowClient(uri)
    return uri


@pytest.fixture
def make_tracker(uri, tmp_path):
    return lambda: MlflowTracker(uri, artifact_location=str(tmp_path / "artifacts"))


@pytest.fixture
def experiment(request):
    return request.node.name


@pytest.fixture
def client(uri):
    return mlflow.MlflowClient(uri)


def children(client, run_id):
    """The trials of a study in their order, found as MLflow's page finds them."""
    experiment_id = client.get_run(run_id).info.experiment_id
    runs = client.search_runs([experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'")
    return sorted(runs, key=lambda run: run.info.run_name)


def track(tracker, experiment, *trials, resume=None, **result):
    key = tracker.start(make_study(experiment=experiment), resume)
    for trial in trials:
        tracker.log_trial(trial)
    tracker.finish(make_result(*trials, **result))
    return key


class TestMlflowTracker(TrackerTestCase):
    @pytest.fixture
    def make_tracker(self, make_tracker):
        return make_tracker


def test_every_trial_is_a_child_run_with_all_that_is_known_of_it(make_tracker, client, experiment):
    trials = make_trial(0), make_trial(1, "pruned"), make_trial(2, "failed")
    runs = children(client, track(make_tracker(), experiment, *trials))

    assert [run.info.run_name for run in runs] == ["trial 000", "trial 001", "trial 002"]
    assert [run.info.status for run in runs] == ["FINISHED", "KILLED", "FAILED"]
    assert [run.data.tags["state"] for run in runs] == ["complete", "pruned", "failed"]
    assert [run.data.tags.get("reason") for run in runs] == [None, "pruned for a test", "failed for a test"]
    for run, trial in zip(runs, trials, strict=True):
        assert run.data.params == {name: str(value) for name, value in trial.params.items()}
        assert {name: run.data.metrics[name] for name in trial.metrics} == dict(trial.metrics)
        assert (run.info.start_time, run.info.end_time) == (1000 * trial.start_time, 1000 * trial.end_time)
        for name, values in trial.series.items():
            history = client.get_metric_history(run.info.run_id, name)
            assert [(point.step, point.value) for point in history] == list(enumerate(values, start=1))


def test_the_parent_run_says_what_was_asked_and_what_came_of_it(make_tracker, client, experiment):
    trials = make_trial(0), make_trial(1), make_trial(2, "pruned")
    run_id = track(make_tracker(), experiment, *trials, figures={"optimization_history": Figure()})

    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("digits", "FINISHED")
    assert run.data.params == {"estimator": "Pipeline(...)", "cv": "StratifiedKFold(n_splits=2)", "n_trials": "3"}
    assert run.data.metrics == dict(trials[1].metrics)
    expected = {"data.fingerprint": "1f3a", "git.commit": "0a1b2c", "state": "finished", "best.trial": "1"}
    expected |= {"best.mlp__learning_rate": "0.01", "best.mlp__activation": "relu"}
    assert expected.items() <= run.data.tags.items()
    assert {file.path for file in client.list_artifacts(run_id)} == {"trials.csv", "optimization_history.png"}
    path = client.download_artifacts(run_id, "trials.csv")
    with open(path) as table:
        assert table.readline().startswith("number,state,mlp__learning_rate")


@pytest.mark.parametrize(("state", "status"), [("interrupted", "KILLED"), ("failed", "FAILED")])
def test_a_study_that_was_cut_short_says_why(make_tracker, client, experiment, state, status):
    run = client.get_run(track(make_tracker(), experiment, make_trial(0), state=state, reason="a test"))
    assert run.info.status == status
    assert (run.data.tags["state"], run.data.tags["reason"]) == (state, "a test")


def test_the_page_shows_the_score_and_what_all_studies_of_the_experiment_searched(make_tracker, client, experiment):
    for searched in (("a__units",), ("a__activation", "a__units")):
        tracker = make_tracker()
        run_id = tracker.start(make_study(experiment=experiment, searched=searched))
        tracker.finish(make_result())
    tags = client.get_experiment(client.get_run(run_id).info.experiment_id).tags
    columns = ["metrics.`mean_test_score`", "params.`a__activation`", "params.`a__units`", "tags.`state`"]
    assert json.loads(tags[VIEW_TAG])["selectedColumns"] == columns


def test_the_page_shows_the_verdicts_of_a_study_that_has_them(make_tracker, client, experiment):
    tracker = make_tracker()
    run_id = tracker.start(make_study(experiment=experiment, searched=("a__units",), health=True))
    tracker.finish(make_result())
    tags = client.get_experiment(client.get_run(run_id).info.experiment_id).tags
    columns = ["metrics.`mean_test_score`", "params.`a__units`", "tags.`health.verdict`", "tags.`state`"]
    assert json.loads(tags[VIEW_TAG])["selectedColumns"] == columns


# Health ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports():
    """What trials of two folds said of their gradients, by what was wrong."""
    return {
        kind: judge([make_measurements(kind, seed=seed) for seed in range(2)])
        for kind in ("healthy", "dead", "exploding")
    }


def downloaded(client, run, name):
    return Path(client.download_artifacts(run.info.run_id, name)).read_text(encoding="utf-8")


def test_trials_can_be_found_by_what_was_wrong_with_them(make_tracker, client, experiment, reports):
    trials = [make_trial(i, health=report) for i, report in enumerate(reports.values())]
    run_id = track(make_tracker(), experiment, *trials)
    for trial, run in zip(trials, children(client, run_id), strict=True):
        assert run.data.tags["health.verdict"] == trial.health.verdict
        assert float(run.data.tags["health.score"]) == pytest.approx(trial.health.score, abs=1e-3)
        found = [name for name in run.data.tags["health.findings"].split(", ") if name]
        assert found == list(dict.fromkeys(finding.condition for finding in trial.health.findings))
    experiment_id = client.get_run(run_id).info.experiment_id
    healthy = client.search_runs([experiment_id], "tags.\"health.verdict\" = 'healthy'")
    assert [run.info.run_name for run in healthy] == ["trial 000"]


def test_what_was_measured_of_the_layers_is_a_metric_for_each_in_the_order_of_depth(
    make_tracker, client, experiment, reports
):
    (run,) = children(client, track(make_tracker(), experiment, make_trial(0, health=reports["healthy"])))
    names = [name for name in sorted(run.data.metrics) if name.startswith("health/grad_norm/")]
    assert names == [f"health/grad_norm/{layer}" for layer in ("01_hidden_1", "02_hidden_2", "03_output")]
    history = client.get_metric_history(run.info.run_id, "health/grad_norm/02_hidden_2")
    epochs, _, values = reports["healthy"].table("grad_norm")
    assert (history[0].step, history[-1].step) == (epochs[0], epochs[-1]) == (0, 5)
    assert [point.value for point in history] == pytest.approx([values[1][point.step] for point in history])
    assert not any(name.startswith("health/saturation/") for name in run.data.metrics)  # ReLUs do not saturate
    update = client.get_metric_history(run.info.run_id, "health/update_ratio/01_hidden_1")
    assert min(point.step for point in update) > 0  # nothing had been updated before


def test_the_artifacts_show_the_whole_report(make_tracker, client, experiment, reports):
    trials = [make_trial(i, health=report) for i, report in enumerate(reports.values())]
    for trial, run in zip(trials, children(client, track(make_tracker(), experiment, *trials)), strict=True):
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert files == {"health.json", "health.txt", "health_map.svg", "health_profile.svg"}
        assert downloaded(client, run, "health.txt").strip() == str(trial.health).strip()

        def refuse(number):
            raise AssertionError(f"{number} is no number of JSON")

        plain = json.loads(downloaded(client, run, "health.json"), parse_constant=refuse)
        again = HealthReport.from_dict(plain)
        assert (again.verdict, again.score) == (trial.health.verdict, pytest.approx(trial.health.score, rel=1e-4))
        before, after = (report.table("grad_norm")[2] for report in (trial.health, again))
        np.testing.assert_allclose(after, before, rtol=1e-4)
        for name in ("health_map.svg", "health_profile.svg"):
            assert ElementTree.fromstring(downloaded(client, run, name)).tag.endswith("svg")


def test_an_artifact_location_that_cannot_be_written_costs_the_artifacts_and_nothing_else(
    uri, client, experiment, reports, tmp_path
):
    taken = tmp_path / "taken"
    taken.write_text("a file where a folder is needed: no artifact can be written, not even by root")
    tracker = MlflowTracker(uri, artifact_location=str(taken))
    key = tracker.start(make_study(experiment=experiment))
    trials = [make_trial(i, health=report) for i, report in enumerate(reports.values())]
    with pytest.warns(TrackingWarning) as caught:
        for trial in trials:
            tracker.log_trial(trial)
        tracker.finish(make_result(*trials))
    assert sum("health artifacts of trials are not kept" in str(warning.message) for warning in caught) == 1
    assert caught[0].filename == __file__
    runs = children(client, key)
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    for run, trial in zip(runs, trials, strict=True):
        assert run.data.params == {name: str(value) for name, value in trial.params.items()}
        assert {name: run.data.metrics[name] for name in trial.metrics} == dict(trial.metrics)
        assert run.data.tags["health.verdict"] == trial.health.verdict
        assert any(name.startswith("health/grad_norm/") for name in run.data.metrics)


def test_health_artifacts_that_were_refused_are_not_tried_again(make_tracker, client, experiment, reports, monkeypatch):
    tried = []

    def refuse(self, folder, artifact_path=None):
        tried.append(folder)
        raise PermissionError("read-only")

    monkeypatch.setattr(LocalArtifactRepository, "log_artifacts", refuse)
    trials = [make_trial(i, health=reports["healthy"]) for i in range(3)]
    with pytest.warns(TrackingWarning, match="health artifacts of trials are not kept.*read-only") as caught:
        key = track(make_tracker(), experiment, *trials)
    assert len(caught) == len(tried) == 1
    assert client.get_run(key).info.status == "FINISHED" and len(children(client, key)) == 3


@pytest.mark.parametrize(("layers", "epochs"), [(1, 0), (3, 500), (150, 3), (400, 200)])
def test_a_long_training_of_a_deep_network_stays_small(layers, epochs):
    report = judge([make_measurements(layers=layers, epochs=epochs)])
    series = health_series(report, HEALTH_METRICS)
    assert len(series) <= HEALTH_METRICS
    assert {0, epochs} >= {min(epoch for _, epoch, _ in series), max(epoch for _, epoch, _ in series)} - {0}
    assert epochs in {epoch for _, epoch, _ in series}
    names = list(dict.fromkeys(name for name, _, _ in series if "grad_norm" in name))
    assert names == sorted(names) and names[-1].endswith("output")
    plain = json.loads(health_json(report))
    numbers = sum(np.size(values) for m in plain["measurements"] for values in m["layers"].values())
    assert numbers <= max(HEALTH_NUMBERS, 2 * 16 * layers)
    kept = HealthReport.from_dict(plain).table("grad_norm")[0]
    assert (kept[0], kept[-1]) == (0, epochs)


def test_health_does_not_cost_another_request(make_tracker, client, experiment, reports, monkeypatch):
    sent = []
    log_batch = mlflow.MlflowClient.log_batch

    def noted(self, run_id, metrics=(), *more):
        sent.append((run_id, len(metrics)))
        return log_batch(self, run_id, metrics, *more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", noted)
    series = {f"split{i}_loss": [0.1] * 148 for i in range(5)}  # 740 values, and 3 metrics
    key = track(make_tracker(), experiment, make_trial(0, series=series, health=reports["healthy"]))
    [trial] = [n for run_id, n in sent if run_id != key]  # its params go with them
    assert 743 < trial <= METRICS_PER_BATCH


def test_the_parent_run_says_what_the_sick_trials_share(make_tracker, client, experiment, reports):
    dead, healthy = reports["dead"], reports["healthy"]
    trials = [({"rate": 1.0}, dead.verdict, dead.findings, dead.score)] * 6
    trials += [({"rate": 0.01}, healthy.verdict, healthy.findings, healthy.score)] * 6
    run = client.get_run(track(make_tracker(), experiment, make_trial(0), health=summarize(trials)))
    assert run.data.tags["health.sick_trials"] == "6" and run.data.tags["health.trials"] == "12"
    page = downloaded(client, run, "health_summary.html")
    assert "6 of 12 trials were sick" in page and "rate &gt; 0.1" in page


def test_a_study_is_continued_in_the_run_it_began_in(make_tracker, client, experiment):
    key = track(make_tracker(), experiment, make_trial(0), state="interrupted", reason="Ctrl-C")
    tracker = make_tracker()
    more = make_study(experiment=experiment, params={"n_trials": 5, "cv": "StratifiedKFold(n_splits=2)", "seed": 0})
    assert tracker.start(more, resume=key) == key
    assert client.get_run(key).info.status == "RUNNING"
    tracker.log_trial(make_trial(1))
    tracker.finish(make_result(make_trial(0), make_trial(1)))

    run = client.get_run(key)
    assert [child.info.run_name for child in children(client, key)] == ["trial 000", "trial 001"]
    assert run.info.status == "FINISHED"
    assert "reason" not in run.data.tags
    assert run.data.metrics["mean_test_score"] == 0.51
    assert (run.data.tags["best.trial"], run.data.tags["best.mlp__learning_rate"]) == ("1", "0.01")
    assert (run.data.params["n_trials"], run.data.tags["n_trials"], run.data.params["seed"]) == ("3", "5", "0")


def test_a_deleted_run_is_not_continued(make_tracker, client, experiment):
    key = track(make_tracker(), experiment)
    client.delete_run(key)
    assert track(make_tracker(), experiment, resume=key) != key


def test_values_that_mlflow_refuses_are_cut_or_renamed_visibly(make_tracker, client, experiment):
    trial = make_trial(0, params={"long": "x" * 20_000, "f(x)": 1}, metrics={"top@5": 0.5, "nan": np.nan})
    (run,) = children(client, track(make_tracker(), experiment, trial, best=trial))
    assert len(run.data.params["long"]) == PARAM_LENGTH
    assert run.data.params["long"].endswith("… (cut)")
    assert run.data.params["f_x_"] == "1"
    assert run.data.metrics["top_5"] == 0.5
    assert np.isnan(run.data.metrics["nan"])


@pytest.fixture(scope="module")
def logged_model(uri, tmp_path_factory, digits):
    """A study that was continued, whose second model is the one that counts: its run, that model, and some data."""
    X, y = digits
    older, model = (
        make_pipeline(StandardScaler(), KerasClassifier(units=4, epochs=1, random_state=seed)).fit(X, y)
        for seed in (0, 1)
    )
    tracker = MlflowTracker(uri, artifact_location=str(tmp_path_factory.mktemp("artifacts")))
    key = track(tracker, "model", make_trial(0), model=older, input_example=X[:5])
    track(tracker, "model", make_trial(0), make_trial(1), resume=key, model=model, input_example=X[:5])
    return key, model, X


def test_the_model_is_logged_with_signature_example_and_what_it_needs(logged_model, client):
    key, _, X = logged_model
    logged = client.search_logged_models([client.get_run(key).info.experiment_id])[0]
    assert logged.params == {"mlp__learning_rate": "0.01", "mlp__activation": "relu"}
    assert (logged.status, logged.source_run_id) == ("READY", key)

    path = Path(url2pathname(urlsplit(logged.artifact_location).path))
    description = mlflow.models.Model.load(path)
    assert description.signature.inputs.inputs[0].shape == (-1, 64)
    np.testing.assert_array_equal(description.load_input_example(str(path)), X[:5])
    pinned = {line.partition("==")[0] for line in (path / "requirements.txt").read_text().splitlines()}
    assert {"mlflow", "scikit-learn", "cloudpickle", "tensorflow", "keras"} <= pinned
    assert (path / "code" / "tuner" / "estimators.py").exists()


def test_the_model_loads_in_a_fresh_process_and_predicts_the_same(logged_model, uri, tmp_path):
    key, model, X = logged_model
    np.save(tmp_path / "X.npy", X)
    code = (
        "import sys, mlflow, numpy as np; mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.sklearn.load_model(sys.argv[2])\n"
        "np.save('proba.npy', model.predict_proba(np.load('X.npy')))\n"
        "import tuner; print(tuner.__file__)"
    )
    command = [sys.executable, "-c", code, uri, f"runs:/{key}/model"]
    done = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    assert os.path.join("code", "tuner") in done.stdout  # the tuner that travelled with the model
    np.testing.assert_array_equal(np.load(tmp_path / "proba.npy"), model.predict_proba(X))


def test_mlflow_serves_the_model(logged_model, uri):
    key, model, X = logged_model
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # MLflow calls uvicorn by its name
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--port", str(port)]
        + ["--model-uri", f"runs:/{key}/model"],
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        answers = False
        while not answers:
            assert server.poll() is None
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                answers = True
        body = json.dumps({"inputs": X[:5].tolist()}).encode()
        request = Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
        with urlopen(request) as answer:
            assert json.load(answer)["predictions"] == model.predict(X[:5]).tolist()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_model_that_cannot_be_pickled_costs_one_warning_and_nothing_else(make_tracker, client, experiment):
    class Model:
        def predict(self, X):
            return np.zeros(len(X))

        def __reduce__(self):
            raise TypeError("holds a lock")

    tracker = make_tracker()
    key = tracker.start(make_study(experiment=experiment))
    with pytest.warns(TrackingWarning, match="model was not logged to MLflow: .*holds a lock") as caught:
        tracker.finish(make_result(make_trial(0), model=Model(), input_example=np.zeros((2, 2))))
    assert len(caught) == 1
    assert client.get_run(key).info.status == "FINISHED"


def test_the_users_own_mlflow_state_stays_as_it_is(make_tracker, experiment, tmp_path, monkeypatch):
    own = f"sqlite:///{tmp_path}/own.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = dict(os.environ), logging.getLogger("mlflow").level, mlflow.get_tracking_uri()
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    key = track(make_tracker(), experiment, make_trial(0), model=model, input_example=np.zeros((2, 1)))
    assert (dict(os.environ), logging.getLogger("mlflow").level, mlflow.get_tracking_uri()) == before

    try:
        mlflow.set_tracking_uri(own)
        track(make_tracker(), experiment, make_trial(1), resume=key)
        assert mlflow.get_tracking_uri() == own
        assert mlflow.active_run() is None
    finally:
        mlflow.set_tracking_uri(None)
    assert not (tmp_path / "own.db").exists()


def test_the_default_store_is_mlruns_in_the_working_directory(tmp_path, monkeypatch, capfd, experiment):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    tracker = MlflowTracker()
    key = tracker.start(make_study(experiment=experiment))
    monkeypatch.chdir("/")  # a study that goes elsewhere writes where it began
    tracker.log_trial(make_trial(0))
    tracker.finish(make_result(make_trial(0)))

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert len(children(client, key)) == 1
    assert (tmp_path / "mlruns" / "artifacts" / key / "artifacts" / "trials.csv").exists()
    assert capfd.readouterr() == ("", "")  # neither MLflow nor Alembic say anything


def test_a_uri_that_the_user_has_set_is_respected(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri() == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    assert store_uri() == "http://tracking.example:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///own.db")
    assert store_uri() == f"sqlite:///{tmp_path}/own.db"
    assert store_uri("sqlite:///given.db") == f"sqlite:///{tmp_path}/given.db"


@pytest.fixture
def dead_address():
    """An address at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_cannot_be_reached_is_an_error_before_anything_trains(dead_address, scheme):
    tracker = MlflowTracker(f"{scheme}://user:secret@{dead_address}/store")
    with pytest.raises(TrackingError, match="cannot be used.*MLFLOW_TRACKING_URI") as caught:
        tracker.start(make_study())
    assert dead_address in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_an_error(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_text("not a database " * 100)
    with pytest.raises(TrackingError, match="not a database"):
        MlflowTracker(f"sqlite:///{path}").start(make_study())


def test_a_deleted_experiment_is_an_error(make_tracker, client, experiment):
    key = track(make_tracker(), experiment)
    client.delete_experiment(client.get_run(key).info.experiment_id)
    with pytest.raises(TrackingError, match="was deleted"):
        make_tracker().start(make_study(experiment=experiment))


def test_a_store_that_fails_in_the_middle_gives_one_warning(make_tracker, client, experiment, monkeypatch):
    tracker = make_tracker()
    key = tracker.start(make_study(experiment=experiment))
    create_run, calls = mlflow.MlflowClient.create_run, []

    def fails_the_second_time(*args, **kwargs):
        calls.append(args)
        if len(calls) > 1:
            raise OSError("disk full")
        return create_run(*args, **kwargs)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", fails_the_second_time)
    with pytest.warns(TrackingWarning, match="disk full") as caught:
        for number in range(20):
            tracker.log_trial(make_trial(number))
        tracker.finish(make_result(make_trial(0)))
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the caller's line, not one of ours
    assert len(calls) == 2  # what comes after the failure costs nothing
    assert [child.info.run_name for child in children(client, key)] == ["trial 000"]


def test_a_study_that_never_finished_leaves_no_settings_behind(make_tracker, experiment):
    before = dict(os.environ)
    tracker = make_tracker()
    tracker.start(make_study(experiment=experiment))
    tracker.start(make_study(experiment=experiment))
    tracker.finish(make_result())
    assert dict(os.environ) == before


def test_an_answer_is_the_description_of_the_run(make_tracker, client, experiment):
    key = track(make_tracker(), experiment, make_trial(0))
    table = pd.DataFrame({"activation": ["relu"], "score": [0.9]})
    make_tracker().log_answer(key, Answer("ReLU is best.", table, Figure(), {"it is": True, "it was": np.False_}))
    tags = client.get_run(key).data.tags
    assert tags["answer"] == "ReLU is best." and tags["claim.it is"] == "True" and tags["claim.it was"] == "False"
    assert tags["mlflow.note.content"].splitlines()[-1] == "| relu | 0.9 |"
    assert {"answer.csv", "answer.png"} <= {artifact.path for artifact in client.list_artifacts(key)}


def test_an_answer_that_cannot_be_kept_is_a_warning(make_tracker):
    with pytest.warns(TrackingWarning, match="answer is not in the MLflow store"):
        make_tracker().log_answer("0" * 32, Answer("Nothing.", pd.DataFrame({"x": [1]}), Figure()))
