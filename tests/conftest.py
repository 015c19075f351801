"""Fixtures that every test folder may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The terminal of whoever runs the suite must not decide how wide its tables are: each test says so itself.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data and published weights beside the checkout; skips where there is none."""
    folder = Path(os.environ.get("BENCH_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("needs the shared data folder beside the checkout (or BENCH_SHARED)")
    return folder


@pytest.fixture(scope="session")
def cifar_root(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 and CIFAR-100 in torchvision's layout: BENCH_DATA_ROOT if it has them, else unpacked once."""
    import subprocess
    import sys

    given = os.environ.get("BENCH_DATA_ROOT")
    if given and (Path(given) / "cifar-10-batches-py").is_dir() and (Path(given) / "cifar-100-python").is_dir():
        return Path(given)
    out = tmp_path_factory.mktemp("cifar")
    subprocess.run(
        [sys.executable, str(shared_dir / "data/cifar/unpack_cifar.py"), str(out)], check=True, capture_output=True
    )
    return out


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Two cores at most, whatever the machine has: the suite shares it."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() > 2:
        torch.set_num_threads(2)


#: More skipped tests than this on CI means that something the tests need has gone missing there.
MOST_SKIPS_ON_CI = 12


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Print how many tests were skipped; on CI (CI=true) fail where they are too many."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    skipped = len(reporter.stats.get("skipped", []))
    reporter.write_line(f"\nskipped: {skipped} (at most {MOST_SKIPS_ON_CI} on CI)")
    if os.environ.get("CI") == "true" and skipped > MOST_SKIPS_ON_CI and exitstatus == 0:
        reporter.write_line("too many skipped tests: see the reasons below", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
