"""What is checked of every comparison before anything runs, beyond the file's own rules. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from bench.config.load import Loaded
from bench.config.resolve import RunSpec, resolve
from bench.data.catalog import dataset_info, find_root, how_to_get, missing_files
from bench.errors import ConfigError
from bench.evaluate.policies import check_policies
from bench.track import check_trackers, require_packages


def plan_runs(loaded: Loaded) -> list[RunSpec]:
    """The runs of a comparison, after its names have been checked: data set, policies, trackers, methods, options."""
    try:
        dataset_info(loaded.comparison.data.name)
    except ConfigError as error:
        raise ConfigError(str(error), where=str(loaded.origin("data", "name"))) from None
    try:
        check_policies(loaded.comparison.evaluate.policies, loaded.comparison.protocol)
    except ConfigError as error:
        raise ConfigError(str(error), where=str(loaded.origin("evaluate", "policies"))) from None
    try:
        check_trackers(loaded.comparison.trackers)
    except ConfigError as error:
        raise ConfigError(str(error), where=str(loaded.origin("trackers"))) from None
    return resolve(loaded)


def leave_out_impossible(loaded: Loaded, specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The specs, with ``skip`` for combinations of an ablation whose networks cannot be built."""
    if not loaded.comparison.ablation:
        return list(specs)
    from bench.launch.ablate import skip_impossible  # which builds them, and imports torch

    return skip_impossible(loaded, specs)


def require_data(loaded: Loaded) -> None:
    """ConfigError where files of the data set are missing and are not to be fetched."""
    data = loaded.comparison.data
    missing = missing_files(data.name, find_root(data))
    if missing and not data.download:
        more = f" and {len(missing) - 2} more" if len(missing) > 2 else ""
        advice = how_to_get(dataset_info(data.name))
        raise ConfigError(f"data set '{data.name}': missing {', '.join(missing[:2])}{more}; {advice}",
                          where=str(loaded.origin("data", "name")))  # fmt: skip


def require_tracker_packages(loaded: Loaded) -> None:
    """ConfigError where a tracker's own package is not installed."""
    try:
        require_packages(loaded.comparison.trackers)
    except ConfigError as error:
        raise ConfigError(str(error), where=str(loaded.origin("trackers"))) from None
