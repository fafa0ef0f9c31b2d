"""Costs: plain functions of the graph's profile and the facts of all rules, differentiable in keep, bits and choice."""
from effjax.cost.bitops import bitops
from effjax.cost.flash_bytes import flash_bytes
from effjax.cost.macs import macs
from effjax.cost.peak_ram import peak_ram

__all__ = ['bitops', 'flash_bytes', 'macs', 'peak_ram']
