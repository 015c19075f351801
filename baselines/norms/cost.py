"""What online normalisation costs, for the counter: elementwise work only, never the headline MACs.

By fvcore's weights, as for the other norms: in evaluation a batch norm with affine is a scale and a shift,
2 per element (1 without affine), and so is online normalisation. Error compensation comes on top: layer
scaling is a norm without mean and affine, 3 per element (square, sum, scale), as ``rms_norm`` is counted;
clamping is 1 per element.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from baselines.norms.online import OnlineNormBase
from bench.cost.opaque import register_module_cost

_ECM = {"ls": 3, "ac": 1, "none": 0}


@register_module_cost(OnlineNormBase)
def online_norm_cost(module: OnlineNormBase, inputs: tuple[Any, ...], output: Tensor) -> dict[str, int]:
    """``macs_elementwise`` and ``macs_fvcore`` of one call in evaluation."""
    per_element = (2 if module.weight is not None else 1) + _ECM[module.settings.ecm]
    elements = output.numel()
    return {"macs": 0, "macs_elementwise": per_element * elements, "macs_fvcore": per_element * elements}
