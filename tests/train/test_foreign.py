"""Files of weights that others wrote are read right or refused in one line, and nothing of them is run."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import logging
import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.errors import WeightsError
from bench.train.checkpoint import FORMAT, read_weights

STATE = OrderedDict(w=torch.arange(3.0), b=torch.ones(1))
OTHER = OrderedDict(w=torch.zeros(3), b=torch.zeros(1))
ARGS = argparse.Namespace(model="resnet50", lr=0.1)


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, argument: Any) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> Any:
        return self.call


class Thing:
    """What a training script may keep beside its tensors."""

    def __init__(self) -> None:
        self.values = {"list": [1, 2], "set": {3}, "path": Path("x")}


def prefixed(prefix: str, state: dict[str, Tensor] = STATE, **more: Tensor) -> dict[str, Tensor]:
    return {**more, **{prefix + name: value for name, value in state.items()}}


def refusal(path: Path | str) -> str:
    with pytest.raises(WeightsError) as error:
        read_weights(path)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert "weights_only" not in text
    assert "internal" not in text
    return text


READ = {
    "bare": STATE,
    "Lightning-like": {"state_dict": STATE, "hyper_parameters": {"lr": 0.1}},
    "torchvision": {"model": STATE, "optimizer": {"state": {0: torch.ones(1)}}, "epoch": 3, "args": ARGS},
    "NumPy scalar": {"state_dict": prefixed("module."), "best_prec1": np.float64(91.2), "when": np.zeros(3)},
    "compiled": prefixed("_orig_mod."),
    "both": {"state_dict": prefixed("module._orig_mod."), "path": Path("somewhere")},
    "both, otherwise": {"model": prefixed("_orig_mod.module.module.")},
    "average": {"model": OTHER, "model_ema": prefixed("module.", n_averaged=torch.tensor(5)), "args": ARGS},
    "average of a compiled one": prefixed("module._orig_mod.", n_averaged=torch.tensor(5)),
    "parameters": {name: nn.Parameter(value) for name, value in STATE.items()},
    "an object of a class": {"state_dict": STATE, "config": Thing()},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", READ)
def test_checkpoints_of_training_scripts_are_read(tmp_path: Path, kind: str, legacy: bool) -> None:
    torch.save(READ[kind], tmp_path / "f.pth", _use_new_zipfile_serialization=not legacy)
    state, about = read_weights(tmp_path / "f.pth")
    assert about is None
    assert list(state) == ["w", "b"]
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


def test_which_of_several_networks_is_taken_is_said_and_can_be_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "f.pth"
    torch.save({**READ["average"], "teacher": {"w": torch.full((3,), 7.0)}}, path)
    with caplog.at_level(logging.WARNING):
        read_weights(path)
    (line,) = caplog.messages
    assert "'model_ema' are taken; it also has 'model', 'teacher'" in line
    caplog.clear()
    assert torch.equal(read_weights(f"{path}#model")[0]["w"], OTHER["w"])
    assert float(read_weights(f"{path}#teacher")[0]["w"][0]) == 7
    assert torch.equal(read_weights(f"{path}#model_ema")[0]["w"], STATE["w"])
    assert "no weights under 'mdl'; it has model, model_ema, teacher" in refusal(f"{path}#mdl")
    torch.save(STATE, path)
    assert "leave #KEY out" in refusal(f"{path}#model")
    path.rename(tmp_path / "f.pth#model")
    assert list(read_weights(tmp_path / "f.pth#model")[0]) == ["w", "b"]


def test_unknown_keys_are_named(tmp_path: Path) -> None:
    torch.save({"net": STATE, "args": ARGS}, tmp_path / "f.pth")
    assert f"lie under net; say which: {tmp_path / 'f.pth'}#net" in refusal(tmp_path / "f.pth")


def _zip(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _saved(value: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def _safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.zeros(3))
    return buffer.getvalue()


def _script() -> bytes:
    return _zip({"net/code/net.py": b"", "net/constants.pkl": b"", "net/data.pkl": b""})


OTHER_FILES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "blank": (b"\n\n", "empty"),
    "html": (b"\n<!DOCTYPE html><html>404</html>", "web page"),
    "xml": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    "text": (b"hello", "text file (it begins 'hello')"),
    "json": (b'{"message": "Not Found"}', "text file"),
    "safetensors": (_safetensors(), "safetensors"),
    "gzip": (gzip.compress(_saved(STATE)), "gzip"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "npy": (b"\x93NUMPY\x01\x00" + bytes(50), "NumPy"),
    "npz": (_npz(), "NumPy archive"),
    "zip": (_zip({"weights/f.bin": b"x"}), "did not write"),
    "deflated": (_zip({"f/data.pkl": b"x" * 99}, zipfile.ZIP_DEFLATED), "compressed"),
    "script": (_script(), "TorchScript"),
    "tar": (bytes(257) + b"ustar" + bytes(300), "tar archive"),
    "noise": (bytes(range(200, 256)) * 9, "not a PyTorch file"),
    "cut": (_saved(STATE)[:500], "cut off"),
    "cut legacy": (_saved(STATE, _use_new_zipfile_serialization=False)[:300], "cut off"),
    "cut in the data": (_saved(STATE, _use_new_zipfile_serialization=False)[:-5], "cut off"),
    "a plain pickle": (pickle.dumps({"w": [1.0]}), "damaged"),
    "protocol 4": (_saved({**STATE, "n": set()}, pickle_protocol=4), "not read"),
    "a whole network": (_saved(nn.Linear(2, 2)), "whole pickled network (torch.nn.modules.linear.Linear)"),
    "a whole network inside": (_saved({"model": nn.Linear(2, 2), "epoch": 3}), "'model' is a whole pickled network"),
    "a list": (_saved([1, 2]), "not a state_dict but a list"),
    "an empty dict": (_saved({}), "empty state_dict"),
    "no tensors": (_saved({"state_dict": {"w": "text"}}), "'state_dict' is a dict, not a tensor"),
    "more than tensors": (_saved({**STATE, "args": ARGS}), "'args' is a argparse.Namespace, not a tensor"),
    "NaN": (_saved({**STATE, "n": torch.tensor([0.0, float("nan")])}), "1 of 3 tensors hold NaN or infinity"),
    "infinity": (_saved({"n": torch.tensor([float("inf")], dtype=torch.float16)}), "hold NaN or infinity"),
    "expanded": (_saved({"w": torch.zeros(1).expand(10**9)}), "fewer stored values than its shape"),
    "sparse": (_saved({"w": torch.eye(3).to_sparse()}), "not an ordinary tensor"),
    "meta": (_saved({"w": torch.empty(3, device="meta")}), "not an ordinary tensor"),
    "a name twice": (_saved({**STATE, **prefixed("module.")}), "there twice"),
    "ours without a network": (_saved({"format": FORMAT, "about": {}}), "no weights under 'model'"),
    "ours with a strange one": (_saved({"format": FORMAT, "about": {}, "model": {"w": 1}}), "no weights under 'model'"),
    "ours without its name": (_saved({"format": FORMAT, "model": STATE, "about": 3}), "which network it belongs to"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    content, words = OTHER_FILES[kind]
    (tmp_path / "f.pth").write_bytes(content)
    assert words in refusal(tmp_path / "f.pth")


def test_pipes_devices_and_folders_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    assert "is a named pipe" in refusal(tmp_path / "pipe.pth")
    assert "is a device" in refusal("/dev/zero")
    assert "is a folder" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "gone.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [os.system, subprocess.call, eval], ids=["os", "subprocess", "eval"])
def test_nothing_of_the_file_is_run(tmp_path: Path, function: Any, legacy: bool) -> None:
    mark = tmp_path / "mark"
    argument = f"open({str(mark)!r}, 'w')" if function is eval else ["touch", str(mark)]
    trap = Call(function, f"touch {mark}" if function is os.system else argument)
    torch.save({"model": STATE, "args": trap}, tmp_path / "f.pth", _use_new_zipfile_serialization=not legacy)
    if function is os.system:
        assert "could run commands; it is not opened" in refusal(tmp_path / "f.pth")
    else:
        assert torch.equal(read_weights(tmp_path / "f.pth")[0]["w"], STATE["w"])
    assert not mark.exists()
    torch.load(tmp_path / "f.pth", weights_only=False)  # the file would have
    assert mark.exists()


def _read_or_refuse(path: Path) -> dict[str, Tensor] | str:
    try:
        return read_weights(path)[0]
    except WeightsError as error:
        return str(error)


@pytest.mark.parametrize("legacy", [False, True])
def test_damage_anywhere_is_one_line_or_right(tmp_path: Path, legacy: bool) -> None:
    """A flipped byte, or an early end: the same tensors, or a refusal; in a tensor's own bytes only zip notices."""
    whole = _saved({"model": STATE, "args": ARGS}, _use_new_zipfile_serialization=not legacy)
    generator = np.random.default_rng(0)
    path = tmp_path / "f.pth"
    for place in generator.choice(len(whole), 60, replace=False).tolist():
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]):
            path.write_bytes(content)
            outcome = _read_or_refuse(path)
            assert len(outcome.splitlines()) == 1 if isinstance(outcome, str) else outcome.keys() == STATE.keys()
