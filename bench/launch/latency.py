"""Timing the trained networks of a comparison: what executing each operating point really takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.comparing import parse_budget
from bench.config.resolve import RunSpec
from bench.config.schema import Comparison, Recipe
from bench.cost.timing import energy_of, peak_memory, time_interleaved
from bench.data import DataBundle, open_data
from bench.data.fingerprint import take_fingerprint
from bench.errors import BenchError, ConfigError, RunError
from bench.evaluate.collect import AMP_TYPES
from bench.evaluate.comparing.compare import reference_macs
from bench.evaluate.latency import read_latency, write_latency
from bench.evaluate.measured import Measured, read_measured
from bench.evaluate.results import read_results
from bench.launch.folder import RunFolder, hold, host_class
from bench.launch.inspect import last_stage
from bench.launch.plans import TimedPlan, make_plans
from bench.launch.run_one import make_method, pick_device
from bench.launch.same_data import check_same_data
from bench.launch.stages import load_given_weights, run_weights
from bench.method import Executed, Method, load_strict
from bench.store.comparison import read_comparison
from bench.store.stage import check_weights
from bench.store.status import read_status, stored_weights
from bench.train.checkpoint import read_weights

__all__ = ["LatencySettings", "measure_latency"]

_DTYPES = {"off": "float32", "bf16": "bfloat16", "fp16": "float16"}
#: Each batch is timed at least so often, so that its median is none of one value.
_REPEATS = 3
#: Batches whose peak memory is looked at (on the CPU every operator is watched, which is slow).
_MEMORY_BATCHES = 3


@dataclass(frozen=True)
class LatencySettings:
    """rounds: timed batches of each plan and batch size; warmup: rounds before them. images: different test images
    at most. points: operating points of a run at most. threads: of the CPU, None leaves torch's own."""

    batch_sizes: tuple[int, ...] = (1, 64)
    rounds: int = 60
    warmup: int = 5
    images: int = 256
    points: int = 16
    threads: int | None = None


@dataclass(frozen=True)
class _Network:
    """A trained network and everything its plans need. images: of ``places`` in its test record."""

    spec: RunSpec
    method: Method
    model: nn.Module
    recipe: Recipe
    measured: Measured
    plans: list[TimedPlan]
    images: Tensor
    places: np.ndarray
    device: torch.device

    def run(self, plan: TimedPlan, images: Tensor) -> Executed:
        dtype = AMP_TYPES.get(self.spec.evaluation_amp)
        with torch.no_grad(), torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return self.method.execute(self.model, images, plan.plan)


def measure_latency(
    specs: Sequence[RunSpec], comparison: Comparison, out: Path, settings: LatencySettings, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], bool]:
    """Time every plan of every run that is done, rounds interleaved over all of them, and write ``latency.csv``.

    Precision is that of the runs' evaluation (``evaluate.amp``). Kernels are not autotuned by shape: adaptive
    networks make batches of ever new sizes. Skipped runs are reported through ``say``. Returns the rows that were
    measured, and whether no run was skipped because its files are damaged. Raises RunError if nothing is done or the
    folder is in use, ConfigError if a batch is larger than the test part, the device is not here, or the results are of
    other data than is there now.
    """
    path = out / "comparison.json"
    if not path.is_symlink() and not path.exists():
        raise RunError(f"{out} holds no results yet; `bench run` trains the networks that are timed")
    known = [str(entry["run_id"]) for entry in read_comparison(out)["runs"]]
    read_latency(out)  # which is added to: known to be whole before anything is timed
    specs = [_as_it_was_run(spec, out) for spec in specs]
    if unchecked := check_same_data(out, specs, take_fingerprint(comparison.data)):
        say(unchecked)
    device = pick_device(specs[0])
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark
    with hold(out):
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        torch.backends.cudnn.benchmark = False
        try:
            networks, whole = _load_all(specs, comparison, out, device, settings, say)
            rows = [row for batch in settings.batch_sizes for row in _measure(networks, batch, device, settings, say)]
        finally:
            torch.set_num_threads(before[0])
            torch.backends.cudnn.benchmark = before[1]
        # Rows of one run together, batch sizes one after the other.
        order = {(spec.run, spec.seed): place for place, spec in enumerate(specs)}
        rows.sort(key=lambda row: order[row["run"], row["seed"]])
        write_latency(out, rows, known)
    return rows, whole


# ---- what there is ----------------------------------------------------------------------------------
def _load_all(
    specs: Sequence[RunSpec], comparison: Comparison, out: Path, device: torch.device, settings: LatencySettings,
    say: Callable[[str], None],
) -> tuple[list[_Network], bool]:  # fmt: skip
    """The networks, and whether none is left out because its files are damaged."""
    budgets = _budgets(comparison, out)
    bundles: dict[str, DataBundle] = {}
    networks, whole = [], True
    for spec in specs:
        folder = RunFolder(out, spec).path
        try:
            reason = _unusable(spec, folder)
            measured = read_measured(folder) if reason is None else None
        except BenchError as error:
            reason, measured, whole = f"{error}; `bench run` repairs it", None, False
        if measured is None:
            say(f"{spec.run} seed {spec.seed}: passed over ({reason or 'its records are gone'})")
            continue
        key = spec.data.model_dump_json()
        if key not in bundles:
            bundles[key] = open_data(spec.data, protocol=spec.protocol)
        networks.append(_load(spec, out, measured, bundles[key], device, budgets, settings, say))
    if not networks:
        raise RunError(f"no run of '{comparison.name}' in {out} is done; `bench run` trains what is to be timed")
    return networks, whole


def _as_it_was_run(spec: RunSpec, out: Path) -> RunSpec:
    """A run whose given weights were measured without training (`bench run --eval-only`) is a run of its own."""
    if spec.weights is None or spec.evaluate_only or RunFolder(out, spec).status["status"] == "done":
        return spec
    measured = spec.model_copy(update={"evaluate_only": True})
    return measured if RunFolder(out, measured).status["status"] == "done" else spec


def _unusable(spec: RunSpec, folder: Path) -> str | None:
    """Why a run cannot be timed; None if it can. Raises Damaged."""
    status = read_status(folder)
    if status["status"] != "done":
        return str(status["status"])
    if spec.evaluate_only:
        return None
    weights = stored_weights(folder, status)
    if weights is None:
        return "its trained weights are gone"
    check_weights(weights)
    return None


def _load(
    spec: RunSpec, out: Path, measured: Measured, bundle: DataBundle, device: torch.device, budgets: Sequence[float],
    settings: LatencySettings, say: Callable[[str], None],
) -> _Network:  # fmt: skip
    folder = RunFolder(out, spec)
    method = make_method(spec, bundle)
    stage = last_stage(spec, method)
    recipe = spec.stages[-1].recipe
    model = method.build(stage)
    weights = run_weights(folder.path)
    if spec.evaluate_only or weights is None:
        load_given_weights(spec, method, model)
    else:
        load_strict(model, read_weights(weights)[0], what=str(weights))
    model = model.to(device).eval()
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    points = list(method.points(model))
    plans = make_plans(measured, points, budgets, settings.points)
    if len(points) > settings.points:
        say(f"{spec.run} seed {spec.seed}: {settings.points} of {len(points)} operating points, the default one "
            "and others evenly over their cost (--points)")  # fmt: skip
    images, places = _images(spec, bundle, recipe, measured, settings)
    return _Network(spec, method, model, recipe, measured, plans, images.to(device), places, device)


def _images(
    spec: RunSpec, bundle: DataBundle, recipe: Recipe, measured: Measured, settings: LatencySettings
) -> tuple[Tensor, np.ndarray]:
    """Test images evenly over the test part (whose order may be by class), and their places in the record."""
    there, most = bundle.counts["test"], max(settings.batch_sizes)
    if most > there:
        raise ConfigError(f"--batch-sizes {most}: the test part has {there} images")
    wanted = min(max(most, settings.images), there)
    step = there // wanted
    loader = bundle.eval_loader("test", recipe, batch_size=spec.evaluate.batch_size, device=torch.device("cpu"),
                                rank=0, world=step)  # fmt: skip
    images, indices, found = [], [], 0
    for part, _, numbers in loader:
        images.append(part)
        indices.append(numbers)
        found += len(part)
        if found >= wanted:
            break
    stacked = torch.cat(images)[:wanted]
    if recipe.channels_last:
        stacked = stacked.contiguous(memory_format=torch.channels_last)
    known = measured.test.signals.indices
    asked = torch.cat(indices)[:wanted].numpy()
    places = np.searchsorted(known, asked)
    if (places == len(known)).any() or not np.array_equal(known[places], asked):
        raise RunError(f"run '{spec.run}': its record is of other test images; run the comparison again")
    return stacked, places


def _budgets(comparison: Comparison, out: Path) -> list[float]:
    """The comparison's budgets in MACs, shares as the report takes them; milliseconds are left out."""
    budgets = [parse_budget(entry) for entry in comparison.budgets]
    reference: list[float] = []
    if any(budget.unit == "relative" for budget in budgets):
        cost = reference_macs(read_results(out))
        reference = [] if isinstance(cost, str) else [cost]
    scale = {"macs": [1.0], "relative": reference, "ms": []}
    return [budget.value * scale[budget.unit][0] for budget in budgets if scale[budget.unit]]


# ---- measuring --------------------------------------------------------------------------------------
def _measure(
    networks: Sequence[_Network], batch: int, device: torch.device, settings: LatencySettings,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    pool = len(networks[0].images)
    batches = max(1, min(max(settings.images, batch) // batch, settings.rounds // _REPEATS, pool // batch))
    chosen = np.linspace(0, pool - 1, batches * batch).round().astype(int).reshape(batches, batch)
    jobs = [(network, plan) for network in networks for plan in network.plans]
    say(f"batch {batch}: {len(jobs)} operating points of {len(networks)} networks, {settings.rounds} rounds, "
        f"{batches * batch} images")  # fmt: skip
    calls: list[Callable[[int], object]] = []
    facts: list[dict[str, Any]] = []
    for network, plan in jobs:
        inputs = [network.images[torch.from_numpy(numbers).to(device)] for numbers in chosen]
        if network.recipe.channels_last:
            inputs = [images.contiguous(memory_format=torch.channels_last) for images in inputs]
        facts.append(_check(network, plan, inputs, chosen))
        calls.append(partial(_call, network, plan, inputs))
    times = time_interleaved(calls, rounds=settings.rounds, warmup=settings.warmup, batches=batches, device=device)
    rows = []
    for (network, plan), call, fact, taken in zip(jobs, calls, facts, times):
        energy = energy_of(call, batches, device)
        medians = [float(np.median(taken[number::batches])) for number in range(batches)]
        rows.append({
            **_names(network, plan), "batch": batch, "device": device.type,
            "dtype": _DTYPES[network.spec.evaluation_amp], "threads": torch.get_num_threads(),
            "rounds": settings.rounds, "images": batches * batch, "ms_median": _rounded(np.median(taken)),
            "ms_p95": _rounded(np.quantile(taken, 0.95)), "ms_per_image": _rounded(np.mean(medians) / batch), **fact,
            "energy_mj": None if energy is None else _rounded(energy / batch),
            "torch": torch.__version__, "host_class": host_class(device.type),
        })  # fmt: skip
    return rows


def _call(network: _Network, plan: TimedPlan, inputs: Sequence[Tensor], number: int) -> Executed:
    return network.run(plan, inputs[number])


def _check(network: _Network, plan: TimedPlan, inputs: Sequence[Tensor], chosen: np.ndarray) -> dict[str, Any]:
    """Everything that needs no clock: cost, memory, and whether predictions are those of the record."""
    macs, same = [], []
    for images, numbers in zip(inputs, chosen):
        executed = network.run(plan, images)
        macs.append(network.measured.cost.cost(executed.counts.cpu().numpy())["macs"])
        predicted = executed.logits.argmax(-1).cpu().numpy()
        same.append(predicted == plan.predictions[network.places[numbers]])
    peak = max(
        peak_memory(partial(_call, network, plan, inputs, number), network.device)
        for number in range(min(len(inputs), _MEMORY_BATCHES))
    )
    own = sum(t.numel() * t.element_size() for t in [*network.model.parameters(), *network.model.buffers()])
    own += inputs[0].numel() * inputs[0].element_size()
    return {
        "macs": float(np.concatenate(macs).mean()),
        "params": network.measured.cost.total_params(),
        "memory_mib": round((own + peak) / 2**20, 3),
        "agreement": float(np.concatenate(same).mean()),
    }


def _names(network: _Network, plan: TimedPlan) -> dict[str, Any]:
    spec = network.spec
    return {
        "run": spec.run, "label": spec.label, "method": spec.method, "seed": spec.seed, "policy": plan.policy,
        "point": plan.point, "setting": plan.setting, "run_id": spec.run_id,
    }  # fmt: skip


def _rounded(milli: Any) -> float:
    """Six significant digits: more than a clock can say."""
    return float(f"{float(milli):.6g}")
