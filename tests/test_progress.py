import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from tuner.progress import Progress, Row, best_table, duration, summary

ROWS = [
    Row(0, "complete", 0.91, 0.01, 1.5),
    Row(1, "failed", math.nan, math.nan, 0.2, "non-finite loss"),
    Row(2, "pruned", 0.5, 0.02, 0.7, "pruned in epoch 3"),
    Row(3, "complete", 0.97, 0.005, 2.5),
]


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False, no_color=True)


def test_elsewhere_than_on_a_terminal_each_trial_is_a_plain_line():
    out = console(terminal=False)
    with Progress("digits", total=6, console=out) as progress:
        for row in ROWS:
            progress.add(row)
    lines = out.file.getvalue().splitlines()
    assert len(lines) == 4 and "\x1b" not in out.file.getvalue()
    assert "trial   0  complete  0.9100 ± 0.0100  best 0.9100  1.5 s  (1/6, about" in lines[0]
    assert "failed" in lines[1] and lines[1].endswith("non-finite loss")
    assert "best 0.9100" in lines[2], "a pruned trial never is the best"
    assert "best 0.9700" in lines[3]


def test_on_a_terminal_the_table_shows_finished_and_running_trials():
    out = console(terminal=True)
    progress = Progress("digits", total=6, earlier=ROWS[:2], console=out)
    with progress:
        for row in ROWS[2:]:
            progress.add(row)
        out.print(progress)
    shown = out.file.getvalue()
    assert "going on after 2 finished trials" in shown
    assert "digits: 4 of 6 trials" in shown and "running" in shown
    assert "failed: non-finite loss" in shown and "0.9700 ± 0.0050" in shown


def test_what_the_gradients_said_is_a_word_on_the_line_and_a_column_of_the_table():
    rows = [replace(ROWS[0], health="healthy"), replace(ROWS[2], health="vanishing_gradients"), ROWS[3]]
    out = console(terminal=False)
    with Progress("digits", total=3, console=out) as progress:
        for row in rows:
            progress.add(row)
    lines = out.file.getvalue().splitlines()
    assert "best 0.9100  healthy  1.5 s" in lines[0] and "  vanishing gradients  " in lines[1]
    out = console(terminal=False)
    out.print(Progress("digits", total=4, earlier=rows, console=out))
    shown = out.file.getvalue()
    assert "health" in shown.splitlines()[1] and "vanishing gradients" in shown and "running" in shown
    out = console(terminal=False)
    out.print(Progress("digits", total=6, earlier=ROWS, console=out))
    assert "health" not in out.file.getvalue(), "no column where nothing is known"


def test_no_time_is_estimated_before_a_trial_of_this_session_has_finished():
    progress = Progress("digits", total=6, earlier=ROWS, console=console(terminal=False))
    assert progress._left() == ""


def test_the_best_table_ranks_complete_trials_and_shortens_names():
    params = {
        0: {"clf__units": (8, 4), "clf__learning_rate": 0.0123456},
        3: {"clf__units": (16,), "clf__learning_rate": 1e-4},
    }
    out = console(terminal=False)
    out.print(best_table(ROWS, params, ["clf__units", "clf__learning_rate"]))
    lines = out.file.getvalue().splitlines()
    body = [line for line in lines if "±" in line and "0." in line]
    assert "units" in out.file.getvalue() and "clf__" not in out.file.getvalue()
    assert "(16,)" in body[0] and "0.0001" in body[0]
    assert "(8, 4)" in body[1] and "0.01235" in body[1]


def test_the_summary_counts_states_and_gives_the_first_cause():
    assert summary(ROWS) == "4 trials: 2 complete, 1 pruned, 1 failed (trial 1: non-finite loss)"
    assert summary(ROWS[:1]) == "1 trials: 1 complete"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.234, "0.2 s"), (59.9, "59.9 s"), (125, "2 min 05 s"), (3725, "1 h 02 min")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
