"""The base of everything that a file may say."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Unknown keys, near-miss types (a string for a number) and non-finite numbers are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class AtKey(ValueError):
    """What a validator of a whole section finds wrong at one key of it. path: from the section to that key."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path
