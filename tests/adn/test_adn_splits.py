"""Splits, skip configurations and the options that are refused; none of it needs torch."""

from __future__ import annotations

import subprocess
import sys

import adn_oracle as oracle
import pytest
from pydantic import ValidationError

from bench.errors import ConfigError
from methods.adn.config import ADNConfig
from methods.adn.splits import all_skips, parse_skip, skip_name


@pytest.mark.parametrize("arch", sorted(oracle.TABLE))
def test_split_table(arch):
    split = ADNConfig(arch=arch).split()
    assert (split.blocks, split.mandatory) == oracle.TABLE[arch]


@pytest.mark.parametrize(
    ("depth", "base"), [(14, 8), (20, 14), (26, 14), (32, 20), (38, 20), (44, 26), (56, 32), (110, 56)]
)
def test_cifar_split(depth, base):
    split = ADNConfig(depth=depth).split()
    assert split.blocks == ((depth - 2) // 6,) * 3
    assert 2 * sum(split.mandatory) + 2 == base


def test_skip_configurations():
    assert parse_skip("FTFF", 4) == (False, True, False, False)
    assert parse_skip("super", 5) == (False,) * 5
    assert parse_skip("base", 3) == (True,) * 3
    assert parse_skip([True, False, True], 3) == parse_skip((True, False, True), 3) == (True, False, True)
    assert [skip_name(skip) for skip in all_skips(2)] == ["FF", "FT", "TF", "TT"]
    assert len(set(all_skips(5))) == 32


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("FTF", "has 3 flags, this backbone takes 4"),
        ("FTFFF", "has 5 flags"),
        ("", "has 0 flags"),
        ("FTXF", "'X' at place 3 is neither T"),
        ("ftff", "'f' at place 1"),
        ("Super", "'S' at place 1"),
        ((True, False), "has 2 flags"),
        ([1, 0, 0, 0], "must be letters"),
        (("T", "F", "F", "F"), "must be letters"),
        (7, "must be letters"),
        (None, "must be letters"),
    ],
)
def test_wrong_skip_configurations(value, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_skip(value, 4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of them"),
        ({"depth": 20, "arch": "resnet50"}, "one of them"),
        ({"depth": 8}, "at least two blocks a stage"),
        ({"depth": 21}, "6n\\+2"),
        ({"arch": "resnet34"}, "resnet50"),
        ({"arch": "resnet50", "width": 32}, "CIFAR family"),
        ({"arch": "resnet50", "shortcut": "B"}, "CIFAR family"),
        ({"arch": "swin_t", "norm": {"kind": "batch", "eps": 1e-3}}, "has layer norm"),
        ({"arch": "resnet50", "stochastic_depth": 0.2}, "Swin backbones"),
        ({"depth": 20, "stochastic_depth_mandatory": False}, "Swin backbones"),
        ({"arch": "resnet50", "mandatory": (2, 2, 3)}, "4 numbers"),
        ({"arch": "resnet50", "mandatory": (2, 2, 7, 2)}, "stage 3 has 6 blocks, so 1 to 6, not 7"),
        ({"arch": "resnet50", "mandatory": (0, 2, 3, 2)}, "stage 1 has 3 blocks"),
        ({"depth": 20, "feature_stages": [4]}, "1 to 3"),
        ({"depth": 20, "feature_stages": [1, 1]}, "stands twice"),
        ({"depth": 20, "alpha": 0.7, "paper_weights": True}, "leave alpha out"),
        ({"depth": 20, "alpha": 1.5}, "less than or equal to 1"),
        ({"depth": 20, "temperature": 0.0}, "greater than 0"),
        ({"depth": 20, "top_k": 0}, "greater than or equal to 1"),
        ({"depth": 20, "distill": False, "temperature": 2.0}, "temperature does nothing"),
        ({"depth": 20, "distill": False, "feature_stages": [1]}, "do nothing under distill"),
        ({"depth": 20, "teacher": "base"}, "'super' or 'random'"),
        ({"depth": 20, "cascade": ["TTT", "FFFF"]}, "has 4 flags, this backbone takes 3"),
        ({"depth": 20, "cascade": []}, "at least one"),
        ({"depth": 20, "cascade": ["base", "TTT"]}, "stands twice"),
        ({"depth": "20"}, "integer"),
        ({"depth": 20, "temprature": 1.0}, "temprature"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValidationError, match=message):
        ADNConfig.model_validate(options)


@pytest.mark.parametrize("arch", [*sorted(oracle.TABLE), None])
def test_a_configuration_written_out_in_full_reads_back(arch):
    config = ADNConfig(arch=arch) if arch else ADNConfig(depth=20)
    assert ADNConfig.model_validate(config.model_dump(mode="json")) == config


def test_options_do_not_import_torch():
    code = "import sys, methods.adn.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
