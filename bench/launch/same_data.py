"""Results of a folder are of one data set: what is there is compared with the data at hand before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.config.resolve import RunSpec
from bench.data.fingerprint import Fingerprint, read_fingerprint
from bench.errors import ConfigError
from bench.launch.folder import RunFolder
from bench.store.comparison import read_comparison
from bench.store.reading import Damaged
from bench.store.status import read_status

#: Runs that have neither numbers nor a training to go on with: whatever data they began with, nothing depends on it.
_WITHOUT_RESULTS = ("pending", "failed", "skipped")


def check_same_data(out: Path, specs: Sequence[RunSpec], data: Fingerprint, *, alone: bool = False) -> str | None:
    """Compare ``data`` with that of every run of the comparison in ``out``, and of ``specs``; writes nothing.

    alone: with that of ``specs`` only, because the others are about to be forgotten.

    Returns a line about results that carry no fingerprint (they were made before there were any), or None. Raises
    ConfigError if a run is of other data: which part, and what changed.
    """
    unknown, differing, words = 0, [], ""
    own = [RunFolder(out, spec).path for spec in specs]
    for folder in own if alone else dict.fromkeys([*_run_folders(out), *own]):
        try:
            status = read_status(folder)
        except Damaged:
            continue  # it is measured again, on the data of now
        if status["status"] in _WITHOUT_RESULTS:
            continue
        before = read_fingerprint(status.get("data"))
        if before is None:
            unknown += status["status"] == "done"
        elif changed := data.difference(before):
            differing.append(f"{status.get('run')} seed {status.get('seed')}")
            words = words or changed
    if differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise ConfigError(
            f"{differing[0]}{more} used other data than is there now ({words}); nothing was changed; "
            "`bench run --fresh` forgets these results, another --out keeps them", where=str(out),
        )  # fmt: skip
    if unknown:
        return (f"{out}: {unknown} finished run{'s carry' if unknown > 1 else ' carries'} no fingerprint of the data "
                "(made by an earlier version); whether it was the data of now cannot be checked")  # fmt: skip
    return None


def _run_folders(out: Path) -> list[Path]:
    try:
        return [out / str(run["folder"]) for run in read_comparison(out)["runs"]]
    except Damaged:
        return []
