"""Against the released networks: names, logits, operations, parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from msdnet_helpers import NUMBERS, by_exit, config, exit_order, published, published_shapes, sine_fill, sine_images

from bench.config.data import DataSpec
from bench.cost.units import count_units
from methods.imta_msdnet.archs import ARCHS
from methods.imta_msdnet.method import IMTAMSDNet

COUNTED = sorted(NUMBERS["counts"])


def cumulative(method: IMTAMSDNet, model: torch.nn.Module, values: list[float]) -> list[int]:
    """Sum of one value per unit over what has run by the time each exit has answered."""
    return (by_exit(method, model).double() @ torch.tensor(values, dtype=torch.float64)).long().tolist()


@pytest.mark.parametrize("imta", [False, True])
def test_names_and_shapes_are_the_published_ones(imta: bool) -> None:
    method, model = published("C100-lg5", imta=imta)
    ours = {key: list(value.shape) for key, value in method.export_weights(model).items()}
    assert ours == published_shapes(imta=imta)
    assert len(ours) == (708 if imta else 670)


def test_the_golden_numbers_are_those_of_the_shared_file(shared_dir: Path) -> None:
    shared = json.loads((shared_dir / "parity/imta_msdnet.json").read_text())
    for name, imta in (("msdnet/C100-lg5", False), ("imta/C100-lg5", True)):
        golden = NUMBERS["logits"]["imta C100-lg5" if imta else "C100-lg5"]
        assert shared[name]["shapes"] == published_shapes(imta=imta)
        assert shared[name]["logits_00_1m1"] == golden["corners"]
        assert shared[name]["std"] == golden["std"]


@pytest.mark.parametrize("arch", sorted(NUMBERS["tensors"]))
def test_number_of_tensors(arch: str) -> None:
    with torch.device("meta"):
        method, model = published(arch)
    assert len(method.export_weights(model)) == NUMBERS["tensors"][arch]


@pytest.mark.parametrize("name", sorted(NUMBERS["logits"]))
def test_logits(name: str) -> None:
    arch = name.removeprefix("imta ")
    method, model = published(arch, imta=name.startswith("imta "))
    method, model = IMTAMSDNet.import_weights(arch, sine_fill(method.export_weights(model)))
    model.eval()
    with torch.no_grad():
        logits = method.record(model, sine_images(method.data.image_size)).logits[exit_order(method, model)]
    golden = NUMBERS["logits"][name]
    corners = torch.stack([logits[:, 0, 0], logits[:, 1, -1]], dim=1)
    torch.testing.assert_close(corners, torch.tensor(golden["corners"]), rtol=0, atol=2e-4)
    if "std" in golden:
        torch.testing.assert_close(logits.flatten(1).std(1), torch.tensor(golden["std"]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("arch", COUNTED)
def test_published_counts(arch: str) -> None:
    with torch.device("meta"):
        method, model = published(arch)
    golden, units = NUMBERS["counts"][arch], method.units(model)
    for column in ("msdnet_ops", "macs_full", "macs_lazy"):
        if column in golden:
            assert cumulative(method, model, [u.extra_costs[column] for u in units]) == golden[column], column
    sizes = [sum(p.numel() for p in u.module.parameters()) for u in units]
    assert cumulative(method, model, sizes) == golden["params"]


@pytest.mark.parametrize(
    "arch",
    ["C100-lg5", "C100-any7", "IN-4", *(pytest.param(arch, marks=pytest.mark.slow) for arch in ("IN-6", "IN-7"))],
)
def test_counts_of_the_harness(arch: str) -> None:
    """The harness counts every unit by its own rules, and so checks the published columns as well."""
    method, model = published(arch)
    golden, table = NUMBERS["counts"][arch], count_units(method, model)
    spent = {name: [int(x) for x in column] for name, column in table.cost(by_exit(method, model)).items()}
    assert spent["macs"] == golden["macs_full"]
    assert spent["macs_fvcore"] == golden["fvcore"]
    assert {c: spent[c] for c in golden if c != "fvcore"} == {c: golden[c] for c in golden if c != "fvcore"}
    assert table.params_outside == 0


@pytest.mark.parametrize("arch", ["C100-lg5", pytest.param("IN-4", marks=pytest.mark.slow)])
def test_lazy_counts_of_the_harness(arch: str) -> None:
    network, spec = ARCHS[arch]
    method = IMTAMSDNet(config(network=network, ge="none", isc="none", ofa="none", lazy=True), spec)
    model = method.build(method.stages()[-1])
    golden, spent = NUMBERS["counts"][arch], count_units(method, model).cost(by_exit(method, model))
    assert spent["macs"].tolist() == golden["macs_lazy"]
    assert spent["macs_full"].tolist() == golden["macs_full"]
    assert spent["msdnet_ops"].tolist() == golden["msdnet_ops"]


def test_collaboration_counts_of_the_harness() -> None:
    method, model = published("C100-lg5", imta=True)
    table = count_units(method, model)
    spent, golden = table.cost(by_exit(method, model)), NUMBERS["imta"]["C100-lg5"]
    plain = NUMBERS["counts"]["C100-lg5"]["macs_full"]
    assert [a - b for a, b in zip(spent["macs"].tolist(), plain)] == golden["extra_macs"]
    assert spent["params"].tolist()[-1] == golden["deployed_params"]
    assert table.params_outside == 5 * (128 * 100 + 100)


@pytest.mark.parametrize("arch", sorted(NUMBERS["imta"]))
def test_collaboration_overhead(arch: str) -> None:
    with torch.device("meta"):
        method, model = published(arch, imta=True)
    golden, plain, units = NUMBERS["imta"][arch], NUMBERS["counts"][arch], method.units(model)
    full = cumulative(method, model, [u.extra_costs["macs_full"] for u in units])
    assert [a - b for a, b in zip(full, plain["macs_full"])] == golden["extra_macs"]
    lazy = cumulative(method, model, [u.extra_costs["macs_lazy"] for u in units])
    assert [a - b for a, b in zip(lazy, plain["macs_lazy"])] == golden["extra_macs"]
    if "msdnet_ops" in golden:
        ops = cumulative(method, model, [u.extra_costs["msdnet_ops"] for u in units])
        assert ops == golden["msdnet_ops"]
    sizes = [sum(p.numel() for p in u.module.parameters()) for u in units]
    assert cumulative(method, model, sizes)[-1] == golden["deployed_params"]
    assert sum(p.numel() for p in model.collaboration.parameters()) == golden["trained_params"]


@pytest.mark.parametrize("arch", sorted(NUMBERS["millions_of_ops"]))
def test_other_networks_in_millions_of_operations(arch: str) -> None:
    with torch.device("meta"):
        method, model = published(arch)
    ops = cumulative(method, model, [u.extra_costs["msdnet_ops"] for u in method.units(model)])
    assert [round(x / 1e6, 3) for x in ops] == NUMBERS["millions_of_ops"][arch]


@pytest.mark.parametrize(
    ("data", "options", "last", "params"),
    [
        ("C10-any10", {}, 121.563, None),
        ("C10-lg5", {}, 58.423, None),
        ("C100-lg5", {"prune": "min"}, 62.02, 1.925),
        ("C100-lg5", {"bottleneck": False}, 70.89, 2.169),
        ("IN-4", {"base": 7}, 1743.710, 31.096),
    ],
)
def test_variants(data: str, options: dict[str, object], last: float, params: float | None) -> None:
    network, spec = ARCHS[data]
    method = IMTAMSDNet(config(network=network, ge="none", isc="none", ofa="none", **options), spec)
    with torch.device("meta"):
        model = method.build(method.stages()[-1])
    ops = cumulative(method, model, [u.extra_costs["msdnet_ops"] for u in method.units(model)])
    assert ops[-1] / 1e6 == pytest.approx(last, abs=0.005 if options else 0.0005)
    if params is not None:
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(params, abs=0.0005)


def test_min_pruning_at_every_exit() -> None:
    method = IMTAMSDNet(config(network="lg5", prune="min", isc="none", ofa="none"), ARCHS["C100-lg5"][1])
    with torch.device("meta"):
        model = method.build(method.stages()[-1])
    ops = cumulative(method, model, [u.extra_costs["msdnet_ops"] for u in method.units(model)])
    assert [round(x / 1e6, 2) for x in ops] == [6.86, 14.35, 27.90, 45.69, 62.02]


@pytest.mark.parametrize("arch", sorted(NUMBERS["head_widths"]))
def test_widths_of_the_collaboration_come_from_the_network(arch: str) -> None:
    with torch.device("meta"):
        _, model = published(arch, imta=True)
    widths = NUMBERS["head_widths"][arch]
    linears = model.collaboration.classify
    assert [linear.in_features for linear in linears] == [widths[0], *(2 * w for w in widths[1:])]
    assert [carry[0].out_features for carry in model.collaboration.carry] == widths[1:]


def test_base_and_step_may_differ_on_imagenet() -> None:
    options = config(network="imagenet4", base=7)
    assert [options.geometry().head_width(k) for k in range(5)] == [288, 544, 464, 360, 616]


def test_small_head_counts_do_not_depend_on_the_device_of_the_weights() -> None:
    """Counting on meta tensors and on real ones gives the same numbers."""
    spec = DataSpec("cifar10", 10, 32)
    columns = []
    for device in ("meta", "cpu"):
        method = IMTAMSDNet(config(network="lg4"), spec)
        with torch.device(device):
            model = method.build(method.stages()[-1])
        columns.append([u.extra_costs for u in method.units(model)])
    assert columns[0] == columns[1]
