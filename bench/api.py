"""The Python interface for notebooks: the objects that the command line uses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.load import Loaded, load_config
from bench.launch.foresee import say_first
from bench.launch.preflight import leave_out_impossible, plan_runs, require_data, require_tracker_packages
from bench.launch.session import Outcome, Session
from bench.launch.whole import find_whole
from bench.registry import method_class

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.method import Method

__all__ = ["import_official", "load_config", "run", "save_official"]


def run(
    config: Loaded | str | Path,
    *,
    out: str | Path | None = None,
    retry: Sequence[str] = (),
    fresh: bool = False,
    verify: bool = False,
    isolate: bool = True,
    quiet: bool = False,
) -> Outcome:
    """Do a comparison, as ``bench run`` does; what is already there is not done again.

    config: a file, or what ``load_config`` returned. out: folder of the results. verify: notice every changed image,
    also in large class folders, by reading all of them. isolate: a process per run;
    False keeps methods that only this process knows usable. Returns statuses, exit code and the folder, which
    holds results.csv, summary.csv, plots and report.html. Raises ConfigError before anything is run,
    also if the folder's results are of other data.
    """
    loaded = config if isinstance(config, Loaded) else load_config(config)
    specs = plan_runs(loaded)
    require_data(loaded)
    require_tracker_packages(loaded)
    specs = leave_out_impossible(loaded, specs)
    folder = Path(out or loaded.comparison.out or Path("results") / loaded.comparison.name)
    say_first(loaded, specs, folder, retry=retry, fresh=fresh, quiet=quiet)
    session = Session(folder, retry=tuple(retry), fresh=fresh, verify=verify, isolate=isolate, quiet=quiet)
    return session.run(specs, find_whole(loaded, specs, folder, fresh=fresh))


def import_official(
    method: str, arch: str, state_dict: Mapping[str, Tensor]
) -> tuple[Method, nn.Module]:
    """Published weights -> the method and its network, in evaluation mode.

    Raises WeightsError for an unknown architecture or a key that does not fit.
    """
    made, model = method_class(method).import_weights(arch, state_dict)
    return made, model.eval()


def save_official(method: Method, model: nn.Module, name: str, arch: str, path: str | Path) -> Path:
    """Write imported weights in our format, for ``weights: FILE`` of a run. Raises RunError if it cannot be written."""
    from bench.files import write_bytes_atomic
    from bench.train.checkpoint import FORMAT, pack

    about: dict[str, Any] = {
        "method": name, "arch": arch, "options": method.config.model_dump(mode="json"),
        "stage": method.stages()[-1].name, "data": method.data.name, "num_classes": method.data.num_classes,
        "image_size": method.data.image_size, "mean": list(method.data.mean), "std": list(method.data.std),
    }  # fmt: skip
    path = Path(os.fspath(path))
    write_bytes_atomic(path, pack({"format": FORMAT, "about": about, "model": model.state_dict()})[0])
    return path
