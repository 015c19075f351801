"""One small comparison, everything that can happen to its files, and what may be said of it afterwards."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import yaml

from bench.cli import main

KINDS = ("truncated", "emptied", "flipped", "digit", "removed", "folder", "link", "pipe")
#: What is made of the runs' files and must be the same after any damage that is not named. No times.
TABLES = ("results.csv", "summary.csv", "budgets.csv", "budget_summary.csv", "frontier.csv", "auc.csv", "verdicts.csv",
          "diagnostics/*.csv", "latency.csv")  # fmt: skip
_FIGURES = ("draw_accuracy", "draw_pareto", "draw_effects", "draw_latency", "draw_diagnostics", "draw_curves")
#: A command that waits for a pipe would wait for ever: it is broken off after this long (seconds).
_FOREVER = 120


@dataclass(frozen=True)
class Made:
    """A finished comparison of two runs, with times. folder: holds its file and its results, ``out``."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "small.yaml"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def copy(self, target: Path) -> Made:
        shutil.copytree(self.folder, target)
        return Made(target)


def make(folder: Path) -> Made:
    """Two networks of four channels, trained for one epoch; the first one timed."""
    folder.mkdir(parents=True, exist_ok=True)
    small = {"method": "resnet", "options": {"depth": 8, "width": 4}}
    tree = {
        "name": "small", "data": {"name": "synthetic", "val_size": 32, "train_subset": 64, "test_subset": 32},
        "recipe": {"epochs": 1, "batch_size": 32, "lr": 0.05}, "device": "cpu", "threads": 1, "reference": "a",
        "budgets": [1.0], "runs": [{"name": "a", **small}, {"name": "b", **small, "recipe": {"lr": 0.1}}],
    }  # fmt: skip
    made = Made(folder)
    made.config.write_text(yaml.safe_dump(tree, sort_keys=False))
    for command in (["run"], ["latency"]):
        done = call(made, command[0])
        assert done.code == 0, done
    return made


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    said: str


def call(made: Made, command: str, *more: str) -> Done:
    """A command on the comparison, in this process and without figures."""
    arguments = {
        "run": ["run", str(made.config), "--out", str(made.out), "--in-process", *more],
        "report": ["report", str(made.out), *more],
        "compare": ["compare", str(made.out), str(made.folder / "other"), "--out", str(made.folder / "both"), *more],
        "latency": ["latency", str(made.config), "--out", str(made.out), "--rounds", "3", "--warmup", "1", "--images",
                    "8", "--batch-sizes", "8", "--only", "a", *more],
        "export": ["export", str(made.out), "--run", "a", "--to", str(made.folder / "a.pt"), *more],
    }[command]  # fmt: skip
    if command == "compare" and not (made.folder / "other").exists():
        shutil.copytree(made.out, made.folder / "other")
    said = io.StringIO()
    with contextlib.ExitStack() as stack:
        for name in _FIGURES:
            stack.enter_context(mock.patch(f"bench.report.draw.{name}", return_value=[]))
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(said))
        stack.enter_context(_not_for_ever())
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, said.getvalue())


@contextlib.contextmanager
def _not_for_ever() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError("waited for ever")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_FOREVER)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def kept_files(made: Made) -> list[str]:
    """Everything in the results that is not drawn from something else, by path in it; the first run's and what is
    shared."""
    drawn = {*TABLES, "runs.csv", "training.csv", "report.html", ".lock"} - {"latency.csv"}
    names = [str(path.relative_to(made.out)) for path in sorted(made.out.rglob("*")) if path.is_file()]
    return [name for name in names if name not in drawn and not name.startswith(("plots", "diagnostics"))
            and not name.endswith(".lock")]  # fmt: skip


def damage(path: Path, kind: str, rng: random.Random) -> None:
    """Do one thing to a file."""
    content = bytearray(path.read_bytes())
    if kind in ("truncated", "emptied"):
        path.write_bytes(content[: rng.randrange(len(content)) if kind == "truncated" else 0])
        return
    if kind in ("flipped", "digit"):
        digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()] if kind == "digit" else []
        if digits:
            place = rng.choice(digits)
            content[place] = ord("0") + (content[place] - ord("0") + rng.randrange(1, 10)) % 10
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        return
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(path.parent / "nowhere")
    elif kind == "pipe":
        os.mkfifo(path)


def tables(out: Path, names: tuple[str, ...] = TABLES) -> dict[str, bytes]:
    """The derived tables of a folder."""
    return {str(p.relative_to(out)): p.read_bytes() for pattern in names for p in sorted(out.glob(pattern))}


def fault_of(done: Done, before: dict[str, bytes], after: dict[str, bytes]) -> str | None:
    """What a command did that it may never do; None if nothing."""
    if "internal" in done.said or "Traceback" in done.said:
        return f"an internal error: {done.said}"
    if done.code not in (0, 1, 2):
        return f"exit code {done.code}"
    if done.code == 0 and after != before:
        changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
        return f"silent change of {', '.join(sorted(changed))}: {done.said}"
    return None
