"""Studies in MLflow: one parent run per study, one child run per trial, written off the training path.

Everything goes through `mlflow.MlflowClient` with explicit run ids. The fluent interface (``mlflow.start_run`` and its
like) belongs to the user: the tracking URI, the active run and the experiment that a user has set stay as they are.
"""

from __future__ import annotations

import json
import logging
import math
import os
import posixpath
import queue
import re
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import mlflow
import sqlalchemy
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from tuner.errors import TrackingError
from tuner.tracking.base import StudyRecord, StudyResult, Tracker, TrackingWarning, TrialRecord

if TYPE_CHECKING:
    from tuner.answer import Answer
    from tuner.health.report import HealthReport

# What one request may hold: mlflow/utils/validation.py, also https://mlflow.org/docs/latest/rest-api.html (Log Batch).
METRICS_PER_BATCH = 800  # of 1,000 entities, to which params and tags of the same request count
PARAMS_PER_BATCH = 100  # and as many tags
BYTES_PER_BATCH = 300_000  # for each of the three: a server refuses 1,000,000; the rest is for the envelope
KEY_LENGTH = 250
PARAM_LENGTH = 6_000
TAG_LENGTH = 8_000

# What a trial's health may add: a metric costs about 0.1 ms while networks train. The measures that say most come
# first: where there are many layers the last ones are left out, since the artifacts have them all.
HEALTH_METRICS = 100
HEALTH_METRICS_AT_LEAST = 50
HEALTH_POINTS = 5  # of a series, before another measure is left out
HEALTH_NUMBERS = 8_000  # in health.json, where long trainings come with some of their epochs
HEALTH_MEASURES = (
    "grad_norm",
    "update_ratio",
    "activation_variance",
    "saturation",
    "dead_units",
    "error_rms",
)

# Seconds that a store may take to answer the first call. MLflow's own retries would wait for minutes.
FIRST_ANSWER_SECONDS = 10

# As MLflow's own Optuna storage has it (mlflow/optuna/storage.py): a pruned trial was killed, not failed.
TRIAL_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
STUDY_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}

# The view of an experiment, as MLflow's page stores what its Share button shares: an experiment tag
# ``mlflow.sharedViewState.KEY`` that ``?viewStateShareKey=KEY`` opens. Undocumented; one key per experiment.
VIEW_KEY = "tuner"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
VIEW_COLUMNS = 50  # what a page can show; the tag may hold 20,000 characters (mlflow/utils/validation.py)
VIEW_FIRST_COLUMNS = ("attributes.`Run Name`",)
VERDICT_COLUMN = "tags.`health.verdict`"
VIEW_LAST_COLUMNS = ("runDateAndNestInfo", "duration")  # Created and Duration

# The page unfolds the children of a run at the first visit if they say that they are evaluations of it (undocumented).
UNFOLDED = {"mlflow.runType": "evaluation"}

# While a study is on, and only where the user has not set them: MLflow's retries wait for about four minutes and its
# client prints a link per run and a progress bar per upload. Three retries outlast a server that restarts.
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
FIRST_CALL_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(FIRST_ANSWER_SECONDS),
}


class MlflowTracker(Tracker):
    """Records studies in MLflow.

    A study is a parent run that carries what was asked (params), what it was run on (tags), the scores of the best
    trial under the trials' own metric names and its searched hyperparameters as tags ``best.<name>``: tags, because
    a study that is continued may find a better trial, and MLflow never changes a param. Its artifacts are
    ``trials.csv``, the figures, and the refitted model, which ``mlflow.sklearn.load_model("runs:/<run id>/model")``
    loads. Every trial is a nested child run with all hyperparameters, metrics and per-epoch series, finished, killed
    (pruned) or failed, with its ``state`` and ``reason`` as tags.

    A trial whose gradients were measured has what they said as tags ``health.verdict``, ``health.score`` and
    ``health.findings``, by which MLflow's page filters (``tags."health.verdict" = 'healthy'``), the means over folds as
    metrics ``health/<measure>/<depth>_<layer>`` and, as artifacts, the whole report (``health.json``, ``health.txt``)
    and two pictures (``health_map.svg``, ``health_profile.svg``). The parent run says which hyperparameters the sick
    trials share in ``health_summary.html``. A study file's answer is the run's description; its table and figure are
    ``answer.csv`` and ``answer.png``, and what must hold is tagged ``claim.<words>``.

    Parameters
    ----------
    uri : str, optional
        The MLflow tracking URI. By default the one that the user has set (``MLFLOW_TRACKING_URI`` or
        `mlflow.set_tracking_uri`), and otherwise ``sqlite:///mlruns/mlflow.db`` under the working directory.
    artifact_location : str, optional
        Where a new experiment keeps its artifacts. By default ``mlruns/artifacts`` beside the default store, and
        MLflow's own choice for any other.
    """

    def __init__(self, uri: str | None = None, artifact_location: str | None = None):
        self.uri = uri
        self.artifact_location = artifact_location
        self._session: _Session | None = None

    def __getstate__(self) -> dict[str, Any]:
        # scikit-learn's clone copies a tracker that a search holds; the copy is a tracker that has not started.
        return {**self.__dict__, "_session": None}

    def start(self, study: StudyRecord, resume: str | None = None) -> str:
        """Open the study's parent run, or continue the run `resume` where the store still has it."""
        if self._session is not None:  # a study that never finished
            self._session.close()
        uri = store_uri(self.uri)
        session = _Session(uri)
        with first_call(uri):
            session.open(study, resume, self._artifact_location(uri))
        self._session = session
        return session.run_id

    def _artifact_location(self, uri: str) -> str | None:
        if self.artifact_location is None and uri == _default_store():
            return _default_folder().joinpath("artifacts").as_uri()
        location = self.artifact_location
        return Path(location).absolute().as_uri() if location and not urlsplit(location).scheme else location

    def log_trial(self, trial: TrialRecord) -> None:
        """Hand the trial to the thread that writes it."""
        if self._session is not None:
            self._session.trials.put(trial)
            self._session.warn_of_failure()

    def finish(self, result: StudyResult) -> None:
        """Write what is left, the result and its artifacts."""
        if self._session is not None:
            session, self._session = self._session, None
            try:
                session.finish(result)
            finally:
                session.close()
            session.warn_of_failure()

    def log_answer(self, record: str, answer: Answer) -> None:
        """Write sentences and table as the run's description, and table, figure and claims as artifacts and tags."""
        uri = store_uri(self.uri)
        client = mlflow.MlflowClient(uri)
        tags = {f"claim.{claim}": str(bool(holds)) for claim, holds in answer.claims.items()}
        tags |= {"answer": answer.text, MLFLOW_RUN_NOTE: answer.markdown()}
        try:
            with _environment(CLIENT_SETTINGS), _quiet():
                shortened = [RunTag(_key(name), _text(value, TAG_LENGTH)) for name, value in tags.items()]
                client.log_batch(record, tags=shortened)
                client.log_text(record, answer.table.to_csv(index=False), "answer.csv")
                client.log_figure(record, answer.figure, "answer.png")
        except Exception as error:
            _warn(f"The answer is not in the MLflow store {without_password(uri)!r}: {_first_line(error)}")


class _Session:
    """One study in one store: its runs, and the thread that writes its trials."""

    def __init__(self, uri: str):
        self.uri = uri
        self.trials: queue.SimpleQueue[TrialRecord | None] = queue.SimpleQueue()
        self.failure: Exception | None = None
        self.artifact_failure: Exception | None = None  # of a trial's health, of which no more are then tried
        self._warned = False
        self._warned_of_artifacts = False
        self._exit = ExitStack()
        # A daemon: a store that hangs must not keep the interpreter from ending.
        self._writer = threading.Thread(target=self._write_trials, name="tuner-mlflow", daemon=True)

    def open(self, study: StudyRecord, resume: str | None, artifact_location: str | None) -> None:
        self.client = mlflow.MlflowClient(self.uri)
        self.experiment_id = self._experiment(study.experiment, artifact_location)
        self.context = resolve_tags()  # who runs what, from which commit, as MLflow itself notes it
        self.searched = study.searched
        self._share_view(study)
        self.run_id = self._parent_run(study, resume)
        self._exit.enter_context(_environment(CLIENT_SETTINGS))
        # MLflow logs a traceback for a store that fails; the one warning of `warn_of_failure` is to say it all.
        self._exit.enter_context(_log_level(logging.CRITICAL))
        self._writer.start()

    def _experiment(self, name: str, artifact_location: str | None) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return self.client.create_experiment(name, artifact_location)
        if experiment.lifecycle_stage != "active":
            raise ValueError(f"The experiment {name!r} was deleted: choose another name, or restore it in MLflow.")
        return experiment.experiment_id

    def _share_view(self, study: StudyRecord) -> None:
        """Have the experiment's page show the score and what its studies searched, this study's first."""
        shared = self.client.get_experiment(self.experiment_id).tags.get(VIEW_TAG)
        score, state = _column("metrics", study.objective), _column("tags", "state")
        health = [VERDICT_COLUMN] if study.health else []
        columns = [score, *(_column("params", name) for name in study.searched), *health, state]
        if shared is not None:
            columns += json.loads(shared)["selectedColumns"]
        columns = list(dict.fromkeys(columns))[:VIEW_COLUMNS]
        view = {
            "selectedColumns": columns,
            "columnOrder": [*VIEW_FIRST_COLUMNS, *columns, *VIEW_LAST_COLUMNS],
            "columnWidths": {column: _column_width(column) for column in columns},
            # Runs are nested only in the order of their start: by score, MLflow's page shows one flat list.
            "orderByKey": "attributes.start_time",
        }
        self.client.set_experiment_tag(self.experiment_id, VIEW_TAG, json.dumps(view))

    def _parent_run(self, study: StudyRecord, resume: str | None) -> str:
        params = {name: _text(value, PARAM_LENGTH) for name, value in study.params.items()}
        tags = dict(study.tags)
        run = self._active_run(resume)
        if run is None:
            run = self.client.create_run(self.experiment_id, run_name=study.name, tags=self.context)
        else:
            self.client.update_run(run.info.run_id, status="RUNNING")
            for tag in {"state", "reason"} & set(run.data.tags):
                self.client.delete_tag(run.info.run_id, tag)
            # MLflow never changes a param: what is asked differently this time, such as more trials, is a tag.
            known = run.data.params
            tags |= {name: value for name, value in params.items() if known.get(_key(name), value) != value}
            params = {name: value for name, value in params.items() if _key(name) not in known}
        self._log(run.info.run_id, params=params, tags=tags)
        return run.info.run_id

    def _active_run(self, run_id: str | None) -> mlflow.entities.Run | None:
        if run_id is None:
            return None
        try:
            run = self.client.get_run(run_id)
        except mlflow.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        usable = run.info.lifecycle_stage == "active" and run.info.experiment_id == self.experiment_id
        return run if usable else None

    def _write_trials(self) -> None:
        while (trial := self.trials.get()) is not None:
            if self.failure is None:
                try:
                    self._write_trial(trial)
                except Exception as error:
                    self.failure = error

    def _write_trial(self, trial: TrialRecord) -> None:
        start, end = (round(1000 * seconds) for seconds in (trial.start_time, trial.end_time))
        tags = {**self.context, **UNFOLDED, MLFLOW_PARENT_RUN_ID: self.run_id, "state": trial.state}
        if trial.reason is not None:
            tags["reason"] = _text(trial.reason, TAG_LENGTH)
        if trial.health is not None:
            tags |= {name: _text(value, TAG_LENGTH) for name, value in _health_tags(trial.health).items()}
        run = self.client.create_run(self.experiment_id, start, tags, run_name=f"trial {trial.number:03d}")
        metrics = [Metric(_key(name), float(value), end, 0) for name, value in trial.metrics.items()]
        metrics += [
            Metric(_key(name), float(value), end, epoch)
            for name, values in trial.series.items()
            for epoch, value in enumerate(values, start=1)
        ]
        if trial.health is not None:
            room = METRICS_PER_BATCH - len(metrics) % METRICS_PER_BATCH
            most = min(HEALTH_METRICS, max(HEALTH_METRICS_AT_LEAST, room))
            metrics += [
                Metric(_key(name), value, end, epoch) for name, epoch, value in health_series(trial.health, most)
            ]
        self._log(run.info.run_id, params=trial.params, metrics=metrics)
        self.client.set_terminated(run.info.run_id, TRIAL_STATUS[trial.state], end)
        if trial.health is not None and self.artifact_failure is None:
            # Last, and alone: artifacts are kept elsewhere than runs, often where not everyone may write.
            try:
                self._log_health(run, trial.health)
            except Exception as error:
                self.artifact_failure = error

    def _log(
        self,
        run_id: str,
        params: Mapping[str, Any] | None = None,
        metrics: Sequence[Metric] = (),
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Write in as few requests as the store's limits allow."""
        params_ = [Param(_key(name), _text(value, PARAM_LENGTH)) for name, value in (params or {}).items()]
        tags_ = [RunTag(_key(name), _text(value, TAG_LENGTH)) for name, value in (tags or {}).items()]
        batches = (_batches(metrics, METRICS_PER_BATCH), *(_batches(e, PARAMS_PER_BATCH) for e in (params_, tags_)))
        for some_metrics, some_params, some_tags in zip_longest(*batches, fillvalue=()):
            self.client.log_batch(run_id, some_metrics, some_params, some_tags)

    def _log_health(self, run: mlflow.entities.Run, report: HealthReport) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.joinpath("health.json").write_text(health_json(report), encoding="utf-8")
            folder.joinpath("health.txt").write_text(f"{report}\n", encoding="utf-8")
            report.heat_map().save(folder / "health_map.svg")
            report.depth_profile().save(folder / "health_profile.svg")
            # The client would first read the whole run again, to learn where its artifacts are.
            get_artifact_repository(run.info.artifact_uri, tracking_uri=self.uri).log_artifacts(name)

    def finish(self, result: StudyResult) -> None:
        self.trials.put(None)
        self._writer.join()
        if self.failure is None:
            try:
                with _quiet():
                    self._write_result(result)
            except Exception as error:
                self.failure = error

    def _write_result(self, result: StudyResult) -> None:
        tags: dict[str, Any] = {"state": result.state}
        if result.reason is not None:
            tags["reason"] = result.reason
        metrics = []
        if (best := result.best) is not None:
            tags["best.trial"] = best.number
            tags |= {f"best.{name}": best.params[name] for name in self.searched if name in best.params}
            # MLflow shows the value of the highest step: a continued study's better trial has a higher number.
            now = round(1000 * best.end_time)
            metrics = [Metric(_key(name), float(value), now, best.number) for name, value in best.metrics.items()]
        if result.health is not None:
            tags |= result.health.tags()
        self._log(self.run_id, metrics=metrics, tags=tags)
        if result.health is not None and self.artifact_failure is None:
            self.client.log_text(self.run_id, result.health.html(), "health_summary.html")
        self.client.log_text(self.run_id, result.trials.to_csv(index=False), "trials.csv")
        for name, figure in result.figures.items():
            self.client.log_figure(self.run_id, figure, f"{name}.png")
        if result.model is not None:
            self._log_model(result.model, result.input_example, {} if best is None else best.params)
        self.client.set_terminated(self.run_id, STUDY_STATUS[result.state])

    def _log_model(self, model: Any, input_example: Any, params: Mapping[str, Any]) -> None:
        """Do what ``mlflow.sklearn.log_model`` does, which would set the user's tracking URI and active run."""
        params = {name: str(params[name]) for name in self.searched if name in params}
        logged = self.client.create_logged_model(self.experiment_id, "model", self.run_id, params=params)
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = _save_model(
                    model,
                    input_example,
                    os.path.join(folder, "model"),
                    mlflow.models.Model(
                        artifact_path=logged.artifact_location,
                        model_uuid=logged.model_id,
                        model_id=logged.model_id,
                        run_id=self.run_id,
                    ),
                )
            except Exception as error:  # the model's own: it cannot be pickled or cannot predict its own data
                self.client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
                _warn(f"The refitted model was not logged to MLflow: {_first_line(error)}")
                return
            self.client.log_model_artifacts(logged.model_id, path)
        self.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        self.client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=0)])

    def close(self) -> None:
        self.trials.put(None)
        self._exit.close()

    def warn_of_failure(self) -> None:
        """Warn once, from the thread that trains: a warning in the writer's would pass the user's filters by."""
        if self.artifact_failure is not None and not self._warned_of_artifacts:
            self._warned_of_artifacts = True
            _warn(
                "The health artifacts of trials are not kept from here on, since MLflow could not write one: "
                f"{_first_line(self.artifact_failure)} Parameters, metrics and tags are still tracked."
            )
        if self.failure is not None and not self._warned:
            self._warned = True
            _warn(
                f"Tracking stopped: the MLflow store {without_password(self.uri)!r} failed: "
                f"{_first_line(self.failure)} The study goes on and its results are kept by Optuna."
            )


def health_series(report: HealthReport, most: int) -> list[tuple[str, int, float]]:
    """Return the means over folds of what was measured of the layers, by names in which layers sort by depth.

    Parameters
    ----------
    report : HealthReport
    most : int
        How many values to return: first measures are left out, the least telling ones first, then layers and then
        epochs in between. The first and the last are always there.

    Returns
    -------
    list of (name, epoch, value)
        Without what is not finite.
    """
    chosen: list[tuple[str, list[int], list[float]]] = []
    for measure in HEALTH_MEASURES:
        epochs, layers, values = report.table(measure)
        digits = len(str(len(layers)))
        series = []
        for depth, (layer, row) in enumerate(zip(layers, values.tolist(), strict=True), start=1):
            if any(map(math.isfinite, row)):
                name = f"health/{measure}/{depth:0{max(2, digits)}d}_{layer.replace('/', '.')}"
                series.append((name, list(epochs), row))
        if not chosen:
            chosen = [series[i] for i in _spread(len(series), most)]
        elif (len(chosen) + len(series)) * min(len(epochs), HEALTH_POINTS) <= most:
            chosen += series
    length = max((len(row) for _, _, row in chosen), default=0)
    kept = _spread(length, max(1, most // max(1, len(chosen))))
    return [(name, epochs[i], row[i]) for name, epochs, row in chosen for i in kept if math.isfinite(row[i])]


def health_json(report: HealthReport) -> str:
    """Return the whole report as JSON, which ``HealthReport.from_dict`` reads; long trainings with some epochs only."""
    values = _valid(report.to_dict(numbers=False))
    measured = report.measurements
    per_epoch = sum(
        layers[0].size + network[0].size for m in measured if (layers := m.layers) and (network := m.network)
    )
    kept = [_spread(len(m.epochs), max(2, HEALTH_NUMBERS // max(1, per_epoch))) for m in measured]
    values["measurements"] = [
        replace(
            m,
            epochs=[m.epochs[i] for i in some],
            layers=[m.layers[i] for i in some],
            network=[m.network[i] for i in some],
        ).to_dict()
        for m, some in zip(measured, kept, strict=True)
    ]
    return json.dumps(values)


def _spread(n: int, most: int) -> list[int]:
    """Return at most `most` of n positions, evenly; the last of them, and the first if there may be two."""
    if n <= most:
        return list(range(n))
    return [n - 1] if most == 1 else [round(i * (n - 1) / (most - 1)) for i in range(most)]


def _health_tags(report: HealthReport) -> dict[str, str]:
    findings = ", ".join(dict.fromkeys(finding.condition for finding in report.findings))
    return {"health.verdict": report.verdict, "health.score": f"{report.score:.3f}", "health.findings": findings}


def _valid(value: Any) -> Any:
    """Return plain values without NaN and infinities, for which JSON has no numbers."""
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # NaN, as of both infinities
    if isinstance(value, Mapping):
        return {str(key): _valid(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_valid(inner) for inner in value]
    return value


def store_uri(uri: str | None = None) -> str:
    """Return the tracking URI that `uri` means, a local path made absolute.

    Parameters
    ----------
    uri : str, optional
        By default the URI that the user has set, and otherwise ``sqlite:///mlruns/mlflow.db`` under the working
        directory.
    """
    if uri is None:
        uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else _default_store()
    url = sqlalchemy.make_url(uri) if uri.startswith("sqlite") else None
    if url is not None and url.database and url.database != ":memory:":
        return url.set(database=os.path.abspath(url.database)).render_as_string(hide_password=False)
    return uri


def is_database(uri: str) -> bool:
    """Whether a tracking URI names a database that MLflow opens itself, rather than a server."""
    return urlsplit(uri).scheme.split("+")[0] in DATABASE_ENGINES


@contextmanager
def first_call(uri: str) -> Iterator[None]:
    """Make the block's calls to a store quiet and quick to fail, and whatever they raise a `TrackingError`."""
    try:
        with _quiet(), _environment(FIRST_CALL_SETTINGS):
            _reach(uri)
            yield
    except Exception as error:
        raise TrackingError(
            f"The MLflow store {without_password(uri)!r} cannot be used: {_first_line(error)} Expected a store that "
            "answers and can be written, for instance 'sqlite:///mlruns/mlflow.db' or 'http://localhost:5000'. "
            "Start its server, correct MLFLOW_TRACKING_URI, or turn tracking off."
        ) from error


def _default_folder() -> Path:
    return Path("mlruns").absolute()


def _default_store() -> str:
    return f"sqlite:///{_default_folder().joinpath('mlflow.db').as_posix()}"


def _reach(uri: str) -> None:
    """Connect to a database once; MLflow would try fifteen times, for the better part of an hour."""
    if not is_database(uri):
        return
    url = sqlalchemy.make_url(uri)
    if url.host and url.port:
        socket.create_connection((url.host, url.port), timeout=FIRST_ANSWER_SECONDS).close()
    elif url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(url)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _save_model(model: Any, input_example: Any, path: str, description: mlflow.models.Model) -> str:
    import mlflow.sklearn

    import tuner

    if hasattr(input_example, "to_pandas"):  # polars
        input_example = input_example.to_pandas()
    signature = None
    with warnings.catch_warnings():
        # Advice on how to write integer columns; the data are the user's.
        warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")
        if input_example is not None:
            signature = mlflow.models.infer_signature(input_example, model.predict(input_example))
        mlflow.sklearn.save_model(
            model,
            path,
            mlflow_model=description,
            signature=signature,
            input_example=input_example,
            serialization_format="cloudpickle",  # skops, the default, refuses Keras
            code_paths=[str(Path(tuner.__file__).parent)],
            pip_requirements=_requirements(model),
        )
    return path


def _requirements(model: Any) -> list[str]:
    """Pin the packages that the model's parts come from; MLflow would load the model in another process to find out."""
    parts = [model, *(model.get_params().values() if hasattr(model, "get_params") else ())]
    modules = {str(getattr(part, "__module__", None) or type(part).__module__).split(".")[0] for part in parts}
    modules |= {"mlflow", "cloudpickle", "numpy", "pandas", "sklearn"}
    if "tuner" in modules:
        modules |= {"tensorflow", "keras"}
    distributions = metadata.packages_distributions()
    names = {name for module in modules - {"tuner"} for name in distributions.get(module, ())}
    return [f"{name}=={metadata.version(name)}" for name in sorted(names, key=str.lower)]


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{_key(name)}`"


def _column_width(column: str) -> int:
    """Return the pixels that a column's heading needs, within reason; verdicts are longer than theirs."""
    least = 160 if column == VERDICT_COLUMN else 90
    return min(max(least, 7 * len(column.split("`")[1]) + 24), 220)


def _key(name: str) -> str:
    """Return a name that MLflow takes: letters, digits and ``_-. /``, and not a path that means another one."""
    key = re.sub(r"[^/\w.\- ]", "_", name)
    return posixpath.normpath(key).lstrip("./")[:KEY_LENGTH] or "_"


def _text(value: Any, length: int) -> str:
    text, mark = str(value), " … (cut)"
    return text if len(text) <= length else text[: length - len(mark)] + mark


def _batches(entities: Sequence[Any], count: int) -> Iterator[list[Any]]:
    """Split what is to be logged into requests of at most `count` and of a size that a server takes."""
    batch: list[Any] = []
    size = 0
    for entity in entities:
        bytes_ = len(json.dumps(vars(entity)))
        if batch and (len(batch) == count or size + bytes_ > BYTES_PER_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(entity)
        size += bytes_
    if batch:
        yield batch


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that the user has not set, for a while."""
    missing = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


@contextmanager
def _log_level(level: int) -> Iterator[None]:
    """Hold back what MLflow and Alembic log below a level."""
    before = {name: logging.getLogger(name).level for name in ("mlflow", "alembic")}
    for name, own in before.items():
        logging.getLogger(name).setLevel(max(own, level))
    try:
        yield
    finally:
        for name, own in before.items():
            logging.getLogger(name).setLevel(own)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what MLflow and Alembic say when a database is made and a model saved."""
    with _log_level(logging.ERROR), warnings.catch_warnings():
        # MLflow's own tables use what SQLAlchemy 2.1 deprecates.
        warnings.filterwarnings("ignore", category=sqlalchemy.exc.SADeprecationWarning)
        yield


def without_password(text: str) -> str:
    """Return a text without the user names and passwords of the URIs in it."""
    return re.sub(r"//[^/\s]*@", "//", text)


def _first_line(error: BaseException) -> str:
    """Return what went wrong at the bottom, "no such table" rather than "flush failed", in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = without_password((str(error).strip() or type(error).__name__).splitlines()[0])
    return line if line.endswith(".") else f"{line}."


def _warn(message: str) -> None:
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("tuner."):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, TrackingWarning, stacklevel=depth)
