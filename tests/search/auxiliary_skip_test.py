"""DARTS-' skip: what it adds, that it vanishes, that nothing of it is deployed."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import search
from effjax.errors import EffjaxError
from effjax.reparam import at, chain

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 8, 8, 3))


def nets():
  small = dict(features=2, cells=1, operators=('none', 'skip_connect'))
  return search.NASBench201(10, **small), search.NASBench201(10, auxiliary_skip=True, **small)


def test_it_is_one_more_leaf_and_beta_times_the_input_of_each_edge():
  plain, net = nets()
  variables = jax.jit(lambda key: net.init(key, X, False))(KEY)
  params = dict(variables['params'])
  assert params.pop('auxiliary_skip').shape == ()
  assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(lambda: plain.init(KEY, X, False))['params'])
  run = lambda net, params: net.apply({**variables, 'params': params}, X, False)
  with_beta = lambda beta: run(net, {**params, 'auxiliary_skip': jnp.float32(beta)})
  np.testing.assert_array_equal(with_beta(0.), run(plain, params))
  # skip and auxiliary skip are one function: weight p on the skip and beta beside it are p + beta on the skip
  put = lambda p: search.encoding.put(params, {path: jnp.array([0., p]) for path in search.nas_bench_201.SPACE})
  both = run(net, {**put(.5), 'auxiliary_skip': jnp.float32(.25)})
  np.testing.assert_allclose(both, run(plain, put(.75)), rtol=1e-4, atol=1e-5)


def test_the_schedule_counts_steps_and_deployment_is_without():
  reparam = chain(at('auxiliary_skip', search.auxiliary_skip(optax.linear_schedule(1., 0., 4))))
  slots = reparam.init(KEY, {'auxiliary_skip': jnp.ones(()), 'w': jnp.ones(2)})
  seen, traces = [], []
  step = jax.jit(lambda slots: traces.append(0) or (
      slots._replace(state=reparam.update(slots, {'auxiliary_skip': jnp.ones(()), 'w': jnp.ones(2)})),
      reparam.apply(*slots, KEY)['auxiliary_skip'], reparam.apply(*slots, None)['auxiliary_skip']))
  for _ in range(6):
    slots, now, deployed = step(slots)
    seen.append(float(now))
    assert float(deployed) == 0 and not now.weak_type
  assert seen == [1., .75, .5, .25, 0., 0.] and len(traces) == 1


def test_another_leaf_is_refused():
  with pytest.raises(EffjaxError, match=r"auxiliary_skip: wants the scalar leaf of a supernet, got an array of shape \(2,\): "
                                        "narrow the pattern to 'auxiliary_skip'"):
    search.auxiliary_skip(1.).init(KEY, jnp.ones(2))
