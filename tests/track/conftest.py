"""Makes packages of other people, and quick comparisons, importable for the tests of this folder."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "doors"), str(TESTS / "launch")]
