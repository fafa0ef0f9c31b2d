import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.export import litert, write
from effjax.export.network import Node, Tensor
from effjax.export.reference.weighted import accumulate, in_xnnpack

SETS = 'xnnpack', 'builtin'
SAME, VALID = ((1, 1), (1, 1)), ((0, 0), (0, 0))
PLAIN = {'strides': (1, 1), 'padding': SAME, 'dilation': (1, 1), 'groups': 1}
IMAGE, PIXELS = (1, 24, 25), (1, 9, 10, 5)

# name: op, shape of the input, shape of the kernel, settings. Sizes that fill no vector, and ones that do.
LAYERS = {
    'conv': ('conv', (*IMAGE, 3), (3, 3, 3, 17), PLAIN),
    'pointwise': ('conv', (*IMAGE, 8), (1, 1, 8, 16), PLAIN | {'padding': VALID}),
    'strided': ('conv', (*IMAGE, 3), (3, 3, 3, 33), PLAIN | {'strides': (2, 2), 'padding': ((0, 1), (1, 1))}),
    'dilated': ('conv', (*IMAGE, 4), (3, 3, 4, 9), PLAIN | {'dilation': (2, 3), 'padding': ((2, 2), (3, 3))}),
    'grouped': ('conv', (*IMAGE, 8), (3, 3, 4, 10), PLAIN | {'groups': 2}),
    'depthwise': ('depthwise', (*IMAGE, 17), (3, 3, 1, 17), PLAIN | {'groups': 17}),
    'multiplied': ('depthwise', (*IMAGE, 7), (3, 3, 1, 14), PLAIN | {'groups': 7, 'padding': VALID}),
    'dilated depthwise': ('depthwise', (*IMAGE, 8), (3, 3, 1, 8),
                          PLAIN | {'groups': 8, 'dilation': (2, 2), 'padding': ((2, 2), (2, 2))}),
    'dense': ('dense', (1, 64), (64, 1030), {}),
    'odd dense': ('dense', (1, 300, 33), (33, 17), {}),
    'dense of images': ('dense', (1, 20, 15, 16), (16, 10), {}),
    'transposed': ('transpose_conv', PIXELS, (3, 4, 5, 21), {'strides': (2, 3), 'padding': VALID}),
    'cropped': ('transpose_conv', PIXELS, (4, 5, 5, 8), {'strides': (2, 2), 'padding': ((1, 1), (1, 2))}),
    'with gaps': ('transpose_conv', PIXELS, (2, 3, 5, 11), {'strides': (3, 2), 'padding': ((0, 1), (0, 1))}),
    'and more': ('transpose_conv', PIXELS, (2, 3, 5, 11), {'strides': (3, 3), 'padding': ((0, -1), (0, 0))}),
}


@pytest.fixture
def layer(one_node, tensor):
  """A layer of `LAYERS` whose output fills its range, and some more."""
  def make(name, bits=8, activation='', equal=False, output=(.04, 5)):
    op, shape, kernel, settings = LAYERS[name]
    random, top, fan = np.random.default_rng(bits), max(2 ** (bits - 1) - 1, 1), np.prod(kernel[:-1])
    codes = random.integers(-top, top + 1, kernel).astype(np.int8)
    scales = np.float32((np.ones if equal else lambda n: random.uniform(.5, 2, n))(kernel[-1]) * 1.5 / top / fan ** .5)
    bias = random.normal(0, 20 * top * fan ** .5, kernel[-1]).astype(np.int32)
    weights = {'codes': codes, 'scales': scales, 'bias': bias, 'bits': bits}
    node = Node(op, (0,), Tensor('y', (), *output), activation, settings, **weights)
    made = jax.eval_shape(lambda x: accumulate(node, x), jax.ShapeDtypeStruct(shape, jnp.int32)).shape
    return one_node(op, [tensor(shape, .05, -7)], tensor(made, *output), settings, activation, **weights)
  return make


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize(('name', 'bits'), [*((name, 8) for name in LAYERS), *((name, 4) for name in LAYERS
                                                                               if LAYERS[name][0] != 'transpose_conv')])
def test_every_code_is_that_of_the_file(layer, name, bits, kernels):
  assert layer(name, bits).different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('name', ['grouped', 'depthwise', 'dense', 'transposed'])
@pytest.mark.parametrize(('activation', 'output'), [('relu', (.01, 127)), ('relu6', (6 / 100.5, -128)),
                                                    ('relu_n1_to_1', (2 / 101, 5))])
def test_activations_clip_where_the_kernels_do(layer, name, activation, output, kernels):
  assert layer(name, activation=activation, output=output).different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('bits', [8, 4])
@pytest.mark.parametrize('name', ['dense', 'odd dense'])
def test_one_scale_for_all_outputs(layer, name, bits, kernels):
  assert layer(name, bits, equal=True).different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('equal', [False, True])
@pytest.mark.parametrize('name', ['dense', 'dense of images'])
def test_two_bits_four_to_a_byte_are_those_two_to_a_byte(layer, name, equal, kernels):
  made = layer(name, 2, equal=equal)
  codes = made.codes()
  interpreter = litert.Interpreter(write.model(made.network, int2=True), xnnpack=kernels == 'xnnpack')
  np.testing.assert_array_equal(interpreter.run(*codes)[0], made.reference(codes, kernels))


def test_builtin_kernels_round_the_product_of_scales_only_for_one_scale(one_node, tensor):
  bias = np.int32([54668, 59695, 64722])  # accumulators that tell the two products apart
  scales, codes = np.full(3, .0006365626468323171, np.float32), np.zeros((1, 1, 2, 3), np.int8)
  found = []
  for op, shape, settings in (('dense', (1, 2), {}), ('conv', (1, 1, 1, 2), PLAIN | {'padding': VALID})):
    made = one_node(op, [tensor(shape, .05, 0)], tensor((*shape[:-1], 3), .04, 0), settings, scales=scales, bias=bias,
                    codes=codes[0, 0] if op == 'dense' else codes)
    assert made.different('builtin') == 0
    found.append(made.file(made.codes(), 'builtin').ravel())
  assert (found[0] != found[1]).all()


@pytest.mark.parametrize('bits', [8, 4])
@pytest.mark.parametrize('name', LAYERS)
def test_xnnpack_has_the_kernels_that_are_said(layer, name, bits):
  network = layer(name, bits).network
  operators = litert.Interpreter(write.model(network))._interpreter._get_ops_details()
  assert any(each['op_name'] == 'DELEGATE' for each in operators) == in_xnnpack(network.nodes[0])


@pytest.mark.parametrize('scale', [1e-11, 1e-8, 1e-5])
@pytest.mark.parametrize('kernels', SETS)
def test_channels_that_are_almost_zero_give_the_zero_point(layer, scale, kernels):
  made = layer('conv')
  node = made.network.nodes[0]
  node = node._replace(scales=np.full_like(node.scales, scale), output=node.output._replace(scale=1.))
  made.network = made.network._replace(nodes=(node,))
  assert made.different(kernels) == 0
  assert (made.file(made.codes(), kernels) == node.output.zero_point).all()


def test_integers_of_any_layer_are_those_of_python_integers():
  random = np.random.default_rng(0)
  codes = random.integers(-127, 128, (9000, 3)).astype(np.int8)
  node = Node('dense', (0,), Tensor('y', (1, 3), 1., 0), '', {}, codes, np.ones(3, np.float32), np.zeros(3, np.int32))
  x = random.integers(-255, 256, (4, 9000))
  np.testing.assert_array_equal(jax.jit(lambda x: accumulate(node, x))(x.astype(np.int32)), x @ codes.astype(np.int64))


@pytest.mark.parametrize('crop', [VALID, ((1, 0), (0, 2)), ((0, -2), (1, 1))])
def test_a_transposed_convolution_adds_the_flipped_kernel_at_every_pixel(crop):
  random = np.random.default_rng(0)
  x, w = random.integers(-99, 99, (2, 4, 3, 2)), random.integers(-9, 9, (3, 4, 2, 5))
  full = np.zeros((2, 3 * 3 + 3 + 2, 2 * 2 + 4 + 2, 5), int)  # two rows and columns that nothing reaches
  for i, j in np.ndindex(4, 3):
    full[:, 3 * i:3 * i + 3, 2 * j:2 * j + 4] += np.einsum('nc,hwco->nhwo', x[:, i, j], w[::-1, ::-1])
  node = Node('transpose_conv', (0,), Tensor('y', (), 1., 0), '', {'strides': (3, 2), 'padding': crop}, w)
  (top, bottom), (left, right) = crop
  expected = full[:, top:full.shape[1] - 2 - bottom, left:full.shape[2] - 2 - right]
  np.testing.assert_array_equal(accumulate(node, x.astype(np.int32)), expected)
