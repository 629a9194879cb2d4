"""Where a study's trials are recorded."""

from tuner.tracking.base import (
    MemoryTracker,
    NullTracker,
    StudyRecord,
    StudyResult,
    Tracker,
    TrackingWarning,
    TrialRecord,
)

__all__ = [
    "MemoryTracker",
    "NullTracker",
    "StudyRecord",
    "StudyResult",
    "Tracker",
    "TrackingWarning",
    "TrialRecord",
]
