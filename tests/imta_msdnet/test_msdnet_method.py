"""Layout of the network, stages, options and their errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from msdnet_helpers import SMALL, built, config, random_batch, small_options
from pydantic import ValidationError
from torch import nn

from baselines.norms.config import NormConfig
from bench.config.data import DataSpec
from bench.config.resolve import digest
from bench.config.schema import Recipe
from bench.errors import ConfigError
from methods.imta_msdnet.config import NETWORKS, IMTAMSDNetConfig
from methods.imta_msdnet.geometry import Geometry
from methods.imta_msdnet.method import IMTAMSDNet
from methods.imta_msdnet.network import MSDNet


# ---- layout ------------------------------------------------------------------------------------------
def walk(geometry: Geometry, block: int) -> list[tuple[int, int, bool]]:
    """(base channels read, scales written, ends in a transition) of each layer of a block."""
    return [(layer.base_in, layer.out_scales, layer.transition) for layer in geometry.block(block)]


def test_walk_through_the_imagenet_network_of_step_4() -> None:
    g = config(network="imagenet4").geometry()
    assert walk(g, 0) == [(32, 4, False), (48, 4, False), (64, 4, False), (80, 4, False)]
    assert walk(g, 1) == [(96, 4, False), (112, 3, True), (64, 3, False), (80, 3, False)]
    assert walk(g, 2) == [(96, 3, False), (112, 3, False), (128, 2, True), (72, 2, False)]
    assert walk(g, 3) == [(88, 2, False), (104, 2, False), (120, 2, False), (136, 1, True)]
    assert walk(g, 4) == [(76, 1, False), (92, 1, False), (108, 1, False), (124, 1, False)]


@pytest.mark.parametrize(
    ("network", "drops"),
    [("lg5", {6: (52, 26), 11: (56, 28)}), ("any7", {7: (58, 29), 13: (65, 32)})],
)
def test_where_scales_are_dropped(network: str, drops: dict[int, tuple[int, int]]) -> None:
    g = config(network=network).geometry()
    dropping = [layer for layer in g.layers if layer.in_scales > layer.out_scales]
    found = {layer.index: (layer.base_in + 6, layer.base_out) for layer in dropping}
    assert found == drops


def test_min_pruning_drops_scales_last_and_shrinks_at_thirds() -> None:
    g = config(network="lg5", prune="min").geometry()
    assert [layer.out_scales for layer in g.layers] == [3] * 13 + [2, 1]
    assert [layer.index for layer in g.layers if layer.transition] == [5, 10]


@pytest.mark.parametrize("reduction", [0.0, 1.0])
def test_extremes_of_reduction(reduction: float) -> None:
    g = config(network="lg5", reduction=reduction).geometry()
    assert [layer.transition for layer in g.layers].count(True) == (2 if reduction else 0)
    assert g.layers[-1].base_out == 16 + 15 * 6


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prune": "min"},
        {"bottleneck": False},
        {"reduction": 1.0},
        {"reduction": 0.0},
        {"growth_factor": [1, 1, 2, 3], "bottleneck_factor": [1, 1, 2, 2], "base": 2},
        {"step_mode": "even", "base": 4, "step": 2},
    ],
)
def test_networks_of_every_kind_run(options: dict[str, object]) -> None:
    method, model = built(**{**small_options(head_pool="global", isc="none", ofa="none"), **options})
    logits = model.eval()(random_batch(2).images)
    assert [list(z.shape) for z in logits] == [[2, 10]] * method.config.exits


@pytest.mark.parametrize("kind", get_args(NormConfig.model_fields["kind"].annotation) or ("batch",))
def test_norms_come_from_the_shared_factory(kind: str) -> None:
    norm = {"kind": kind, "gn_num_groups": 4} if kind == "group" else kind
    method, model = built(**small_options(growth=8, channels=8, norm=norm))
    batch = random_batch(4)
    result = method.loss(model.train(), batch, method.stages()[-1].resolve(Recipe()))
    assert torch.isfinite(result["loss"])
    spatial = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(spatial) == (kind == "batch")


def test_norm_parameters_reach_the_layers() -> None:
    _, model = built(stage=0, **small_options(norm={"kind": "batch", "eps": 1e-3, "momentum": 0.2}))
    assert {(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-3, 0.2)}


@pytest.mark.parametrize("side", [28, 40, 64])
def test_global_pooling_takes_other_sizes(side: int) -> None:
    method, model = built(DataSpec("other", 5, side), **small_options(head_pool="global", stem="cifar"))
    with torch.no_grad():
        assert method.record(model.eval(), torch.zeros(2, 3, side, side)).logits.shape == (4, 2, 5)


def test_fixed_pooling_says_what_size_it_needs() -> None:
    IMTAMSDNet(config(**small_options()), DataSpec("fashion", 10, 28))
    with pytest.raises(ConfigError, match=r"5 to 8 pixels.*64 pixels.*16.*head_pool: global"):
        IMTAMSDNet(config(**small_options(stem="cifar")), DataSpec("tiny", 10, 64))


def test_the_stem_follows_the_image_size() -> None:
    small = MSDNet(config(**small_options()), 10, 32)
    large = MSDNet(config(**small_options(head_pool="global")), 10, 128)
    assert small.trunk.stem[0][0].kernel_size == (3, 3)
    assert large.trunk.stem[0][0].kernel_size == (7, 7)
    assert large.trunk.stem[0][0].bias is not None


def test_he_initialisation_is_applied_when_asked_for() -> None:
    torch.manual_seed(0)
    he, default = (MSDNet(config(network="lg5", init=kind), 10, 32) for kind in ("he", "default"))
    conv = "trunk.blocks.4.4.cells.0.normal.3.weight"
    weight = he.get_parameter(conv)
    fan_out = weight.shape[0] * 9
    assert float(weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    fan_in = weight.shape[1] * 9
    assert float(default.get_parameter(conv).detach().std()) == pytest.approx((1 / (3 * fan_in)) ** 0.5, rel=0.1)
    assert not he.get_parameter("heads.0.linear.bias").any()


# ---- stages ------------------------------------------------------------------------------------------
def test_the_ablation_shares_its_first_stage() -> None:
    rows = {
        "MSDNet": config(network="lg5", ge="none", isc="none", ofa="none"),
        "GE": config(network="lg5", isc="none", ofa="none"),
        "GE+ISC": config(network="lg5", ofa="none"),
        "GE+ISC+OFA": config(network="lg5", ofa="class_mean", ofa_weight=0.9, ofa_temperature=3.0),
    }
    stages = {name: row.stages() for name, row in rows.items()}
    assert {name: [s.name for s in got] for name, got in stages.items()} == {
        "MSDNet": ["msdnet"], "GE": ["ge"], "GE+ISC": ["ge", "isc_ofa"], "GE+ISC+OFA": ["ge", "isc_ofa"],
    }  # fmt: skip
    first = {digest(stages[name][0].options) for name in ("GE", "GE+ISC", "GE+ISC+OFA")}
    assert len(first) == 1
    assert digest(stages["MSDNet"][0].options) not in first
    assert digest(stages["GE+ISC"][1].options) != digest(stages["GE+ISC+OFA"][1].options)
    assert stages["GE+ISC"][1].start_from == "ge"


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"lazy": True}, [True, True]),
        ({"ofa_temperature": 2.0}, [True, False]),
        ({"frozen_norm": "eval"}, [True, False]),
        ({"isc": "stop_gradient"}, [True, False]),
        ({"ofa_teacher": "frozen_head"}, [True, True]),
        ({"ge": "all"}, [False, True]),
        ({"growth": 8}, [False, False]),
        ({"norm": {"kind": "batch", "eps": 1e-3}}, [False, False]),
    ],
)
def test_a_stage_depends_on_the_options_it_uses(changes: dict[str, object], same: list[bool]) -> None:
    """Its predecessors are part of a stage's address besides: ge: all makes both stages new."""
    a, b = config(network="lg5"), config(network="lg5", **changes)
    assert [digest(x.options) == digest(y.options) for x, y in zip(a.stages(), b.stages())] == same


def test_the_name_of_a_network_is_only_short_for_its_fields() -> None:
    named, spelled = config(network="lg5"), config()
    differing = {k for k in IMTAMSDNetConfig.model_fields if getattr(named, k) != getattr(spelled, k)}
    assert differing == {"network", "stem"}
    spelled = config(stem="cifar")
    assert named.stages()[0].options == spelled.stages()[0].options


def test_a_resolved_configuration_reads_back_as_itself() -> None:
    for network in NETWORKS:
        before = config(network=network, growth=8)
        after = IMTAMSDNetConfig.model_validate(json.loads(json.dumps(before.model_dump(mode="json"))))
        assert after == before


# ---- errors ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"growth": 3, "growth_factor": [1, 1, 2]}, "must be even"),
        ({"growth_factor": [1, 2]}, "2 scales, bottleneck_factor 3"),
        ({"growth_factor": [1, 0, 2]}, "between 1 and 64"),
        ({"channels": 1, "growth": 2, "reduction": 0.01}, "leaves no channels"),
        ({"exits": 1, "prune": "min"}, "at least 2 layers"),
        ({"isc": "none", "ofa_teacher": "frozen_head"}, "ofa_teacher: frozen_head needs isc"),
        ({"network": "lg9"}, "network"),
        ({"base": 10**9}, "less than or equal to 256"),
        ({"exits": 64, "step": 256}, "more than 1000"),
        ({"exits": 0}, "greater than or equal to 1"),
        ({"ofa_weight": 1.5}, "less than or equal to 1"),
        ({"depth": 20}, "Extra inputs"),
        ({"network": ["lg5"]}, "network"),
    ],
)
def test_options_that_fit_no_network_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**options)


def test_options_are_read_without_torch(repo_root: Path) -> None:
    code = (
        "import sys; from methods.imta_msdnet.config import IMTAMSDNetConfig as C; "
        "C.model_validate({'network': 'imagenet7'}).stages(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repo_root)


def test_backbone_names() -> None:
    assert IMTAMSDNet(config(network="any7"), SMALL).backbone() == "msdnet-any7"
    assert IMTAMSDNet(config(exits=3), SMALL).backbone() == "msdnet-lingrow-3x1+1-16c6g"
