"""What fvcore says by itself, without our rules."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis


def fvcore_alone(module: nn.Module, *inputs: Tensor) -> int:
    """fvcore's total of one call in evaluation mode."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(module.eval(), inputs)
        return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
