"""Names in figures: none over another, none beside somebody else's mark, all in characters that a font has."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_results import QUICK, exits, gates, paths, write_results
from test_report_effects import _results, _run

from bench.evaluate.analysis import Analysis
from bench.evaluate.effects import effects
from bench.evaluate.results import Results, read_results
from bench.evaluate.seeds import summarise
from bench.report import fonts
from bench.report.accuracy import accuracy_figure
from bench.report.curves import curves_figure
from bench.report.effects_figure import effects_figure
from bench.report.style import looks, save_figure, styled
from bench.report.summary import print_summary

SMALL = [
    *QUICK,
    ("adn14", "ADN ResNet-14, 8 channels", "paths", ["static_paths"], paths(6.7, 0.55), ["train"]),
    ("imta", "IMTA-MSDNet, 3 exits", "early", ["exits"], exits(0.1), ["train"]),
    ("skip14", "SkipNet-14, 8 channels", "gated", ["gates"], gates(5.4, 0.5), ["train"]),
]
GROUP = {run: {"group": "ResNet"} for run in ("resnet8", "resnet14", "resnet20")}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Like the quickstart: a family of three, and one network of each kind."""
    out = write_results(tmp_path_factory.mktemp("small"), SMALL, n=300, val=150, more=GROUP)
    return read_results(out)


def corners(box: Any) -> tuple[float, float, float, float]:
    return box.x0, box.y0, box.x1, box.y1


def distance(box: tuple[float, float, float, float], point: np.ndarray) -> float:
    near = np.clip(point, box[:2], box[2:])
    return float(np.hypot(*(near - point)))


@pytest.mark.parametrize(("width", "height"), [(7.0, 3.9), (3.4, 2.7)])
@pytest.mark.parametrize("at", [(26.4e6, 76.5), (37e6, 77.0), (40.3e6, 77.2)])
def test_a_name_is_beside_its_own_mark_and_crosses_nothing(
    small: Results, width: float, height: float, at: tuple[float, float]
) -> None:
    """at: where ResNet-14 is, ever nearer to ResNet-20, which looks alike."""
    places = {"resnet8": (12.2e6, 72.4), "resnet14": at, "resnet20": (40.6e6, 77.25)}
    lines = [dict(line) for line in summarise(small)]
    for line in lines:
        if line["run"] in places:
            line["macs_mean"], line["top1_mean"] = places[line["run"]]
            line["top1_lo"], line["top1_hi"] = line["top1_mean"] - 2, line["top1_mean"] + 2
    with styled():
        figure = accuracy_figure(small, lines, width, height)
        figure.draw_without_rendering()
        renderer, axes = figure.canvas.get_renderer(), figure.axes[0]
        boxes = {text.get_text(): corners(text.get_window_extent(renderer)) for text in axes.texts}
    assert set(boxes) == {recipe[1] for recipe in SMALL}
    for (a, one), (b, two) in itertools.combinations(boxes.items(), 2):
        apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
        assert apart, (a, b)
    names = {run: next(line["label"] for line in lines if line["run"] == run) for run in places}
    marks = {names[run]: axes.transData.transform(place) for run, place in places.items()}
    lines_to = [line for line in axes.get_lines() if line.get_label() == "_leader"]
    leaders = [axes.transData.transform(line.get_xydata()) for line in lines_to]
    for name, box in boxes.items():
        others = [mark for other, mark in marks.items() if other != name]
        assert all(distance(box, mark) > 3 for mark in others), name
        if name in marks:
            pointed = any(np.hypot(*(ends[1] - marks[name])) < 1 and distance(box, ends[0]) < 1 for ends in leaders)
            assert pointed or distance(box, marks[name]) < min(distance(box, mark) for mark in others), name
        for ends in leaders:
            inside = [at for at in np.linspace(ends[0], ends[1], 50) if distance(box, at) == 0]
            assert not inside or distance(box, ends[0]) < 1, name  # its own line begins there


@pytest.mark.parametrize("axis", ["a", "alpha", "a-name-of-an-axis-that-is-longer-than-the-names-of-its-levels"])
@pytest.mark.parametrize("base", ["0.1", "the level that all are compared with, whose name is much too long " * 2])
def test_texts_of_the_effects_do_not_overlap(axis: str, base: str) -> None:
    levels = {"net": base, "net-1": "1", "net-2": "2"}
    runs = [_run(name, "net", {axis: level}, seed, 0.5) for name, level in levels.items() for seed in (0, 1)]
    results = _results(runs)
    with styled():
        figure = effects_figure(results, effects(results))
        figure.set_dpi(220)  # as it is saved
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        boxes = [(text.get_text(), corners(text.get_window_extent(renderer))) for text in figure.texts]
        page = corners(figure.bbox)
    assert any(text.startswith("against ") for text, _ in boxes)
    for (a, one), (b, two) in itertools.combinations(boxes, 2):
        assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1], (a, b)
    for text, box in boxes:
        assert page[0] <= box[0], text
        assert box[2] <= page[2], text


def test_curves_have_the_colours_of_the_other_figures(small: Results) -> None:
    with styled():
        figure = curves_figure(small, list(small.by_name().values()))
    own = looks(small)
    drawn = {line.get_label(): line for line in figure.legends[0].get_lines()}
    assert {label: line.get_color() for label, line in drawn.items()} == {
        run.label: own[run.run].colour for run in small.runs
    }
    family = [drawn[label] for label in ("ResNet-8", "ResNet-14", "ResNet-20")]
    assert len({str(line._dash_pattern) for line in family}) == 3  # of one colour, told apart by their lines


HAN = "\u6b8b\u5dee"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    return write_results(tmp_path / "out", [(QUICK[0][0], f"{HAN} net", *QUICK[0][2:]), *QUICK[1:]], n=60, val=30,
                         title=HAN)  # fmt: skip


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_installed", list)
    fonts._search.cache_clear()
    yield
    fonts._search.cache_clear()


def draw_texts(results: Results, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """All words of the figure as they are saved; a glyph that is missing is an error."""
    monkeypatch.setattr("bench.report.style.FORMATS", ("svg",))
    with styled(fonts.text_of(results)), warnings.catch_warnings():
        figure = accuracy_figure(results, summarise(results), 7.0, 3.9)
        warnings.simplefilter("error")
        save_figure(figure, folder / "figure")
    from matplotlib.text import Text

    return " ".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.usefixtures("no_fonts")
def test_without_a_font_the_names_of_runs_are_shown_and_it_is_said(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = read_results(foreign)
    shown = fonts.legible(results)
    words = draw_texts(shown, tmp_path, monkeypatch)
    assert "resnet8" in words
    assert HAN[0] not in words
    assert "No installed font has 2 of the labels' characters" in fonts.font_note(results)
    print_summary(Analysis(read_results(foreign)))
    out = capsys.readouterr().out
    assert "No installed font has 2" in out
    assert f"{HAN} net" in out


def test_a_font_that_has_the_characters_is_found(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.font_manager import FontManager, fontManager

    path = tmp_path / "han.ttf"
    make_font(path, HAN)
    own = FontManager.__new__(FontManager)
    own.__dict__.update(fontManager.__dict__, ttflist=list(fontManager.ttflist))
    monkeypatch.setattr("matplotlib.font_manager.fontManager", own)
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(path)])
    fonts._search.cache_clear()
    try:
        results = read_results(foreign)
        assert fonts.fonts_for(HAN) == [fonts.FONT, "Han Test"]
        assert fonts.font_note(results) == ""
        assert fonts.legible(results) is results
    finally:
        fonts._search.cache_clear()


def make_font(path: Path, characters: str) -> None:
    """A font of squares."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for move, place in ((pen.moveTo, (0, 0)), (pen.lineTo, (0, 800)), (pen.lineTo, (800, 800)), (pen.lineTo, (800, 0))):
        move(place)
    pen.closePath()
    square = pen.glyph()
    names = [".notdef", *(f"u{ord(c):04X}" for c in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"u{ord(c):04X}" for c in characters})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": "Han Test", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
