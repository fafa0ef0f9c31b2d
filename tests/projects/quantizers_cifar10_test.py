"""Every method of the project on some of ResNet-20's weights, and the table."""
import importlib.util
import pathlib

import chex
import jax
import jax.numpy as jnp
import pytest

PATH = pathlib.Path(__file__).parents[2] / 'projects' / 'quantizers_cifar10' / 'train.py'
spec = importlib.util.spec_from_file_location('quantizers_cifar10', PATH)
project = importlib.util.module_from_spec(spec)
spec.loader.exec_module(project)


@pytest.fixture(scope='module')
def params():
  net, _ = project.network()
  shapes = jax.eval_shape(lambda key: net.init(key, jnp.zeros((1, 32, 32, 3)), False), jax.random.key(0))['params']
  leaves, tree = jax.tree.flatten({name: shapes[name] for name in ('stem', 'stage1_block1', 'classifier')})
  return jax.tree.unflatten(tree, [jax.random.normal(jax.random.key(i), leaf.shape) for i, leaf in enumerate(leaves)])


QUICK = ('float', 'LSQ 4', 'LSQ 4, activations 4', 'ternary')


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in project.METHODS])
def test_all_inner_layers_have_the_rule_and_the_others_eight_bits(params, name):
  reparam = project.reparam_of(project.METHODS[name])
  slots = reparam.init(jax.random.key(0), params)
  chex.assert_trees_all_equal_shapes_and_dtypes(reparam.apply(*slots, None), params)
  facts = reparam.facts(slots, True)
  assert len(facts) == (0 if name == 'float' else 4)
  if facts:
    own = {float(fact.bits) for path, fact in facts.items() if path.startswith('stage')}
    assert len(own) == 1 and float(facts['stem/conv/kernel'].bits) == 8


def test_the_table_compares_with_float():
  found = {'float': {'accuracy': [80., 82.], 'seconds': [2., 1.], 'bytes': 1000},
           'LSQ 4': {'accuracy': [80., 80.], 'seconds': [1.5, 3.], 'bytes': 125}}
  *_, last = project.table(found)
  assert last == '| LSQ 4 | 80.00 +- 0.00 (2) | -1.00 | 125 | 1.50 |'
