"""Costs: plain functions of the graph's profile and the facts of all rules, differentiable in keep, bits and choice."""
from effjax.cost.bitops import bitops
from effjax.cost.file_bytes import file_bytes
from effjax.cost.flash_bytes import flash_bytes
from effjax.cost.latency import latency
from effjax.cost.latency_table import Entry, LatencyTable, Op, load_latency_table, save_latency_table
from effjax.cost.macs import macs
from effjax.cost.operator import operator
from effjax.cost.params import params
from effjax.cost.peak_ram import peak_ram
from effjax.cost.table import Group, table, table_text

__all__ = ['Entry', 'Group', 'LatencyTable', 'Op', 'bitops', 'file_bytes', 'flash_bytes', 'latency',
           'load_latency_table', 'macs', 'operator', 'params', 'peak_ram', 'save_latency_table', 'table', 'table_text']
