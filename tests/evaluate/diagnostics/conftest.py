"""Made-up records are shared with the other tests of the evaluate room."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
