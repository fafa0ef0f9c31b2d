"""Fewer channels: gates that can close."""
from effjax.sparsify.hard_concrete import hard_concrete

__all__ = ['hard_concrete']
