"""Trackers: programs that show how training goes and what came of it, beside the results folder.

``Tracker`` is what one is, ``tracker_class`` finds it by its name, ``Tracking`` tells those of a run.
``docs/adding-a-tracker.md`` walks through one. Imports neither torch nor a tracker's own package.
"""

from bench.track.base import TrackedRun, Tracker
from bench.track.catalogue import check_trackers, require_packages, tracker_class, tracker_names
from bench.track.tracking import Tracking, track_run

__all__ = [
    "TrackedRun", "Tracker", "Tracking", "check_trackers", "require_packages", "track_run", "tracker_class",
    "tracker_names",
]  # fmt: skip
