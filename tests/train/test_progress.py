"""The live line of training in terminals of any width."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from rich.text import Text

from bench.train.meter import Meter
from bench.train.progress import TrainingProgress


def _shown(width: int, total: int, step: int) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    meter = Meter(torch.device("cpu"))
    meter.sums, meter.images, meter.judged = {"loss": torch.tensor(200.0), "hits": torch.tensor(50.0)}, 100, 100
    with TrainingProgress("skipnet20-alpha2 [sp] seed 0", total, console=console) as progress:
        progress._shown = 0.0
        progress.step(step, 3, 64, meter, 1234.0)
        progress._live.refresh()
    lines = Text.from_ansi(stream.getvalue().replace("\r", "\n")).plain.splitlines()
    return next(line for line in reversed(lines) if f"{step}/" in line)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_step_and_time_left_are_whole_and_the_stage_is_named(width: int) -> None:
    line = _shown(width, 64_000, 12_345)
    assert "  12345/64000  " in line
    assert "-:-- left" in line  # not known after one step
    assert "[sp] seed 0" in line if width > 40 else "seed 0" in line
    assert len(line) <= width
    if width == 200:
        assert "skipnet20-alpha2 [sp] seed 0" in line
        assert "epoch 4/64  loss 2.000  accuracy 50.0 %  1,234 images/s" in line
