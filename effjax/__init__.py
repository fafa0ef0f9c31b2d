"""Differentiable efficiency for JAX: architecture, bits, masks, distillation in one loss, out as an exact int8 file."""
from effjax.reparam import Fact, Reparam, Rule, Slots, at, chain, over

__all__ = ['Fact', 'Reparam', 'Rule', 'Slots', 'at', 'chain', 'over']
