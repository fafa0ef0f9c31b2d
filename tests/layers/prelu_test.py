"""PReLU by its definition, and what it becomes in a file."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from effjax import graph, quantize
from effjax.export import finalize, tflite, verify
from effjax.layers.conv_bn import ConvBN
from effjax.layers.prelu import PReLU

X = jax.random.normal(jax.random.key(0), (2, 4, 5, 4))
SLOPE = jnp.array([.25, 0., -.5, 2.])


class Net(nn.Module):
  """Two layers, the first with PReLU."""

  @nn.compact
  def __call__(self, x):
    x = ConvBN(4, activation=PReLU(name='prelu'), name='first')(x, False)
    return ConvBN(3, 1, activation=None, name='second')(x, False)


def apply(slope, x):
  return PReLU().apply({'params': {'slope': slope}}, x)


def test_a_slope_per_channel():
  np.testing.assert_array_equal(apply(SLOPE, X), np.where(X > 0, X, SLOPE.reshape(1, 1, 1, 4) * X))
  np.testing.assert_array_equal(apply(SLOPE, jnp.zeros(4)), np.zeros(4))
  np.testing.assert_array_equal(PReLU().init(jax.random.key(0), X)['params']['slope'], np.full(4, .25, np.float32))
  assert apply(SLOPE, X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_gradients():
  by_slope, by_x = jax.grad(lambda slope, x: apply(slope, x).sum(), (0, 1))(SLOPE, X)
  np.testing.assert_allclose(by_slope, np.minimum(np.float64(X), 0).sum((0, 1, 2)), rtol=1e-5)
  np.testing.assert_array_equal(by_x, np.broadcast_to(np.where(X > 0, 1, SLOPE.reshape(1, 1, 1, 4)), X.shape))
  np.testing.assert_array_equal(jax.grad(lambda x: apply(SLOPE, x).sum())(jnp.zeros(4)), np.zeros(4))


def test_as_an_activation_it_is_removed_with_its_channel_and_integers_in_a_file(tmp_path):
  variables = Net().init(jax.random.key(1), X)
  variables['params']['prelu']['slope'] = SLOPE
  fn = lambda variables, x: Net().apply(variables, x)
  found = graph.channels(fn, variables, X)
  keep = jnp.array([True, False, True, True])
  assert found.size == keep.size  # the outputs of the second layer stay
  small, less = graph.shrink(fn, variables, np.asarray(keep), X)
  assert less['params']['prelu']['slope'].shape == (3,)
  np.testing.assert_allclose(small(less, X), fn(graph.mask(found, variables, np.asarray(keep)), X), atol=1e-6)
  aware = quantize.aware(fn, variables, X, bits=8)
  slots = jax.jit(aware.reparam.init)(jax.random.key(0), aware.params)
  network = finalize(aware.fn, *quantize.deployed(aware, slots), X[:1])
  tflite(network, tmp_path / 'model.tflite')
  images = np.random.default_rng(0).normal(size=(4, *X.shape[1:])).astype(np.float32)
  assert verify(tmp_path / 'model.tflite', network, images).same
  floats, integers = fn(variables, X), aware.apply(aware.reparam.apply(*slots, None), X)
  assert jnp.abs(integers - floats).max() < .1 * jnp.abs(floats).max()
