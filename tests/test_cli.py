import os
import pty
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tuner import cli

FILE = """
import time
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from tuner import Study


class Slow(LogisticRegression):
    def fit(self, X, y, sample_weight=None):
        time.sleep({seconds})
        return super().fit(X, y, sample_weight)


estimator = Slow(max_iter=2000)
study = Study("iris", lambda: load_iris(return_X_y=True), estimator, {{"C": [0.1, 1.0, 2.0]}}, n_trials=2, cv=2)
"""


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iris.py").write_text(FILE.format(seconds=0))
    return "iris.py"


def test_run_runs_a_study_and_says_how_to_see_it(study_file, tmp_path):
    result = CliRunner().invoke(cli.tuner, ["run", study_file, "--seed", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "best of 2 complete trials" in result.output
    assert result.output.splitlines()[-1] == "See the runs with: tuner ui   (or: make ui)"
    assert (tmp_path / "mlruns" / "mlflow.db").exists() and (tmp_path / "mlruns" / "journal.log").exists()


def test_options_replace_what_the_file_says(study_file, tmp_path):
    arguments = ["run", study_file, "--trials", "3", "--storage", "other.log", "--no-tracking", "--timeout", "100"]
    result = CliRunner().invoke(cli.tuner, arguments, catch_exceptions=False)
    assert "3 trials: 3 complete" in result.output and "tuner ui" not in result.output
    assert (tmp_path / "other.log").exists() and not (tmp_path / "mlruns").exists()
    again = CliRunner().invoke(cli.tuner, [*arguments, "--fresh"], catch_exceptions=False)
    assert "going on" not in again.output and "3 trials: 3 complete" in again.output


ANSWER = """

def answer(search):
    from tuner import Answer
    from tuner.report import plots, tables

    table = tables.scores(search)
    return Answer(f"There are {len(table)} scores | in all.", table[["C", "score"]], plots.bars(table, "C", "score"))
"""


def test_an_answer_is_shown_and_kept_and_the_index_is_made_of_what_is_kept(study_file, tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    text = '"""Which C?"""' + FILE.format(seconds=0).replace("cv=2", "cv=2, quick={'n_trials': 1}") + ANSWER
    (folder / "which.py").write_text(text)
    run = ["run", "studies/which.py", "--no-tracking"]
    result = CliRunner().invoke(cli.tuner, [*run, "--quick"], catch_exceptions=False)
    assert "Which C?" in result.output and "There are 2 scores" in result.output
    assert sorted(path.name for path in (folder / "results" / "quick").iterdir()) == [
        "which.csv",
        "which.json",
        "which.svg",
    ]
    report = ["report", "studies"]
    CliRunner().invoke(cli.tuner, report, catch_exceptions=False)
    assert "Which C?" in (folder / "README.md").read_text() and "scores" not in (folder / "README.md").read_text()
    for _ in range(2):
        CliRunner().invoke(cli.tuner, run, catch_exceptions=False)
        result = CliRunner().invoke(cli.tuner, report, catch_exceptions=False)
        assert result.output == f"Written: {os.path.join('studies', 'README.md')}\n"
        page = (folder / "README.md").read_text()
        assert page.count("There are 4 scores | in all.") == page.count("![which](results/which.svg)") == 1
        assert page.count("| C | score |") == 1 and "Took " in page
    (folder / "README.md").write_text("mine")
    result = CliRunner().invoke(cli.tuner, report)
    assert "must hold the lines" in str(result.exception) and (folder / "README.md").read_text() == "mine"


def test_an_error_is_one_line_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "run", "missing.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: there is no study file") and len(done.stderr.splitlines()) == 1


def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(study_file, tmp_path):
    (tmp_path / "iris.py").write_text(FILE.format(seconds=1))
    command = [sys.executable, "-m", "tuner", "run", study_file, "--no-tracking", "--trials", "30"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = running.stdout.readline()
    assert first.startswith("trial   0  complete")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate()
    assert running.returncode == 130 and err == ""
    assert "1 trials: 1 complete" in out
    assert out.splitlines()[-1] == "Interrupted. Finished trials are kept; the same command goes on."
    (tmp_path / "iris.py").write_text(FILE.format(seconds=0))
    command[-1] = "2"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on after 1 finished trials" in done.stdout and "2 trials: 2 complete" in done.stdout


def test_on_a_terminal_the_table_is_live(study_file):
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    command = [sys.executable, "-m", "tuner", "run", study_file, "--no-tracking"]
    running = subprocess.Popen(command, stdout=child, stderr=child, env=environment, close_fds=True)
    os.close(child)
    shown = b""
    while True:
        try:
            chunk = os.read(parent, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    assert running.wait() == 0
    text = shown.decode()
    assert "iris: 2 of 2 trials" in text and "running" in text and "best of 2 complete trials" in text
