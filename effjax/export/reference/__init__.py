"""The integer kernels of the target, bit by bit: one file a family, `KERNELS[op](node, sources, x, kernels)` each."""
from effjax.export.reference import elementwise, lookup, matmul, moves, pooling, resize, weighted

KERNELS = {**weighted.KERNELS, **elementwise.KERNELS, **pooling.KERNELS, **resize.KERNELS, **moves.KERNELS,
           **lookup.KERNELS, **matmul.KERNELS}

__all__ = ['KERNELS']
