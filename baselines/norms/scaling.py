"""The batch-size rule of the released trainers, where the norms' recipes look for it. Imports no torch."""

from bench.config.batch_scaling import Scaled, scale_for_batch

__all__ = ["Scaled", "scale_for_batch"]
