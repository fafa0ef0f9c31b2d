"""The known faults of litert-converter and LiteRT, pinned: where one of these fails, an upgrade has mended something.

`effjax.export` routes around each of them or refuses; what it does about them is tested elsewhere.
"""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from effjax.errors import EffjaxError
from effjax.export import flatbuffer, litert, tensors
from effjax.export.write import packed

RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(-1, 1, (1, 8, 8, 4)).astype(np.float32)


def converted(fn, x=X, **options):
  spec = jax.ShapeDtypeStruct(x.shape, x.dtype)
  vhlo = bytes(export.export(jax.jit(fn), platforms=['cpu'])(spec).mlir_module_serialized)
  return litert.convert(vhlo, ['x'], ['y'], quantized=options.pop('quantized', False), **options)


def outputs(content, x=X, xnnpack=True):
  return litert.Interpreter(content, xnnpack=xnnpack).run(x)[0]


def operators(content):
  model = flatbuffer.read(content)
  return [flatbuffer.operator_name(model, operator) for operator in model.subgraphs[0].operators]


def fake_quant(x, scale, zero=0, bits=8, axis=None, zero_type=np.int64):
  scale = np.atleast_1d(np.float32(scale))
  attributes = {'scale': scale, 'zero_point': np.full(scale.shape, zero, zero_type), 'dtype': f'i{bits}',
                'narrow_range': axis is not None} | ({} if axis is None else {'quantization_dimension': axis})
  return jax.lax.composite(lambda x, **_: x + jnp.zeros_like(x), name='quant.fake_quant')(x, **attributes)


def conv(x, w):
  return jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def test_a_transposed_convolution_with_an_odd_kernel_comes_out_too_large():
  w = np.ones((3, 3, 4, 4), np.float32)
  content = converted(lambda x: jax.lax.conv_transpose(x, w, (2, 2), 'SAME'))
  assert outputs(content).shape == (1, 18, 18, 4)  # wanted 16
  with pytest.raises(EffjaxError, match='computed_input_height'):
    outputs(content, xnnpack=False)


def test_a_kernel_with_codes_that_is_multiplied_by_zero_crashes():
  gain = np.float32([1, 0, 2, 1])
  w = np.full((3, 3, 4, 4), .1, np.float32)
  fn = lambda x: conv(x, fake_quant(jnp.asarray(w), np.full(4, .1), axis=3)) * gain[None, None, None]
  with pytest.raises(litert.ConverterCrash, match=r'litert-converter crashed \(signal 11\)'):
    converted(fn, quantized=True, isolated=True)


@pytest.mark.parametrize(('zero_type', 'found'), [(np.int64, 10), (np.float32, 0)])
def test_a_zero_point_of_floats_is_read_as_zero(zero_type, found):
  content = converted(lambda x: fake_quant(jax.nn.relu(fake_quant(x, .01, 0)), .01, 10, zero_type=zero_type),
                      quantized=True)
  model = flatbuffer.read(content)
  points = {int(q[1][0]) for t in model.subgraphs[0].tensors if (q := flatbuffer.quantization(t)) is not None}
  assert points == {0, found}


def test_of_two_fake_quants_after_a_kernel_the_first_is_dropped():
  w, coarse, fine = RANDOM.integers(-9, 10, (3, 3, 4, 4)).astype(np.float32), 8., .5
  kernel = lambda x: conv(x, fake_quant(jnp.asarray(w), np.ones(4), axis=3))
  content = converted(lambda x: fake_quant(fake_quant(kernel(fake_quant(x, .01)), coarse), fine), quantized=True)
  y = np.asarray(conv(X, w))
  got, wanted = outputs(content), np.round(y / coarse) * coarse
  assert np.abs(got - wanted).max() > 3 and np.abs(got - y).max() < 1.5


def test_a_concatenation_takes_one_scale_for_all_its_inputs():
  small, large = .001, .01  # both hold their part; the file has one of the two for both

  def fn(x):
    a, b = fake_quant(jax.nn.relu(x * .1), small, -128), fake_quant(jax.nn.relu(x), large, -128)
    return jnp.concatenate([a, b], -1)

  got = outputs(converted(lambda x: fn(fake_quant(x, .01, 0)), quantized=True))
  wanted = np.concatenate([np.maximum(X * .1, 0), np.maximum(X, 0)], -1)
  assert np.abs(got - wanted).max() > .3


def test_a_dynamic_convolution_of_int2_gives_nan_or_garbage():
  w = RANDOM.integers(-1, 2, (3, 3, 4, 4)).astype(np.float32)
  model = flatbuffer.read(converted(lambda x: conv(x, fake_quant(jnp.asarray(w), np.ones(4), axis=3)), quantized=True))
  graph = model.subgraphs[0]
  read, wide = graph.operators
  wide.inputs[1] = read.inputs[0]
  weight = graph.tensors[read.inputs[0]]
  tensors.store(model, weight, packed(tensors.codes(model, weight), 2), 'INT2')
  graph.operators = [wide]
  got, wanted = outputs(flatbuffer.write(model)), np.asarray(conv(X, w))
  assert not np.abs(got - wanted).max() < 1


def test_a_dynamic_depthwise_convolution_of_int4_is_not_there():
  w = RANDOM.integers(-7, 8, (3, 3, 1, 4)).astype(np.float32)
  depthwise = lambda x: jax.lax.conv_general_dilated(x, fake_quant(jnp.asarray(w), np.ones(4), bits=4, axis=3), (1, 1),
                                                     'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
                                                     feature_group_count=4)
  model = flatbuffer.read(converted(depthwise, quantized=True))
  read, wide = model.subgraphs[0].operators
  wide.inputs[1] = read.inputs[0]
  model.subgraphs[0].operators = [wide]
  with pytest.raises(EffjaxError, match='FLOAT32 with filter type INT4 not currently supported'):
    outputs(flatbuffer.write(model))


@pytest.mark.parametrize('fn', [jnp.sort, lambda x: jax.lax.top_k(x, 2)[0]], ids=['sort', 'top_k'])
def test_a_sort_has_no_kernel(fn):
  with pytest.raises(EffjaxError, match="Didn't find op for builtin opcode 'STABLEHLO_SORT'"):
    outputs(converted(fn))


def test_a_scan_cannot_be_exported():
  with pytest.raises(EffjaxError, match='Failed to export flatbuffer'):
    converted(lambda x: jax.lax.scan(lambda carry, _: (carry * 2, None), x, length=3)[0])


def test_a_product_in_bfloat16_cannot_be_converted():
  w = jnp.ones((4, 4), jnp.bfloat16)
  with pytest.raises(EffjaxError, match="failed to legalize operation 'tfl.batch_matmul'"):
    converted(lambda x: x.astype(jnp.bfloat16) @ w)


def test_an_average_that_counts_its_padding_is_no_pool():
  total = lambda x: jax.lax.reduce_window(x, np.float32(0), jax.lax.add, (1, 3, 3, 1), (1, 2, 2, 1), 'SAME')
  content = converted(lambda x: total(x) / np.float32(9))
  assert 'STABLEHLO_REDUCE_WINDOW' in operators(content) and len(flatbuffer.read(content).subgraphs) == 2
