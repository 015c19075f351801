"""Records that the tests of ``evaluate`` make, and quick comparisons of those of ``launch``, for these tests too."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "evaluate"), str(TESTS / "launch")]
