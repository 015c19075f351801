"""Combinations of an ablation that only the network itself can refuse."""

from __future__ import annotations

from collections.abc import Sequence

from bench.config.load import Loaded
from bench.config.resolve import RunSpec
from bench.data import DataBundle
from bench.errors import BenchError
from bench.launch.folder import one_line
from bench.launch.inspect import data_spec, on_meta, open_if_there, planned_method

__all__ = ["skip_impossible"]


def skip_impossible(loaded: Loaded, specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The specs, with ``skip`` for combinations whose networks cannot be built (channels that a norm does not
    divide, say). The runs that are varied are left as they are: there it is a mistake of the file."""
    varied = {run.name for run in loaded.comparison.runs if run.base is not None and run.base != run.name}
    tried: dict[str, str | None] = {}
    bundles: dict[str, DataBundle | None] = {}  # normalisation may differ between runs
    checked = []
    for spec in specs:
        if spec.run in varied and spec.skip is None:
            if spec.run not in tried:
                key = spec.data.model_dump_json()
                if key not in bundles:
                    bundles[key] = open_if_there(spec.data, spec.protocol)
                tried[spec.run] = _refusal(spec, bundles[key])
            reason = tried[spec.run]
            spec = spec.model_copy(update={"skip": f"impossible: {reason}"}) if reason is not None else spec
        checked.append(spec)
    return checked


def _refusal(spec: RunSpec, bundle: DataBundle | None) -> str | None:
    """Why one of its stages has no network, in one line; None where all have."""
    data = data_spec(spec, bundle)  # without data there is nothing to say about the network
    try:
        method = planned_method(spec, data)
        for stage, planned in zip(method.stages(), spec.stages):
            on_meta(method, stage.resolve(planned.recipe))
    except (BenchError, ValueError, RuntimeError, TypeError) as error:
        return one_line(error)
    return None
