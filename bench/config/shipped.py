"""The comparison files that come with the package, by name: ``quickstart``, ``ablations/cifar10_dynamic_depth``."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SHIPPED", "find_config", "shipped_names"]

SHIPPED = Path(__file__).resolve().parents[1] / "configs"


def find_config(path: str | Path) -> Path:
    """A file as it is given; if there is none and the name has no ending, the shipped file of this name."""
    path = Path(path)
    shipped = SHIPPED / f"{path}.yaml"
    return shipped if not path.suffix and not path.exists() and shipped.is_file() else path


def shipped_names() -> list[str]:
    """Names of all shipped files, fragments included, sorted."""
    return sorted(path.relative_to(SHIPPED).with_suffix("").as_posix() for path in SHIPPED.rglob("*.yaml"))
