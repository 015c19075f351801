"""The normalisation option that every backbone takes: ``norm: batch`` or ``norm: {kind: batch, eps: 1e-3}``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from bench.config.schema import MethodConfig


class NormConfig(MethodConfig):
    """Which normalisation, with its parameters."""

    kind: Literal["batch"] = Field("batch", description="Kind of normalisation.")
    eps: float = Field(1e-5, gt=0, description="Added to the variance, inside the root.")
    momentum: float = Field(0.1, gt=0, le=1, description="batch: weight of the newest batch in the running statistics.")


def _by_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


#: Use as the type of a method's ``norm`` option; a bare name stands for that kind with its defaults.
NormOption = Annotated[NormConfig, BeforeValidator(_by_name)]
