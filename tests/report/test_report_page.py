"""report.html: whole by itself, correct, and alive in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_results import QUICK, write_results

from bench.evaluate.results import read_results
from bench.evaluate.seeds import summarise
from bench.report import draw
from bench.report.html import _seconds, public_spec

BROWSER = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
BROKEN = {
    ("gated38", 1): ("diverged", "the loss is <no longer> finite & bad"),
    ("resnet14", 0): ("failed", "out of memory"),
    ("resnet14", 1): ("failed", "out of memory"),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = write_results(tmp_path_factory.mktemp("results"), seeds=(0, 1), n=200, val=100, broken=BROKEN,
                        title='Exits & "gates" <b>here</b>')  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.style.FORMATS", ("svg",))
        return draw(out).page


class Reader(HTMLParser):
    """Tags, ids, references and text; void elements need no end."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.rows = 0
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.ids += [values["id"]] if values.get("id") else []  # type: ignore[list-item]
        self.links += [str(values[key]) for key in ("src", "href", "xlink:href", "action") if key in values]
        self.rows += tag == "tr"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text("utf-8"))
    reader.close()
    return reader


def test_page_is_well_formed_and_loads_nothing(page: Path) -> None:
    reader = read(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    outside = [link for link in reader.links if not link.startswith(("#", "data:"))]
    assert outside == []
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)
    references = set(re.findall(r"url\(#([^)]+)\)", page.read_text("utf-8")))
    assert references
    assert references - {"chart-clip"} <= set(reader.ids)  # that one is made by the script
    assert "default-src 'none'" in page.read_text("utf-8")


def test_page_says_everything(page: Path) -> None:
    reader = read(page)
    text = " ".join(reader.text.split())
    for words in (
        'Exits & "gates" <b>here</b>', "cifar10, 200 test images", "0123456789ab", "holdout, version 1",
        "11 of 14 trainings done", "ResNet-14, seeds 0, 1: failed \N{EN DASH} out of memory",
        "Gated ResNet-38, seed 1: diverged \N{EN DASH} the loss is <no longer> finite & bad",
        "two seeds, no interval: smallest and largest are both values", "norms, activations and pooling are not",
        "Example CPU (2 cores)", "torch 2.15.0+cpu", "train 45,000", '"all_options"', "1 min 02 s",
    ):  # fmt: skip
        assert words in text, words
    lines = summarise(read_results(page.parent))
    assert page.read_text("utf-8").count("data-words=") == len(lines)


def test_same_files_give_the_same_page(page: Path) -> None:
    before = page.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.style.FORMATS", ("svg",))
        draw(page.parent)
    assert page.read_bytes() == before


def test_folders_of_this_machine_are_not_shown(tmp_path: Path) -> None:
    data = {"root": str(tmp_path), "split_file": str(tmp_path / "s.npz")}
    spec = {"run": "a", "seed": 3, "weights": str(tmp_path / "w.pt"), "data": data}
    shown = json.dumps(public_spec(spec))
    assert str(tmp_path) not in shown
    assert "w.pt" in shown
    assert "s.npz" in shown
    assert "seed" not in shown
    assert data["root"] == str(tmp_path)


@pytest.mark.parametrize(("value", "text"), [(3.14, "3.1 s"), (61.5, "1 min 02 s"), (3725, "1 h 02 min"), (None, "")])
def test_seconds(value: float | None, text: str) -> None:
    assert _seconds(value) == text


def test_page_of_failed_runs_shows_their_training_curves(tmp_path: Path) -> None:
    out = write_results(tmp_path, QUICK[:1], broken={("resnet8", 0): ("diverged", "the loss is nan")})
    assert "<h2>Training curves</h2>" in draw(out).page.read_text("utf-8")


def test_page_without_any_number(tmp_path: Path) -> None:
    out = write_results(tmp_path, QUICK[:1], broken={("resnet8", 0): ("pending", "")})
    next(out.rglob("metrics.jsonl")).unlink()
    text = draw(out).page.read_text("utf-8")
    assert "0 of 1 trainings done" in text
    assert "pending" in text


_PROBE = """
<script>
const part = (selector) => document.querySelector("#results " + selector);
const tops = () => Array.from(document.querySelectorAll("#results tbody tr")).filter((r) => !r.hidden)
  .map((r) => r.cells[0].textContent.trim() + "=" + r.cells[3].textContent);
const found = { start: tops() };
const head = Array.from(document.querySelectorAll("#results thead button")).find((b) => b.textContent === "Top-1 %");
head.click(); found.up = tops();
head.click(); found.down = tops();
found.state = head.parentElement.getAttribute("aria-sort");
part("input[type=checkbox]").click(); found.all = tops().length;
const filter = part("input[type=search]");
filter.value = "oracle"; filter.dispatchEvent(new Event("input")); found.oracle = tops().length;
found.shown = part(".shown").textContent;
part("button.latex").click();
found.latex = part("textarea").value;
let saved = null;
const made = URL.createObjectURL;
URL.createObjectURL = (blob) => { saved = blob; return made.call(URL, blob); };
HTMLAnchorElement.prototype.click = function () { found.file = this.download; };
part("button.csv").click();
found.bytes = saved.size;
const marks = () => document.querySelectorAll("#chart svg path").length;
const tip = document.getElementById("chart-tip");
const point = (mark) => {
  const box = mark.getBoundingClientRect();
  document.querySelector("#chart svg").dispatchEvent(new PointerEvent("pointermove",
    { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true }));
};
found.hidden = tip.hidden;
point(document.querySelector("#chart svg path"));
found.tip = tip.textContent;
found.marks = marks();
document.querySelector("#chart-legend button").click();
found.fewer = marks();
const axis = () => document.querySelector("#chart svg").textContent.includes("log scale");
found.log = axis();
document.getElementById("chart-log").click();
found.linear = axis();
found.wide = document.documentElement.scrollWidth <= window.innerWidth;
document.body.insertAdjacentHTML("beforeend", `<pre id="probe"></pre>`);
document.getElementById("probe").textContent = JSON.stringify(found);
</script>
</body>"""


def browse(page: Path, scratch: Path) -> str:
    """What the page's script leaves in its element "probe"; nothing may be written to the console."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-sync", f"--user-data-dir={scratch / 'profile'}", "--enable-logging=stderr", "--dump-dom",
         "--virtual-time-budget=20000", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    return unescape(re.findall(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)[-1])


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_page_lives_in_a_browser_without_a_console_error(page: Path, tmp_path: Path) -> None:
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text("utf-8").replace("</body>", _PROBE), "utf-8")
    found = json.loads(browse(probed, tmp_path))
    assert [line.split("=")[0] for line in found["start"]] == [
        "ResNet-8", "ResNet-14", "ResNet-20", "Adaptive-depth ResNet-26", "Gated ResNet-38", "Early exits",
        "Early exits, improved",
    ]  # fmt: skip

    def numbers(key: str) -> list[float]:
        return [float(line.split("=")[1]) for line in found[key] if line.split("=")[1]]

    assert numbers("up") == sorted(numbers("up"))
    assert numbers("down") == sorted(numbers("down"), reverse=True)
    assert found["up"][-1] == found["down"][-1] == "ResNet-14="  # empty stays last
    assert found["state"] == "descending"
    assert found["all"] == len(summarise(read_results(page.parent)))
    assert found["oracle"] == 3
    assert found["shown"] == f"3 of {found['all']} rows"
    assert found["latex"].count("oracle") == 3
    assert r"\begin{tabular}{lllrrrrrrrrrrl}" in found["latex"]
    assert found["file"] == "results.csv"
    assert found["bytes"] > 200
    assert found["hidden"] is True
    assert found["tip"].startswith("ResNet-8policy: fixedoperating point: fulltop-1: ")
    assert "MACs: 12.3M mean, 12.3M p95" in found["tip"]
    assert found["marks"] - found["fewer"] == 1
    assert (found["log"], found["linear"]) == (True, False)
    assert found["wide"] is True


_WIDTHS = """
<iframe style="width: 1280px; height: 900px"></iframe><iframe style="width: 390px; height: 900px"></iframe>
<pre id="probe"></pre>
<script>
const frames = Array.from(document.querySelectorAll("iframe"));
const look = (frame) => Array.from(frame.contentDocument.querySelectorAll("section.data .scroll")).map((part) => ({
  title: part.getAttribute("aria-label"), wide: part.scrollWidth > part.clientWidth + 1,
  hint: part.previousElementSibling.hidden ? "" : part.previousElementSibling.textContent,
  shadow: part.classList.contains("more-right"),
  seen: Array.from(part.querySelectorAll("thead th"))
    .filter((head) => head.getBoundingClientRect().right <= part.getBoundingClientRect().right + 1)
    .map((head) => head.textContent),
}));
Promise.all(frames.map((frame) => new Promise((done) => { frame.onload = done; frame.srcdoc = PAGE; })))
  .then(() => { document.getElementById("probe").textContent = JSON.stringify(frames.map(look)); });
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_tables_that_are_wider_than_the_page_say_so(tmp_path: Path) -> None:
    out = write_results(tmp_path / "out", QUICK, seeds=(0, 1), n=200, val=100, reference="resnet20", budgets=[0.5, 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.style.FORMATS", ("svg",))
        text = json.dumps(draw(out).page.read_text("utf-8")).replace("</", "<\\/")
    host = tmp_path / "host.html"
    host.write_text(_WIDTHS.replace("PAGE", text), "utf-8")
    found = json.loads(browse(host, tmp_path))
    for tables in found:
        assert {table["title"] for table in tables} >= {"Results", "Accuracy at a budget"}
        for table in tables:
            assert bool(table["hint"]) == table["shadow"] == table["wide"], table
    desktop, phone = ({table["title"]: table for table in tables} for tables in found)
    assert not desktop["Results"]["wide"]
    assert re.fullmatch(r"\d+ more columns to the right: scroll \u2192", phone["Results"]["hint"])
    verdicts = next(table for title, table in phone.items() if title.startswith("Verdicts"))
    assert "A better?" in verdicts["seen"]
