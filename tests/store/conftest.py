"""One comparison for all tests of this room."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    from damage import make

    return make(tmp_path_factory.mktemp("store") / "made")
