"""ESP by its definition in float64, its weights and what it sees."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.layers.esp import ESP

X = jax.random.normal(jax.random.key(0), (2, 8, 6, 13))


def convolved(x, w, dilation=1, strides=1):
  """The SAME convolution, as a sum over the entries of the kernel."""
  reach, sizes = (w.shape[0] - 1) * dilation, [-(-n // strides) for n in x.shape[1:3]]
  pads = [max((m - 1) * strides + reach + 1 - n, 0) for n, m in zip(x.shape[1:3], sizes)]
  x = np.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in pads), (0, 0)])
  along = lambda at, m: slice(at * dilation, at * dilation + (m - 1) * strides + 1, strides)
  return sum(np.einsum('nhwi,io->nhwo', x[:, along(a, sizes[0]), along(b, sizes[1])], w[a, b])
             for a in range(w.shape[0]) for b in range(w.shape[1]))


@pytest.mark.parametrize('options', [{'strides': 2, 'residual': False}, {}, {'branches': 3}])
def test_by_its_definition(options):
  net, strides = ESP(13, **options), options.get('strides', 1)
  y, variables = net.init_with_output(jax.random.key(1), X, False)
  w = jax.tree.map(np.float64, variables['params'])
  r = convolved(np.float64(X), w['reduce']['conv']['kernel'], strides=strides)
  k = options.get('branches', 5)
  b = [convolved(r, w[f'branch{i + 1}']['conv']['kernel'], 2**i) for i in range(k)]
  assert [part.shape[-1] for part in b] == [13 - (k - 1) * (13 // k)] + [13 // k] * (k - 1)
  y64 = np.concatenate([b[0], *(sum(b[1:i + 1]) for i in range(1, k))], -1) + (np.float64(X) if net.residual else 0)
  y64 = y64 / np.sqrt(1 + 1e-3)
  np.testing.assert_allclose(y, np.where(y64 > 0, y64, .25 * y64), atol=1e-5)


def test_the_weights_of_the_papers_example():
  params = jax.eval_shape(lambda: ESP(100).init(jax.random.key(0), jnp.ones((1, 8, 8, 100)), False))['params']
  kernels = sum(np.prod(part['conv']['kernel'].shape) for part in params.values() if 'conv' in part)
  assert kernels == 100 * 100 // 5 + 9 * 100**2 // 5 == 20_000


def test_five_branches_see_33_by_33():
  net, x = ESP(10, residual=False), jnp.ones((1, 41, 41, 10))
  variables = net.init(jax.random.key(1), x, False)
  seen = jax.jit(jax.grad(lambda x: net.apply(variables, x, False)[0, 20, 20].sum()))(x)
  rows, columns = np.nonzero(np.abs(seen[0]).sum(-1))[:2]
  assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 36, 4, 36)
