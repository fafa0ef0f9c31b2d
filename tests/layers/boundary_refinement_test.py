"""The refinement is a residual."""
import jax
import jax.numpy as jnp
import numpy as np

from effjax.layers.boundary_refinement import BoundaryRefinement

X = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))


def test_a_residual_of_two_convolutions():
  net = BoundaryRefinement()
  y, variables = net.init_with_output(jax.random.key(1), X)
  params = variables['params']
  assert jax.tree.map(jnp.shape, params) == {
    name: {'conv': {'kernel': (3, 3, 3, 3), 'bias': (3,)}} for name in ('expand', 'project')}
  nothing = params | {'project': jax.tree.map(jnp.zeros_like, params['project'])}
  np.testing.assert_array_equal(net.apply({'params': nothing}, X), X)
  at = np.zeros((3, 3, 3, 3), np.float32)
  at[1, 1] = np.eye(3)
  conv = {'kernel': jnp.asarray(at), 'bias': jnp.full(3, .5)}
  halves = {'expand': {'conv': conv}, 'project': {'conv': conv}}
  np.testing.assert_allclose(net.apply({'params': halves}, X), X + np.maximum(X + .5, 0) + .5, rtol=1e-6)
  assert y.shape == X.shape
