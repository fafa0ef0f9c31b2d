"""The context module: what it is at first, what it sees, and its weights."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers.context_module import DILATIONS, ContextModule, identity

KEY = jax.random.key(0)
X = jnp.abs(jax.random.normal(KEY, (2, 9, 12, 3)))


def test_the_basic_module_is_the_identity_at_first():
  y, variables = ContextModule().init_with_output(KEY, X)
  np.testing.assert_array_equal(y, X)
  np.testing.assert_array_equal(ContextModule().apply(variables, -X), jnp.zeros_like(X))  # ReLU


def test_so_is_the_large_one():
  made = lambda noise: jax.jit(ContextModule(large=True, noise=noise).init_with_output)(KEY, X[:1, :5, :4])
  y, variables = made(0.)
  np.testing.assert_allclose(y, X[:1, :5, :4], rtol=1e-6)
  widths = [part['conv']['kernel'].shape[-1] for part in variables['params'].values()]
  assert widths == [6, 6, 12, 24, 48, 96, 96, 3]
  assert 0 < jnp.abs(made(1e-4)[0] - y).max() < .1


@pytest.mark.parametrize(('cin', 'cout'), [(3, 3), (3, 6), (6, 12), (12, 3)])
def test_identity_by_its_definition(cin, cout):
  kernel = identity(3)(KEY, (3, 3, cin, cout))
  for a in range(cin):
    for b in range(cout):
      wanted = np.zeros((3, 3), np.float32)
      wanted[1, 1] = 3 / cout * (a * 3 // cin == b * 3 // cout)
      np.testing.assert_array_equal(kernel[:, :, a, b], wanted)
  drawn = identity(3, .5)(KEY, (3, 3, 60, 60))
  assert jnp.all(drawn[1, 1].diagonal() == 3 / 60)
  assert abs(float(jnp.std(drawn[0])) - .5) < .01


def test_other_widths_have_no_identity():
  net = ContextModule(widths={'layer2': 5})
  params = jax.eval_shape(net.init, KEY, X)['params']
  assert [part['conv']['kernel'].shape[2:] for part in params.values()][:4] == [(3, 3), (3, 5), (5, 3), (3, 3)]


def test_channels_that_are_no_multiples():
  with pytest.raises(EffjaxError, match=r'identity: kernel \(3, 3, 4, 6\) has no multiples of 3 channels: give widths'):
    identity(3)(KEY, (3, 3, 4, 6))


def test_each_layer_sees_more():
  seen, sides = 1, []
  for dilation in DILATIONS:
    seen += 2 * dilation
    sides.append(seen)
  assert sides == [3, 5, 9, 17, 33, 65, 67]
  x = jnp.ones((1, 71, 71, 1))
  net = ContextModule()
  variables = jax.tree.map(lambda w: jnp.full(w.shape, .1), net.init(KEY, x))
  gradient = jax.jit(jax.grad(lambda x: net.apply(variables, x)[0, 35, 35, 0]))(x)[0, :, :, 0]
  rows, columns = np.nonzero(gradient)
  assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 68, 2, 68)


@pytest.mark.parametrize(('large', 'parameters', 'macs'), [(False, 28_392, 115_605_504),
                                                           (True, 6_803_139, 27_857_313_792)])
def test_counts_of_21_classes(large, parameters, macs):
  x = jax.ShapeDtypeStruct((1, 64, 64, 21), jnp.float32)
  params = jax.eval_shape(lambda x: ContextModule(large=large).init(KEY, x), x)['params']
  assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == parameters
  assert sum(np.prod(part['conv']['kernel'].shape) for part in params.values()) * 64**2 == macs
  assert large or sum(np.prod(part['conv']['kernel'].shape) for part in params.values()) == 64 * 21**2


def test_a_dilated_kernel_is_one_with_zeros_between():
  x = jax.random.normal(KEY, (1, 9, 9, 2))
  net = ContextModule(padding='symmetric')
  variables = jax.tree.map(lambda w: jax.random.normal(KEY, w.shape) / 4, jax.eval_shape(net.init, KEY, x))
  y = np.float64(x)
  for i, dilation in enumerate((*DILATIONS, 1), 1):
    conv = jax.tree.map(np.float64, variables['params'][f'layer{i}']['conv'])
    k = conv['kernel'].shape[0]
    wide = np.zeros(((k - 1) * dilation + 1,) * 2 + (2, 2))
    wide[::dilation, ::dilation] = conv['kernel']
    reach = wide.shape[0] // 2
    padded = np.pad(y, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    y = sum(padded[:, a:a + 9, b:b + 9] @ wide[a, b] for a in range(len(wide)) for b in range(len(wide))) + conv['bias']
    y = np.maximum(y, 0) if i < 8 else y
  np.testing.assert_allclose(jax.jit(net.apply)(variables, x), y, rtol=1e-4, atol=1e-5)
