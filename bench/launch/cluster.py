"""Runs of a comparison on a Ray cluster: one task per run, each with the cores and the GPU that it needs.

The results folder (and the data) lie on a file system that all nodes see under the same path; what a run becomes is
read from its folder, as everywhere. A run whose node dies is started again on another one, where it continues from
its last checkpoint.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.config.resolve import RunSpec
from bench.errors import ConfigError, RunError
from bench.launch.folder import RunFolder, one_line
from bench.launch.worker import start_worker
from bench.train.watch import Watch

#: Exit code that a task reports where its node does not see the results folder.
UNSEEN = 64
#: Ray reports home, and folds equal progress lines of different runs into one, unless told not to; a task without a
#: GPU sees what its node sees.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}  # fmt: skip
#: A run that was asked to stop is waited for this long (seconds), then killed.
_GRACE = 10.0


class Cluster:
    """A Ray cluster that was joined. ``run`` does runs on it, as many at once as fit."""

    def __init__(self, ray: Any, quiet: bool) -> None:
        self._ray, self._quiet = ray, quiet

    def run(
        self, folders: Sequence[RunFolder], watch: Watch, ended: Callable[[RunFolder, int | None, str], None]
    ) -> None:
        """Do the runs; ``ended`` is told of each in the order in which they end: the exit code of its process, or None
        and why there is none (stopped before it began, lost with its node); 1 and why if it cannot be started there.
        After a signal the runs are asked to stop."""
        work = self._ray.remote(do_run)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        tasks = {
            work.options(name=folder.spec.folder, **_needs(folder.spec, nodes)).remote(
                str(folder.path.resolve()), os.getcwd(), self._quiet
            ): folder
            for folder in folders
        }
        asked = False
        while tasks:
            ready, _ = self._ray.wait(list(tasks), timeout=0.2)
            for task in ready:
                ended(tasks.pop(task), *self._result(task))
            if watch.signum is not None and not asked:
                asked = True
                watch.be_patient()
                for task in tasks:
                    self._ray.cancel(task)

    def _result(self, task: Any) -> tuple[int | None, str]:
        try:
            return int(self._ray.get(task)), ""
        except self._ray.exceptions.RayTaskError as error:
            return 1, f"could not be started on its node: {one_line(error.cause or error)}"
        except self._ray.exceptions.RayError as error:
            return None, f"the cluster lost it ({type(error).__name__})"


@contextmanager
def join(address: str, quiet: bool) -> Iterator[Cluster]:
    """The cluster at ``address``; with "auto" the one that RAY_ADDRESS names or this machine belongs to, else one of
    this machine's cores and GPUs, which ends with the block. ConfigError where Ray is absent, RunError where the
    cluster is."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray needs Ray: pip install 'depthbench[ray]'") from None
    _knock(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
    try:
        ray.init(None if address == "auto" else address, log_to_driver=not quiet, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError(f"no Ray cluster at {address}: {one_line(error)}") from None
    try:
        yield Cluster(ray, quiet)
    finally:
        ray.shutdown()


def _needs(spec: RunSpec, nodes: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Cores and GPUs of a run. ConfigError where no node has a GPU and the file asks for one."""
    gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
    if spec.device == "cuda" and not gpus:
        raise ConfigError("device: cuda, but no node of the Ray cluster has a GPU; use --device cpu")
    wanted = 1 if gpus and spec.device != "cpu" else 0
    fitting = [node for node in nodes if node.get("GPU", 0) >= wanted]
    # without `threads`: one core, or a GPU's share of its node's, which feed it
    share = [int(node.get("CPU", 1) / (node["GPU"] if wanted else node.get("CPU", 1))) for node in fitting]
    # a task that asks for more than any node has would wait forever
    most = int(max(node.get("CPU", 1) for node in fitting))
    return {"num_cpus": max(1, min(spec.threads or min(share), most)), "num_gpus": wanted}


def _knock(address: str) -> None:
    """Ray tries for minutes to reach a head that is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise RunError(f"no Ray cluster at {address}: {error.strerror or one_line(error)}") from None


def do_run(folder: str, where: str, quiet: bool) -> int:
    """A task: the run of this folder in a process of its own. Returns its exit code."""
    if not (Path(folder) / "spec.json").is_file():
        return UNSEEN
    child = start_worker(Path(folder), quiet=quiet, cwd=where if os.path.isdir(where) else None)
    try:
        while child.poll() is None:
            time.sleep(0.1)
    except KeyboardInterrupt:  # cancelled
        child.terminate()
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()
