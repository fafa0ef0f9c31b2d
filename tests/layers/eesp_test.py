"""EESP by its definition in float64, with one 1x1 convolution per branch; the dilations of the paper's levels."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers.eesp import EESP, dilations

X = jax.random.normal(jax.random.key(0), (2, 8, 6, 16))


def depthwise(x, w, dilation, strides):
  """The SAME convolution of each channel with its own 3x3 kernel."""
  sizes = [-(-n // strides) for n in x.shape[1:3]]
  pads = [max((m - 1) * strides + 2 * dilation + 1 - n, 0) for n, m in zip(x.shape[1:3], sizes)]
  x = np.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in pads), (0, 0)])
  along = lambda at, m: slice(at * dilation, at * dilation + (m - 1) * strides + 1, strides)
  return sum(x[:, along(a, sizes[0]), along(b, sizes[1])] * w[a, b, 0] for a in range(3) for b in range(3))


def prelu(x):
  return np.where(x > 0, x, .25 * x)


@pytest.mark.parametrize(('strides', 'residual'), [(1, True), (1, False), (2, False)])
def test_by_its_definition(strides, residual):
  net = EESP(16, strides, residual=residual, epsilon=0.)
  y, variables = net.init_with_output(jax.random.key(1), X, False)
  w = jax.tree.map(np.float64, variables['params'])
  # A convolution in 4 groups: group g takes channels 4 g to 4 g + 3 to output g.
  reduce = w['reduce']['conv']['kernel'][0, 0]
  r = prelu(np.stack([np.float64(X)[..., 4 * g:4 * g + 4] @ reduce[:, g] for g in range(4)], -1))
  merged, total = [], 0
  for k, dilation in enumerate((1, 2, 3, 4), 1):
    total = total + depthwise(r, w[f'branch{k}']['conv']['kernel'], dilation, strides)
    each = w['expand']['conv']['kernel'][0, 0][:, 4 * k - 4:4 * k]
    merged.append(prelu(total) @ each)
  y64 = np.concatenate(merged, -1)
  y64 = y64 if strides == 2 else prelu(y64 + (np.float64(X) if residual else 0))
  np.testing.assert_allclose(y, y64, atol=1e-5)


def test_what_does_nothing_is_no_parameter():
  shapes = lambda strides: jax.eval_shape(lambda: EESP(16, strides).init(jax.random.key(0), X, False))['params']
  assert set(shapes(1)) - set(shapes(2)) == {'prelu'}
  assert set(shapes(2)) == {'reduce', 'reduce_prelu', 'branch1', 'branch2', 'branch3', 'branch4', 'merge',
                            'merge_prelu', 'expand'}


@pytest.mark.parametrize(('limit', 'wanted'), [(13, [1, 2, 3, 4]), (11, [1, 2, 3, 4]), (9, [1, 2, 3, 4]),
                                               (7, [1, 1, 2, 3]), (5, [1, 1, 1, 2]), (3, [1, 1, 1, 1])])
def test_dilations(limit, wanted):
  assert dilations(4, limit) == wanted


def test_groups_that_do_not_divide():
  with pytest.raises(EffjaxError, match=r'ConvBN reduce: 4 groups do not divide 16 input and 2 output channels'):
    EESP(8).init(jax.random.key(0), jnp.ones((1, 8, 8, 16)), False)
