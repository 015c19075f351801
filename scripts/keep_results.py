"""Copy a results folder to keep: tables, page, records and provenance, without weights and without the folders of the
machine it was made on. The tables and the page are made anew; the figures are in the page, and `bench report` draws
them as files again.

    python scripts/keep_results.py results/NAME results/reference/NAME
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from bench.report import draw
from bench.store.comparison import read_comparison
from bench.store.reading import Damaged, read_text
from bench.store.sealed import read_sealed, write_sealed, write_sealed_text

#: Of a run's folder. rows.csv is made again from the records.
RUN_FILES = ("spec.json", "status.json", "meta.json", "cost.json", "metrics.jsonl", "rows.csv", "*.npz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of a comparison's results")
    parser.add_argument("target", type=Path, help="where to keep it; replaced if it is there")
    options = parser.parse_args()
    source, target = options.source.resolve(), options.target.resolve()
    try:
        comparison = read_comparison(source)
        config = yaml.safe_load(read_text(source / "config.yaml"))
    except Damaged as error:
        raise SystemExit(f"error: {error}") from None
    if target == source or source in target.parents:
        raise SystemExit("error: the target lies in the source")
    with tempfile.TemporaryDirectory(dir=_made(target.parent), prefix=".keep-") as place:
        made = Path(place) / target.name
        made.mkdir()
        _keep(source, made, comparison, config)
        draw(made)
        shutil.rmtree(made / "plots")
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _keep(source: Path, target: Path, comparison: dict[str, Any], config: dict[str, Any]) -> None:
    for name in ("comparison.json", "latency.json", "latency.csv"):
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
    if (source / "splits").is_dir():
        shutil.copytree(source / "splits", target / "splits")
    config.pop("out", None)
    data = config.get("data") or {}
    data.pop("root", None)
    for holder, key in ((data, "split_file"), *((run, "weights") for run in config.get("runs", []))):
        if holder.get(key):
            holder[key] = Path(holder[key]).name
    write_sealed_text(target / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    for run in comparison["runs"]:
        if (source / run["folder"]).is_dir():  # a comparison may be kept run by run
            _keep_run(source / run["folder"], target / run["folder"])


def _keep_run(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for pattern in RUN_FILES:
        for path in source.glob(pattern):
            shutil.copy(path, target / path.name)
    spec = target / "spec.json"
    if spec.is_file():
        write_sealed(spec, _without_folders(read_sealed(spec)))


def _without_folders(spec: dict[str, Any]) -> dict[str, Any]:
    """Names of files stay, their folders do not."""
    spec["data"]["root"] = None
    for holder, key in ((spec, "weights"), (spec["data"], "split_file")):
        if holder.get(key):
            holder[key] = Path(holder[key]).name
    return spec


if __name__ == "__main__":
    main()
