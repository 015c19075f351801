"""The page: one HTML file that needs nothing else, with tables, figures and where each number comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.files import write_text_atomic
from bench.report.results import Results, RunResult
from bench.report.style import CONVENTION, format_macs, looks
from bench.report.tables import half_width

NAME = "report.html"

_ASSETS = Path(__file__).parent / "assets"

#: (figure for a wide page, figure for a phone or None, caption) by the stem of the file.
_FIGURES = (
    ("accuracy-vs-macs", "accuracy-vs-macs-column", "Test accuracy against the mean cost of an image"),
    ("training-curves*", None, "Training curves"),
)

#: Column of the results table: heading, key in the summary line, digits after the point, what it means.
_COLUMNS = (
    ("Top-1 %", "top1_mean", 2, "test accuracy, mean over seeds"),
    ("±", "half", 2, "half the interval; its meaning stands below the table"),
    ("Top-5 %", "top5_mean", 2, "label among the five most likely, mean over seeds"),
    ("MACs", "macs_mean", None, "multiply-accumulates of an image, mean over images and seeds"),
    ("MACs p95", "macs_p95_mean", None, "95 % of the images cost no more"),
    ("Params", "params", None, "parameters of the whole network"),
    ("ECE %", "ece_mean", 2, "expected calibration error, 15 bins"),
    ("NLL", "nll_mean", 3, "mean negative log-likelihood of the label, nats"),
    ("Seeds", "n_seeds", 0, "trainings that the line is a mean over"),
)


def draw_page(results: Results, lines: Sequence[dict[str, Any]], plots: Sequence[Path]) -> Path:
    """Write ``report.html``. lines: ``summarise(results)``; plots: the figures, of which SVG files are put in.

    The page loads nothing: styles, script and figures are in it, and its policy forbids requests. The same
    files give the same bytes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html.j2").render(
        style=(_ASSETS / "report.css").read_text("utf-8"),
        script=(_ASSETS / "report.js").read_text("utf-8"),
        title=results.heading,
        facts=_facts(results),
        convention=CONVENTION,
        columns=[{"name": name, "help": text} for name, _, _, text in _COLUMNS],
        lines=[_line(line, results) for line in lines],
        meanings=list(dict.fromkeys(line["interval"] for line in lines if line.get("interval"))),
        figures=_figures(plots),
        failures=results.failures(),
        runs=[_provenance(runs) for runs in results.by_name().values()],
    )
    path = results.out / NAME
    write_text_atomic(path, page)
    return path


def _facts(results: Results) -> list[tuple[str, str]]:
    """What the head of the page says of the comparison."""
    done = [run for run in results.runs if run.done]
    rows = [run.rows[0] for run in done]
    images = sorted({row["n"] for row in rows if row["n"]})
    count = f"{len(done)} of {len(results.runs)} trainings done"
    return [
        ("Comparison", results.name),
        ("Data", f"{results.dataset}, {' / '.join(f'{n:,}' for n in images) or 'no'} test images"),
        ("Split", ", ".join(dict.fromkeys(row["split_hash"][:12] for row in rows)) or "-"),
        ("Protocol", f"{results.protocol}, version {results.protocol_version}"),
        ("Seeds", ", ".join(str(seed) for seed in dict.fromkeys(run.seed for run in results.runs))),
        ("Status", count if len(done) < len(results.runs) else f"all {len(done)} trainings done"),
    ]


def _line(line: dict[str, Any], results: Results) -> dict[str, Any]:
    """One row of the results table: shown texts, and the values that it is sorted by."""
    has = line.get("top1_mean") is not None
    half = half_width(line)
    cells = []
    for _, key, digits, _ in _COLUMNS:
        value = half if key == "half" else line.get(key)
        if value is None:
            text = ""
        elif digits is None:
            text = format_macs(value, decimals=2)
        else:
            text = f"{value:.{digits}f}"
        cells.append({"text": text, "value": value})
    point = line.get("point") or ""
    if not point and line.get("setting") is not None:
        point = f"{line['setting']:g}"
    look = looks(results)[line["run"]]
    return {
        "label": line["label"], "run": line["run"], "method": line["method"], "colour": look.colour,
        "policy": line.get("policy") or "", "point": point, "cells": cells, "status": line["status"],
        "reason": line.get("reason") or "", "main": not has or line.get("default") == "yes",
        "interval": line.get("interval") or "", "adaptive": line.get("adaptive") == "yes",
    }  # fmt: skip


def _figures(plots: Sequence[Path]) -> list[dict[str, Any]]:
    """SVG figures in the order of the page, each with its narrow form where it has one."""
    svg = {path.stem: path for path in plots if path.suffix == ".svg"}
    found = []
    for pattern, narrow, caption in _FIGURES:
        stems = [stem for stem in svg if re.fullmatch(pattern.replace("*", ".*"), stem)]
        for stem in stems:
            small = svg.get(narrow or "")
            found.append({
                "caption": caption,
                "wide": inline_svg(svg[stem], caption),
                "narrow": inline_svg(small, caption) if small else None,
            })  # fmt: skip
    return found


def inline_svg(path: Path, title: str) -> Any:
    """An SVG file as an element of a page: no prolog, a width that follows the page, names of its own.

    Every ``id`` is prefixed with the file's name, since several figures share one document.
    """
    from markupsafe import Markup, escape

    text = path.read_text("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"[^a-z0-9]", "", path.stem.lower())
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return Markup(f'{head} role="img" aria-label="{escape(title)}">{rest}')


def _provenance(runs: Sequence[RunResult]) -> dict[str, Any]:
    """Where the numbers of one run come from, seed by seed, and its resolved configuration."""
    first = next((run for run in runs if run.done), runs[0])
    row = first.rows[0]
    counts = first.facts.get("counts") or {}
    facts = [
        ("Run", first.run),
        ("Method", " on ".join(name for name in (first.method, row["backbone"]) if name)),
        ("Stage measured", row["stage"]),
        ("Images", ", ".join(f"{name} {number:,}" for name, number in counts.items())),
        ("Split", row["split_hash"][:12]),
        ("Machine", ", ".join(name for name in (row["host_class"], row["device"]) if name)),
        ("Precision", {"off": "float32", "": ""}.get(row["amp"], row["amp"])),
        ("Versions", ", ".join(f"{n} {row[n]}" for n in ("torch", "python") if row[n])),
    ]
    seeds = [
        {
            "seed": run.seed, "run_id": run.run_id, "status": run.status, "reason": run.reason,
            "started": str(run.facts.get("started_at") or "").replace("T", " "),
            "wall": _seconds(run.facts.get("wall_s")), "train": _seconds(run.facts.get("train_s")),
        }
        for run in runs
    ]  # fmt: skip
    return {
        "label": first.label, "status": _worst(runs), "facts": [(k, v) for k, v in facts if v], "seeds": seeds,
        "spec": json.dumps(public_spec(first.spec), indent=2, ensure_ascii=False) if first.spec else "",
    }  # fmt: skip


def public_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """A resolved run without what is this machine's own: folders, and what differs between seeds."""
    shown = {key: value for key, value in spec.items() if key != "seed"}
    if isinstance(shown.get("data"), dict):
        shown["data"] = {key: value for key, value in shown["data"].items() if key != "root"}
    for holder, key in ((shown, "weights"), (shown.get("data"), "split_file")):
        if isinstance(holder, dict) and holder.get(key):
            holder[key] = Path(str(holder[key])).name
    return shown


def _worst(runs: Sequence[RunResult]) -> str:
    done = sum(run.done for run in runs)
    if done == len(runs):
        return "done"
    return f"{done} of {len(runs)} done" if done else runs[0].status


def _seconds(value: object) -> str:
    """'1 h 02 min', '3 min 05 s', '12.3 s'."""
    if not isinstance(value, (int, float)):
        return ""
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
