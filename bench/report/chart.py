"""The data behind the page's live figure: what is drawn of each run, and what a point says when it is pointed at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.evaluate.policies import known_policy
from bench.evaluate.results import Results
from bench.report.accuracy import are_steps, curve_of, families, is_point
from bench.report.style import format_macs, looks, spans

#: Width of the page's lines, in its units: lengths of dashes are in line widths.
_LINE_WIDTH = 1.8


def chart_json(results: Results, lines: Sequence[dict[str, Any]], budgets: Sequence[dict[str, Any]]) -> str:
    """JSON for a script element. lines: ``summarise(results)``; budgets: rows of budget_summary.csv.

    series: one for each run, with points (x MACs, y percent, lo and hi percent or null, facts: pairs of name and text)
    and lines (indices of points, in order of cost). The same results give the same text.
    """
    look = looks(results)
    series = []
    for run in dict.fromkeys(line["run"] for line in lines):
        mine = [line for line in lines if line["run"] == run and line.get("top1_mean") is not None]
        own = _series(results, run, mine)
        if own["points"]:
            series.append({**own, "run": run, "label": mine[0]["label"], "colour": look[run].colour,
                           "marker": look[run].marker})  # fmt: skip
    series += _family_lines(results, series)
    xs = [point["x"] for one in series for point in one["points"]]
    data = {
        "log": spans(xs),
        "series": series,
        "budgets": _budgets(budgets),
    }
    # '<' in a label must not end the script element
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _series(results: Results, run: str, mine: Sequence[dict[str, Any]]) -> dict[str, Any]:
    thresholds = _thresholds(results, run)
    points: list[dict[str, Any]] = []
    joined: list[list[int]] = []
    fixed = sorted((line for line in mine if is_point(line)), key=lambda line: line["macs_mean"])
    for line in fixed:
        points.append(_point(line, thresholds, band=False))
    adaptive = any(line["adaptive"] == "yes" for line in fixed)
    if len(fixed) > 1 and (adaptive or are_steps(fixed[0])):
        joined.append(list(range(len(fixed))))
    curve = curve_of(mine)  # one for each run, as in the figure; the table has them all
    if curve:
        joined.append(list(range(len(points), len(points) + len(curve))))
        points += [_point(line, thresholds, band=True) for line in curve]
    return {"points": points, "lines": joined}


def _family_lines(results: Results, series: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A series without markers of its own for each group of networks that were trained one by one."""
    found = []
    for members in families(results):
        mine = [one for one in series if one["run"] in members]
        if len(members) < 2 or len(mine) < 2:
            continue
        group = next(run.group for run in results.runs if run.run == members[0])
        main = sorted((p for one in mine for p in one["points"] if p["main"] and not p["band"]), key=lambda p: p["x"])
        points = [{**point, "band": True, "lo": None, "hi": None, "dash": "2 3"} for point in main]
        found.append({
            "run": f"group {group}", "label": f"{group}, trained one by one", "colour": mine[0]["colour"],
            "marker": mine[0]["marker"], "points": points, "lines": [list(range(len(points)))],
        })  # fmt: skip
    return found


def _point(line: dict[str, Any], thresholds: dict[tuple[Any, ...], str], *, band: bool) -> dict[str, Any]:
    facts = [("policy", line["policy"])]
    if line.get("point"):
        facts.append(("operating point", line["point"]))
    if line.get("setting") is not None:
        facts.append(("setting", f"{line['setting']:g}"))
    fitted = thresholds.get((line["policy"], line["point"], line["setting"]))
    if fitted:
        facts.append(("thresholds", fitted))
    spread = "" if line["top1_lo"] is None else f" ({line['top1_lo']:.2f} to {line['top1_hi']:.2f})"
    facts.append(("top-1", f"{line['top1_mean']:.2f} %{spread}"))
    facts.append(("MACs", f"{format_macs(line['macs_mean'])} mean, {format_macs(line['macs_p95_mean'])} p95"))
    seeds = f"{line['n_seeds']} seeds" if line["n_seeds"] > 1 else "one seed"
    facts.append(("of", f"{seeds}; chosen on: {line['chosen_on']}"))
    if line.get("interval"):
        facts.append(("interval", line["interval"]))
    return {
        "x": line["macs_mean"], "y": line["top1_mean"], "lo": line["top1_lo"], "hi": line["top1_hi"], "band": band,
        "main": line.get("default") == "yes", "adaptive": line["adaptive"] == "yes",
        "dash": _dash(line["policy"]), "facts": facts,
    }  # fmt: skip


def _dash(policy: str) -> str:
    """As SVG has it."""
    found = known_policy(policy)
    return " ".join(f"{_LINE_WIDTH * length:.3g}" for length in found.dashes) if found is not None else ""


def _thresholds(results: Results, run: str) -> dict[tuple[Any, ...], str]:
    """Fitted thresholds of the first seed, since each seed has its own."""
    first = next((one for one in results.by_name()[run] if one.done), None)
    if first is None:
        return {}
    several = sum(one.done for one in results.by_name()[run]) > 1
    found = {}
    for row in first.rows:
        if row.get("thresholds"):
            shown = " ".join(f"{float(value):.3g}" for value in row["thresholds"].split())
            found[row["policy"], row["point"], row["setting"]] = shown + (f" (seed {first.seed})" if several else "")
    return found


def _budgets(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Budgets in MACs, each once."""
    found = {row["budget"]: row["budget_macs"] for row in rows if row.get("budget_macs")}
    return [{"name": str(name), "macs": macs} for name, macs in found.items()]
