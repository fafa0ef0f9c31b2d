"""Every model of the zoo: channels counted by hand, masked equals removed, gradients, another batch size."""
import functools
import importlib.util
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import graph

FOLDER = pathlib.Path(__file__).with_name('zoo')
spec = importlib.util.spec_from_file_location('zoo', FOLDER / '__init__.py', submodule_search_locations=[str(FOLDER)])
sys.modules['zoo'] = importlib.util.module_from_spec(spec)  # a package, whose modules import one another
spec.loader.exec_module(sys.modules['zoo'])
ZOO = {name: build for path in sorted(FOLDER.glob('[!_]*.py'))
       for name, build in importlib.import_module(f'zoo.{path.stem}').MODELS.items()}

COUNTS = {  # prunable channels in each group, by hand
    # Stem; a stream per stage, four times its width; two inner widths for each of 3, 4, 6 and 3 bottlenecks.
    'resnet50': [5, 8, 16, 24, 32] + 6 * [2] + 8 * [4] + 12 * [6] + 6 * [8],
    # The same: a projection ends the stream of the stage before, as it reads it through BatchNorm.
    'resnet50_preactivation': [5, 8, 16, 24, 32] + 6 * [2] + 8 * [4] + 12 * [6] + 6 * [8],
    # Stem 8; bottleneck 12 and 3 new features per layer, each read by other layers; (8 + 2 * 3) / 2 in the transition.
    'densenet': [8] + 2 * [12, 3] + [7] + 3 * [12, 3],
    # Nothing couples: every convolution is a group.
    'googlenet': [8, 7, 9] + [4, 3, 6, 2, 3, 5] + [5, 4, 10, 3, 4, 6],
    # Each of 3 norm groups of 12 loses the same places: 12 / 3. The residual of 10 has 2 norm groups: 10 / 2.
    'group_norm': [4, 5],
    # Stream 8 of the stem and the first block; (expanded, squeezed); stream 6 of the others; 1x1 and dense heads.
    # Squeeze-excite gives a factor to each expanded channel: part of the same channel.
    'mobilenet_v3': [8, 10, 4, 12, 6, 14, 5, 16, 9],
    # A shuffle of g x n, like a grouped convolution, wants the same places in every block. First unit: the shuffle
    # leaves 8 / 2 labels, in order 0 0 1 1 2 2 3 3; two groups read 0 0 1 1 and 2 2 3 3: 2 channels. Its 8 results
    # are 2 groups of 4, and the next grouped convolution pairs shortcut (8) and results (8): stream 4.
    # Second unit: 12 / 2 labels, shuffled 0 0 1 1 2 2 and 3 3 4 4 5 5: 3 channels. Its 16 results are in the stream.
    'shufflenet_v1': [2, 4, 3],
    # Stem 6; inner 5 and 7. The first shuffle pairs the 6 + 6 results: 0 0 1 1 2 2 | 3 3 4 4 5 5. The right half is
    # read by the second unit (3), the left goes around (3), and the second shuffle pairs it with the new 6. Head 8.
    'shufflenet_v2': [6, 5, 3, 7, 3, 8],
    # No sum couples: two convolutions per level, two transposed ones.
    'unet': [4, 5, 6, 7, 8, 9, 12, 10, 11, 15, 13, 14],
    # A stream per stage (residual, depthwise, layer norm, layer scale); a hidden layer of four times it per block.
    'convnext': [5, 20, 20, 7, 28],
    # Stream 11 (token and positions too); per block heads, query-key width, value width, hidden.
    'vit': [11] + [3, 4, 4, 10] + [3, 4, 4, 13],
    # Hidden places, hidden channels, twice. No stream: the biases of the places are added to channels that are
    # masked, so the next layer norm would count them.
    'mixer': [6, 10, 7, 11],
    'mixer_without_bias': [9, 6, 10, 7, 11],
    # Embedding, states of both; a state is one channel of its four gates and of the carry.
    'lstm': [5, 7, 6],
    # Stream, hidden: the same ones in the three layers.
    'scanned': [6, 10],
    # Stream, hidden of the first block, hidden of the stack.
    'remat': [6, 10, 10],
    # The matrix that is used twice couples what it reads with what it writes, and both ends with the embedding.
    'shared': [8],
    # Image, vector, both.
    'twins': [6, 7, 8],
    # Stem; two inner; stream of shortcut and result.
    'nnx_residual': [6, 4, 5, 9],
    # Stream through both norms; heads, query-key width, value width, twice; hidden.
    'nnx_encoder': [7] + 2 * [3, 4, 4] + [10],
    # The shared matrix as above; the branches are averaged.
    'nnx_shared': [6, 8],
    'nnx_gru': [7],
    # Stream of two convolutions, read flattened; expanded.
    'haiku_mobile': [6, 13],
    # Heads are blocks of one axis: query-key places and value places, the same in all; hidden. No stream: the layer
    # norm sums (x - mean)^2, which is not zero where x is masked. RMS norm sums x^2.
    'haiku_transformer': [4, 4, 10],
    'haiku_transformer_rms': [8, 4, 4, 10],
    'haiku_lstm': [5, 7, 6],
    # Stream, read flattened; inner.
    'equinox_convolutions': [6, 5],
    # As Haiku's, but entry i of 4 turns with i + 2: 2 query-key pairs.
    'equinox_attention': [2, 4, 10],
    'equinox_attention_rms': [12, 2, 4, 10],
    'equinox_lstm': [7],
    'equinox_gru': [7],
    # Hidden places, hidden channels; the stream is pinned by its layer norm (and by the biases of the places).
    'equinox_mixer': [6, 10],
    # Stream (embedding, norms); per layer key-value heads, query heads of each, rotary pairs 6 / 2, values, hidden.
    'decoder': [12] + [2, 3, 3, 6, 10] + [2, 3, 3, 6, 9],
    # Heads are blocks of one axis: only their pairs and their values can go, in all heads at once.
    'decoder_fused': [12] + [3, 6, 10] + [3, 6, 9],
    # A key-value head goes with the three query heads that read it; queries and keys (not rotated), values, hidden.
    'decoder_repeated': [12] + [2, 6, 6, 10] + [2, 6, 6, 9],
    # The layers are one.
    'decoder_scanned': [12, 2, 3, 3, 6, 10],
    # State, with its gate, input and the matrix that feeds it back; hidden.
    'recurrent': [7, 5],
    # The square matrix that is used twice, and what it reads and writes; the reconstruction.
    'tied': [6]}
TOLERANCE = 1e-5  # of the largest entry; float32 allows it in every model
ANALYSED = {}
# Made of the same parts as another model, or large: the channels of each are counted in every run, the rest is slow.
TWINS = '''resnet50 resnet50_preactivation googlenet mixer_without_bias remat nnx_shared haiku_transformer_rms haiku_lstm
    equinox_attention_rms equinox_lstm equinox_mixer decoder_fused decoder_repeated'''.split()
# Some of each library; check_laws in generator.py takes gradients of every operator's shrunk function in every run.
TRAINED = '''mobilenet_v3 shufflenet_v1 vit lstm scanned nnx_encoder haiku_mobile equinox_attention decoder_scanned
    tied'''.split()
marked = lambda slow: [pytest.param(name, marks=pytest.mark.slow) if slow(name) else name for name in ZOO]


@pytest.fixture(autouse=True)
def _loose():
  """The layers of other libraries promote ranks and dtypes. Compiling takes the time here: XLA need not optimise."""
  jax.config.update('jax_disable_most_optimizations', True)
  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture
def _once(monkeypatch):
  """A function is analysed once per batch size, not again for every mask."""
  module = sys.modules['effjax.graph.shrink']
  label = module.label

  def remembered(fn, params, *args):
    key = (fn, *(jnp.shape(x) for x in jax.tree.leaves(args)))
    if key not in ANALYSED:
      ANALYSED[key] = label(fn, params, *args)
    return ANALYSED[key]
  monkeypatch.setattr(module, 'label', remembered)


@functools.cache
def model(name):
  built = ZOO[name]()
  return built, graph.channels(built.fn, built.params, *built.args)


def masks(found, number):
  """Random keep masks. Each leaves the same number of a group, at least one and not all: so few shapes are compiled."""
  groups = [np.flatnonzero(found.groups == group) for group in range(max(found.groups, default=-1) + 1)]
  sizes = [np.random.default_rng(len(groups) + i).integers(1, max(len(g), 2)) for i, g in enumerate(groups)]
  for seed in range(number):
    rng, keep = np.random.default_rng(seed), np.zeros(found.size, bool)
    for group, size in zip(groups, sizes):
      keep[rng.choice(group, size, replace=False)] = True
    yield keep


def call(fn, args, compiled):
  """`fn(*args)`, compiled unless the same equations were: of another mask, only shapes and constants may differ."""
  closed = jax.make_jaxpr(fn)(*args)
  key = re.sub('0x[0-9a-f]+', '', str(closed.jaxpr))
  run = compiled.setdefault(key, jax.jit(functools.partial(jax.core.eval_jaxpr, closed.jaxpr)))
  return run(closed.consts, *jax.tree.leaves(args))


def distance(got, want):
  got, want = ([np.asarray(x) for x in jax.tree.leaves(tree)] for tree in (got, want))
  assert [x.shape for x in got] == [x.shape for x in want]
  return max(np.abs(x - y).max() / np.abs(y).max() for x, y in zip(got, want))


def test_every_model_is_counted():
  assert set(COUNTS) == set(ZOO) >= {*TWINS, *TRAINED}


@pytest.mark.parametrize('name', ZOO)
def test_channels_are_those_counted_by_hand(name):
  _, found = model(name)
  assert sorted(np.bincount(found.groups).tolist()) == sorted(COUNTS[name])
  assert (found.unknown, found.choices) == ((), {})


@pytest.mark.parametrize('name', marked(lambda name: name in TWINS))
@pytest.mark.parametrize('number', [5, pytest.param(20, marks=pytest.mark.slow)])  # of masks; 5 are the first of 20
@pytest.mark.usefixtures('_once')
def test_masked_equals_removed_at_another_batch_size(name, number):
  net, found = model(name)
  args, compiled = net.rebatch(3), {}
  masked = jax.jit(lambda keep: net.fn(graph.mask(found, net.params, keep), *args))

  def removed(keep, params, *args):
    small, less = graph.shrink(net.fn, params, keep, *net.args)
    return small(less, *args)
  for keep in masks(found, number):
    assert distance(call(functools.partial(removed, keep), (net.params, *args), compiled), masked(keep)) <= TOLERANCE


@pytest.mark.parametrize('name', marked(lambda name: name not in TRAINED))
@pytest.mark.usefixtures('_once')
def test_gradients_of_the_shrunk_function_are_finite(name):
  net, found = model(name)
  small, less = graph.shrink(net.fn, net.params, next(masks(found, 1)), *net.args)
  loss = lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(small(p, *net.args)))
  gradients = jax.tree.leaves(jax.jit(jax.grad(loss))(less))
  assert all(np.isfinite(g).all() for g in gradients)
  assert any(np.any(g) for g in gradients)
