import subprocess
import sys

import pytest

from tuner.testing.trackers import TrackerTestCase, make_result, make_study, make_trial
from tuner.tracking import MemoryTracker, NullTracker


class TestNullTracker(TrackerTestCase):
    @pytest.fixture
    def make_tracker(self):
        return NullTracker


class TestMemoryTracker(TrackerTestCase):
    @pytest.fixture
    def make_tracker(self):
        return MemoryTracker


def test_memory_tracker_keeps_what_it_is_given():
    tracker = MemoryTracker()
    study, trial = make_study(), make_trial(0)
    key = tracker.start(study)
    tracker.log_trial(trial)
    tracker.finish(result := make_result(trial))
    assert (tracker.study, tracker.trials, tracker.result) == (study, [trial], result)

    tracker.start(study, resume=key)
    tracker.log_trial(make_trial(1))
    assert [trial.number for trial in tracker.trials] == [0, 1]

    tracker.start(make_study(name="another"), resume=None)
    assert tracker.trials == []


def test_tracking_does_not_import_mlflow():
    code = "import sys, tuner.tracking, tuner.tracking.autolog; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
