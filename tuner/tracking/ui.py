"""MLflow's own pages on the store of a study."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import mlflow
import sqlalchemy

from tuner.errors import TrackingError
from tuner.tracking.mlflow import VIEW_KEY, VIEW_TAG, first_call, is_database, store_uri, without_password

PORTS_TRIED = 20
SECONDS_TO_END = 10  # uvicorn lets the requests in progress end; a browser may hold one open


def runs_link(server: str, uri: str | None = None, experiment: str | None = None) -> str:
    """Return the link straight to the runs of an experiment, with the score and what was searched as columns.

    Parameters
    ----------
    server : str
        The address of the MLflow server, for instance ``"http://127.0.0.1:5000"``.
    uri : str, optional
        The tracking URI of the store, as `MlflowTracker` takes it.
    experiment : str, optional
        The name of an experiment; by default the one that a study was last started in.

    Raises
    ------
    TrackingError
        If the store cannot be reached, or holds no such experiment.
    """
    with first_call(uri := store_uri(uri)):
        experiments = mlflow.MlflowClient(uri).search_experiments(order_by=["last_update_time DESC"])
        ours = [found for found in experiments if VIEW_TAG in found.tags]
        named = [found for found in ours if experiment in (None, found.name)]
        if not named:
            known = ", ".join(repr(found.name) for found in ours) or "none"
            raise LookupError(
                f"There is no study{f' of the experiment {experiment!r}' if experiment else ''} in it (experiments "
                f"with studies: {known}); run one with: tuner run FILE."
            )
    # Without workflowType MLflow lands on its pages for language models.
    query = f"workflowType=machine_learning&viewStateShareKey={VIEW_KEY}"
    return f"{server.rstrip('/')}/#/experiments/{named[0].experiment_id}/runs?{query}"


def serve_ui(
    uri: str | None = None,
    experiment: str | None = None,
    host: str = "127.0.0.1",
    port: int = 5000,
    echo: Callable[[str], object] = print,
) -> None:
    """Serve MLflow's pages on a store until Ctrl-C, and print the link to the runs of the newest study.

    Where the store is a server already, only the link is printed.

    Parameters
    ----------
    uri : str, optional
        The tracking URI of the store, as `MlflowTracker` takes it.
    experiment : str, optional
        The name of the experiment to link to; by default the one that a study was last started in.
    host : str
        The address to listen on; the default is seen from this machine only.
    port : int
        The port to listen on; where it is in use, the next free one is taken and said.
    echo : callable
        Prints a line.

    Raises
    ------
    TrackingError
        If the store does not exist, cannot be reached or holds no study, or the server does not start.
    """
    uri = store_uri(uri)
    if not is_database(uri):
        echo(runs_link(without_password(uri), uri, experiment))
        return
    path = sqlalchemy.make_url(uri).database
    if urlsplit(uri).scheme.startswith("sqlite") and not os.path.exists(path or ""):
        raise TrackingError(f"There is no study to show: {path} does not exist. Run one with: tuner run FILE.")
    free = _free_port(host, port)
    server = f"http://{host}:{free}"
    link = runs_link(server, uri, experiment)
    if free != port:
        echo(f"Port {port} is in use; taking {free}.")
    with suppress(KeyboardInterrupt), _mlflow_server(uri, host, free) as process:
        echo(link)
        echo("Ctrl-C stops the server.")
        process.wait()


@contextmanager
def _mlflow_server(uri: str, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start MLflow's server, wait until it answers, and end it with the block."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # The job workers are for language models: without them the server starts in half the time and a fifth of the
    # memory.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.TemporaryFile() as output, _signals_as_interrupt():
        # In a session of its own, so that a Ctrl-C reaches it once, through us.
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait_until_it_answers(process, f"http://{host}:{port}/health", output)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, output: IO[bytes]) -> None:
    while process.poll() is None:
        try:
            with urlopen(url, timeout=5):  # noqa: S310 - our own http address
                return
        except (URLError, OSError):
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
    output.seek(0)
    said = output.read().decode(errors="replace").strip()
    raise TrackingError(f"MLflow's server ended with status {process.returncode} before it answered:\n{said[-2000:]}")


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the server too, which would outlive us, and SIGINT where a shell that started us ignores it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port(host: str, port: int) -> int:
    for candidate in range(port, port + PORTS_TRIED):
        with socket.socket() as probe:
            # As the server does: a port that merely lingers from a server that just ended is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return candidate
    raise TrackingError(
        f"No free port on {host} from {port} to {port + PORTS_TRIED - 1}: name another one with --port."
    )
