"""Weights & Biases. Its own environment variables say where to: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, ..."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from bench.track.base import TrackedRun, Tracker, headline

_FAILED = 1


class WeightsAndBiases(Tracker):
    name = "wandb"
    help = "Weights & Biases; offline, in the results folder, unless WANDB_MODE or an API key says otherwise"
    package, install = "wandb", "depthbench[wandb]"

    def open(self, run: TrackedRun) -> None:
        # large, and only of use to those who ask for it
        import wandb

        run.folder.mkdir(parents=True, exist_ok=True)
        # online without a key it would ask for one, and wait
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or run.comparison, name=run.name, group=run.run, id=run.key,
            config=dict(run.config), dir=str(run.folder), mode=mode, resume="allow" if mode == "online" else None,
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        self._stages: set[str] = set()

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        if stage not in self._stages:  # each stage counts its own steps; W&B wants one count that grows
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        self._run.log({f"{stage}/{key}": value for key, value in {"step": step, **metrics}.items()})

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        # loaded by ``open``
        import wandb

        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = wandb.Table(columns=columns, data=[[_cell(row.get(name)) for name in columns] for row in rows])
        self._run.log({"results": table})
        self._run.summary.update({f"test/{key}": value for key, value in headline(rows).items()})

    def close(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "done" else _FAILED)


def _cell(value: Any) -> Any:
    return "" if value is None else value if isinstance(value, (int, float)) else str(value)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
