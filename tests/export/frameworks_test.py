"""Models of other libraries: kernels in other layouts, one example at a time under `vmap`, their own spellings."""
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from effjax import quantize
from effjax.export import finalize, tflite, verify
from effjax.graph.channel_axes import channel_axes

X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 12, 12, 3)), jnp.float32)


def exported(apply, params, x, path):
  """By the steps of the README."""
  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    aware = quantize.aware(apply, params, x)
    slots = jax.jit(aware.reparam.init)(jax.random.key(0), aware.params)
    network = finalize(aware.fn, *quantize.deployed(aware, slots), x)
    tflite(network, path)
    return network, verify(path, network, x)


def test_haiku(tmp_path):
  def net(x):
    x = jax.nn.silu(hk.Conv2D(8, 3, 2)(x))
    x = hk.Conv2D(8, 1)(jax.nn.gelu(hk.DepthwiseConv2D(1, 3)(x)))
    x = hk.AvgPool((2, 2, 1), (2, 2, 1), 'SAME')(hk.LayerNorm(-1, True, True)(x))
    return hk.Linear(5)(hk.Flatten()(hk.Conv2DTranspose(6, 3, 2)(x)))

  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    module = hk.without_apply_rng(hk.transform(net))
    params = jax.jit(module.init)(jax.random.key(0), X)
    assert channel_axes(module.apply, params, X)['conv2_d_transpose/w'] == -2
  network, report = exported(module.apply, params, X, tmp_path / 'model.tflite')
  assert report.same and {'logistic', 'gelu', 'rsqrt', 'transpose_conv'} <= {node.op for node in network.nodes}


class Network(eqx.Module):
  """Convolutions, then attention over the pixels, for one example in CHW."""
  stem: eqx.nn.Conv2d
  depthwise: eqx.nn.Conv2d
  attention: eqx.nn.MultiheadAttention
  norm: eqx.nn.LayerNorm
  head: eqx.nn.Linear

  def __init__(self, key):
    keys = jax.random.split(key, 4)
    self.stem = eqx.nn.Conv2d(3, 8, 3, 2, 1, key=keys[0])
    self.depthwise = eqx.nn.Conv2d(8, 8, 3, 1, 1, groups=8, key=keys[1])
    self.attention = eqx.nn.MultiheadAttention(2, 8, key=keys[2])
    self.norm, self.head = eqx.nn.LayerNorm(8), eqx.nn.Linear(8, 5, key=keys[3])

  def __call__(self, x):
    x = jax.nn.hard_swish(self.depthwise(jax.nn.relu(self.stem(x)))).reshape(8, -1).T
    return self.head(jax.vmap(self.norm)(x + self.attention(x, x, x)).mean(0))


def test_equinox(tmp_path):
  params, static = eqx.partition(eqx.filter_jit(Network)(jax.random.key(0)), eqx.is_array)
  apply = lambda p, x: jax.vmap(eqx.combine(p, static))(x)
  network, report = exported(apply, params, X.transpose(0, 3, 1, 2), tmp_path / 'model.tflite')
  assert report.same and {'depthwise', 'matmul', 'softmax', 'hard_swish'} <= {node.op for node in network.nodes}
