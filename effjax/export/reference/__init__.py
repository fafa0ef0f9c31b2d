"""The integer kernels of the target, bit by bit: one file a family, `KERNELS[op](node, sources, x, kernels)` each."""
from effjax.export.reference import elementwise, int16, lookup, matmul, moves, pooling, resize, weighted

KERNELS = {**weighted.KERNELS, **elementwise.KERNELS, **pooling.KERNELS, **resize.KERNELS, **moves.KERNELS,
           **lookup.KERNELS, **matmul.KERNELS}
KERNELS16 = {**int16.KERNELS16, **{op: KERNELS[op] for op in ('broadcast', 'resize_nearest')}}  # 16-bit activations

__all__ = ['KERNELS', 'KERNELS16']
