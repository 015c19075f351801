"""Packages of other people, for the tests of this folder too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "doors"))
