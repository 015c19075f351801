"""A comparison from its list of runs to its drawn results: what is missing is done, one process per run.

A run that fails, diverges or dies never touches the others; each commits its own files. Under torchrun
every process walks through the runs together and the first one writes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config.resolve import RunSpec
from bench.data.fingerprint import Fingerprint, take_fingerprint
from bench.errors import BenchError, ConfigError, RunError
from bench.evaluate.latency import read_latency, write_latency
from bench.launch.folder import (
    SETTLED,
    RunFolder,
    hold,
    list_runs,
    one_line,
    write_comparison,
)
from bench.launch.forkserver import ForkServer, RunProcess
from bench.launch.same_data import check_same_data
from bench.launch.whole import Whole
from bench.train.watch import Interrupted, Watch

if TYPE_CHECKING:
    from bench.evaluate.analysis import Analysis

#: A run's process that was asked to stop is waited for this long (seconds), then killed.
_GRACE = 10.0


@dataclass
class Outcome:
    """What became of a comparison: final status by run folder name, and the signal that ended it early. analysis: what
    the report shows, None if none was drawn."""

    out: Path
    statuses: dict[str, str] = field(default_factory=dict)
    stopped_by: int | None = None
    report_error: str | None = None
    analysis: Analysis | None = None

    @property
    def exit_code(self) -> int:
        """0 only if every run succeeded (or is left out by the file) and the report shows no failed run; 128 + signal
        if one ended it."""
        if self.stopped_by is not None:
            return 128 + self.stopped_by
        good = all(status in ("done", "skipped") for status in self.statuses.values())
        shown = self.analysis is None or self.analysis.results.whole
        return 0 if good and shown and self.report_error is None else 1


@dataclass(frozen=True)
class Session:
    """How to go about it. retry: settled statuses to run again ("failed", ...). fresh: forget what is there.
    isolate: a process per run (never under torchrun). quiet: no progress. train: False measures only what is
    trained already. report: draw tables and plots at the end. ray: address of a Ray cluster to do the runs on, as many
    at once as fit ("auto": see ``bench.launch.cluster.join``). verify: hash the contents of large class
    folders too."""

    out: Path
    retry: tuple[str, ...] = ()
    fresh: bool = False
    isolate: bool = True
    quiet: bool = False
    train: bool = True
    report: bool = True
    ray: str | None = None
    verify: bool = False
    _lock: list[int] = field(default_factory=list, repr=False)
    _intact: set[str] = field(default_factory=set, repr=False)

    def run(self, specs: Sequence[RunSpec], whole: Whole) -> Outcome:
        """Do what is missing of ``specs``, then draw ``whole``. Raises BenchError where nothing could be started."""
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            if self.ray is not None:
                raise ConfigError("--ray and torchrun exclude each other: one spreads runs, the other splits each run")
            return self._run_together(specs, whole)
        data = take_fingerprint(whole.comparison.data, verify=self.verify)
        with hold(self.out) as lock:
            self._lock[:] = [lock] if lock is not None else []  # held on by a run's process, should we die
            self._begin(specs, whole, data)
            outcome = Outcome(self.out)
            if self.ray is not None:
                self._on_cluster(self.ray, specs, outcome)
            else:
                self._one_by_one(specs, outcome)
            for spec in specs:
                outcome.statuses.setdefault(spec.folder, RunFolder(self.out, spec).status["status"])
            self._finish(whole, outcome)
        return outcome

    def _begin(
        self, specs: Sequence[RunSpec], whole: Whole, data: Fingerprint
    ) -> None:
        """Make the folder ready. Raises ConfigError, before anything is written, if its results are of other data."""
        named = {spec.folder for spec in specs}
        kept = [spec for spec in whole.specs if spec.folder not in named] if self.fresh else whole.specs
        unchecked = check_same_data(self.out, kept, data, alone=self.fresh)
        if unchecked is not None:
            print(unchecked, file=sys.stderr)
        if self.fresh:
            _forget_times(self.out, {spec.run_id for spec in specs})
        write_comparison(self.out, whole)
        for spec in specs:
            folder = RunFolder(self.out, spec)
            folder.write_spec()
            if self.fresh:
                _forget(folder)
            if self._settled(folder) is None and (self.train or _is_trained(folder)):
                now = folder.status
                status = "pending" if now["status"] == "done" else now["status"]  # damaged: no longer done
                folder.set_status(status, now.get("reason"), data=data.model_dump())

    def _finish(self, whole: Whole, outcome: Outcome) -> None:
        """Tables and plots of what there is. A figure that cannot be drawn does not undo the runs."""
        list_runs(self.out, whole.specs)
        if not self.report:
            return
        from bench.report import draw

        if outcome.stopped_by is None or any(s == "done" for s in outcome.statuses.values()):
            try:
                outcome.analysis = draw(self.out).analysis
            except BenchError as error:
                outcome.report_error = one_line(error)

    def _one_by_one(self, specs: Sequence[RunSpec], outcome: Outcome) -> None:
        with Watch().listening() as watch, closing(ForkServer(self._lock)) as server:
            for number, spec in enumerate(specs, 1):
                if watch.signum is not None:
                    break
                outcome.statuses[spec.folder] = self._one(spec, number, len(specs), watch, server)
            outcome.stopped_by = watch.signum

    def _on_cluster(self, address: str, specs: Sequence[RunSpec], outcome: Outcome) -> None:
        from bench.launch.cluster import UNSEEN, join

        numbers = {spec.folder: number for number, spec in enumerate(specs, 1)}
        missing = [folder for spec in specs if (folder := self._missing(spec, numbers[spec.folder], len(specs)))]

        def ended(folder: RunFolder, code: int | None, why: str) -> None:
            if code == UNSEEN:
                folder.set_status("failed", "its node does not see the results; put --out on a file system of all")
            killed = code is None or code < 0  # by the cluster: with its node, say, or for its memory
            status = self._last_word(folder, why or _death(code), watch, killed)
            self._say_end(folder, numbers[folder.spec.folder], len(specs), status)

        if missing:
            with join(address, self.quiet) as cluster, Watch().listening() as watch:
                for folder in missing:
                    folder.set_status("pending")
                cluster.run(missing, watch, ended)
                outcome.stopped_by = watch.signum

    # ---- one run ----------------------------------------------------------------------------------
    def _missing(self, spec: RunSpec, number: int, total: int) -> RunFolder | None:
        """The folder of a run that there is something to do for; of any other it is said why there is not."""
        folder = RunFolder(self.out, spec)
        status = self._settled(folder)
        if status is not None:
            self._say(spec, number, total, _already(status))
            return None
        if not self.train and not _is_trained(folder):
            self._say(spec, number, total, "not trained yet; left alone (--eval-only)")
            return None
        return folder

    def _one(self, spec: RunSpec, number: int, total: int, watch: Watch, server: ForkServer) -> str:
        folder = self._missing(spec, number, total)
        if folder is None:
            return str(RunFolder(self.out, spec).status["status"])
        self._say(spec, number, total, "")
        if self.isolate:
            status = self._in_process(folder, watch, server)
        else:
            status = self._here(folder)
        if status != "done":
            self._say_end(folder, number, total, status)
        return status

    def _settled(self, folder: RunFolder) -> str | None:
        """The status of a run that needs nothing done, else None."""
        if folder.spec.skip is not None:
            return str(folder.set_status("skipped", folder.spec.skip)["status"])
        from bench.launch.intact import what_to_repair

        repair = None if folder.spec.folder in self._intact else what_to_repair(folder)
        if repair is not None:
            print(f"{folder.spec.run} seed {folder.spec.seed}: {repair}", file=sys.stderr, flush=True)
            return None
        self._intact.add(folder.spec.folder)
        status = str(folder.status["status"])
        if status == "done":
            return status
        return status if status in SETTLED and status not in self.retry and "all" not in self.retry else None

    def _say(self, spec: RunSpec, number: int, total: int, text: str) -> None:
        if not self.quiet:
            line = f"[{number}/{total}] {spec.run} seed {spec.seed}"
            print(f"{line}  {text}".rstrip(), file=sys.stderr, flush=True)

    def _say_end(self, folder: RunFolder, number: int, total: int, status: str) -> None:
        text = f"{status}: {reason}" if (reason := folder.status.get("reason")) else status
        self._say(folder.spec, number, total, "not begun" if status == "pending" else text)

    def _in_process(self, folder: RunFolder, watch: Watch, server: ForkServer) -> str:
        """The run in a process of its own: whatever it does to itself, this one goes on."""
        folder.set_status("pending")  # what an earlier process said must not be taken for this one's word
        try:
            child = server.start(folder.path, quiet=self.quiet)
        except OSError as error:
            folder.set_status("failed", f"no process could be started: {error.strerror}")
            return "failed"
        try:
            self._wait_for(child, watch)
        finally:
            if child.poll() is None:  # we were asked to stop at once
                child.kill()
                child.wait()
        return self._last_word(folder, _death(child.returncode), watch)

    @staticmethod
    def _last_word(folder: RunFolder, death: str, watch: Watch, killed: bool = False) -> str:
        """The status of a run whose process ended, also where it died without a word. killed: by whoever may do so."""
        status = str(folder.status["status"])
        if watch.signum is not None and status in ("running", "interrupted"):
            folder.set_status("interrupted", str(Interrupted(watch.signum)))  # whatever we sent it
        elif status == "running" or (status == "pending" and watch.signum is None):
            folder.set_status("interrupted" if killed else "failed", death)
        return str(folder.status["status"])

    @staticmethod
    def _wait_for(child: RunProcess, watch: Watch) -> None:
        """Until it ends; a signal is passed on, and a child that does not heed it is killed."""
        asked_at: float | None = None
        while child.poll() is None:
            time.sleep(0.05)
            if watch.signum is None:
                continue
            watch.be_patient()  # the child's patience counts, not ours
            if asked_at is None:
                asked_at = time.monotonic()
                child.terminate()
            elif time.monotonic() - asked_at > _GRACE:
                child.kill()

    def _here(self, folder: RunFolder) -> str:
        from bench.launch.run_one import execute_run

        try:
            with Watch(folder.spec.timeout_minutes).listening() as watch:
                return str(execute_run(folder.spec, self.out, watch=watch, quiet=self.quiet)["status"])
        except Interrupted as stop:
            os.kill(os.getpid(), stop.signum)  # our own watch, around all runs, takes it from here
            return "interrupted"

    # ---- under torchrun ---------------------------------------------------------------------------
    def _run_together(self, specs: Sequence[RunSpec], whole: Whole) -> Outcome:
        from contextlib import nullcontext

        from bench.launch.run_one import execute_run, pick_device
        from bench.train.world import join_world, leave_world

        world = join_world(pick_device(specs[0]).type)
        outcome = Outcome(self.out)
        try:
            with hold(self.out) if world.is_main else nullcontext():
                problem: BenchError | None = None
                if world.is_main:
                    try:
                        data = take_fingerprint(whole.comparison.data, verify=self.verify)
                        self._begin(specs, whole, data)
                    except BenchError as error:
                        problem = error
                code = world.share(problem.exit_code if problem is not None else 0)
                if problem is not None:
                    raise problem
                if code:  # the first process says why
                    raise SystemExit(code)
                for number, spec in enumerate(specs, 1):
                    folder = RunFolder(self.out, spec)
                    status = world.share(self._settled(folder) if world.is_main else None)
                    if world.is_main:
                        self._say(spec, number, len(specs), _already(status) if status else "")
                    if status is None:
                        with Watch(spec.timeout_minutes).listening() as watch:
                            status = str(execute_run(spec, self.out, watch=watch, quiet=self.quiet)["status"])
                    outcome.statuses[spec.folder] = status
                if world.is_main:
                    self._finish(whole, outcome)
                world.barrier()
        except Interrupted as stop:
            outcome.stopped_by = stop.signum
        finally:
            leave_world()
        return outcome


def _already(status: str) -> str:
    if status in SETTLED:
        return f"{status} earlier; --retry {status} runs it again"
    return "already done" if status == "done" else status


def _is_trained(folder: RunFolder) -> bool:
    """Whether measuring a run needs no training: it names weights, or its last stage is finished."""
    from bench.launch.intact import has_weights

    return folder.spec.evaluate_only or has_weights(folder)


def _forget(folder: RunFolder) -> None:
    """Forget a run's results and its stages' (--fresh)."""
    import shutil

    for key in folder.status.get("stages") or []:
        shutil.rmtree(folder.out / "stages" / str(key), ignore_errors=True)
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.write_spec()


def _forget_times(out: Path, run_ids: Set[str]) -> None:
    """Drop what `bench latency` measured of these runs."""
    try:
        known = {str(row["run_id"]) for row in read_latency(out)}
    except RunError:
        return  # damaged: whoever reads it says so
    if known & run_ids:
        write_latency(out, [], known - run_ids)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = " (out of memory?)" if name in ("SIGKILL", "SIGABRT") else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {code} and no word"
