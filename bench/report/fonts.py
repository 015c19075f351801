"""Fonts for the characters of labels: what DejaVu Sans lacks comes from any installed font that has it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from bench.evaluate.results import Results, RunResult

if TYPE_CHECKING:
    from matplotlib.font_manager import FontEntry

__all__ = ["FONT", "escape_unreadable", "font_note", "fonts_for", "legible", "text_of"]

#: Comes with matplotlib, so that figures look alike everywhere.
FONT = "DejaVu Sans"


def fonts_for(text: str) -> list[str]:
    """Families in which all of the text can be drawn, as far as installed fonts can: ``FONT`` and, if it lacks
    characters, those that have them."""
    return [FONT, *_search(_foreign(text))[0]]


def escape_unreadable(text: str) -> str:
    """The text with escapes for characters that no installed font has."""
    lost = _search(_foreign(text))[1]
    return "".join(c.encode("unicode_escape").decode() if c in lost else c for c in text)


def text_of(results: Results) -> str:
    """All that figures may say of a comparison in words of its file."""
    words = [results.heading, results.dataset]
    for run in results.runs:
        words += [run.label, run.group or "", *run.factors, *run.factors.values()]
    return "".join(words)


def legible(results: Results) -> Results:
    """The results as figures show them: names of runs, and of the comparison, for labels that no font can draw."""
    if not _search(_foreign(text_of(results)))[1]:
        return results
    title = results.title if _can_draw(results.heading) else None
    return replace(results, title=title, runs=[_legible_run(run) for run in results.runs])


def _legible_run(run: RunResult) -> RunResult:
    label = run.label if _can_draw(run.label) else run.run
    group = run.group and escape_unreadable(run.group)
    return replace(run, label=label, group=group, rows=[{**row, "label": label} for row in run.rows])


def font_note(results: Results) -> str:
    """One line about labels that no installed font can draw; empty if there is none."""
    lost = _search(_foreign(text_of(results)))[1]
    if not lost:
        return ""
    few = "".join(sorted(lost)[:8])
    return (
        f"No installed font has {len(lost)} of the labels' characters ({few}{', ...' if len(lost) > 8 else ''}): the "
        "figures show names of runs instead. Install one (Noto Sans CJK, say) and draw the report again."
    )


def _can_draw(text: str) -> bool:
    return not _search(_foreign(text))[1]


def _foreign(text: str) -> frozenset[str]:
    return frozenset(c for c in text if ord(c) > 0x7E)


@lru_cache(maxsize=256)
def _search(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """(families besides FONT, characters that no font has): always the family that has most of what is missing."""
    missing = frozenset(characters - _characters(_path(FONT))) if characters else characters
    if not missing:
        return (), missing
    found: list[str] = []
    fonts = _installed()
    while missing:
        best = max(fonts, key=lambda font: len(missing & _characters(font.fname)), default=None)
        gained = missing & _characters(best.fname) if best is not None else missing
        if best is None or not gained:
            break
        found.append(best.name)
        missing -= gained
    return tuple(found), missing


def _installed() -> list[FontEntry]:
    """One upright font of usual weight for each family; also those that matplotlib's own list is too old for."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {font.fname for font in manager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        with suppress(Exception):  # whatever a damaged font raises
            manager.addfont(path)
    fonts = {font.name: font for font in sorted(manager.ttflist, key=_unusual, reverse=True)}
    return [fonts[name] for name in sorted(fonts) if not name.startswith("Last Resort")]  # which has boxes for all


def _unusual(font: FontEntry) -> tuple[bool, int, str]:
    weight = font.weight if isinstance(font.weight, int) else 400
    return font.style != "normal", abs(weight - 400), font.fname


def _path(family: str) -> str:
    from matplotlib import font_manager

    return str(font_manager.findfont(family))


@lru_cache(maxsize=1024)
def _characters(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
