"""Small networks as a user would hand them over: an inference function, weights on their codes, facts, ranges."""
import functools
import importlib.util
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import tree
from effjax.export import Network, finalize
from effjax.quantize.activations import activations, quantizers
from effjax.quantize.lsq_plus import lsq_plus
from effjax.reparam import Fact


def beside(path: str):
  """A module of the tests, by its path from this folder."""
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, pathlib.Path(__file__).parent / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


NETWORKS = beside('networks.py').NETWORKS


class Ready(NamedTuple):
  fn: Any
  weights: Any
  facts: dict
  ranges: dict
  quantized: Any
  x: jax.Array

  def network(self) -> Network:
    with jax.numpy_rank_promotion('allow'):
      return finalize(self.fn, self.weights, self.facts, self.ranges, self.x)


def on_codes(params, bits):
  """Kernels rounded to their codes, one scale per output channel, and the facts that say so."""
  facts = {}

  def rounded(path, w):
    top = 2 ** (bits(path) - 1) - 1
    scale = np.maximum(np.abs(w).max(tuple(range(w.ndim - 1)), keepdims=True) / top, 1e-6).astype(np.float32)
    facts[path] = Fact(bits=bits(path), scale=scale)
    return np.clip(np.rint(np.asarray(w) / scale), -top, top).astype(np.float32) * scale

  return tree.map_at(rounded, params, [path for path in tree.leaves(params) if path.endswith('kernel')]), facts


def drawn(shapes, seed=0):
  """Parameters as after training: kernels, biases, means, variances, gains of both signs."""
  random = np.random.default_rng(seed)
  draw = {'kernel': lambda s: random.normal(size=s) / np.sqrt(np.prod(s[:-1])),
          'embedding': lambda s: .5 * random.normal(size=s), 'bias': lambda s: .2 * random.normal(size=s), 'mean': lambda s: .3 * random.normal(size=s),
          'var': lambda s: random.uniform(.3, 2, s),
          'scale': lambda s: random.normal(1, .5, s) * random.choice([1, 1, -1], s)}
  leaf = lambda path, aval: draw[path.split('/')[-1]](aval.shape).astype(np.float32)
  return tree.map_at(leaf, shapes, list(tree.leaves(shapes)))


def make_ready(fn, params, x, bits=lambda path: 8, activation_bits=8):
  weights, facts = on_codes(params, bits)
  quantizer = lsq_plus(activation_bits)
  fn_q, phis = activations(fn, weights, x, quantizer=quantizer)
  at = quantizers(fn, weights, x, quantizer=quantizer)
  ranges = {name: (*at[name].facts(phi), at[name].bits) for name, phi in phis.items()}
  return Ready(fn, weights, facts, ranges, lambda x: fn_q(phis, weights, x), x)


@pytest.fixture
def ready():
  """`ready(module, bits=8 or a function of the path, size=12, channels=3, activations=8)` for a Flax module."""
  def make(module, bits=8, size=12, channels=3, examples=32, activations=8):
    x = jnp.asarray(np.random.default_rng(1).uniform(size=(examples, size, size, channels)), jnp.float32)
    params = drawn(jax.eval_shape(module.init, jax.random.key(1), x))
    return make_ready(module.apply, params, x, bits if callable(bits) else lambda _: bits, activations)
  return make


def _norm(x):
  return nn.BatchNorm(use_running_average=True)(x)


def net(call):
  """A Flax module whose compact `__call__` is the given function of x."""
  return type(call.__name__, (nn.Module,), {'__call__': nn.compact(lambda self, x: call(x)), '__module__': __name__})()


def _average(x, *window):
  with jax.numpy_dtype_promotion('standard'):  # Flax divides by an integer
    return nn.avg_pool(x, *window, count_include_pad=False)


def plain(x):
  x = nn.max_pool(nn.relu(_norm(nn.Conv(8, (3, 3))(x))), (2, 2), (2, 2))
  x = nn.relu(nn.Conv(12, (3, 3), padding='VALID')(x))
  return nn.Dense(5)(nn.relu(nn.Dense(16)(x.reshape(x.shape[0], -1))))


def residual(x):
  x = nn.relu(_norm(nn.Conv(8, (3, 3), strides=2)(x)))
  y = _norm(nn.Conv(8, (1, 1))(nn.relu(_norm(nn.Conv(8, (3, 3))(x)))))
  return nn.Dense(5)(jnp.mean(nn.relu(x + y), (1, 2)))


def inverted_residual(x):
  x = nn.relu6(_norm(nn.Conv(6, (3, 3), strides=2, use_bias=False)(x)))
  for stride in (1, 2):
    y = nn.relu6(_norm(nn.Conv(20, (1, 1), use_bias=False)(x)))
    y = nn.relu6(_norm(nn.Conv(20, (3, 3), strides=stride, feature_group_count=20, use_bias=False)(y)))
    y = _norm(nn.Conv(6, (1, 1), use_bias=False)(y))
    x = x + y if stride == 1 else y
  return nn.Dense(5)(x.mean((1, 2)))


def separable(x):
  x = nn.relu(nn.Conv(13, (3, 3))(x[..., :1]))
  x = nn.relu(nn.Conv(26, (3, 3), feature_group_count=13, kernel_dilation=2)(x))
  return nn.Dense(5)(nn.relu(nn.Conv(8, (1, 1))(x)).mean((1, 2)))


def squeeze_excite(x):
  x = nn.relu(_norm(nn.Conv(8, (3, 3))(x)))
  g = nn.relu(nn.Dense(4)(x.mean((1, 2))))
  return nn.Dense(5)((x * nn.hard_sigmoid(nn.Dense(8)(g))[:, None, None, :]).mean((1, 2)))


def dense_concat(x):
  x = nn.relu(nn.Conv(6, (3, 3))(x))
  for _ in range(2):
    x = jnp.concatenate([x, nn.relu(_norm(nn.Conv(4, (3, 3))(x)))], -1)
  return nn.Dense(5)(_average(x, (4, 4), (4, 4)).mean((1, 2)))


def shuffled(x):
  a, b = jnp.split(nn.relu(nn.Conv(8, (3, 3))(x)), 2, -1)
  x = jnp.concatenate([a, nn.relu(nn.Conv(4, (3, 3), feature_group_count=4)(b))], -1)
  n, h, w, c = x.shape
  x = x.reshape(n, h, w, 2, c // 2).transpose(0, 1, 2, 4, 3).reshape(n, h, w, c)
  return nn.Dense(5)(nn.relu(nn.Conv(8, (1, 1), feature_group_count=2)(x)).mean((1, 2)))


def padded(x):
  x = nn.relu(_norm(nn.Conv(8, (3, 3), strides=2, padding=((1, 1), (1, 1)))(x)))
  x = nn.relu(nn.Conv(8, (3, 3), padding=((2, 2), (2, 2)), kernel_dilation=2)(x))
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return nn.Dense(5)(jnp.clip(nn.Conv(16, (3, 3), padding='VALID', feature_group_count=8)(x), -1, 1).mean((1, 2)))


def pooled(x):
  x = nn.relu(nn.max_pool(nn.Conv(8, (3, 3))(x), (2, 2), (2, 2)))
  x = _average(nn.Conv(8, (3, 3))(x), (3, 3), (2, 2), 'SAME')
  x = nn.relu(x.reshape(x.shape[0], -1))
  return nn.Dense(5)(x)


def pre_activation(x):
  x = nn.Conv(8, (3, 3))(x)
  x = x + nn.Conv(8, (3, 3))(nn.relu(nn.Conv(8, (3, 3))(nn.relu(x))))
  return nn.Dense(5)(nn.relu(x)[:, 1:-1, 1:, :].mean((1, 2)))


NETS = [net(f) for f in (plain, residual, inverted_residual, separable, squeeze_excite, dense_concat, shuffled, padded,
                         pooled, pre_activation)]


@functools.cache
def network_given(name, bits=8, activations=8):
  """A network of `networks.py`, with random weights on the codes of a device; 200 examples."""
  function, shape = NETWORKS[name]
  x = jnp.asarray(np.random.default_rng(1).uniform(size=(200, *shape)), jnp.float32)
  module = net(function)
  with jax.numpy_rank_promotion('allow'):
    params = drawn(jax.eval_shape(module.init, jax.random.key(1), x[:1]))
    return make_ready(module.apply, params, x, lambda _: bits, activations)


@pytest.fixture(scope='session')
def given():
  """`given(name, bits=8, activations=8)`: a network of `networks.py`."""
  return network_given


@pytest.fixture(scope='session')
def nets():
  """Flax modules."""
  return NETS


def pytest_generate_tests(metafunc):
  """`some`: two networks."""
  if 'some' in metafunc.fixturenames:
    metafunc.parametrize('some', [NETS[1], NETS[8]], ids=lambda net: type(net).__name__)
