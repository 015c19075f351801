"""What is said of a pickle that is not opened: the keys that this very file has, and nothing of it is run."""

from __future__ import annotations

import argparse
import io
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.errors import WeightsError
from bench.train.checkpoint import read_weights
from bench.train.foreign import state_dict_keys

STATE = OrderedDict(w=torch.arange(3.0), b=torch.ones(1))
ARGS = argparse.Namespace(model="resnet50", lr=0.1)


class Touch:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def _refusal(path: Path) -> str:
    with pytest.raises(WeightsError, match="could run code when opened") as error:
        read_weights(path)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("value", "key", "also"), [
    ({"state_dict": STATE, "args": ARGS}, "state_dict", None),
    ({"model": STATE, "optimizer": {"lr": 0.1}, "args": ARGS}, "model", None),
    ({"model": STATE, "model_ema": dict(STATE), "args": ARGS}, "model_ema", "'model'"),
    ({"args": ARGS, "net": dict(STATE)}, "net", None),
])  # fmt: skip
def test_the_hint_names_the_key_and_works(tmp_path: Path, value: Any, key: str, also: str | None, legacy: bool) -> None:
    path, new = tmp_path / "f.pth", tmp_path / "new.pt"
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    text = _refusal(path)
    assert f"[{key!r}]" in text
    assert ("also has tensors under" in text) == (also is not None)
    if also:
        assert text.endswith(also)
    line = re.search(r"torch\.save\(.*NEW_FILE\)", text)
    assert line is not None
    exec(line[0], {"torch": torch, "FILE": path, "NEW_FILE": new})
    state, about = read_weights(new)
    assert about is None
    assert list(state) == ["w", "b"]
    assert torch.equal(state["w"], STATE["w"])


def test_a_bare_state_dict_with_something_foreign_in_it(tmp_path: Path) -> None:
    path, new = tmp_path / "f.pth", tmp_path / "new.pt"
    torch.save({**STATE, "weight": nn.Parameter(torch.ones(2)), "args": ARGS}, path)
    line = re.search(r"torch\.save\(.*NEW_FILE\)", _refusal(path))
    assert line is not None
    exec(line[0], {"torch": torch, "FILE": path, "NEW_FILE": new})
    assert list(read_weights(new)[0]) == ["w", "b", "weight"]


def test_a_whole_network_or_a_broken_pickle_lists_the_usual_keys(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "f.pth")
    text = _refusal(tmp_path / "f.pth")
    assert "['state_dict']" in text
    assert text.endswith("where the file has no such key: 'model_ema', 'model'")
    buffer = io.BytesIO()
    torch.save({"model": STATE, "args": ARGS}, buffer)
    assert state_dict_keys(buffer.getvalue()) == ["model"]
    for damaged in (buffer.getvalue()[:200], b"", b"\x80\x02.", b"cos\nsystem\n(S'false'\ntR."):
        assert state_dict_keys(damaged) is None


def test_nothing_of_the_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for legacy in (False, True):
        torch.save({"model": STATE, "args": Touch(mark)}, tmp_path / "f.pth", _use_new_zipfile_serialization=not legacy)
        assert "['model']" in _refusal(tmp_path / "f.pth")
        assert not mark.exists()
    torch.load(tmp_path / "f.pth", weights_only=False)  # the file would have
    assert mark.exists()
