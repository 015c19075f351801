"""Whether a run that says "done" is: its records, and the weights that can be measured again, as they were written."""

from __future__ import annotations

from bench.data.splits import check_split
from bench.errors import BenchError
from bench.evaluate.measured import find_damage
from bench.launch.folder import RunFolder
from bench.store.reading import Damaged
from bench.store.stage import check_weights
from bench.store.status import read_status, stored_weights

__all__ = ["has_weights", "what_to_repair"]


def what_to_repair(folder: RunFolder) -> str | None:
    """What is damaged of a run, and what is done about it, in one line; None if nothing is. Weights that were removed
    are not missed while the records are whole."""
    try:
        status = read_status(folder.path)
    except Damaged as error:
        return f"{error}; the run is done again"
    if status["status"] != "done":
        return None
    damage = find_damage(folder.path, status)
    if damage is not None:
        trained = folder.spec.evaluate_only or has_weights(folder)
        return f"{damage}; the run is {'' if trained else 'trained and '}measured again"
    try:
        weights = stored_weights(folder.path, status)
        if weights is not None:
            check_weights(weights)
    except Damaged as error:
        return f"{error}; the stage is trained again"
    try:
        if status.get("split_file"):
            check_split(folder.out / "splits" / status["split_file"])
    except BenchError as error:
        return f"{error}; it is written again"
    return None


def has_weights(folder: RunFolder) -> bool:
    """Whether the run's last stage is trained and its weights are whole."""
    try:
        weights = stored_weights(folder.path, read_status(folder.path))
        if weights is not None:
            check_weights(weights)
    except Damaged:
        return False
    return weights is not None
