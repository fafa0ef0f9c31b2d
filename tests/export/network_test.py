import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.export import load, save, weight_bytes


def test_saved_network_is_the_same(ready, some, tmp_path):
  network = ready(some, lambda path: 4 if '0' in path else 8).network()
  save(network, tmp_path / 'network.npz')
  again = load(tmp_path / 'network.npz')
  assert again.inputs == network.inputs
  assert again.outputs == network.outputs
  for a, b in zip(again.nodes, network.nodes, strict=True):
    assert a._replace(codes=None, scales=None, bias=None) == b._replace(codes=None, scales=None, bias=None)
    for name in ('codes', 'scales', 'bias'):
      np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_weight_bytes_count_two_int4_codes_to_a_byte(ready, some):
  full, half = (weight_bytes(ready(some, bits).network()) for bits in (8, 3))
  nodes = ready(some).network().nodes
  nodes = [node for node in nodes if node.codes is not None]
  codes, biases = (sum(getattr(node, name).size for node in nodes) for name in ('codes', 'bias'))
  assert full == codes + 8 * biases
  assert codes / 2 <= half - 8 * biases < codes / 2 + len(nodes)


def test_missing_and_corrupt_files_are_named(tmp_path):
  (tmp_path / 'bad.npz').write_bytes(b'PK\x03\x04 broken')
  np.savez(tmp_path / 'other.npz', x=np.ones(2))
  for name in ('bad.npz', 'absent.npz', 'other.npz'):
    with pytest.raises(EffjaxError, match=f'{name} is not a saved network .*: export it again'):
      load(tmp_path / name)
