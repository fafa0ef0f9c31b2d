"""The supernet of mobile blocks: shapes, choices, the networks inside it."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.search import MBConvNet

KEY = jax.random.key(0)
SMALL = dict(stem=4, blocks=((4, 1), (6, 2)), head=8)


def shapes(net, x):
  return jax.eval_shape(lambda key: net.init(key, jnp.zeros(x), False), KEY)


@pytest.mark.parametrize('shape', [(2, 8, 8, 1), (2, 28, 28, 1), (2, 32, 32, 3)])
def test_the_default_takes_small_and_larger_images(shape):
  net = MBConvNet(10)
  variables = shapes(net, shape)
  out = jax.eval_shape(lambda v: net.apply(v, jnp.zeros(shape), False), variables)
  assert out.shape == (2, 10)
  assert sorted(variables['params']) == ['block1', 'block2', 'block3', 'block4', 'block5', 'classifier', 'head', 'stem']


def test_skip_is_offered_where_the_shape_allows():
  params = shapes(MBConvNet(10), (1, 8, 8, 1))['params']
  lengths = {name: block['choice'].shape[0] for name, block in params.items() if 'choice' in block}
  assert lengths == {'block1': 5, 'block2': 4, 'block3': 5, 'block4': 4, 'block5': 5}


def test_one_operator_is_the_operator_itself():
  params = shapes(MBConvNet(10, operators=('mb3_k3', 'skip'), **SMALL), (1, 8, 8, 1))['params']
  assert sorted(params['block1']) == ['choice', 'mb3_k3']
  assert sorted(params['block2']) == ['depthwise', 'expand', 'project']


def test_a_one_hot_choice_is_the_network_with_that_operator():
  operators = ('mb2_k3', 'sep_k5')
  x = jax.random.normal(KEY, (2, 8, 8, 1))
  supernet = MBConvNet(10, operators=operators, **SMALL)
  variables = jax.jit(lambda key: supernet.init(key, x, False))(KEY)
  for i, op in enumerate(operators):
    chosen = {kind: {name: block.get(op, block) for name, block in part.items()} for kind, part in variables.items()}
    for name in ('block1', 'block2'):
      variables['params'][name]['choice'] = jnp.eye(2)[i]
    run = lambda net, variables: jax.jit(lambda v: net.apply(v, x, False))(variables)
    alone = run(MBConvNet(10, operators=(op,), **SMALL), chosen)
    np.testing.assert_allclose(run(supernet, variables), alone, rtol=1e-5, atol=1e-6)


def test_training_updates_every_statistic_and_trains_every_parameter():
  net = MBConvNet(10, operators=('sep_k3', 'skip'), **SMALL)
  x = jax.random.normal(KEY, (4, 8, 8, 1))
  variables = jax.jit(lambda key: net.init(key, x, False))(KEY)

  def loss(params):
    y, new = net.apply({**variables, 'params': params}, x, True, mutable=['batch_stats'])
    return jnp.sum(jnp.sin(y) * jnp.arange(1., 41.).reshape(4, 10)), new

  grads, new = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(grads))
  old = jax.tree.leaves(variables['batch_stats'])
  assert all(bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(new['batch_stats']), old, strict=True))


def test_strides_of_the_stem_and_dtype():
  net = MBConvNet(10, stem_strides=2, dtype=jnp.bfloat16, **SMALL)
  variables = shapes(net, (1, 32, 32, 3))
  out = jax.eval_shape(lambda v: net.apply(v, jnp.zeros((1, 32, 32, 3)), False), variables)
  assert out.dtype == jnp.bfloat16 and {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_errors():
  with pytest.raises(EffjaxError, match="MBConvNet: unknown operator 'conv3': known are 'mb<expand>_k<kernel>'"):
    shapes(MBConvNet(10, operators=('conv3',), **SMALL), (1, 8, 8, 1))
  with pytest.raises(EffjaxError, match=r"MBConvNet: no operator of \('skip',\) fits 'block2', which goes from 4 to 6 "
                                        'channels with strides 2: add one besides skip'):
    shapes(MBConvNet(10, operators=('skip',), **SMALL), (1, 8, 8, 1))
