import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.graph.functions import recognised
from effjax.graph.simplified import simplified
from effjax.graph.trace import evaluate, trace

X = jnp.asarray(np.random.default_rng(0).uniform(.5, 2, (2, 5, 3)), jnp.float32)
W = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)

CASES = {
    'a weight on the left': (lambda w, x: jax.vmap(jax.vmap(lambda x: w @ x))(x), ['dot_general']),
    'turned otherwise': (lambda w, x: (w @ x[0].T)[None], ['slice', 'squeeze', 'transpose', 'dot_general', 'broadcast_in_dim']),
    'there and back': (lambda w, x: jnp.sin(x.reshape(10, 3).reshape(2, 5, 3)) * w[0, 0], ['sin', 'slice', 'squeeze', 'mul']),
    'a quotient by a root': (lambda w, x: x / jnp.sqrt((x * x).mean(-1, keepdims=True)) * w[0, 0],
                             ['mul', 'reduce_sum', 'broadcast_in_dim', 'div', 'rsqrt', 'mul', 'slice', 'squeeze', 'mul']),
    'a root that is read twice': (lambda w, x: (lambda r: x / r + r)(jnp.sqrt(x)) * w[0, 0],
                                  ['sqrt', 'div', 'add', 'slice', 'squeeze', 'mul'])}


@pytest.mark.parametrize('case', CASES)
def test_equations_and_values(case):
  fn, names = CASES[case]
  plain = recognised(trace(fn, W, X))
  made = simplified(plain)
  assert [eqn.name for eqn in made.eqns] == names
  for run in (evaluate, lambda program, values: jax.grad(lambda x: evaluate(program, [W, x])[0].sum())(X)):
    np.testing.assert_allclose(jax.tree.leaves(run(made, [W, X]))[0], jax.tree.leaves(run(plain, [W, X]))[0], rtol=2e-5,
                               atol=1e-6)
