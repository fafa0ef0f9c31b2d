"""The file is the network: every code of every tensor, for the networks that people put on devices."""
import importlib.util
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.export import finalize, litert, simulate, tflite, verify
from effjax.export.verify import codes_of


def beside(path):
  """A module of the tests, by its path from this folder."""
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, pathlib.Path(__file__).parent / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


NAMES = 'resnet mobilenet_v3 darts_cell unet decoder ds_cnn two_heads channels_first'.split()
OTHERS = '''pre_activation shufflenet_v1 vit efficientnet plain densenet googlenet squeezenet mobilenet_v1 mobilenet_v2 shufflenet_v2 atrous convnext autoencoder
    group_norm'''.split()  # what is new in these is in those above, too


@pytest.mark.parametrize('name', [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_every_code_of_every_tensor(name, given, tmp_path):
  ready = given(name)
  network = ready.network()
  tflite(network, tmp_path / 'model.tflite')
  report = verify(tmp_path / 'model.tflite', network, ready.x, traced=200)
  assert report.examples == 200 and report.audit_problems == () and report.float_tensors == 0
  assert report.same, [row for row in report.tensors if min(row.xnnpack.equal, row.builtin.equal) < 1]


FORMATS = ['mobilenet_v2 4 8', 'autoencoder 2 8', 'resnet 8 16']
MORE = ['darts_cell 3 8', 'unet 8 16', 'googlenet 8 16', 'efficientnet 4 16']


@pytest.mark.parametrize('case', [*FORMATS, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE)])
def test_other_bits_of_weights_and_activations(case, given, tmp_path):
  name, bits, activations = case.split()
  ready = given(name, int(bits), int(activations))
  network = ready.network()
  tflite(network, tmp_path / 'model.tflite')
  report = verify(tmp_path / 'model.tflite', network, ready.x[:64])
  assert report.same, [row for row in report.tensors if min(row.xnnpack.equal, row.builtin.equal) < 1]
  assert {tensor.bits for tensor in network.tensors} == {int(activations)}


def test_a_relu_that_is_silent_on_the_examples_leaves_as_it_is(tmp_path):
  scales = jax.numpy.asarray([[300., .01, 3.]])  # as of BatchNorm with a small variance
  params = {'a': np.eye(3, dtype=np.float32), 'b': np.ones((3, 2), np.float32)}
  fn = lambda p, x: x @ p['b'] + jax.nn.relu(x @ p['a'] * scales - 1000) @ p['b']
  x = jax.random.uniform(jax.random.key(0), (64, 3))
  aware = quantize.aware(fn, params, x)
  fixed = quantize.deployed(aware, aware.reparam.init(jax.random.key(0), aware.params))
  network = finalize(fn, fixed.weights, fixed.facts, fixed.ranges, x)
  tflite(network, tmp_path / 'model.tflite')
  assert verify(tmp_path / 'model.tflite', network, x).same


def test_two_bits_four_to_a_byte(given, tmp_path):
  ready = given('autoencoder', 2)
  network = ready.network()
  sizes = [tflite(network, tmp_path / f'{int2}.tflite', int2=int2) for int2 in (False, True)]
  assert sizes[1] < sizes[0]
  assert verify(tmp_path / 'True.tflite', network, ready.x[:64]).same
  with pytest.raises(EffjaxError, match='tflite: int2=True, but no dense layer has 2 bits'):
    tflite(given('autoencoder').network(), tmp_path / 'none.tflite', int2=True)
  assert not (tmp_path / 'none.tflite').exists()


@pytest.mark.parametrize('name', [pytest.param('vit', marks=pytest.mark.slow), 'two_heads', 'unet', 'shufflenet_v1'])
def test_a_fixed_batch_and_names_of_the_signature(name, given, tmp_path):
  ready = given(name)
  network = ready.network()
  outputs = ['a', 'b', 'c'][:len(network.outputs)]
  tflite(network, tmp_path / 'model.tflite', batch=4, inputs=['image'], outputs=outputs)
  content = (tmp_path / 'model.tflite').read_bytes()
  codes = codes_of(network, (ready.x[:4],))
  expected = jax.jit(lambda x: simulate(network, x, kernels='builtin', codes=True))(ready.x[:4])
  interpreter = litert.Interpreter(content, xnnpack=False)
  for wanted, got in zip(expected if isinstance(expected, tuple) else (expected,), interpreter.run(*codes), strict=True):
    np.testing.assert_array_equal(wanted, got)
  assert [d['name'] for d in (*interpreter.inputs, *interpreter.outputs)] == ['image', *outputs]
  with pytest.raises(EffjaxError, match='tflite: 2 names for 1 inputs: give 1'):
    tflite(network, tmp_path / 'model.tflite', inputs=['x', 'y'])


@pytest.mark.parametrize(('function', 'message'), [
    (nn.hard_swish, 'hard_swish has no kernel for 16-bit activations: use 8 bits'),
    (nn.log_softmax, 'log_softmax has no kernel for 16-bit activations')])
def test_what_has_no_kernel_of_16_bits_is_refused(function, message, ready):
  with pytest.raises(EffjaxError, match=message):
    ready(nn.Sequential([nn.Dense(5), function, nn.Dense(5)]), size=1, activations=16).network()


RECIPES = {  # drawn by the generator of the graph's tests; others have operators without integer kernels
    4: [('group_norm', 0, 0, 6), ('strided', 1, 4, 2), ('flatten', 2, 3, 8), ('flatten', 0, 2, 0),
        ('pointwise', 2, 4, 10), ('elu', 1, 1, 3)],
    5: [('project_and_add', 1, 1, 11), ('conv', 0, 4, 2), ('transposed', 1, 2, 9), ('interleave', 0, 1, 6),
        ('along_tokens', 1, 0, 1), ('dense', 0, 1, 0)],
    8: [('dense', 2, 1, 1), ('relu6', 1, 2, 11), ('outer', 2, 0, 7), ('valid', 2, 4, 3), ('over_channels', 2, 2, 0),
        ('layer_norm', 1, 1, 9)]}


@pytest.mark.parametrize('number', [4, 5, pytest.param(8, marks=pytest.mark.slow)])  # the decoder has products and norms, too
def test_random_networks(number, tmp_path):
  generator = beside('../graph/generator.py')
  generator.BATCH = 1
  x = np.random.default_rng(number).normal(size=(200, *generator.TOKENS, 3)).astype(np.float32)
  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    fn, params, _ = generator.network(RECIPES[number], 'float32', number)
    found = quantize.aware(fn, params, x[:1])
    slots = jax.jit(found.reparam.init)(jax.random.key(0), found.params)
    network = finalize(fn, *quantize.deployed(found, slots), x[:1])
    tflite(network, tmp_path / 'model.tflite')
    assert verify(tmp_path / 'model.tflite', network, x, traced=200).same
