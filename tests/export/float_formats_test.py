import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.export import flatbuffer, float_check, float_codes, float_formats, litert, tensors
from effjax.export.float_formats import float_tflite
from effjax.graph.trace import evaluate
from effjax.reparam import Fact

RANDOM = np.random.default_rng(0)


class File:
  """A written file: its operators, its constants by type, its interpreter."""

  def __init__(self, path):
    self.content = path.read_bytes()
    self.model = flatbuffer.read(self.content)
    graph = self.model.subgraphs[0]
    self.operators = [flatbuffer.operator_name(self.model, operator) for operator in graph.operators]
    self.constants = [t for t in graph.tensors if tensors.content(self.model, t) is not None]

  def kinds(self):
    return {tensors.kind(t) for t in self.constants}

  def codes(self):
    """(codes, scales) of the integer constants."""
    return [(tensors.codes(self.model, t), flatbuffer.quantization(t)[0]) for t in self.constants
            if flatbuffer.quantization(t) is not None]

  def run(self, *inputs, xnnpack=True):
    return litert.Interpreter(self.content, xnnpack=xnnpack).run(*inputs)


@pytest.fixture
def export(tmp_path):
  """`export(fn, params, x, ...)` -> the File."""
  def make(*args, **options):
    path = tmp_path / 'model.tflite'
    assert float_tflite(*args, path, **options) == path.stat().st_size
    return File(path)
  return make


def dense(bits, cin=12, cout=7):
  """y = relu(x (codes scales) + b): (fn, params, facts, codes, scales)."""
  top = 2 ** (bits - 1) - 1
  codes, scales = RANDOM.integers(-top, top + 1, (cin, cout)), RANDOM.uniform(.01, .1, (1, cout)).astype(np.float32)
  params = {'w': codes.astype(np.float32) * scales, 'b': RANDOM.normal(size=(cout,)).astype(np.float32)}
  fn = lambda p, x: jax.nn.relu(x @ p['w'] + p['b'][None])
  return fn, params, {'w': Fact(bits=jnp.float32(bits), scale=jnp.asarray(scales))}, codes, scales


@pytest.mark.parametrize('xnnpack', [True, False])
@pytest.mark.parametrize('bits', [2, 4, 5, 8])
def test_weight_only_holds_the_trained_codes_and_scales(export, bits, xnnpack):
  fn, params, facts, codes, scales = dense(bits)
  file, x = export(fn, params, jnp.ones((1, 12)), weights='weight_only', facts=facts), RANDOM.normal(size=(1, 12))
  (stored, found), = file.codes()
  np.testing.assert_array_equal(stored, codes.T)
  np.testing.assert_array_equal(found, scales[0])
  assert file.operators == ['DEQUANTIZE', 'FULLY_CONNECTED'] and file.kinds() == {
      'FLOAT32', 'INT4' if bits <= 4 else 'INT8'}
  wanted = np.maximum(x @ (codes * np.float64(scales)) + params['b'], 0)
  np.testing.assert_allclose(file.run(x.astype(np.float32), xnnpack=xnnpack)[0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('xnnpack', [True, False])
@pytest.mark.parametrize('bits', [3, 8])
def test_dynamic_quantizes_the_input_alone(export, bits, xnnpack):
  fn, params, facts, codes, scales = dense(bits)
  file, x = export(fn, params, jnp.ones((1, 12)), weights='dynamic', facts=facts), RANDOM.normal(size=(1, 12))
  (stored, found), = file.codes()
  np.testing.assert_array_equal(stored, codes.T)
  assert file.operators == ['FULLY_CONNECTED']
  w = codes * np.float64(scales)
  step = (max(x.max(), 0) - min(x.min(), 0)) / 255  # of the 256 values that the runtime gives the input
  bound = np.abs(w).sum(0) * step
  got = file.run(x.astype(np.float32), xnnpack=xnnpack)[0]
  assert (np.abs(got - np.maximum(x @ w + params['b'], 0)) < bound).all()


def test_every_format_is_the_network(ready, some, export):
  given = ready(some, bits=lambda path: 8 if 'Dense' in path else 4)
  x = np.asarray(given.x[1:4])
  wanted = np.asarray(jax.jit(given.fn)(given.weights, x))
  for weights, tolerance in {'float32': 1e-5, 'weight_only': 1e-5, 'float16': 5e-3, 'dynamic': .1}.items():
    file = export(given.fn, given.weights, given.x, weights=weights,
                  facts=given.facts if weights in float_formats.WITH_CODES else None)
    for xnnpack in (True, False):
      got = np.concatenate([file.run(each[None], xnnpack=xnnpack)[0] for each in x])
      assert np.abs(got - wanted).max() < tolerance * np.abs(wanted).max()
    kinds = {'float32': {'FLOAT32'}, 'float16': {'FLOAT16'}}.get(weights, {'INT4', 'INT8'})
    assert kinds <= file.kinds() and 'INT2' not in file.kinds()
    assert ('DEQUANTIZE' in file.operators) == (weights in ('float16', 'weight_only'))


def conv(x, w, groups=1, dilation=1, layout=('NHWC', 'HWIO', 'NHWC')):
  return jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', rhs_dilation=(dilation,) * 2, dimension_numbers=layout,
                                      feature_group_count=groups)


def kernel(*shape, bits=8):
  """(values, Fact, codes, scales) of a kernel with a scale for each entry of its last axis."""
  top = 2 ** (bits - 1) - 1
  codes = RANDOM.integers(-top, top + 1, shape)
  scales = RANDOM.uniform(.01, .1, (*(1,) * (len(shape) - 1), shape[-1])).astype(np.float32)
  return codes.astype(np.float32) * scales, Fact(bits=bits, scale=scales), codes, scales.ravel()


GAIN = np.float32([1.5, -2, .5, -.25, 1, 1, -1, 3])


@pytest.mark.parametrize('weights', ['weight_only', 'dynamic'])
@pytest.mark.parametrize('bits', [4, 8])
@pytest.mark.parametrize('groups', [1, 2, 4], ids=['conv', 'grouped', 'depthwise'])
def test_a_gain_after_a_kernel_goes_into_its_scales(export, weights, bits, groups):
  w, fact, codes, scales = kernel(3, 3, 4 // groups, 8, bits=bits)
  fn = lambda p, x: jax.nn.relu((conv(x, p['w'], groups, dilation=2) + 1.) * GAIN[None, None, None])
  file = export(fn, {'w': w}, jnp.ones((1, 6, 6, 4)), weights=weights, facts={'w': fact})
  (stored, found), = file.codes()
  layout = (2, 0, 1, 3) if groups == 4 else (3, 0, 1, 2)
  signs = np.sign(GAIN).reshape((1, 1, 1, -1) if groups == 4 else (-1, 1, 1, 1))
  np.testing.assert_array_equal(stored, codes.transpose(layout) * signs)
  np.testing.assert_allclose(found, scales * np.abs(GAIN), rtol=1e-6)
  wide = bits == 8 or (weights == 'dynamic' and groups == 4)  # a depthwise kernel of 4 bits is wide
  assert file.kinds() - {'FLOAT32'} == {'INT8' if wide else 'INT4'}
  name = 'DEPTHWISE_CONV_2D' if groups == 4 else 'CONV_2D'
  assert file.operators == (['DEQUANTIZE'] if weights == 'weight_only' or groups == 4 else []) + [name]


@pytest.mark.parametrize('weights', ['weight_only', 'dynamic'])
def test_a_gain_of_zero_that_crashes_the_converter_is_routed_around(export, weights):
  w, fact, codes, _ = kernel(3, 3, 4, 8)
  gain = GAIN * (np.arange(8) % 3 > 0)
  fn = lambda p, x: conv(x, p['w']) * p['gain'][None, None, None] + 1.
  file, x = export(fn, {'w': w, 'gain': gain}, jnp.ones((1, 6, 6, 4)), weights=weights, facts={'w': fact}), np.float32(
      RANDOM.normal(size=(1, 6, 6, 4)))
  np.testing.assert_array_equal(np.abs(file.codes()[0][0]), np.abs(codes.transpose(3, 0, 1, 2)))
  assert (file.run(x)[0][..., gain == 0] == 1).all()


def test_a_kernel_that_is_moved_on_its_way_is_stored_moved(export):
  """The weights of attention: [d, heads, k], with a scale for each k, are read as [heads k, d]."""
  w, fact, codes, scales = kernel(6, 2, 4)
  fn = lambda p, x: jnp.einsum('ntd,dhk->nthk', x, p['w'])
  file = export(fn, {'w': w}, jnp.ones((1, 5, 6)), weights='dynamic', facts={'w': fact})
  (stored, found), = file.codes()
  np.testing.assert_array_equal(stored, codes.reshape(6, 8).T)
  np.testing.assert_array_equal(found, np.tile(scales, 2))
  assert 'FULLY_CONNECTED' in file.operators and not {'DEQUANTIZE', 'TRANSPOSE'} & set(file.operators)


def test_what_has_no_dynamic_kernel_stays_weight_only(export):
  w, fact, codes, _ = kernel(2, 2, 3, 5)
  fn = lambda p, x: jax.lax.conv_transpose(x, p['w'], (2, 2), 'SAME')
  file = export(fn, {'w': w}, jnp.ones((1, 4, 4, 3)), weights='dynamic', facts={'w': fact})
  np.testing.assert_array_equal(file.codes()[0][0], codes[::-1, ::-1].transpose(3, 0, 1, 2))
  assert file.operators == ['DEQUANTIZE', 'TRANSPOSE_CONV']


@pytest.mark.parametrize(('shape', 'left'), [((), 0), ((1, 1, 1, 8), 0), ((1, 1, 4, 1), 1)])
def test_a_kernel_reads_codes_whose_scales_are_those_of_its_outputs(export, shape, left):
  """One scale for all is repeated; a kernel with scales for its inputs stays behind its DEQUANTIZE."""
  codes, scales = RANDOM.integers(-127, 128, (3, 3, 4, 8)), RANDOM.uniform(.01, .1, shape).astype(np.float32)
  file = export(lambda p, x: conv(x, p), np.float32(codes) * scales, jnp.ones((1, 4, 4, 4)), weights='dynamic',
                facts={'': Fact(bits=8, scale=scales)})
  (stored, found), = file.codes()
  np.testing.assert_array_equal(stored, codes.transpose(3, 0, 1, 2))
  np.testing.assert_array_equal(found, np.broadcast_to(scales.ravel(), 4 if left else 8))
  assert file.operators.count('DEQUANTIZE') == left


def test_float16_halves_what_it_can_hold(export):
  params = {'w': RANDOM.normal(size=(64, 64)).astype(np.float32), 'mask': np.float32([[0, -1e9] * 32]),
            'gain': np.float32(3.)}
  fn = lambda p, x: jnp.tanh(x @ p['w'] + p['mask']) * p['gain']
  file = export(fn, params, jnp.ones((1, 64)), weights='float16')
  by_kind = {tensors.kind(t): [list(s.shape) for s in file.constants if s.type == t.type] for t in file.constants}
  assert by_kind == {'FLOAT16': [[64, 64]], 'FLOAT32': [[64], []]} or by_kind == {
      'FLOAT16': [[64, 64]], 'FLOAT32': [[], [64]]}
  held = next(t for t in file.constants if tensors.kind(t) == 'FLOAT16')
  np.testing.assert_array_equal(tensors.content(file.model, held).view(np.float16).reshape(64, 64),
                                params['w'].T.astype(np.float16))


def test_the_flow_of_training(export):
  fn = lambda p, x: jax.nn.relu(x @ p['a']['w']) @ p['b']['w']
  drawn = lambda *shape: {'w': jnp.asarray(RANDOM.normal(size=shape), jnp.float32)}
  params = {'a': drawn(6, 5), 'b': drawn(5, 3)}
  x = jnp.asarray(RANDOM.normal(size=(4, 6)), jnp.float32)
  aware = quantize.aware(fn, params, x, bits={'a/w': 4})
  fixed = quantize.deployed(aware, jax.jit(aware.reparam.init)(jax.random.key(0), aware.params))
  file = export(fn, fixed.weights, x, weights='dynamic', facts=fixed.facts)
  assert sorted(np.abs(codes).max() for codes, _ in file.codes()) == [7, 127] and {'INT4', 'INT8'} <= file.kinds()


def test_ends_have_names(export):
  fn = lambda p, x: {'sum': x['a'] + x['b'], 'even': x['ids'] % 2}
  x = {'a': jnp.ones((4, 3)), 'b': jnp.ones((4, 3)), 'ids': jnp.arange(4, dtype=jnp.int32)[:, None],
       'unused': jnp.ones((4, 2))}
  file = export(fn, {}, x)
  signature = file.model.signatureDefs[0]
  assert [end.name.decode() for end in signature.inputs] == ['input', 'input_1', 'input_2', 'input_3']
  assert [end.name.decode() for end in signature.outputs] == ['output', 'output_1']
  named = litert.Interpreter(export(fn, {}, x, inputs=('a', 'b', 'ids', 'no'), outputs=('even', 'sum')).content)
  assert [(d['name'], d['dtype']) for d in named.inputs] == [
      ('a', np.float32), ('b', np.float32), ('ids', np.int32), ('no', np.float32)]
  assert [d['name'] for d in named.outputs] == ['even', 'sum']
  even, total = named.run(np.float32([[1, 2, 3]]), np.float32([[4, 5, 6]]), np.int32([[3]]), np.float32([[0, 0]]))
  assert even.tolist() == [[1]] and total.tolist() == [[5, 7, 9]]


def test_a_table_of_embeddings_takes_integers(export):
  params = {'table': RANDOM.normal(size=(5, 3)).astype(np.float32)}
  file = export(lambda p, ids: p['table'][ids], params, jax.ShapeDtypeStruct((1, 2), jnp.int32))
  np.testing.assert_array_equal(file.run(np.int32([[4, 1]]))[0], params['table'][[[4, 1]]])


def test_a_transposed_convolution_with_an_odd_kernel_is_routed_around(export):
  w, x = RANDOM.normal(size=(3, 3, 2, 4)).astype(np.float32), RANDOM.normal(size=(1, 4, 5, 2)).astype(np.float32)
  fn = lambda p, x: jax.lax.conv_transpose(x, p, (2, 2), 'SAME')
  wanted = np.zeros((9, 11, 4))
  for i in range(4):
    for j in range(5):
      wanted[2 * i:2 * i + 3, 2 * j:2 * j + 3] += np.einsum('c,abcd->abd', x[0, i, j], w[::-1, ::-1].astype(np.float64))
  for xnnpack in (True, False):
    np.testing.assert_allclose(export(fn, w, x).run(x, xnnpack=xnnpack)[0][0], wanted[:8, :10], rtol=1e-4, atol=1e-5)


def test_an_average_that_counts_its_padding_is_a_pool(export):
  def fn(p, x):
    with jax.numpy_dtype_promotion('standard'):  # Flax divides by an integer
      return nn.avg_pool(x, (3, 3), (2, 2), 'SAME')
  assert export(fn, {}, jnp.ones((1, 8, 8, 4))).operators == ['PAD', 'AVERAGE_POOL_2D']


def refused(tmp_path, match, *args, **options):
  with pytest.raises(EffjaxError, match=match):
    float_tflite(*args, tmp_path / 'model.tflite', **options)
  assert list(tmp_path.iterdir()) == []


def test_a_wrong_shape_or_value_is_refused(tmp_path, monkeypatch):
  w, x = np.ones((3, 3, 2, 4), np.float32), jnp.ones((1, 4, 4, 2))
  transpose = lambda p, x: jax.lax.conv_transpose(x, p, (2, 2), 'SAME')
  monkeypatch.setattr(float_formats, 'convertible', evaluate)
  monkeypatch.setattr(float_check, 'litert', OnlyXnnpack)
  refused(tmp_path, r"float_tflite: output 'output' has shape \(1, 10, 10, 4\) in the file, wanted \(1, 8, 8, 4\): the "
          'converter got an operator wrong', transpose, w, x)
  for wrong in (1.01, np.nan):
    monkeypatch.setattr(float_formats, 'convertible', lambda *a, wrong=wrong: [y * wrong for y in evaluate(*a)])
    refused(tmp_path, r"float_tflite: output 'y' of the file differs from that of fn by up to (\d|inf).*, wanted less "
            r'than 0.0001 of its largest entry \d.*: export parts of fn', lambda p, x: x @ p, np.eye(2, dtype=np.float32),
            x, outputs=['y'])


class OnlyXnnpack:
  """Of the two sets of kernels the one that does not see the wrong shape itself."""

  @staticmethod
  def Interpreter(content, xnnpack):
    return litert.Interpreter(content)


def test_what_becomes_no_plain_operator_is_refused(tmp_path):
  refused(tmp_path, r"a part of the function became no plain operator, .*'STABLEHLO_SORT'.*: write sorts, conditions",
          lambda p, x: jnp.sort(x), {}, jnp.ones((1, 8)))


@pytest.mark.parametrize(('options', 'match'), [
    ({'weights': 'int8'}, "float_tflite: weights='int8' is no format: choose from .'float32', 'float16', 'weight_only'"),
    ({'facts': {}}, "float_tflite: facts do nothing with weights='float32': leave them out, or choose from"),
    ({'weights': 'float16', 'facts': {}}, "facts do nothing with weights='float16'"),
    ({'weights': 'dynamic'}, "float_tflite: weights='dynamic' needs facts, .*: quantize.deployed gives them"),
    ({'weights': 'weight_only', 'facts': {'w': Fact(bits=8)}}, "weights='weight_only' needs facts"),
    ({'weights': 'dynamic', 'facts': {'v': Fact(8, np.float32(1))}}, r"facts are given for \['v'\], which params has "
     r"not: choose from \['w'\]"),
    ({'weights': 'dynamic', 'facts': {'w': Fact(3, np.float32(.25))}}, "'w' has codes up to 4 for 3 bits: wanted at most 8"),
    ({'weights': 'dynamic', 'facts': {'w': Fact(8, np.float32(.3))}}, r"'w' is not codes times scale \(largest difference"
     r' 0.1\): pass the weights as deployed'),
    ({'weights': 'dynamic', 'facts': {'w': Fact(8, np.full((2, 2), .5, np.float32))}},
     r"'w' has scales of shape \(2, 2\), wanted them along one axis"),
    ({'inputs': ['a', 'b']}, r"float_tflite: inputs=\('a', 'b'\) for 1 inputs: give 1 different names"),
    ({'outputs': []}, r'float_tflite: outputs=\(\) for 1 outputs: give 1'),
])
def test_each_mistake_has_its_words(tmp_path, options, match):
  refused(tmp_path, match, lambda p, x: x @ p['w'], {'w': np.eye(2, dtype=np.float32)}, jnp.ones((1, 2)), **options)


def test_codes_that_fn_does_not_use_as_they_are(tmp_path):
  params, facts = {'w': np.eye(3, dtype=np.float32)}, {'w': Fact(8, np.float32(.5))}
  refused(tmp_path, r"the file has not the trained codes of \['w'\]: fn computes with other values",
          lambda p, x: x * 2., params, jnp.ones((1, 3)), weights='dynamic', facts=facts)


def test_codes_that_are_those_of_no_leaf(export):
  fn, params, facts, *_ = dense(8)
  file = export(fn, params, jnp.ones((1, 12)), weights='weight_only', facts=facts)
  kernels = float_codes.coded(params, facts)
  float_codes.check(file.model, kernels)
  with pytest.raises(EffjaxError, match='the file has codes that are those of no leaf: the converter rounded anew'):
    float_codes.check(file.model, {})


def test_a_crash_of_the_converter_is_an_error(tmp_path, monkeypatch):
  child = tmp_path / 'child.py'
  child.write_text('import os\nos.abort()\n')
  monkeypatch.setattr(litert.litert_process, '__file__', str(child))
  with pytest.raises(EffjaxError, match=r'litert-converter crashed \(signal 6\)'):
    float_tflite(lambda p, x: x * 2., {}, jnp.ones((1, 3)), tmp_path / 'model.tflite', isolated=True)
  assert [path.name for path in tmp_path.iterdir()] == ['child.py']
