"""The contract of a tracker as tests: subclass `TrackerTestCase`, say how a tracker is made, and run pytest.

.. code-block:: python

    class TestMyTracker(TrackerTestCase):
        @pytest.fixture
        def make_tracker(self, tmp_path):
            return lambda: MyTracker(tmp_path)
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tuner.answer import Answer
from tuner.tracking.base import State, StudyRecord, StudyResult, Tracker, TrialRecord

MakeTracker = Callable[[], Tracker]


def make_study(**changes: Any) -> StudyRecord:
    """Return the record of a small study, with some fields changed."""
    study = StudyRecord(
        name="digits",
        experiment="digits",
        params={"estimator": "Pipeline(...)", "cv": "StratifiedKFold(n_splits=2)", "n_trials": 3},
        tags={"data.fingerprint": "1f3a", "git.commit": "0a1b2c"},
        searched=("mlp__learning_rate", "mlp__activation"),
        objective="mean_test_score",
    )
    return replace(study, **changes)


def make_trial(number: int, state: State = "complete", **changes: Any) -> TrialRecord:
    """Return the record of trial `number`, whose score is ``0.5 + number / 100``, with some fields changed."""
    score = 0.5 + number / 100
    trial = TrialRecord(
        number=number,
        state=state,
        reason=None if state == "complete" else f"{state} for a test",
        params={"mlp__learning_rate": 10.0 ** -(number + 1), "mlp__activation": "relu", "mlp__units": (64, 64)},
        metrics={"mean_test_score": score, "std_test_score": 0.01, "split0_test_score": score - 0.01},
        series={"loss": [1.0, 0.5, 0.25], "split0_loss": [1.1, 0.6, 0.35]},
        start_time=1_700_000_000.0 + number,
        end_time=1_700_000_000.5 + number,
    )
    return replace(trial, **changes)


def make_result(*trials: TrialRecord, **changes: Any) -> StudyResult:
    """Return the result of a study of these trials, with some fields changed."""
    complete = [trial for trial in trials if trial.state == "complete"]
    result = StudyResult(
        state="finished",
        reason=None,
        best=max(complete, key=lambda trial: trial.metrics.get("mean_test_score", 0), default=None),
        trials=pd.DataFrame([{"number": trial.number, "state": trial.state, **trial.params} for trial in trials]),
    )
    return replace(result, **changes)


class TrackerTestCase:
    """What every tracker promises (`tuner.tracking.base.Tracker`); warnings count as failures."""

    pytestmark = pytest.mark.filterwarnings("error")

    @pytest.fixture
    def make_tracker(self) -> MakeTracker:
        """Return a callable that makes trackers on one and the same store."""
        raise NotImplementedError("a subclass of TrackerTestCase overrides the fixture make_tracker")

    def test_a_study_is_tracked_from_start_to_finish(self, make_tracker: MakeTracker) -> None:
        """Trials of every state and a figure are taken without a warning."""
        tracker = make_tracker()
        tracker.start(make_study())
        trials = [make_trial(0), make_trial(1, "pruned"), make_trial(2, "failed")]
        for trial in trials:
            tracker.log_trial(trial)
        assert tracker.finish(make_result(*trials, figures={"history": Figure()})) is None

    def test_a_finished_study_is_given_its_answer(self, make_tracker: MakeTracker) -> None:
        """Also by another tracker, and claims may be any words."""
        tracker = make_tracker()
        key = tracker.start(make_study())
        tracker.finish(make_result())
        table = pd.DataFrame({"activation": ["relu", "tanh"], "score": [0.9, math.nan]})
        answer = Answer("ReLU.", table, Figure(), claims={'w^depth > 0, "exactly"': True, "x" * 400: False})
        if key is not None:
            for one in (tracker, make_tracker()):
                assert one.log_answer(key, answer) is None

    def test_a_study_is_continued_by_what_start_returned(self, make_tracker: MakeTracker) -> None:
        """A study that was interrupted goes on in the same record."""
        tracker = make_tracker()
        key = tracker.start(make_study())
        tracker.log_trial(make_trial(0))
        tracker.finish(make_result(make_trial(0), state="interrupted", reason="Ctrl-C"))
        assert tracker.start(make_study(), resume=key) == key
        tracker.log_trial(make_trial(1))
        tracker.finish(make_result(make_trial(0), make_trial(1)))

    def test_a_record_that_is_gone_is_begun_anew(self, make_tracker: MakeTracker) -> None:
        """An unknown record is not taken for one that is continued."""
        tracker = make_tracker()
        assert tracker.start(make_study(), resume="gone") != "gone"
        tracker.finish(make_result())

    def test_one_tracker_serves_one_study_after_another(self, make_tracker: MakeTracker) -> None:
        """A tracker can be started again."""
        tracker = make_tracker()
        for name in ("first", "second"):
            tracker.start(make_study(name=name))
            tracker.log_trial(make_trial(0))
            tracker.finish(make_result(make_trial(0)))

    @pytest.mark.parametrize("state", ["finished", "interrupted", "failed"])
    def test_a_study_may_end_without_a_trial(self, make_tracker: MakeTracker, state: str) -> None:
        """Nothing has to be known of a study for it to end."""
        tracker = make_tracker()
        tracker.start(make_study(searched=()))
        tracker.finish(make_result(state=state, reason=None if state == "finished" else "a test"))

    def test_trials_with_unusual_values_are_taken(self, make_tracker: MakeTracker) -> None:
        """No name, value, length or number of them makes a tracker fail."""
        trial = make_trial(
            0,
            params={"callable (é)": len, "../up": None, "long": "x" * 20_000, "empty": "", "k" * 400: 1.0}
            | {f"p{i}": i for i in range(250)},
            metrics={"nan": math.nan, "inf": math.inf, "numpy": np.float32(0.5), "score@10 %": 1.0},
            series={"loss": [1.0, math.nan], "empty": []} | {f"split{i}_loss": [0.1] * 700 for i in range(3)},
            reason="x\n" * 10_000,
        )
        tracker = make_tracker()
        tracker.start(make_study(params={"estimator": "x" * 20_000, "none": None}))
        tracker.log_trial(trial)
        tracker.finish(make_result(trial, best=trial))

    def test_a_tracker_can_be_copied_before_and_after_a_study(self, make_tracker: MakeTracker) -> None:
        """As scikit-learn's clone and joblib copy a search that holds a tracker."""
        tracker = make_tracker()
        for _ in range(2):
            for twin in (copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))):
                twin.start(make_study())
                twin.finish(make_result())
            tracker.start(make_study())
            tracker.finish(make_result())
