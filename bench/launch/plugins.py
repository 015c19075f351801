"""Methods from other packages: what the contract asks for is checked once per version, before anything is trained."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench import __version__
from bench.config.resolve import RunSpec, parse_options
from bench.errors import BenchError, ContractError
from bench.files import write_text_atomic
from bench.registry import distribution_of, method_class

if TYPE_CHECKING:
    from bench.method import Method

__all__ = ["require_contract"]

OWN = "depthbench"


def require_contract(specs: Iterable[RunSpec]) -> None:
    """Raise ContractError, in one line, for the first method of another package that breaks the contract.

    A method that has passed is not looked at again until its package, depthbench or torch changes.
    """
    for spec in {spec.method: spec for spec in specs}.values():
        if distribution_of(spec.method).split(" ")[0] == OWN:
            continue
        cls = method_class(spec.method)
        passed = cache_folder() / f"{_key(spec.method, cls)}.json"
        if passed.is_file():
            continue
        _check(spec, cls)
        with suppress(BenchError, OSError):  # nowhere to remember it: it is checked again next time
            write_text_atomic(passed, json.dumps({"method": spec.method, "package": distribution_of(spec.method)}))


def cache_folder() -> Path:
    """Where passes are remembered: below XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "depthbench" / "contract"


def _check(spec: RunSpec, cls: type[Method]) -> None:
    from bench.testing import check_method

    try:
        config = cls.Config.small()
    except Exception:  # options without defaults: those of the run have to do
        config = parse_options(cls.Config, spec.options)
    problems = check_method(cls, spec.method, config)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ContractError(f"{problems[0]}{more}")


def _key(name: str, cls: type[Method]) -> str:
    """Everything on which the outcome depends: package and version, its sources, ours, torch's version."""
    import torch

    import bench.testing
    from bench.testing.options import sources

    value = hashlib.sha256()
    for text in (name, cls.__module__, cls.__qualname__, distribution_of(name), __version__, torch.__version__,
                 sys.version.split()[0]):  # fmt: skip
        value.update(f"{text}\n".encode())
    for path in [*sources(cls), *sorted(Path(bench.testing.__file__).parent.glob("*.py"))]:
        value.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{name}-{value.hexdigest()[:20]}"
