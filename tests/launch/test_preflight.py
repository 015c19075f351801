"""Names that the file's own rules cannot know, and data that is not there: said before torch is imported."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from quick import write_quick

from bench.config.load import load_config
from bench.errors import ConfigError
from bench.launch.preflight import plan_runs, require_data

RUN = [{"name": "a", "method": "resnet", "options": {"depth": 8}}]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.name=cifar11"], "unknown data set 'cifar11'; did you mean 'cifar10'"),
        (["evaluate.policies=[budgetted]"], "did you mean 'budgeted'"),
        (["evaluate.policies=[budgeted]", "protocol=published"], "published has none"),
        (["data.name=imagenet", "data.root=nowhere"], "missing nowhere"),
        (["data.name=svhn", "data.root=."], "missing"),
        (["data.name=image_folder"], "data.root, --data-root or BENCH_DATA_ROOT"),
    ],
)
def test_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA_ROOT", raising=False)
    config = write_quick(tmp_path, RUN)
    loaded = load_config(config, settings=settings)
    check = require_data if "missing" in words or "root" in words else plan_runs
    with pytest.raises(ConfigError) as error:
        check(loaded)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_empty_class_folders_are_missing_data(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    config = write_quick(tmp_path, RUN)
    tree = yaml.safe_load(config.read_text())
    tree["data"] = {"name": "image_folder", "root": str(tmp_path)}
    config.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="class folders"):
        require_data(load_config(config))
