"""The coded file: bitwise what was saved, and as large as its parts."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.coded import MAGIC

KEY = jax.random.key(2)


def pruned(key, shape, kept):
  """An array with a share of its weights left."""
  w = jax.random.normal(key, shape)
  return jnp.where(jnp.abs(w) > jnp.quantile(jnp.abs(w), 1 - kept), w, 0.)


def same(a, b):
  return all(np.asarray(x).dtype == np.asarray(y).dtype and np.shape(x) == np.shape(y)
             and np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_shared_arrays_come_back_bitwise_and_small(tmp_path, dtype):
  w, rule = pruned(KEY, (300, 100), .08).astype(dtype), quantize.shared(4)
  params = {'dense': {'kernel': rule.apply(*rule.init(KEY, w), None), 'bias': jax.random.normal(KEY, (300,))}}
  sizes = quantize.save_coded(tmp_path / 'net', params)
  assert same(quantize.load_coded(tmp_path / 'net', params), params)
  assert quantize.total_bytes(sizes) == (tmp_path / 'net').stat().st_size and len(list(tmp_path.iterdir())) == 1
  kernel, bias = sizes['dense/kernel'], sizes['dense/bias']
  assert bias.plain == sum(bias) == 1200 and kernel.plain == 0
  used = np.unique(np.float32(params['dense']['kernel']))
  assert kernel.code_books == (len(used) - 1) * jnp.dtype(dtype).itemsize
  stored = float((w != 0).sum())
  assert 0 < kernel.codes <= stored * 4 / 8 + 1 and 0 < kernel.indices < stored * 8 / 8
  assert sum(kernel) < 30000 * 4 / 30


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(st.sampled_from(['float32', 'float16', 'int8', 'uint8', 'int32']), hnp.array_shapes(min_side=0, max_dims=3)))
def test_any_array_comes_back(tmp_path_factory, array):
  file = tmp_path_factory.getbasetemp() / 'any'
  sizes = quantize.save_coded(file, [array, {'x': array.T}])
  assert same(quantize.load_coded(file, [array, {'x': array.T}]), [array, np.ascontiguousarray(array.T)])
  assert quantize.total_bytes(sizes) == file.stat().st_size


@pytest.mark.parametrize('array', [
    np.zeros((50, 50), np.float32), np.float32(3.), np.full(1000, -0., np.float32), np.array([np.nan, np.inf, 0.]),
    np.array([*range(1, 257), 0, 0], np.float32), np.arange(257, dtype=np.float32), np.arange(258, dtype=np.float32),
    np.array([True, False]), np.tile(np.arange(257, dtype=np.float32), 9), np.tile(np.arange(258, dtype=np.float32), 9)],
    ids=range(10))
def test_unusual_arrays(tmp_path, array):
  sizes = quantize.save_coded(tmp_path / 'net', {'w': array})
  assert same(quantize.load_coded(tmp_path / 'net'), {'w': array})
  assert sum(sizes['w']) <= array.nbytes and sizes['w'].plain in (0, array.nbytes)
  assert sizes['w'].plain or len(np.unique(array)) < 258
  assert not sizes['w'].plain or len(np.unique(array)) > 200 or array.size < 9


def test_dense_and_sparse_arrays_cost_about_their_entropy(tmp_path):
  rng = np.random.default_rng(0)
  dense = rng.choice(16, 40000).astype(np.float32) + 1
  sparse = np.where(rng.random(40000) < .05, dense, 0)
  sizes = quantize.save_coded(tmp_path / 'net', {'dense': dense, 'sparse': sparse})
  assert sizes['dense'].codes == 40000 * 4 / 8 and sizes['dense'].indices == 0
  bits = 8 * (sizes['sparse'].codes + sizes['sparse'].indices) / 40000
  p = np.unique(sparse, return_counts=True)[1] / 40000
  entropy = -(p * np.log2(p)).sum()
  assert .99 * entropy < bits < 1.1 * entropy


def test_errors(tmp_path):
  file = tmp_path / 'net'
  quantize.save_coded(file, {'w': np.ones(4, np.float32)})
  content = file.read_bytes()
  with pytest.raises(EffjaxError, match=r"load_coded: .*net has the leaves \['w'\], wanted \['b', 'w'\]: give the tree"):
    quantize.load_coded(file, {'w': 0, 'b': 0})
  for damaged, why in ((content[:-1], 'its checksum differs'), (content[:len(MAGIC) + 9], 'its header cannot be read')):
    file.write_bytes(damaged)
    with pytest.raises(EffjaxError, match=f'load_coded: .*net is damaged, {why}: write it again'):
      quantize.load_coded(file)
  file.write_bytes(b'something else')
  with pytest.raises(EffjaxError, match='load_coded: .*net does not begin as a file of save_coded does: give one that'):
    quantize.load_coded(file)
