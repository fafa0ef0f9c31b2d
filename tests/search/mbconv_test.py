"""The supernet of mobile blocks: shapes, choices, the networks inside it."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.search.encoding import count, space_of
from effjax.search.mbconv import FBNET, PROXYLESSNAS, MBConvNet, mnasnet_space

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


def size(name, operators, **how):
  params = shapes(MBConvNet(3, operators=operators, **{**SMALL, **how}), (1, 8, 8, 1))['params'][name]
  return sum(int(np.prod(a.shape)) for a in jax.tree.leaves(params))


@pytest.mark.parametrize(('operator', 'same', 'wider'), [
    # Parameters of block1, 4 to 4 channels, and of block2, 4 to 6 with strides 2: kernels, and BatchNorm's two vectors.
    ('mb3_k7', 12 * (4 + 49 + 4 + 4) + 2 * 4, 12 * (4 + 49 + 6 + 4) + 2 * 6),
    ('mb1_k3', 4 * (9 + 4 + 2) + 2 * 4, 4 * (9 + 6 + 2) + 2 * 6),
    ('mb3_k3_se', 12 * (4 + 9 + 4 + 4) + 2 * 4 + 2 * 12 + 1 + 12, 12 * (4 + 9 + 6 + 4) + 2 * 6 + 2 * 12 + 1 + 12),
    ('fb1_k3', 4 * (4 + 9 + 4 + 4) + 2 * 4, 4 * (4 + 9 + 6 + 4) + 2 * 6),
    ('fb1_k5_g2', 4 * (2 + 25 + 2 + 4) + 2 * 4, 4 * (2 + 25 + 3 + 4) + 2 * 6),
    ('sep_k5', 4 * (25 + 2) + 4 * 4 + 2 * 4, 4 * (25 + 2) + 4 * 6 + 2 * 6),
    ('conv_k3', 9 * 4 * 4 + 2 * 4, 9 * 4 * 6 + 2 * 6), ('identity', None, 4 * 6 + 2 * 6)])
def test_operators_have_the_parameters_of_their_blocks(operator, same, wider):
  if same is not None:
    assert size('block1', (operator,)) == same
  assert size('block2', (operator,)) == wider


def test_a_block_may_have_operators_of_its_own():
  net = MBConvNet(3, stem=4, head=8, blocks=((4, 1, ('mb1_k3',)), (4, 1), (6, 2, ('sep_k3', 'conv_k3', 'skip'))),
                  operators=('mb3_k3', 'mb6_k3', 'skip'))
  assert space_of(net, jnp.ones((1, 8, 8, 1)), False) == {
      'block2/choice': ('mb3_k3', 'mb6_k3', 'skip'), 'block3/choice': ('sep_k3', 'conv_k3')}


@pytest.mark.parametrize(('published', 'start', 'operators'), [(PROXYLESSNAS, [6, 7, 7], 7), (FBNET, [9, 9, 9, 9], 9)])
def test_the_first_blocks_of_published_chains(published, start, operators):
  net = MBConvNet(1000, **{**published, 'blocks': published['blocks'][:4]})
  space = space_of(net, jnp.ones((1, 32, 32, 3)), False)
  assert [len(names) for names in space.values()] == start and len(published['operators']) == operators


@pytest.mark.slow
@pytest.mark.parametrize(('published', 'choices', 'size'), [(PROXYLESSNAS, 21, 6**6 * 7**15), (FBNET, 22, 9**22)])
def test_the_sizes_of_published_chains(published, choices, size):
  space = space_of(MBConvNet(1000, **published), jnp.ones((1, 224, 224, 3)), False)
  assert len(space) == choices and count(space) == size


def test_the_size_of_mnasnets_space():
  assert count(mnasnet_space(1)) == 432
  assert count(mnasnet_space()) == 432**5 == 15_045_919_506_432


def test_errors():
  with pytest.raises(EffjaxError, match="MBConvNet: unknown operator 'conv3': known are 'mb<expand>_k<kernel>'"):
    shapes(MBConvNet(10, operators=('conv3',), **SMALL), (1, 8, 8, 1))
  with pytest.raises(EffjaxError, match=r"MBConvNet: no operator of \('skip',\) fits 'block2', which goes from 4 to 6 "
                                        'channels with strides 2: add one besides skip'):
    shapes(MBConvNet(10, operators=('skip',), **SMALL), (1, 8, 8, 1))
