"""Networks of a comparison looked at without training: what they cost and what training them will take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from bench.config.load import Loaded
from bench.config.resolve import RunSpec, StageSpec, parse_options
from bench.config.schema import Data
from bench.cost.copies import quietly
from bench.cost.memory import blank_batch, build_for_training, estimate_memory
from bench.cost.table import CostTable
from bench.cost.units import count_units
from bench.data import open_data
from bench.data.catalog import dataset_info, find_root, missing_files
from bench.errors import BenchError, ConfigError
from bench.method import DataSpec, Method, RunStage
from bench.registry import method_class
from bench.train.optim import freeze, parameter_groups
from bench.train.seeds import seed_everything

if TYPE_CHECKING:
    from pandas import DataFrame

    from bench.data import DataBundle


@dataclass(frozen=True)
class Inspected:
    """A run's network, built but not trained, with its costs."""

    spec: RunSpec
    method: Method
    model: nn.Module
    cost: CostTable

    @property
    def params(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


def inspect_runs(loaded: Loaded, specs: Sequence[RunSpec]) -> Iterator[Inspected]:
    """One network per run (its first seed), built from its options. Raises ConfigError naming the run."""
    bundle = open_if_there(loaded.comparison.data, loaded.comparison.protocol)
    seen: set[str] = set()
    for spec in specs:
        if spec.run in seen or spec.skip is not None:
            continue
        seen.add(spec.run)
        try:
            made = planned_method(spec, data_spec(spec, bundle))
            stage = last_stage(spec, made)
            seed_everything(0)
            model = made.build(stage)
            yield Inspected(spec, made, model, count_units(made, model))
        except BenchError as error:
            raise type(error)(f"run '{spec.run}': {error}") from None
        except (ValueError, RuntimeError, TypeError) as error:
            words = " ".join(str(error).split())
            raise ConfigError(f"run '{spec.run}': its network cannot be built: {words}") from error


def last_stage(spec: RunSpec, method: Method) -> RunStage:
    """The stage whose network is evaluated, with its recipe."""
    last = spec.stages[-1]
    return next(s for s in method.stages() if s.name == last.name).resolve(last.recipe)


def on_meta(method: Method, stage: RunStage) -> nn.Module:
    """The network of a stage without memory for its weights, where the method can be built so; else with it."""
    with torch.random.fork_rng(devices=[]), quietly():
        try:
            with torch.device("meta"):
                return method.build(stage)
        except Exception:  # it looks at values while it is built; what is wrong with it shows below
            return method.build(stage)


def refuses_one_image(method: Method, planned: StageSpec) -> str | None:
    """Why a training step of a stage on a single image fails, in one line; None if it works."""
    stage = next(s for s in method.stages() if s.name == planned.name).resolve(planned.recipe)
    with torch.random.fork_rng(devices=[]):
        model = build_for_training(method, stage)
        try:
            method.loss(model, blank_batch(method.data, planned.recipe, 1), stage)
        except Exception as error:
            return " ".join(str(error).split())[:200].rstrip(".")
    return None


def open_if_there(data: Data, protocol: str) -> DataBundle | None:
    """The opened data, or None where it is not there and the catalogue's facts have to do."""
    return None if missing_files(data.name, find_root(data, None)) else open_data(data, protocol=protocol)


def planned_method(spec: RunSpec, data: DataSpec) -> Method:
    """The method of a run for this data."""
    cls = method_class(spec.method)
    return cls(parse_options(cls.Config, spec.options), data)


def data_spec(spec: RunSpec, bundle: DataBundle | None) -> DataSpec:
    """What the networks of a run must know of the data, or what the catalogue says of it. ConfigError if neither
    knows how many classes there are."""
    recipe = spec.stages[-1].recipe
    if bundle is not None:
        return bundle.spec(recipe)
    info = dataset_info(spec.data.name)
    classes = info.num_classes or spec.data.num_classes
    if classes is None:
        raise ConfigError(f"data set '{info.name}' is not there; say data.num_classes to look at networks without it")
    return DataSpec(info.name, classes, recipe.val_crop_size or info.image_size, 3, info.mean, info.std)


def training_memory(found: Inspected) -> dict[str, dict[str, int]]:
    """Estimated bytes by purpose, for each stage. Raises ConfigError where a stage trains nothing."""
    estimates = {}
    for stage, planned in zip(found.method.stages(), found.spec.stages):
        resolved = stage.resolve(planned.recipe)
        model = found.method.build(resolved)
        freeze(model, resolved.trains)
        parameter_groups(model, planned.recipe)
        estimates[stage.name] = estimate_memory(found.method, stage, planned.recipe)
    return estimates


def point_table(found: Inspected) -> Table:
    """MACs of each operating point where they do not depend on the image; else of all units together."""
    table = Table("point", "MACs", "elementwise", "fvcore", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    size = found.method.data.image_size
    images = torch.zeros(2, found.method.data.channels, size, size)
    with torch.no_grad():
        counts = found.method.record(found.model.eval(), images).counts
    for index, point in enumerate(found.method.points(found.model)):
        own = counts[index] if counts.ndim == 2 else counts[index, 0]
        cost = found.cost.cost(own.numpy())
        label = point.name if counts.ndim == 2 else f"{point.name} (one blank image)"
        macs = (f"{int(cost[c]) / 1e6:,.2f} M" for c in ("macs", "macs_elementwise", "macs_fvcore"))
        table.add_row(Text(label), *macs)
    return table


def unit_frame(found: Inspected) -> DataFrame:
    """The cost table with the units' names as its first column."""
    return found.cost.to_frame().rename_axis("unit").reset_index()


def unit_table(found: Inspected) -> Table:
    """Every unit with all of its columns."""
    frame = unit_frame(found)
    table = Table(*map(str, frame.columns), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(_number(value)) for value in row))
    return table


def _number(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
