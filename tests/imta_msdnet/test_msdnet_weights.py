"""Published checkpoints in and out: every key accounted for."""

from __future__ import annotations

import pytest
import torch
from msdnet_helpers import published, sine_fill
from torch import Tensor

from bench.api import import_official
from bench.errors import WeightsError
from methods.imta_msdnet.archs import ARCHS
from methods.imta_msdnet.isc import IMTANet
from methods.imta_msdnet.method import IMTAMSDNet
from methods.imta_msdnet.network import MSDNet


def checkpoint(arch: str = "C100-lg5", *, imta: bool = False) -> dict[str, Tensor]:
    method, model = published(arch, imta=imta)
    return sine_fill(method.export_weights(model))


def load(state: dict[str, Tensor], arch: str = "C100-lg5") -> tuple[IMTAMSDNet, torch.nn.Module]:
    return IMTAMSDNet.import_weights(arch, state)  # type: ignore[return-value]


@pytest.mark.parametrize("imta", [False, True])
def test_round_trip(imta: bool) -> None:
    state = checkpoint(imta=imta)
    method, model = load(state)
    assert isinstance(model, IMTANet if imta else MSDNet)
    back = method.export_weights(model)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.parametrize("arch", sorted(arch for arch in ARCHS if not arch.startswith("C10-")))
def test_every_architecture_names_each_tensor_once(arch: str) -> None:
    with torch.device("meta"):
        method, model = published(arch, imta=True)
    exported = method.export_weights(model)
    assert len(exported) == len(model.state_dict())


def test_the_ways_in_which_files_wrap_names() -> None:
    state = checkpoint(imta=True)
    _, expected = load(state)
    wrapped = {"module." + key.replace("net.", "net.module.", 1) if key.startswith("net.") else "module." + key: value
               for key, value in state.items()}  # fmt: skip
    assert any(key.startswith("module.net.module.") for key in wrapped)
    for variant in (wrapped, {"module.module." + k: v for k, v in state.items()}):
        found = load(variant)[1].state_dict()
        assert all(torch.equal(value, found[key]) for key, value in expected.state_dict().items())


def test_the_python_interface_imports_them() -> None:
    state = checkpoint(imta=True)
    method, model = import_official("imta_msdnet", "C100-lg5", state)
    assert isinstance(method, IMTAMSDNet)
    assert isinstance(model, IMTANet)
    assert not model.training


def test_files_without_batch_counters_are_accepted() -> None:
    state = {k: v for k, v in checkpoint().items() if not k.endswith("num_batches_tracked")}
    load(state)


@pytest.mark.parametrize("imta", [False, True])
def test_every_missing_left_over_or_misshapen_key_is_named(imta: bool) -> None:
    state = checkpoint(imta=imta)
    prefix = "net." if imta else ""
    gone = prefix + "blocks.1.0.layers.0.conv_normal.net.0.weight"
    bent = prefix + "classifier.0.m.0.net.0.weight"
    del state[gone]
    state[bent] = state[bent][:64]
    state["surplus.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as error:
        load(state)
    text = str(error.value)
    assert "1 missing" in text
    assert "1 left over (surplus.weight)" in text
    assert "[64," in text or "(64," in text
    assert "C100-lg5" in text


def test_a_checkpoint_of_another_architecture_is_refused() -> None:
    with pytest.raises(WeightsError, match="C100-lg5"):
        load(checkpoint("C10-lg5"))
    with pytest.raises(WeightsError, match="left over"):
        load(checkpoint("C100-lg7"))


def test_an_unknown_architecture_says_what_was_meant() -> None:
    with pytest.raises(WeightsError, match="IN-4"):
        load({}, "IN4")


def test_training_mode_agrees_after_a_step_of_statistics() -> None:
    """The published names carry the buffers too: a forward in training mode moves them alike."""
    method, model = load(checkpoint())
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.train()(images)
    method, again = load(method.export_weights(model))
    for a, b in zip(model.eval()(images), again.eval()(images)):
        assert torch.equal(a, b)
