"""Weights of torchvision, timm and Keras: layouts and errors on small ones, whole networks by the other's logits."""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from effjax import models, tree
from effjax.errors import EffjaxError
from effjax.layers.block import round_channels
from effjax.models.import_names import NAMES

HERE = pathlib.Path(__file__).parent
SHAPES = json.loads((HERE / 'foreign_weights.json').read_text())
PYTHON = os.environ.get('EFFJAX_WEIGHTS_PYTHON', '')
SIZES = {'vgg16': 224, 'vgg16_bn': 224, 'xception': 96}  # of images; else 64
# Their name by ours.
NETWORKS = {
    'torchvision': {
        'densenet121': 'densenet121', 'efficientnet_b0': 'efficientnet_b0', 'mobilenet_v2': 'mobilenet_v2',
        'mobilenet_v3_large': 'mobilenet_v3_large', 'mobilenet_v3_small': 'mobilenet_v3_small', 'resnet18': 'resnet18',
        'resnet50': 'resnet50', 'shufflenet_v2_x1_0': 'shufflenet_v2_x1_0', 'vgg16': 'vgg16', 'vgg16_bn': 'vgg16_bn'},
    'timm': {
        'densenet121': 'densenet121', 'efficientnet_b0': 'efficientnet_b0', 'mobilenet_v1': 'mobilenetv1_100',
        'mobilenet_v2': 'mobilenetv2_100', 'mobilenet_v3_large': 'mobilenetv3_large_100',
        'mobilenet_v3_small': 'mobilenetv3_small_100', 'resnet18': 'resnet18', 'resnet50': 'resnet50', 'vgg16': 'vgg16',
        'vgg16_bn': 'vgg16_bn', 'xception': 'legacy_xception'},
    'keras': {
        'densenet121': 'DenseNet121', 'efficientnet_b0': 'EfficientNetB0', 'mobilenet_v1': 'MobileNet',
        'mobilenet_v2': 'MobileNetV2', 'mobilenet_v3_large': 'MobileNetV3Large', 'mobilenet_v3_small': 'MobileNetV3Small',
        'resnet50_v1': 'ResNet50', 'vgg16': 'VGG16', 'xception': 'Xception'}}


def drawn(shapes, divisor=1):
  """Random arrays of these shapes, with so many times fewer channels."""
  rng, less = np.random.default_rng(0), lambda n: round_channels(n / divisor) if n >= 32 else n
  return {name: rng.normal(size=[less(n) for n in shape]).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope='module')
def resnet():
  return drawn(SHAPES['torchvision/resnet18'], 8)


def of_resnet(state, **options):
  return models.import_weights('resnet18', state, 'torchvision', width=.125, **options)


def test_layouts_of_torch(resnet):
  net, variables = of_resnet(resnet)
  assert (net.num_classes, net.padding, net.epsilon) == (10, 'symmetric', 1e-5)
  params, stats = variables['params'], variables['batch_stats']
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
  theirs = resnet['layer2.0.conv1.weight']
  ours = params['stage2_block1']['conv1']['conv']['kernel']
  assert theirs.shape == (16, 8, 3, 3) and ours.shape == (3, 3, 8, 16) and ours[1, 2, 3, 4] == theirs[4, 3, 1, 2]
  np.testing.assert_array_equal(params['classifier']['kernel'], resnet['fc.weight'].T)
  np.testing.assert_array_equal(params['classifier']['bias'], resnet['fc.bias'])
  theirs = {'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
  ours = {**params['stage2_block1']['shortcut']['bn'], **stats['stage2_block1']['shortcut']['bn']}
  for leaf, name in theirs.items():
    np.testing.assert_array_equal(ours[leaf], resnet[f'layer2.0.downsample.1.{name}'])
  assert len(jax.tree.leaves(variables)) == len([name for name in resnet if 'num_batches' not in name])


def test_files_and_other_types(resnet, tmp_path):
  np.savez(tmp_path / 'a.npz', **resnet)
  safetensors.numpy.save_file(resnet, tmp_path / 'a.safetensors')
  half = {name: value.astype(np.float16) for name, value in resnet.items()}
  _, wanted = of_resnet(resnet)
  for state in (tmp_path / 'a.npz', str(tmp_path / 'a.safetensors')):
    jax.tree.map(np.testing.assert_array_equal, of_resnet(state)[1], wanted)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), of_resnet(half)[1], wanted)


def test_layouts_of_keras_and_layers_that_it_numbers():
  state = drawn(SHAPES['keras/Xception'], 8)
  net, variables = models.import_weights('xception', state, 'keras', width=.125)
  assert (net.num_classes, net.padding, net.epsilon) == (10, 'SAME', 1e-3)
  params = variables['params']
  depthwise, theirs = params['entry2_conv1']['depthwise']['conv']['kernel'], state['block3_sepconv1/depthwise_kernel']
  assert depthwise.shape == (3, 3, 1, 16) and theirs.shape == (3, 3, 16, 1)
  assert depthwise[1, 2, 0, 5] == theirs[1, 2, 5, 0]
  np.testing.assert_array_equal(params['exit_shortcut']['conv']['kernel'], state['conv2d_3/kernel'])
  state['normalization/mean'] = np.zeros(3, np.float32)
  later = lambda name: name.replace('conv2d_', 'conv2d_1').replace('conv2d/', 'conv2d_9/')
  _, again = models.import_weights('xception', {later(name) + ':0': value for name, value in state.items()}, 'keras',
                                   width=.125)
  jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_a_dense_layer_that_flattens():
  """Torch flattens [c, h, w], here [h, w, c] is flattened; timm has a 7x7 convolution in its place."""
  places, widths = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (8,) * 4 + (16,) * 3 + (32,) * 6
  convs = {f'features.{at}': (*pair, 3, 3) for at, pair in zip(places, zip(widths, (3, *widths)))}
  dense = {'classifier.0': (256, 32 * 7 * 7), 'classifier.3': (256, 256), 'classifier.6': (10, 256)}
  layers = {**convs, **dense}
  state = drawn({f'{name}.weight': shape for name, shape in layers.items()}
                | {f'{name}.bias': shape[:1] for name, shape in layers.items()})
  _, variables = models.import_weights('vgg16', state, 'torchvision', width=1 / 16)
  x = np.random.default_rng(1).normal(size=(7, 7, 32))
  ours = x.reshape(-1) @ np.asarray(variables['params']['hidden1']['kernel'], np.float64)
  theirs = state['classifier.0.weight'].astype(np.float64) @ x.transpose(2, 0, 1).reshape(-1)
  np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
  renamed = {'classifier.0': 'pre_logits.fc1', 'classifier.3': 'pre_logits.fc2', 'classifier.6': 'head.fc'}
  rename = lambda name: renamed.get(name.rpartition('.')[0], name.rpartition('.')[0]) + '.' + name.rpartition('.')[2]
  of_timm = {rename(name): value for name, value in state.items()}
  of_timm['pre_logits.fc1.weight'] = of_timm['pre_logits.fc1.weight'].reshape(256, 32, 7, 7)
  of_timm['pre_logits.fc2.weight'] = of_timm['pre_logits.fc2.weight'][..., None, None]
  _, again = models.import_weights('vgg16', of_timm, 'timm', width=1 / 16)
  jax.tree.map(np.testing.assert_array_equal, again, variables)


def small_keras_resnet():
  convs, cin = {'conv1': (7, 7, 3, 8)}, 8
  for stage, c in enumerate((8, 16, 32, 64), 2):
    for i, shape in enumerate(((1, 1, cin, 4 * c), (1, 1, cin, c), (3, 3, c, c), (1, 1, c, 4 * c))):
      convs[f'conv{stage}_block1_{i}'] = shape
    cin = 4 * c
  shapes = {'predictions/kernel': (cin, 10), 'predictions/bias': (10,)}
  for name, shape in convs.items():
    shapes |= {f'{name}_conv/kernel': shape, f'{name}_conv/bias': shape[3:]}
    shapes |= {f'{name}_bn/{leaf}': shape[3:] for leaf in ('gamma', 'beta', 'moving_mean', 'moving_variance')}
  state = drawn(shapes)
  return {name: np.abs(value) + .5 if name.endswith('variance') else value for name, value in state.items()}


def test_biases_before_batch_norm_go_into_its_mean():
  state = small_keras_resnet()
  load = lambda **options: models.import_weights('resnet50_v1', state, 'keras', width=.125, depths=(1, 1, 1, 1),
                                                 **options)
  net, variables = load()
  assert (net.reduce_strides, net.epsilon) == (True, 1.001e-5)
  np.testing.assert_array_equal(variables['batch_stats']['stage3_block1']['reduce']['bn']['mean'],
                                state['conv4_block1_1_bn/moving_mean'] - state['conv4_block1_1_conv/bias'])
  kept, with_biases = load(bias=True)
  assert any(path.endswith('conv/bias') for path in tree.leaves(with_biases))
  assert not any(path.endswith('conv/bias') for path in tree.leaves(variables))
  x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 32, 32, 3)), jnp.float32)
  out, wanted = net.apply(variables, x, False), kept.apply(with_biases, x, False)
  np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_states_that_do_not_fit(resnet):
  without = {name: value for name, value in resnet.items() if name != 'layer3.1.bn2.running_var'}
  with pytest.raises(EffjaxError, match=r"there is no array 'layer3.1.bn2.running_var' for 'batch_stats/stage3_block2/conv2/"
                                        r"bn/var', the nearest are \['layer.*: give the weights of that network"):
    of_resnet(without)
  with pytest.raises(EffjaxError, match=r"2 arrays have no place in 'resnet18' of torchvision, such as \['aux.bias', 'aux"
                                        r".weight'\]: give the weights of that network, or take them out"):
    of_resnet({**resnet, 'aux.weight': resnet['fc.weight'], 'aux.bias': resnet['fc.bias']})
  with pytest.raises(EffjaxError, match=r"'conv1.weight' has shape \(6, 7, 3, 8\) in our layout, 'params/stem/conv/kernel' "
                                        r"wants \(7, 7, 3, 8\): give the weights of that network, or its width"):
    of_resnet({**resnet, 'conv1.weight': resnet['conv1.weight'][:, :, :6]})


def test_unknown_networks_and_sources(resnet):
  with pytest.raises(EffjaxError, match=r"no names of layers are known for 'alexnet': known are those of \['DenseNet', "):
    models.import_weights('alexnet', resnet, 'torchvision')
  with pytest.raises(EffjaxError, match=r"'resnet18' of source 'torch' is not known: choose one of \['keras', 'timm', 'to"):
    models.import_weights('resnet18', resnet, 'torch')
  with pytest.raises(EffjaxError, match=r"no name is known for our layer 'stage1_block1/conv1': this source has no such network"):
    models.import_weights('resnet18', {'predictions/bias': resnet['fc.bias']}, 'keras')


@pytest.mark.parametrize('name', ['no.npz', 'text.npz', 'text.safetensors', 'text.pth'])
def test_files_that_cannot_be_read(name, tmp_path):
  if name != 'no.npz':
    (tmp_path / name).write_text('no weights')
  with pytest.raises(EffjaxError, match=rf'import_weights: cannot read .*{name} as .npz or .safetensors: .*'):
    of_resnet(tmp_path / name)


def test_safetensors_is_not_installed(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'safetensors.numpy', None)
  with pytest.raises(EffjaxError, match=r"import_weights: .*safetensors needs safetensors: pip install 'effjax\[weights\]'"):
    of_resnet(tmp_path / 'a.safetensors')


def test_every_source_of_every_family_is_compared():
  families = lambda names: {name if name in NAMES else type(models.create(name)).__name__ for name in names}
  for source, networks in NETWORKS.items():
    assert families(networks) == {family for family, sources in NAMES.items() if source in sources}


@pytest.fixture(scope='module', params=NETWORKS)
def source(request, tmp_path_factory):
  """A source, and the folder in which its Python has written weights and logits."""
  if not PYTHON:
    pytest.skip('no other libraries: set EFFJAX_WEIGHTS_PYTHON to a Python that has them (BUILD.md says how to make one) '
                'and run pytest -m slow tests/models/import_weights_test.py')
  folder = tmp_path_factory.mktemp(request.param)
  wanted = [f'{theirs}:{SIZES.get(ours, 64)}' for ours, theirs in NETWORKS[request.param].items()]
  subprocess.run([PYTHON, HERE / 'foreign_weights.py', request.param, folder, *wanted], check=True)
  yield request.param, folder
  shutil.rmtree(folder)  # hundreds of megabytes


@pytest.mark.slow
def test_logits_are_those_of_the_source(source):
  source, folder = source
  for ours, theirs in NETWORKS[source].items():
    file = folder / f'{theirs}.{"npz" if source == "keras" else "safetensors"}'
    net, variables = models.import_weights(ours, file, source)
    with np.load(folder / f'{theirs}.io.npz') as io:
      images, wanted = jnp.asarray(io['images']), io['logits']
    logits = jax.jit(lambda variables, x, net=net: net.apply(variables, x, False))(variables, images)
    error, images_apart = np.abs(logits - wanted).max(), np.abs(wanted[0] - wanted[1]).max()
    assert error <= 1e-4 * np.abs(wanted).max() and error <= .01 * images_apart, (ours, theirs, error)
    assert SHAPES.get(f'{source}/{theirs}') in (None, json.loads((folder / f'{theirs}.json').read_text()))
