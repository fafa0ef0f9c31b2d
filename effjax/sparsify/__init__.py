"""Fewer channels: gates that can close, and the channels that a budget has room for."""
from effjax.sparsify.hard_concrete import hard_concrete
from effjax.sparsify.to_budget import to_budget

__all__ = ['hard_concrete', 'to_budget']
