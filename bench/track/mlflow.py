"""MLflow: a run for each run, in the experiment that is called as the comparison. MLFLOW_TRACKING_URI says where."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.track.base import TrackedRun, Tracker, flat, headline

#: What MLflow takes at once, and the longest value of a parameter (characters).
_PARAMS_AT_ONCE, _LONGEST = 100, 500
_KEY = "depthbench.key"
_STATUSES = {"done": "FINISHED", "interrupted": "KILLED"}


class MLflow(Tracker):
    name = "mlflow"
    help = "MLflow: the server that MLFLOW_TRACKING_URI names, else a database (SQLite) in the results folder"
    package, install = "mlflow", "depthbench[mlflow]"

    def open(self, run: TrackedRun) -> None:
        # large, and only of use to those who ask for it
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        for name in ("alembic", "mlflow.store.db.utils"):  # which tell of every table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        self._metric = Metric
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            run.folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{run.folder.resolve()}/mlflow.db"
        self._client = MlflowClient(uri)
        experiment = self._experiment(run, local=uri.startswith("sqlite:"))
        known = self._client.search_runs([experiment], f"tags.`{_KEY}` = '{run.key}'", max_results=1)
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, "RUNNING")
            return
        tags = {_KEY: run.key, "method": run.method, "seed": str(run.seed)}
        self._id = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        params = [Param(key, _text(value)) for key, value in flat(run.config).items()]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[first : first + _PARAMS_AT_ONCE])

    def _experiment(self, run: TrackedRun, local: bool) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.comparison
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        files = (run.folder.resolve() / "files").as_uri() if local else None
        return str(self._client.create_experiment(name, artifact_location=files))

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        self._log(stage, step, metrics)

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._log("test", 0, headline(rows))
        self._client.log_text(self._id, json.dumps(list(rows), indent=1, default=str), "rows.json")

    def close(self, status: str) -> None:
        self._client.set_terminated(self._id, _STATUSES.get(status, "FAILED"))

    def _log(self, group: str, step: int, metrics: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        values = [self._metric(f"{group}/{key}", value, now, step) for key, value in metrics.items()]
        self._client.log_batch(self._id, metrics=values)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
