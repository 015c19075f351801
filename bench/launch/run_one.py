"""One run of one seed, from its spec to its rows: data, stages, records, costs, status."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.config.resolve import RunSpec, parse_options
from bench.cost.table import CostTable
from bench.cost.units import count_units
from bench.data import DataBundle, open_data
from bench.data.fingerprint import Fingerprint, read_fingerprint, take_fingerprint
from bench.errors import BenchError, ConfigError, Diverged, RunError
from bench.evaluate.collect import record_split
from bench.evaluate.record import DecisionRecord, merge
from bench.evaluate.rows import make_rows, write_rows
from bench.files import UNWRITABLE, parse_json_lines, write_bytes_atomic, write_json_atomic, write_text_atomic
from bench.launch.folder import RunFolder, host_class, one_line
from bench.launch.stages import Trainer, load_given_weights
from bench.launch.training_facts import training_facts
from bench.method import Method, RunStage
from bench.registry import method_class
from bench.store.manifest import list_files
from bench.store.reading import Damaged
from bench.store.stage import read_metrics
from bench.track import Tracking, track_run
from bench.train.seeds import derive_seed, seed_everything
from bench.train.watch import Interrupted, TimeIsUp, Watch
from bench.train.world import World, join_world, lost_a_process


def execute_run(
    spec: RunSpec, out: Path, *, watch: Watch | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Do one run and return its final status. Never raises for what goes wrong inside the run: the status
    says it. Interrupted is raised on, after the status is stored."""
    watch = watch or Watch(spec.timeout_minutes)
    folder = RunFolder(out, spec)
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S"), _Clock(folder)
    world, tracking = World(), Tracking()
    try:
        device = pick_device(spec)
        world = join_world(device.type)
        if world.size > 1 and device.type == "cuda":
            device = torch.device("cuda", world.local_rank)
        if world.is_main:
            (folder.path / "traceback.txt").unlink(missing_ok=True)
            folder.set_status("running", started_at=started, torch=torch.__version__, processes=world.size,
                              python=sys.version.split()[0], host_class=host_class(device.type))  # fmt: skip
            tracking = track_run(spec, out, folder.path)
        facts = _run(spec, folder, device, world, watch, quiet, clock, tracking)
    except Exception as error:
        status, reason = _status_of(error, world), one_line(error)
        if status == "interrupted" and not isinstance(error, Interrupted):
            reason = "another process of this run ended"
            time.sleep(2.0)  # it may have stored why
        if status == "failed" and not isinstance(error, BenchError) and getattr(error, "errno", None) not in UNWRITABLE:
            _try_to_write(folder.path / "traceback.txt", traceback.format_exc())
        if world.size == 1 or folder.status["status"] in ("running", "pending"):  # the first error says how it ended
            _try_to_set(folder, status, reason, wall_s=clock.wall_s)
        tracking.close(status)
        if isinstance(error, Interrupted) or world.size > 1:
            raise
        return {"status": status, "reason": reason}
    if world.is_main:
        done = folder.set_status("done", **facts, wall_s=clock.wall_s)
        tracking.close("done")
        return done
    return {"status": "done", "reason": None}


class _Clock:
    """The wall time of a run over all its sessions; of one that was killed, up to its last checkpoint."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        before = folder.status.get("wall_s")
        self._began = time.monotonic() - (before if isinstance(before, (int, float)) and before > 0 else 0.0)

    @property
    def wall_s(self) -> float:
        return round(time.monotonic() - self._began, 1)

    def store(self) -> None:
        self._folder.set_status("running", wall_s=self.wall_s)


def _status_of(error: Exception, world: World) -> str:
    if isinstance(error, Interrupted):
        return "interrupted"
    if isinstance(error, TimeIsUp):
        return "timeout"
    if isinstance(error, Diverged):
        return "diverged"
    return "interrupted" if world.size > 1 and lost_a_process(error) else "failed"


def _try_to_set(folder: RunFolder, status: str, reason: str, **more: Any) -> None:
    """A full disk must not hide the error that filled it."""
    try:
        folder.set_status(status, reason, **more)
    except (OSError, BenchError) as error:
        print(f"{folder.spec.run}: {status}: {reason} (not stored: {one_line(error)})", file=sys.stderr)


def _try_to_write(path: Path, text: str) -> None:
    try:
        write_text_atomic(path, text)
    except (OSError, BenchError):
        print(f"the traceback could not be stored in {path}", file=sys.stderr)


def _run(
    spec: RunSpec, folder: RunFolder, device: torch.device, world: World, watch: Watch, quiet: bool, clock: _Clock,
    tracking: Tracking,
) -> dict[str, Any]:
    configure_torch(spec)
    bundle = open_data(spec.data, protocol=spec.protocol)
    data = _fingerprint(spec, folder, bundle)
    method = make_method(spec, bundle)
    split_file = bundle.save_split(folder.out / "splits").name if world.is_main else ""
    recipe = spec.stages[-1].recipe

    def record(model: nn.Module, split: str, keep_logits: bool = False) -> DecisionRecord:
        loader = bundle.eval_loader(
            split, recipe, batch_size=spec.evaluate.batch_size, device=device, rank=world.rank, world=world.size
        )  # fmt: skip
        # With fewer images than processes some have none.
        own = None if not len(loader) else record_split(
            method, model, loader, device=device, amp=spec.evaluation_amp, channels_last=recipe.channels_last,
            keep_logits=keep_logits,
        )  # fmt: skip
        return merge([part for part in world.gather(own) if part is not None])

    def validate(model: nn.Module) -> float:
        return 100.0 * float(record(model, "val").outcomes.hit[0].mean())

    model, stage, keys = _network(spec, method, bundle, data, folder, device, world, watch, quiet, clock.store,
                                  tracking.log, validate if bundle.counts.get("val") else None)  # fmt: skip
    with watch_breaks(watch):
        keep = spec.evaluate.keep_logits
        records = {split: record(model, split, keep) for split in ("val", "test") if bundle.counts.get(split)}
    if not world.is_main:
        return {}
    cost = count_units(method, model)
    curves = _curves(spec, folder, keys)
    write_bytes_atomic(folder.path / "metrics.jsonl", curves)
    for line in parse_json_lines(curves):  # of stages that were there already
        tracking.log(line)
    tracking.finish(_store(spec, folder, method, stage, bundle, records, cost, device))
    trained = [stage.resolve(of.recipe) for of in spec.stages for stage in method.stages() if stage.name == of.name]
    took = training_facts(method, trained, folder.path / "metrics.jsonl") if keys else {}
    return {**took, "split_hash": bundle.split_hash, "split_file": split_file, "counts": dict(bundle.counts),
            "data": data.model_dump(), "files": list_files(folder.path)}  # fmt: skip


def _fingerprint(spec: RunSpec, folder: RunFolder, bundle: DataBundle) -> Fingerprint:
    """Of the data that this process reads. RunError if it is not what `bench run` found when it began."""
    data = take_fingerprint(spec.data, sources=bundle.sources)
    expected = read_fingerprint(folder.status.get("data"))
    if expected is None:
        return data
    if changed := data.difference(expected):
        raise RunError(f"the data changed while this comparison ran ({changed})")
    return expected  # which may have been verified


class watch_breaks:
    """Stops are noticed after the block, so that a measurement is whole or absent."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def __enter__(self) -> None:
        self.watch.check()

    def __exit__(self, *_: object) -> None:
        self.watch.check()


def _network(
    spec: RunSpec, method: Method, bundle: DataBundle, data: Fingerprint, folder: RunFolder, device: torch.device,
    world: World, watch: Watch, quiet: bool, saved: Callable[[], None],
    log: Callable[[Mapping[str, Any]], None], validate: Any,
) -> tuple[nn.Module, RunStage, list[str]]:  # fmt: skip
    if not spec.evaluate_only:
        trainer = Trainer(spec, method, bundle, data, folder.out, device, world, watch, quiet, validate, saved, log)
        keys = list(trainer.keys().values())
        if world.is_main:
            folder.set_status("running", stages=keys)
        return (*trainer.run(), keys)
    last = spec.stages[-1]
    stage = next(s for s in method.stages() if s.name == last.name).resolve(last.recipe)
    seed_everything(derive_seed(spec.seed, "init", last.name))
    model = method.build(stage)
    load_given_weights(spec, method, model)
    return model.to(device).eval(), stage, []


def _curves(spec: RunSpec, folder: RunFolder, keys: list[str]) -> bytes:
    """The training curves of these stages, as JSON lines."""
    curves = []
    for key in keys:
        try:
            curves.append(read_metrics(folder.out / "stages" / key))
        except Damaged as error:
            print(f"{error}; {spec.run} seed {spec.seed} has no training curve of this stage", file=sys.stderr)
    return b"".join(curves)


def _store(
    spec: RunSpec, folder: RunFolder, method: Method, stage: RunStage, bundle: DataBundle,
    records: dict[str, DecisionRecord], cost: CostTable, device: torch.device,
) -> list[dict[str, Any]]:  # fmt: skip
    """Write what was measured. Returns the rows."""
    for split, record in records.items():
        record.save(folder.path, split)
    write_json_atomic(folder.path / "cost.json", cost.to_dict())
    meta = row_meta(spec)
    if bundle.num_classes != (bundle.info.num_classes or bundle.num_classes):
        meta["dataset"] = f"{spec.data.name} ({bundle.num_classes} classes)"
    meta |= {
        "split_hash": bundle.split_hash, "backbone": method.backbone(), "stage": stage.name,
        "capabilities": sorted(method.capabilities), "amp": spec.evaluation_amp,
        "torch": torch.__version__, "python": sys.version.split()[0], "device": device.type,
        "host_class": host_class(device.type), "status": "done", "reason": "",
    }  # fmt: skip
    write_json_atomic(folder.path / "meta.json", meta)
    rows = make_rows(meta, records, cost, spec.evaluate)
    write_rows(folder.path / "rows.csv", rows)
    return rows


def row_meta(spec: RunSpec) -> dict[str, Any]:
    """What every row of a run says of the run."""
    return {
        "protocol_version": spec.protocol_version, "comparison": spec.comparison, "run": spec.run,
        "run_id": spec.run_id, "label": spec.label, "dataset": spec.data.name, "protocol": spec.protocol,
        "seed": spec.seed, "method": spec.method,
    }  # fmt: skip


def make_method(spec: RunSpec, bundle: DataBundle) -> Method:
    """The method of a run, its head sized by the data."""
    cls = method_class(spec.method)
    return cls(parse_options(cls.Config, spec.options), bundle.spec(spec.stages[-1].recipe))


def pick_device(spec: RunSpec) -> torch.device:
    """The device a spec asks for; ConfigError where it is not here."""
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda, but torch sees no CUDA device; use --device cpu")
    return torch.device("cuda" if spec.device != "cpu" and torch.cuda.is_available() else "cpu")


def configure_torch(spec: RunSpec) -> None:
    """Threads and determinism of this process."""
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    torch.backends.cudnn.benchmark = not spec.deterministic
    if spec.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
