"""ConvBN against a direct convolution and the definition of BatchNorm, in float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from effjax.layers import ConvBN

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 5, 5, 6))


def convolved(x, w, strides, groups):
  """SAME convolution by definition, in float64."""
  x, w = np.float64(x), np.float64(w)
  k, cin = w.shape[0], w.shape[2]
  out = -(-x.shape[1] // strides)
  total = max((out - 1) * strides + k - x.shape[1], 0)
  x = np.pad(x, ((0, 0), (total // 2, total - total // 2), (total // 2, total - total // 2), (0, 0)))
  y = np.zeros((x.shape[0], out, out, w.shape[3]))
  for i in range(out):
    for j in range(out):
      patch = x[:, i * strides:i * strides + k, j * strides:j * strides + k]
      for c in range(w.shape[3]):
        first = c // (w.shape[3] // groups) * cin
        y[:, i, j, c] = (patch[..., first:first + cin] * w[..., c]).sum((1, 2, 3))
  return y


def normalised(y, mean, var, bn):
  return (y - np.float64(mean)) / np.sqrt(np.float64(var) + 1e-3) * np.float64(bn['scale']) + np.float64(bn['bias'])


def prepared(**options):
  net = ConvBN(**options)
  variables = net.init(KEY, X, False)
  draw = lambda i, x: 0.5 + jax.random.uniform(jax.random.key(i), x.shape)
  leaves, tree = jax.tree.flatten(variables)
  return net, jax.tree.unflatten(tree, [draw(i, x) for i, x in enumerate(leaves)])


@pytest.mark.parametrize(('kernel', 'strides', 'groups'),
                         [(3, 1, 1), (3, 2, 1), (1, 1, 1), (5, 2, 6), (3, 1, 6), (3, 1, 2)])
def test_inference(kernel, strides, groups):
  net, variables = prepared(features=6, kernel=kernel, strides=strides, groups=groups)
  params, stats = variables['params'], variables['batch_stats']['bn']
  y = normalised(convolved(X, params['conv']['kernel'], strides, groups), stats['mean'], stats['var'], params['bn'])
  np.testing.assert_allclose(net.apply(variables, X, False), np.clip(y, 0., 6.), rtol=1e-4, atol=1e-4)


def test_training_uses_and_remembers_the_statistics_of_the_batch():
  net, variables = prepared(features=4, activation=None)
  out, new = net.apply(variables, X, True, mutable=['batch_stats'])
  y = convolved(X, variables['params']['conv']['kernel'], 1, 1)
  mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
  np.testing.assert_allclose(out, normalised(y, mean, var, variables['params']['bn']), rtol=1e-3, atol=1e-3)
  for name, of_batch in (('mean', mean), ('var', var)):
    expected = 0.9 * np.float64(variables['batch_stats']['bn'][name]) + 0.1 * of_batch
    np.testing.assert_allclose(new['batch_stats']['bn'][name], expected, rtol=1e-4)


@pytest.mark.parametrize('how', ['pmap', 'shard_map'])
def test_statistics_are_averaged_over_the_named_axis(how):
  net, variables = prepared(features=4, axis_name='d')
  alone, _ = prepared(features=4)
  expected = alone.apply(variables, X, True, mutable=['batch_stats'])
  apply = lambda x: net.apply(variables, x, True, mutable=['batch_stats'])
  if how == 'pmap':
    out, stats = jax.pmap(apply, axis_name='d')(X.reshape(4, 1, 5, 5, 6))
    out, stats = out.reshape(4, 5, 5, 4), jax.tree.map(lambda x: x[0], stats)
  else:
    mesh = Mesh(np.array(jax.devices()[:4]), ('d',))
    out, stats = jax.jit(jax.shard_map(apply, mesh=mesh, in_specs=PartitionSpec('d'),
                                       out_specs=(PartitionSpec('d'), PartitionSpec())))(X)
  np.testing.assert_allclose(out, expected[0], rtol=1e-4, atol=1e-4)
  for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(expected[1])):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_parameters_and_dtypes():
  net = ConvBN(4, dtype=jnp.bfloat16)
  out, variables = net.init_with_output(KEY, X.astype(jnp.bfloat16), False)
  assert jax.tree.map(jnp.shape, variables['params']) == {'conv': {'kernel': (3, 3, 6, 4)},
                                                          'bn': {'scale': (4,), 'bias': (4,)}}
  assert out.dtype == jnp.bfloat16
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_training_takes_a_bias_away_again():
  net, variables = prepared(features=4, bias=True)
  assert set(variables['params']['conv']) == {'kernel', 'bias'}
  out, _ = net.apply(variables, X, True, mutable=['batch_stats'])
  variables['params']['conv']['bias'] += 1.
  np.testing.assert_allclose(net.apply(variables, X, True, mutable=['batch_stats'])[0], out, rtol=1e-4, atol=1e-5)
