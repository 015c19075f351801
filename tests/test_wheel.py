"""What `pip install` of the built package gives, used from a folder that has nothing of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from bench import __version__

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "results", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--wheel-dir", folder, folder / "source"]  # fmt: skip
    subprocess.run(command, check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    command = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet", "--no-deps",
               "--no-index", wheel]  # fmt: skip
    subprocess.run(command, check=True, timeout=300)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def _run(fresh: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([fresh / "bin" / "bench", *arguments], cwd=where, env=environment, capture_output=True,
                          text=True, timeout=240, check=False)  # fmt: skip


def test_three_packages_are_installed_with_their_files(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    metadata = f"depthbench-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"bench", "methods", "baselines", metadata}
    assert {"bench/configs/quickstart.yaml", "bench/configs/schema.json", "bench/py.typed"} <= set(names)
    shipped = {name.removeprefix("bench/") for name in names if name.endswith(".yaml")}
    assert shipped == {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}


def test_the_quickstart_is_found_and_checked_anywhere(fresh: Path, tmp_path: Path) -> None:
    done = _run(fresh, tmp_path, "check", "quickstart")
    assert done.returncode == 0, done.stderr
    assert "all good" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_shipped_files_are_listed_anywhere(fresh: Path, tmp_path: Path) -> None:
    done = _run(fresh, tmp_path, "list", "configs")
    assert done.returncode == 0, done.stderr
    assert "quickstart: " in done.stdout
    assert "skipnet/cifar10_resnet110: " in done.stdout
    assert str(fresh) not in done.stdout


def test_its_version_is_that_of_the_package(fresh: Path, tmp_path: Path) -> None:
    assert _run(fresh, tmp_path, "--version").stdout == f"depthbench {__version__}\n"
