"""The page: one HTML file that needs nothing else, with tables, figures and where each number comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.evaluate.results import Results, RunResult
from bench.files import write_text_atomic
from bench.report.chart import chart_json
from bench.report.page_tables import Table, results_table
from bench.report.style import CONVENTION
from bench.text import visible

NAME = "report.html"

_ASSETS = Path(__file__).parent / "assets"

#: (figure for a wide page, figure for a phone or None, caption) by the stem of the file, in the order of the page.
_FIGURES = (
    ("accuracy-vs-macs", "accuracy-vs-macs-column", "Test accuracy against the mean cost of an image"),
    ("pareto-front", None, "The front: what no other point beats in accuracy and cost"),
)
_LAST = (("training-curves*", None, "Training curves"),)


@dataclass(frozen=True)
class Page:
    """What the page holds besides the results themselves.

    tables: after the results table, in this order. captions: of further figures, by stem. warnings: lines that a
    reader must see first. budgets: rows of budget_summary.csv, for the live figure.
    """

    tables: Sequence[Table] = ()
    captions: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    budgets: Sequence[dict[str, Any]] = ()


def draw_page(
    results: Results, lines: Sequence[dict[str, Any]], plots: Sequence[Path], page: Page | None = None
) -> Path:
    """Write ``report.html``. lines: ``summarise(results)``; plots: the figures, of which SVG files are put in.

    The page loads nothing: styles, script and figures are in it, and its policy forbids requests. The same
    files give the same bytes.
    """
    from jinja2 import Environment, FileSystemLoader

    page = page or Page()
    environment = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    has_numbers = any(line.get("top1_mean") is not None for line in lines)
    text = environment.get_template("report.html.j2").render(
        style=(_ASSETS / "report.css").read_text("utf-8"),
        script="".join((_ASSETS / name).read_text("utf-8") for name in ("tables.js", "chart.js")),
        title=results.heading,
        facts=_facts(results),
        chart=chart_json(results, lines, page.budgets) if has_numbers else "",
        budgets=bool(page.budgets),
        tables=[results_table(results, lines, CONVENTION), *(table for table in page.tables if table.rows)],
        figures=_figures(plots, page.captions),
        failures=results.failures(),
        warnings=page.warnings,
        runs=[_provenance(runs) for runs in results.by_name().values()],
    )
    path = results.out / NAME
    write_text_atomic(path, text)
    return path


def _shown(value: object) -> object:
    """What the template puts in, without characters that act; markup of our own is let through."""
    return visible(value, keep="\n\t") if type(value) is str else value


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


def _figures(plots: Sequence[Path], captions: Mapping[str, str]) -> list[dict[str, Any]]:
    """SVG figures in the order of the page, each with its narrow form where it has one."""
    svg = {path.stem: path for path in plots if path.suffix == ".svg"}
    found = []
    middle = [(stem, None, caption) for stem, caption in captions.items()]
    for pattern, narrow, caption in (*_FIGURES, *middle, *_LAST):
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
