"""Copy a results folder to keep: tables, figures, records and provenance, without weights and without the folders
of the machine it was made on; then draw it anew.

    python scripts/keep_results.py results/NAME results/reference/NAME
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from bench.report import draw

#: Of a run's folder. rows.csv is made again from the records.
RUN_FILES = ("spec.json", "status.json", "meta.json", "cost.json", "metrics.jsonl", "rows.csv", "*.npz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of a comparison's results")
    parser.add_argument("target", type=Path, help="where to keep it; replaced if it is there")
    options = parser.parse_args()
    comparison = json.loads((options.source / "comparison.json").read_text("utf-8"))
    if options.target.exists():
        shutil.rmtree(options.target)
    options.target.mkdir(parents=True)
    for name in ("comparison.json", "runs.csv", "latency.csv"):
        if (options.source / name).is_file():
            shutil.copy(options.source / name, options.target / name)
    if (options.source / "splits").is_dir():
        shutil.copytree(options.source / "splits", options.target / "splits")
    config = yaml.safe_load((options.source / "config.yaml").read_text("utf-8"))
    config.pop("out", None)
    config.get("data", {}).pop("root", None)
    (options.target / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "utf-8")
    for run in comparison["runs"]:
        _keep_run(options.source / run["folder"], options.target / run["folder"])
    draw(options.target)


def _keep_run(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for pattern in RUN_FILES:
        for path in source.glob(pattern):
            shutil.copy(path, target / path.name)
    spec = target / "spec.json"
    if spec.is_file():
        spec.write_text(json.dumps(_without_folders(json.loads(spec.read_text("utf-8"))), indent=2) + "\n", "utf-8")


def _without_folders(spec: dict[str, Any]) -> dict[str, Any]:
    """Names of files stay, their folders do not."""
    spec["data"]["root"] = None
    for holder, key in ((spec, "weights"), (spec["data"], "split_file")):
        if holder.get(key):
            holder[key] = Path(holder[key]).name
    return spec


if __name__ == "__main__":
    main()
