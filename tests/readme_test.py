"""What README.md and the other documents say can be done, can be done."""
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

from effjax import at, data, layers, search
from effjax.layers import ConvBN
from effjax.search import Choice, Skip

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'), *(ROOT / 'projects').rglob('*.md')])


class Network(nn.Module):
  """A network of somebody's: a stem, a choice, a head."""

  @nn.compact
  def __call__(self, x, train):
    x = ConvBN(8, name='stem')(x, train)
    x = Choice((ConvBN(8), Skip()), name='middle')(x, train)
    return nn.Dense(10, name='head')(x.mean((1, 2)))


@pytest.fixture
def names():
  """What the example takes as given."""
  network, train = Network(), data.load().train
  batches = data.batches(train, 16, seed=0)
  x = data.normalize(jnp.asarray(batches(0)['image']))
  variables = network.init(jax.random.key(0), x, False)
  stats = variables['batch_stats']

  def apply(params, x):
    return network.apply({'params': params, 'batch_stats': stats}, x, False)

  def forward(params, stats, batch, key):
    logits, new = network.apply({'params': params, 'batch_stats': stats}, data.normalize(batch['image']), True,
                                mutable=['batch_stats'])
    return {'logits': logits}, new['batch_stats']

  return {'apply': apply, 'forward': forward, 'params': variables['params'], 'model_state': stats, 'x': x,
          'batches': batches, 'key': jax.random.key(1), 'optax': optax,
          'teacher': lambda batch: {'logits': jnp.zeros((16, 10))}}


def test_the_example_runs(names):
  code = re.search(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL).group(1)
  assert 'steps=5_000' in code
  with jax.numpy_dtype_promotion('standard'):  # optax.adam raises a float to an integer power
    exec(code.replace('steps=5_000', 'steps=2'), names)
  x, found = names['x'], names['found']
  assert found.fn(found.params, x).shape == (16, 10)
  assert int(names['state'].step) == 2


def test_the_example_of_quantizing_runs(names):
  exec(re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)[1], names)
  kernel, scale = names['weights']['head']['kernel'], names['rule'].facts(names['slots'], True)['head/kernel'].scale
  codes = kernel / scale
  assert jnp.abs(jnp.round(codes)).max() <= 7 and jnp.abs(codes - jnp.round(codes)).max() < 1e-5


def test_the_example_of_searching_runs(names):
  names |= {'nn': nn, 'layers': layers, 'search': search, 'at': at}
  exec(re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)[2], names)
  assert names['space'] == {f'{name}/choice': ('k3', 'k5', 'k7') for name in ('first', 'second')}
  params = jax.eval_shape(lambda key: names['small'].init(key, names['x'], False), jax.random.key(0))['params']
  assert params['first']['k3']['conv']['kernel'].shape == (3, 3, 1, 16) and list(params['second']) == ['k7']
  slots = names['rule'].init(jax.random.key(0), {'first': {'choice': jnp.ones(3)}})
  assert jnp.isclose(names['rule'].apply(*slots, jax.random.key(1))['first']['choice'].sum(), 1)


def test_the_example_of_export_runs(names, tmp_path, monkeypatch):
  code = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)[3]
  monkeypatch.chdir(tmp_path)
  names['images'] = names['x']
  exec(code, names)
  assert names['report'].same and names['labels'].shape == (16,) and names['logits'].shape == (16, 10)
  assert {path.name for path in tmp_path.iterdir()} == {'model.tflite', 'half.tflite'}


def test_the_example_of_pruning_runs(names, tmp_path, capsys):
  code = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)[4]
  names['folder'] = tmp_path / 'model'
  with jax.numpy_rank_promotion('allow'):
    exec(code, names)
    masked = names['apply'](names['graph'].mask(names['found'], names['params'], names['keep']), names['x'])
    assert jnp.abs(names['small'](names['less'], names['x']) - masked).max() < 1e-5
  assert 0 < names['keep'].sum() < names['keep'].size
  assert 'channel 0:' in capsys.readouterr().out and (tmp_path / 'model' / 'model.json').exists()


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
  text = document.read_text()
  for target in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', text):
    assert target.startswith('http') or (document.parent / target).exists(), f'{document.name}: {target}'
