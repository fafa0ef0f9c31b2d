"""The results and the history of a run that never was."""
import numpy as np
import pytest


def network(accuracy, flash_bytes):
  return {'accuracy': accuracy, 'params': flash_bytes, 'macs': 2_000_000, 'bitops': 128_000_000,
          'flash_bytes': flash_bytes, 'file_bytes': flash_bytes + 4_000, 'peak_ram_bytes': 2_048, 'latency_ms': None}


@pytest.fixture
def results():
  names = ['skip', 'inverted 3x3 e3', 'inverted 5x5 e6']
  return {
      'baseline': network(np.float32(.9875), 100_000), 'int8_baseline': network(.985, 27_000),
      'result': network(.98, 7_000) | {'latency_ms': .03456},
      'budgets': {'flash_bytes': {'asked': 8_100, 'reached': np.int32(7_000)},
                  'macs': {'asked': 1_000_000, 'reached': 2_000_000}},
      'verify': {'argmax_agreement': 1., 'max_code_difference': 1, 'codes_equal': .9961, 'float_tensors': 0,
                 'audit_problems': 0},
      'seed': 3, 'data': 'digits', 'seconds': 212.6, 'versions': {'effjax': '0.1.0', 'jax': '0.10.2'},
      'layers': [{'name': f'block{i}/conv', 'bits': bits, 'kept': 8 * i + 4, 'channels': 32}
                 for i, bits in enumerate((8, 4, 2))],
      'operators': [{'block': 'block0', 'names': names, 'probabilities': np.array([.1, .7, .2]), 'chosen': 1},
                    {'block': 'block1', 'names': names[1:], 'probabilities': [.4, .6], 'chosen': 1}]}


@pytest.fixture
def history():
  step = np.arange(0, 100, 10)
  return {'step': step, 'accuracy': np.where(step % 50 == 0, .9, np.nan), 'flash_bytes': 20_000 - 130 * step,
          'macs': 3_000_000 - 10_000 * step}
