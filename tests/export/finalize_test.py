import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.export import finalize, simulate, tflite, verify
from effjax.graph.taps import taps
from effjax.reparam import Fact

X = jnp.asarray(np.random.default_rng(3).uniform(-1, 1, (16, 4)), jnp.float32)
CODES = np.random.default_rng(4).integers(-7, 8, (4, 3)).astype(np.float32)
SCALE = np.float32([.1, .02, .3])
WEIGHTS = {'fc': {'kernel': CODES * SCALE}}
FACTS = {'fc/kernel': Fact(bits=4, scale=SCALE)}
RANGES = {'input': (.01, 3, 8), 'fc': (.02, -5, 8)}


def build(tail, ranges=RANGES, weights=WEIGHTS, facts=FACTS, x=X):
  return finalize(lambda p, x: tail(x @ p['fc']['kernel']), weights, facts, ranges, x)


def test_network_is_close_to_the_float_function_whatever_the_batch(ready, some):
  given = ready(some)
  network = given.network()
  exact, got = jax.jit(given.fn)(given.weights, given.x), jax.jit(lambda x: simulate(network, x))(given.x)
  assert float(jnp.abs(got - exact).max()) < .06 * float(jnp.abs(exact).max())
  step = network.tensors[network.outputs[0]].scale
  assert float(jnp.abs(got - jax.jit(given.quantized)(given.x)).max()) < 4.1 * step
  np.testing.assert_array_equal(jax.jit(lambda x: simulate(network, x))(given.x[:1]), got[:1])


def test_affine_chain_is_folded_and_codes_are_untouched():
  gain, mean, beta = np.float32([[2., -.5, 1.]]), np.float32([[.1, .2, -.3]]), np.float32([[.05, -.2, .4]])
  node = build(lambda y: -((y - mean) * gain + beta) / 4.).nodes[0]
  signs = np.sign(-gain[0])
  np.testing.assert_array_equal(node.codes, CODES * signs)
  np.testing.assert_array_equal(node.scales, np.float32(np.abs(SCALE.astype(float) * gain[0]) / 4))
  bias = -(beta[0].astype(float) - mean[0].astype(float) * gain[0]) / 4
  np.testing.assert_array_equal(node.bias, np.rint(bias / (np.float32(.01).astype(float) * node.scales)))


def test_zero_gain_keeps_the_bias_and_drops_the_codes():
  node = build(lambda y: y * np.float32([[1., 0., 1.]]) + np.float32([[0., .25, 0.]])).nodes[0]
  assert not node.codes[:, 1].any()
  assert node.bias[1] * node.scales[1] * .01 == pytest.approx(.25, rel=1e-4)


def test_bias_too_large_for_the_accumulator_raises_the_scale():
  node = build(lambda y: y * np.float32([[1e-9, 1., 1.]]) + np.float32([[1., 0., 0.]])).nodes[0]
  assert abs(int(node.bias[0])) <= 2 ** 30
  assert node.bias[0] * float(node.scales[0]) * .01 == pytest.approx(1., rel=1e-6)


def test_one_hot_choice_leaves_nothing_of_the_others():
  weights = {'a': {'kernel': CODES * SCALE}, 'b': {'kernel': CODES * SCALE}, 'p': jnp.float32([1., 0.])}
  facts = {'a/kernel': FACTS['fc/kernel'], 'b/kernel': FACTS['fc/kernel']}
  fn = lambda p, x: p['p'][0] * (x @ p['a']['kernel']) + p['p'][1] * (x @ p['b']['kernel'])
  names = {'input', 'a', 'b', 'b/add'}
  network = finalize(fn, weights, facts, dict.fromkeys(names, (.02, 0, 8)), X)
  assert [node.output.name for node in network.nodes] == ['a']


def test_broadcast_scale_and_kernel_in_another_layout():
  weights = {'fc': {'kernel': (CODES * SCALE).T.copy()}}
  facts = {'fc/kernel': Fact(bits=4, scale=SCALE[:, None])}
  network = finalize(lambda p, x: x @ p['fc']['kernel'].T, weights, facts, RANGES, X)
  np.testing.assert_array_equal(network.nodes[0].codes, CODES)
  np.testing.assert_array_equal(network.nodes[0].scales, SCALE)


def test_shapes_are_enough_and_inputs_may_be_several():
  weights, facts = {name: {'kernel': CODES * SCALE} for name in 'ab'}, {}
  facts = {f'{name}/kernel': FACTS['fc/kernel'] for name in 'ab'}
  fn = lambda p, left, right: jax.nn.relu(left @ p['a']['kernel'] + right @ p['b']['kernel'])
  ranges = dict.fromkeys(('input', 'input_1', 'a', 'b', 'b/add'), (.02, -128, 8))
  network = finalize(fn, weights, facts, ranges, *[jax.ShapeDtypeStruct((7, 4), jnp.float32)] * 2)
  assert [tensor.name for tensor in network.inputs] == ['input', 'input_1']
  assert simulate(network, (X, X)).shape == (16, 3)


def test_an_average_over_a_single_pixel_is_a_pool():
  """SAME windows of which one entry each lies in the image: they are divided by 1."""
  def tail(y):
    window = lambda y: jax.lax.reduce_window(y, 0., jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), 'SAME')
    return (window(y.reshape(-1, 1, 1, 3)) / window(jnp.ones((1, 1, 1, 3)))).reshape(-1, 3)

  network = build(tail, {'input': (.01, 3, 8), 'fc': (.02, -5, 8)})
  assert [node.op for node in network.nodes if node.op.endswith(('pool', 'pool_sum'))] == ['average_pool']
  np.testing.assert_array_equal(simulate(network, X), simulate(build(lambda y: y, {'input': (.01, 3, 8), 'fc': (.02, -5, 8)}), X))


def windows(y, padding):
  return jax.lax.reduce_window(y.reshape(-1, 1, 3, 1), 0., jax.lax.add, (1, 1, 2, 1), (1, 1, 1, 1), padding)


def counted(y):
  return windows(jnp.ones((1, 3)), ((0, 0), (0, 0), (1, 1), (0, 0)))


REFUSED = {
    'sine': (jnp.sin, 'sin in .* cannot run on integers: no such kernel'),
    'odd clip': (lambda y: jnp.clip(y, -.3, .7), r"'fc' is clipped to \[-0.3, 0.7\]: wanted relu"),
    'two operands': (lambda y: y / (y * y), 'div in .* both operands depend on the input'),
    'division by it': (lambda y: 1. / y, 'div in .* wanted a divisor that is a constant other than 0'),
    'a choice by the input': (lambda y: jnp.where(y > 0, 2. * y, y + 1.), 'no such kernel'),
    'a mask that puts in zeros': (lambda y: jnp.where(np.array([True, False, True]), y, 0.),
                                  "wanted a mask that puts in a constant of at most -2.46, the lowest value of 'fc'"),
    'to integers': (lambda y: y.astype(jnp.int32).astype(jnp.float32), 'to int32: wanted floating point'),
    'batch moved': (lambda y: y.T.reshape(3, -1).T, r'is transposed by \(1, 0\): the batch must stay axis 0'),
    'over the batch': (lambda y: y - y.max(0, keepdims=True), 'reduce_max in .* is not stored as integers here'),
    'half a sum': (lambda y: y.reshape(-1, 3, 1).sum(1) / 2., "'fc/mean' is 1.5 times a mean: wanted 1 times"),
    'over the batch, of integers': (lambda y: jnp.concatenate([y, y - y.mean(0, keepdims=True)], -1),
                                    'reduce_sum in .* it reduces over the batch'),
    'seven axes': (lambda y: (y.reshape(-1, 1, 1, 1, 1, 1, 3) ** 2).reshape(-1, 3),
                   "'fc/mul': mul of 7 axes has no kernel: wanted at most 6, merge some"),
    'stacked activations': (lambda y: jax.lax.scan(lambda c, w: (c, c * w), y, jnp.ones(2))[1][0],
                            'it stacks activations: return only what it carries'),
    'a product of examples': (lambda y: jnp.einsum('nc,mc->nm', y, y), 'wanted a product within each example, over one axis'),
    'odd window': (lambda y: jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 2), (1, 1), 'VALID'),
                   r'wanted a 2-D NHWC window, not dilated, got \(1, 2\)'),
    'sum over windows': (lambda y: 2. * windows(y, 'SAME'), 'a sum over windows that is no average has no kernel'),
    'uneven average': (lambda y: windows(y, ((0, 0), (0, 0), (1, 1), (0, 0))) / counted(y),
                       r'an average with padding .* that does not count zeros has no kernel: use SAME, VALID or'),
    'scanned activations': (lambda y: jax.lax.scan(lambda c, x: (c + x, None), jnp.zeros(3), y)[0],
                            'a scan over activations cannot run on integers: scan over parameters'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_has_no_integer_kernel_is_refused_by_name(case):
  tail, message = REFUSED[case]
  fn = lambda p, x: tail(x @ p['fc']['kernel'])
  ranges = dict.fromkeys({tap.range for tap in taps(fn, WEIGHTS, X)}, (.02, -5, 8))
  with pytest.raises(EffjaxError, match=message):
    finalize(fn, WEIGHTS, FACTS, ranges, X)


def test_double_quantization_is_refused_and_the_same_range_twice_is_not():
  tail = lambda y: jnp.concatenate([y, y], -1) + jnp.zeros((1, 6))
  ranges = {'input': (.01, 3, 8), 'fc/concat': (.02, -5, 8), 'fc/concat/affine': (.03, -5, 8)}
  with pytest.raises(EffjaxError, match="tap 'fc/concat/affine' rounds 'fc/concat' a second time, with another range"):
    build(tail, ranges)
  assert build(tail, ranges | {'fc/concat/affine': (.02, -5, 8)}).outputs


def test_ranges_that_kernels_cannot_hold_are_named():
  for tail, ranges, message in (
      (jax.nn.sigmoid, {'fc/logistic': (.02, -5, 8)}, "'fc/logistic' has scale 0.02 and zero point -5, its kernel wants "
                                                      '0.00390625 and -128: quantize.quantizers gives that'),
      (jax.lax.rsqrt, {'fc/rsqrt': (.02, -5, 8)}, "'fc', which it reads, has zero point -5, wanted -128"),
      (jax.nn.hard_swish, {'fc': (1., 0, 8), 'fc/hard_swish': (.005, 0, 8)},
       'input scale / 128 is 0.00781, wanted less than its scale 0.005: narrow the input')):
    with pytest.raises(EffjaxError, match=message):
      build(tail, RANGES | ranges)
  ranges = RANGES | {'fc/mul': (1.5e-5, -128, 8), 'fc/mul/rsqrt': (.1, 0, 8), 'fc': (1e-3, 0, 8)}
  with pytest.raises(EffjaxError, match="1e-05 is added to 'fc/mul' before a root, half of its step 1.5e-05 or more: w"):
    build(lambda y: jax.lax.rsqrt(y * y + 1e-5), ranges)
  with pytest.raises(EffjaxError, match="range 'fc' has scale .* wanted a positive scale and 0: round and clip it"):
    build(lambda y: y, {'input': (.1, 0, 16), 'fc': (.1, 3, 16)})
  with pytest.raises(EffjaxError, match="range 'input' has 8 bits, wanted 8 of all, or 16 of all"):
    build(lambda y: y, {'input': (.1, 0, 8), 'fc': (.1, 0, 16)})


def test_a_transposed_convolution_with_dilation_is_refused():
  conv = lambda p, x: jax.lax.conv_transpose(x, p['w'], (2, 2), 'SAME', rhs_dilation=(2, 2))
  x = jnp.ones((1, 4, 4, 2))
  with pytest.raises(EffjaxError, match='wanted a transposed convolution without dilation, groups or other strides'):
    finalize(conv, {'w': jnp.ones((2, 2, 2, 3))}, {'w': Fact(bits=8, scale=jnp.ones((1, 1, 1, 3)))},
             {'input': (.1, 0, 8), 'w': (.1, 0, 8)}, x)


def test_what_is_joined_is_brought_to_one_range(tmp_path):
  ranges = {'input': (.01, 3, 8), 'fc': (.02, -5, 8), 'fc/logistic': (1 / 256, -128, 8), 'fc/logistic/concat': (.02, -5, 8)}
  network = build(lambda y: jnp.concatenate([y, jax.nn.sigmoid(y)], -1), {k: v for k, v in ranges.items() if k != 'fc'})
  assert [node.op for node in network.nodes] == ['dense', 'logistic', 'quantize', 'concat']
  tflite(network, tmp_path / 'model.tflite')
  assert verify(tmp_path / 'model.tflite', network, X).same


def test_mistakes_in_ranges_are_named():
  plain = lambda y: y
  with pytest.raises(EffjaxError, match="no range for tap 'fc': quantize it"):
    build(plain, {'input': RANGES['input']})
  with pytest.raises(EffjaxError, match=r"range 'head' belongs to no tap of the function: choose from \['fc', 'in"):
    build(plain, RANGES | {'head': (.1, 0, 8)})
  with pytest.raises(EffjaxError, match="range 'fc' has 4 bits, wanted 8"):
    build(plain, RANGES | {'fc': (.1, 0, 4)})
  for bad in ((.1, 3.5, 8), (0., 0, 8), (.1, 200, 8), (float('nan'), 0, 8)):
    with pytest.raises(EffjaxError, match="range 'fc' has scale .* wanted a positive scale and an integer"):
      build(plain, RANGES | {'fc': bad})
  with pytest.raises(EffjaxError, match="'fc': input scale .* output scale is between .* widen its range"):
    build(plain, RANGES | {'fc': (1e-6, 0, 8)})


def test_mistakes_in_weights_are_named():
  plain = lambda y: y
  with pytest.raises(EffjaxError, match="its kernel 'fc/kernel' has no fact"):
    build(plain, facts={})
  with pytest.raises(EffjaxError, match="'fc/kernel' is not codes times scale .* pass the weights as deployed"):
    build(plain, weights={'fc': {'kernel': WEIGHTS['fc']['kernel'] + np.float32(.003)}})
  with pytest.raises(EffjaxError, match="'fc/kernel' has codes up to 7 for 3 bits"):
    build(plain, facts={'fc/kernel': Fact(bits=3, scale=SCALE)})
  facts = {'fc/kernel': Fact(bits=4, scale=np.ones((4, 3), np.float32) * np.float32([[.1], [.1], [.2], [.1]]))}
  with pytest.raises(EffjaxError, match='varies within an output channel'):
    build(plain, facts=facts, weights={'fc': {'kernel': CODES * facts['fc/kernel'].scale}})


def test_an_output_without_the_input_is_refused():
  with pytest.raises(EffjaxError, match='an output does not depend on the input'):
    build(lambda y: (y, jnp.ones(3)))


def test_a_constant_that_widens_the_other_operand_stays_as_wide(tmp_path):
  ranges = {'input': (.01, 3, 8), 'fc': (.02, -5, 8), 'fc/mean': (.02, -5, 8), 'fc/mean/mul': (.02, -5, 8),
            'fc/mean/constant': (.01, 0, 8)}
  ones = np.ones((1, 3), np.float32)
  network = build(lambda y: y.mean(-1, keepdims=True) * ones, ranges)
  assert network.nodes[-1].output.shape == (1, 3)
  tflite(network, tmp_path / 'model.tflite')
  assert verify(tmp_path / 'model.tflite', network, X).same


def test_two_operands_that_are_both_broadcast(tmp_path):
  wide = lambda y: jnp.broadcast_to(y[:, :, None], (*y.shape, 4))
  tail = lambda y: (wide(y) + wide(jax.nn.relu(y))).reshape(-1, 12)
  fn = lambda p, x: tail(x @ p['fc']['kernel'])
  network = build(tail, dict.fromkeys({tap.range for tap in taps(fn, WEIGHTS, X)}, (.02, -5, 8)))
  tflite(network, tmp_path / 'model.tflite')
  assert verify(tmp_path / 'model.tflite', network, X).same
