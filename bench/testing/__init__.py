"""The contract of ``bench.method`` as plain checks, for methods of any package.

``check_method(cls)`` builds a method's small network (``Config.small()``) for ten classes of 32x32 images and asks for
everything that a comparison relies on. What does not hold is one line each: method, hook, what was expected, what was
found. Nothing is trained for longer than two steps; the whole takes seconds. ``bench test NAME`` prints it.
"""

from bench.testing.run import CHECKS, Result, check_method, run_checks
from bench.testing.subject import Subject, kept_random_state, make_subject, stir

__all__ = ["CHECKS", "Result", "Subject", "check_method", "kept_random_state", "make_subject", "run_checks", "stir"]
