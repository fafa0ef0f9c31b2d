"""What `report.json` holds, as plain numbers.

baseline, int8_baseline, result: one number (None: not measured) for each of METRICS.
budgets: {name of a cost: {'asked', 'reached'}}.
verify: one number for each of CHECKS, of the file against the simulation.
seed, data, seconds, versions ({package: version}).
layers: [{'name', 'bits', 'kept', 'channels'}], kept of `channels` output channels, in execution order.
operators: [{'block', 'names', 'probabilities', 'chosen'}], `chosen` an index into `names`.
"""
from typing import Any

import numpy as np

from effjax.errors import EffjaxError

Results = dict[str, Any]

NETWORKS = {'baseline': 'float baseline', 'int8_baseline': 'int8 baseline', 'result': 'result'}
METRICS = {
    'accuracy': 'test accuracy [%]', 'params': 'parameters', 'macs': 'MACs', 'bitops': 'bit operations',
    'flash_bytes': 'weights in flash [bytes]', 'file_bytes': 'file [bytes]',
    'peak_ram_bytes': 'peak activation RAM [bytes]', 'latency_ms': 'latency [ms]'}
CHECKS = {
    'argmax_agreement': 'same class as the simulation [%]', 'max_code_difference': 'largest difference [codes]',
    'codes_equal': 'equal output codes [%]', 'float_tensors': 'float tensors', 'audit_problems': 'audit problems'}
PERCENT = frozenset({'accuracy', 'argmax_agreement', 'codes_equal'})  # fractions, shown as per cent
KEYS = (*NETWORKS, 'budgets', 'verify', 'seed', 'data', 'seconds', 'versions', 'layers', 'operators')


def check(results: Results) -> None:
  """Raises an EffjaxError that names what is missing from `results`."""
  _has('results', results, KEYS)
  for network in NETWORKS:
    _has(f'results[{network!r}]', results[network], METRICS)
  _has("results['verify']", results['verify'], CHECKS)
  for name, budget in results['budgets'].items():
    _has(f"results['budgets'][{name!r}]", budget, ('asked', 'reached'))


def plain(value: Any) -> Any:
  """Arrays and array scalars as Python numbers and lists; what is not a finite number as None.

  >>> plain({'a': np.float32(.5), 'b': np.arange(2), 'c': float('nan')})
  {'a': 0.5, 'b': [0, 1], 'c': None}
  """
  if isinstance(value, dict):
    return {str(key): plain(part) for key, part in value.items()}
  if isinstance(value, list | tuple):
    return [plain(part) for part in value]
  if hasattr(value, 'tolist'):
    return plain(np.asarray(value).tolist())
  return None if isinstance(value, float) and not np.isfinite(value) else value


def _has(where, found, wanted):
  missing = [key for key in wanted if key not in found]
  if missing:
    raise EffjaxError(f'report: {where} lacks {missing}, got {sorted(found)}: give every key (None where it was not '
                      'measured)')
