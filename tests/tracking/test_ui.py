import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import mlflow
import pytest

from tuner.errors import TrackingError
from tuner.testing.trackers import make_result, make_study, make_trial
from tuner.tracking.base import TrackingWarning
from tuner.tracking.mlflow import MlflowTracker
from tuner.tracking.ui import runs_link, serve_ui


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    for name in ("older", "newer"):
        tracker = MlflowTracker(f"sqlite:///{folder}/mlflow.db", artifact_location=str(folder / "artifacts"))
        tracker.start(make_study(experiment=name))
        tracker.finish(make_result())
    return f"sqlite:///{folder}/mlflow.db"


def test_the_link_goes_to_the_newest_study_or_to_the_one_named(uri):
    ids = {found.name: found.experiment_id for found in mlflow.MlflowClient(uri).search_experiments()}
    end = "runs?workflowType=machine_learning&viewStateShareKey=tuner"
    assert runs_link("http://localhost:1", uri) == f"http://localhost:1/#/experiments/{ids['newer']}/{end}"
    assert runs_link("http://localhost:1/", uri, "older") == f"http://localhost:1/#/experiments/{ids['older']}/{end}"
    with pytest.raises(TrackingError, match="no study of the experiment 'oldest'.*'older'"):
        runs_link("http://localhost:1", uri, "oldest")


def test_a_store_without_studies_is_an_error_that_says_what_to_run(tmp_path):
    with pytest.raises(TrackingError, match="mlflow.db does not exist. Run one with: tuner run"):
        serve_ui(f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def ui(uri):
    """What `tuner ui` runs, asked for a port that is in use: its process, its first line, and the link it prints."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        call = f"serve_ui({uri!r}, port={port}, echo=lambda line: print(line, flush=True))"
        process = subprocess.Popen(
            [sys.executable, "-c", f"from tuner.tracking.ui import serve_ui; {call}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            said = process.stdout.readline()
            assert said.startswith(f"Port {port} is in use; taking "), said + process.stderr.read()
            yield process, process.stdout.readline().strip()
            process.kill()


def test_the_server_shows_the_store_takes_studies_and_ends_with_ctrl_c(ui, capsys, monkeypatch):
    process, link = ui
    server = link.partition("/#/")[0]
    with urlopen(f"{server}/") as answer:
        assert b"MLflow" in answer.read()

    # To a tracker it is a remote server like any other, with the limits that one has: 1 MB a request.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    trial = make_trial(0, params={f"p{i}": "é" * 6_000 for i in range(150)}, series={"loss": [0.5] * 2_500})
    tracker = MlflowTracker()
    key = tracker.start(make_study(experiment="newer"))
    tracker.log_trial(trial)
    tracker.finish(make_result(trial, best=trial))
    assert mlflow.MlflowClient().get_run(key).info.status == "FINISHED"
    assert capsys.readouterr().out == ""
    serve_ui()
    assert capsys.readouterr().out.strip() == link

    tracker.start(make_study(experiment="newer"))
    process.send_signal(signal.SIGINT)
    assert (process.stderr.read(), process.wait()) == ("", 0)
    with pytest.warns(TrackingWarning, match="Tracking stopped") as caught:
        for number in range(3):
            tracker.log_trial(make_trial(number))
        tracker.finish(make_result(make_trial(0)))
    assert len(caught) == 1
    with pytest.raises(TrackingError, match="cannot be used"):
        tracker.start(make_study(experiment="newer"))
