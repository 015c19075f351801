"""File names that are not UTF-8: every reason arrives, in files and on a terminal that knows ASCII alone."""

from __future__ import annotations

import json
from pathlib import Path

from quick import bench, make_pictures, statuses, write_folder_file


def test_a_name_that_is_not_utf8_loses_no_reason(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "data")
    odd = root / "train" / "cat" / "caf\udce9.png"
    (root / "train" / "cat" / "cat0.png").rename(odd)
    odd.write_bytes(odd.read_bytes()[:60])
    for part in ("train", "val"):
        (root / part / "dog").rename(root / part / "h\udcfcte")
    reason = rf"cannot read image {root}/train/cat/caf\xe9.png: "
    out = tmp_path / "out"
    done = bench("run", write_folder_file(tmp_path), "--data-root", root, "--out", out, LC_ALL="C",
                 PYTHONIOENCODING="ascii")  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert reason in " ".join(done.stderr.split())
    assert statuses(out)["r8"]["reason"].startswith(reason)
    (folder,) = (out / "runs").iterdir()
    assert all(path.read_text("utf-8") is not None for path in folder.iterdir() if path.is_file())
    assert json.loads((folder / "status.json").read_text())["status"] == "failed"
    assert reason in (out / "runs.csv").read_text("utf-8")
