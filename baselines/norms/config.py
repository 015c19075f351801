"""The normalisation option that every backbone takes: ``norm: online`` or ``norm: {kind: online, ecm: ac}``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from bench.config.schema import MethodConfig

#: The parameters of each kind, beside ``kind``.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "batch": ("eps", "momentum"),
    "group": ("eps", "gn_num_groups"),
    "layer": ("eps",),
    "instance": ("eps",),
    "online": ("eps", "afwd", "abkw", "ecm", "clamp_val", "ls_eps"),
    "none": (),
}
#: Parameters of online normalisation that one kind of error compensation has and the others have not.
ECM_PARAMETERS = {"clamp_val": "ac", "ls_eps": "ls"}


class NormConfig(MethodConfig):
    """Which normalisation, with its parameters. A parameter that the kind does not have is refused."""

    kind: Literal["batch", "group", "layer", "instance", "online", "none"] = Field(
        "batch", description="Kind of normalisation.")
    eps: float = Field(1e-5, gt=0, description="Added to the variance, inside the root.")
    momentum: float = Field(0.1, gt=0, le=1, description="batch: weight of the newest batch in the running statistics.")
    gn_num_groups: int = Field(32, ge=1, description="group: groups of channels in every layer; has to divide each "
                               "layer's channels.")
    afwd: float = Field(0.999, ge=0, lt=1, description="online: decay of the running mean and variance, per sample "
                        "(a memory of 1 / (1 - afwd) samples).")
    abkw: float = Field(0.99, ge=0, lt=1, description="online: decay of the backward pass's control loop, per sample.")
    ecm: Literal["ls", "ac", "none"] = Field("ls", description="online: error compensation. ls: layer scaling; ac: "
                                             "activation clamping; none.")
    clamp_val: float = Field(5.0, gt=0, description="online with ecm: ac: activations are clamped to +-clamp_val.")
    ls_eps: float = Field(1e-5, gt=0, description="online with ecm: ls: added to the mean square, inside the root.")

    @model_validator(mode="after")
    def _only_its_own(self) -> NormConfig:
        own = PARAMETERS[self.kind]
        foreign = [name for name in self._given() if name not in own]
        if foreign:
            owners = ", ".join(kind for kind, names in PARAMETERS.items() if foreign[0] in names)
            takes = f"{self.kind} takes {', '.join(own)}" if own else f"{self.kind} takes no parameters"
            raise ValueError(f"{foreign[0]} is a parameter of norm {owners}, not of {self.kind} ({takes})")
        for name, ecm in ECM_PARAMETERS.items():
            if name in self._given() and self.ecm != ecm:
                raise ValueError(f"{name} does something under ecm: {ecm} only, not under ecm: {self.ecm}")
        return self

    def parameters(self) -> dict[str, Any]:
        """The parameters that matter, given or by default."""
        return {
            name: getattr(self, name)
            for name in PARAMETERS[self.kind]
            if ECM_PARAMETERS.get(name, self.ecm) == self.ecm
        }

    def _given(self) -> list[str]:
        return [name for name in type(self).model_fields if name in self.model_fields_set and name != "kind"]

    @model_serializer(mode="wrap")
    def _without_foreign(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # what does not matter must not change a run's identity, and what was written must be readable again
        keep = {"kind", *self.parameters()}
        return {name: value for name, value in handler(self).items() if name in keep}


def _by_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


#: Use as the type of a method's ``norm`` option; a bare name stands for that kind with its defaults.
NormOption = Annotated[NormConfig, BeforeValidator(_by_name)]
