"""Every shipped comparison file is valid, its schema current, and random damage gives a config error only."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from bench.config.json_schema import comparison_schema
from bench.config.load import load_config
from bench.config.resolve import resolve
from bench.errors import ConfigError
from bench.evaluate.record import DecisionRecord

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = [p for p in sorted(CONFIGS.rglob("*.yaml")) if "\nname:" in "\n" + p.read_text()]
KEPT = sorted(path.parent for path in CONFIGS.parent.glob("results/reference/*/comparison.json"))
FRAGMENTS = [p for p in sorted(CONFIGS.rglob("*.yaml")) if p not in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_comparison_file_resolves(path: Path) -> None:
    specs = resolve(load_config(path))
    assert len({spec.folder for spec in specs}) == len(specs)


@pytest.mark.parametrize("kept", KEPT, ids=lambda p: p.name)
def test_kept_results_are_those_of_the_shipped_file(kept: Path) -> None:
    """No change may give a kept run another identity: it would be trained again, beside numbers that still hold."""
    entries = json.loads((kept / "comparison.json").read_text())
    (path,) = [path for path in FILES if f"\nname: {entries['name']}\n" in "\n" + path.read_text()]
    now = {(spec.run, spec.seed): spec.run_id for spec in resolve(load_config(path))}
    assert {(entry["run"], entry["seed"]): entry["run_id"] for entry in entries["runs"]}.items() <= now.items()


@pytest.mark.parametrize("kept", KEPT, ids=lambda p: p.name)
def test_kept_records_are_readable(kept: Path) -> None:
    """Also those of the first versions: the format was a list of one number then."""
    folders = [kept / entry["folder"] for entry in json.loads((kept / "comparison.json").read_text())["runs"]]
    begun = [folder for folder in folders if (folder / "status.json").exists()]  # kept run by run
    done = [folder for folder in begun if json.loads((folder / "status.json").read_text())["status"] == "done"]
    assert done
    for folder in done:
        assert DecisionRecord.load(folder, "test").n > 0


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_fragment_is_used(path: Path) -> None:
    patterns = []
    for file in FILES:
        included = yaml.safe_load(file.read_text()).get("include") or []
        patterns += [(file, p) for p in ([included] if isinstance(included, str) else included)]
    assert any(path in set(file.parent.glob(pattern)) for file, pattern in patterns)


def test_the_schema_for_editors_is_current() -> None:
    stored = json.loads((CONFIGS / "schema.json").read_text())
    assert stored == json.loads(json.dumps(comparison_schema())), "run: bench schema -o configs/schema.json"


def _mutate(value: object, rng: random.Random) -> object:
    """One random change somewhere in a tree of YAML values."""
    strange = [None, True, -1, 0, 1e30, float("nan"), "x", "", [], {}, [[]], {"a": {"b": 1}}, "../../x", "é" * 300]
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.12:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.24:
            return {**{k: v for k, v in value.items() if k != key}, str(key)[:-1] + "q": value[key]}
        if kind < 0.3:
            return {**value, rng.choice(["extra", "1", " "]): rng.choice(strange)}
        return {**value, key: _mutate(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], _mutate(value[at], rng), *value[at + rng.randrange(2) :]]
    return rng.choice(strange)


def test_random_damage_gives_config_errors_only(tmp_path: Path) -> None:
    rng = random.Random(0)
    refused = 0
    trees = [load_config(path).tree.plain() for path in FILES]
    for number in range(500):
        tree = rng.choice(trees)
        for _ in range(rng.randint(1, 3)):
            tree = _mutate(tree, rng)
        path = tmp_path / f"{number}.yaml"
        text = yaml.safe_dump(tree, allow_unicode=True)
        if rng.random() < 0.1:
            at = rng.randrange(max(1, len(text)))
            text = text[:at] + rng.choice(["\t", "{", "]", ": :", "\x00", "&a", "!!int "]) + text[at:]
        path.write_text(text)
        try:
            resolve(load_config(path))
        except ConfigError as error:
            refused += bool(str(error).strip())
    assert refused > 250  # most damage is noticed; the rest left a valid file
