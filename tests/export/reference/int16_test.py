"""The kernels of 16-bit activations against LiteRT, every code, under both sets."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.export import write
from effjax.export.network import Network, Node, Tensor
from effjax.export.reference.int16 import KERNELS16
from effjax.export.verify import run

IMAGE = (1, 5, 6, 3)
CONV = {'strides': (1, 1), 'padding': ((1, 1), (1, 1)), 'dilation': (1, 1), 'groups': 1}
VALID = {'padding': ((0, 0), (0, 0))}


def tensor(name, shape, scale=1e-3):
  return Tensor(name, shape, float(np.float32(scale)), 0, 16)


def drawn(given, examples=30, seed=0):
  """Random codes, small ones and the extremes."""
  random, top = np.random.default_rng(seed), 2 ** (given.bits - 1)
  q = random.integers(-top, top, (examples, *given.shape[1:])) >> random.integers(0, 8, (examples, *given.shape[1:]))
  return np.where(random.random(q.shape) < .05, random.choice([-top, top - 1], q.shape), q).astype(f'int{given.bits}')


def check(network, codes=None):
  """The network's only node against LiteRT; returns its codes."""
  node, content = network.nodes[0], write.model(network)
  codes = codes or [drawn(given, seed=i) for i, given in enumerate(network.inputs)]
  kernel = jax.jit(lambda *x: KERNELS16[node.op](node, network.inputs, x, 'builtin'))
  found = np.asarray(kernel(*(jnp.asarray(q, jnp.int32) for q in codes)))
  for xnnpack in (True, False):
    np.testing.assert_array_equal(found, run(content, codes, xnnpack=xnnpack)[0])
  return found


def weighted(op, source, codes, output, scale, activation='', settings=None, top=2 ** 20):
  random, count = np.random.default_rng(0), codes[-1]
  return Network((tensor('x', source),), (Node(
      op, (0,), tensor('y', output, scale), activation, settings or {}, random.integers(-127, 128, codes).astype(np.int8),
      random.uniform(.001, .02, count).astype(np.float32), random.integers(-top, top, count)),), (1,))


@pytest.mark.parametrize(('codes', 'output', 'settings'), [
    ((3, 3, 3, 8), (1, 5, 6, 8), {}),
    ((3, 3, 3, 8), (1, 3, 4, 8), VALID),
    ((3, 3, 3, 4), (1, 3, 3, 4), {'strides': (2, 2), 'padding': ((1, 1), (0, 1))}),
    ((3, 3, 3, 4), (1, 5, 6, 4), {'dilation': (2, 2), 'padding': ((2, 2), (2, 2))}),
    ((1, 1, 1, 6), (1, 5, 6, 6), VALID | {'groups': 3})])
@pytest.mark.parametrize('activation', ['', 'relu6'])
def test_conv(codes, output, settings, activation):
  check(weighted('conv', IMAGE, codes, output, 3e-3 if not activation else 6 / 20000.3, activation, CONV | settings))


def test_depthwise():
  check(weighted('depthwise', IMAGE, (3, 3, 1, 6), (1, 5, 6, 6), 2e-3, settings=CONV | {'groups': 3}))


def test_transpose_conv():
  check(weighted('transpose_conv', IMAGE, (2, 2, 3, 5), (1, 10, 12, 5), 2e-3, settings=VALID | {'strides': (2, 2)}))


@pytest.mark.parametrize('shape', [(1,), (1, 4)])
@pytest.mark.parametrize('inputs', [1, 30, 600])
def test_dense(shape, inputs):
  check(weighted('dense', (*shape, inputs), (inputs, 7), (*shape, 7), 1e-3 * inputs ** .5))


def test_dense_of_one_scale_and_powers_of_two():
  network = weighted('dense', (1, 30), (30, 7), (1, 7), 2. ** -6)
  node = network.nodes[0]._replace(scales=np.full(7, 2. ** -7, np.float32))
  check(network._replace(inputs=(tensor('x', (1, 30), 2. ** -10),), nodes=(node,)))


@pytest.mark.parametrize('op', ['conv', 'dense'])
def test_biases_have_64_bits(op):
  source, codes, output = ((1, 1, 1, 3), (1, 1, 3, 8), (1, 1, 1, 8)) if op == 'conv' else ((1, 3), (3, 8), (1, 8))
  network = weighted(op, source, codes, output, 5., settings=CONV | VALID if op == 'conv' else {}, top=2 ** 34)
  found = check(network)
  assert np.abs(found).max() > 1000 and (np.abs(network.nodes[0].bias) > 2 ** 32).any()


@pytest.mark.parametrize('op', ['add', 'sub', 'mul'])
@pytest.mark.parametrize(('other', 'activation', 'scales'), [
    (IMAGE, '', (1e-3, 7e-4, 2e-3)), ((1, 1, 1, 3), 'relu', (1e-3, 3e-5, 1.5e-3)),
    (IMAGE, '', (2. ** -10, 2. ** -11, 2. ** -10))])  # powers of two: not LiteRT's other kernel
def test_two_tensors(op, other, activation, scales):
  a, b, output = scales
  node = Node(op, (0, 1), tensor('y', IMAGE, output if op != 'mul' else a * b * 2e4), activation, {})
  check(Network((tensor('a', IMAGE, a), tensor('b', other, b)), (node,), (2,)))


@pytest.mark.parametrize(('adj_x', 'adj_y'), [(False, False), (True, True)])
def test_matmul(adj_x, adj_y):
  shapes = (1, 2, 17, 4) if adj_x else (1, 2, 4, 17), (1, 2, 6, 17) if adj_y else (1, 2, 17, 6)
  node = Node('matmul', (0, 1), tensor('y', (1, 2, 4, 6), .03), '', {'adj_x': adj_x, 'adj_y': adj_y})
  check(Network(tuple(map(tensor, 'ab', shapes)), (node,), (2,)))


WINDOW = {'window': (3, 3), 'strides': (1, 1), 'padding': ((1, 1), (1, 1))}
SLICE = {'start': (0, 1, 1, 0), 'limit': (1, 4, 5, 3)}


@pytest.mark.parametrize(('op', 'output', 'scale', 'settings'), [
    ('mean', (1, 3), 7e-4, {'axes': (1, 2), 'keep': False}), ('mean', (1, 5, 6, 1), 1e-3, {'axes': (3,), 'keep': True}),
    ('sum', (1, 1, 1, 3), .02, {'axes': (1, 2), 'keep': True}),
    ('reduce_max', (1, 6, 3), 1e-3, {'axes': (1,), 'keep': False}),
    ('max_pool', IMAGE, 1e-3, WINDOW), ('average_pool', IMAGE, 1e-3, WINDOW),
    ('average_pool', (1, 2, 3, 3), 1e-3, VALID | {'window': (2, 2), 'strides': (2, 2)}),
    ('reshape', (1, 90), 1e-3, {'shape': (90,)}), ('transpose', (1, 3, 5, 6), 1e-3, {'permutation': (0, 3, 1, 2)}),
    ('slice', (1, 3, 4, 3), 1e-3, SLICE | {'strides': (1, 1, 1, 1)}),
    ('slice', (1, 2, 2, 3), 1e-3, SLICE | {'strides': (1, 2, 2, 1)}),
    ('pad', (1, 7, 6, 3), 1e-3, {'padding': ((0, 0), (1, 1), (0, 0), (0, 0))}),
    ('pad', (1, 7, 6, 3), 1e-3, {'padding': ((0, 0), (1, 1), (0, 0), (0, 0)), 'lowest': True}),
    ('leaky_relu', IMAGE, 7e-4, {'alpha': .1}), ('abs', IMAGE, 1e-3, {}), ('abs', IMAGE, 7e-4, {}),
    ('quantize', IMAGE, 2.3e-3, {}),
    *(('resize_bilinear', (1, 9, 4, 3), 1e-3, {'size': (9, 4), 'align_corners': a, 'half_pixel': h})
      for a, h in ((False, False), (True, False), (False, True)))])
def test_one_tensor(op, output, scale, settings):
  check(Network((tensor('x', IMAGE),), (Node(op, (0,), tensor('y', output, scale), '', settings),), (1,)))


@pytest.mark.parametrize('activation', ['relu', 'relu6'])
@pytest.mark.parametrize('scale', [1e-3, 2.5e-4])
def test_clamp(activation, scale):
  check(Network((tensor('x', IMAGE),), (Node('clamp', (0,), tensor('y', IMAGE, scale), activation, {}),), (1,)))


def test_concat():
  check(Network((tensor('a', IMAGE), tensor('b', IMAGE)), (
      Node('concat', (0, 1), tensor('y', (1, 5, 6, 6)), '', {'axis': 3}),), (2,)))


@pytest.mark.parametrize('bits', [(8, 16), (16, 8)])
def test_between_8_and_16_bits(bits):
  a, b = (Tensor(name, IMAGE, .03 if n == 8 else 2e-4, 5 if n == 8 else 0, n) for name, n in zip('ab', bits, strict=True))
  check(Network((a,), (Node('quantize', (0,), b, '', {}),), (1,)))
