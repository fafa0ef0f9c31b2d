"""A few random networks in every run of the tests; `python tests/graph/generator.py 2000` tries many."""
import importlib.util
import pathlib
import subprocess
import sys

import jax
import pytest
from hypothesis import HealthCheck, given, settings

PATH = pathlib.Path(__file__).with_name('generator.py')
spec = importlib.util.spec_from_file_location('generator', PATH)
generator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generator)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(**generator.NETWORKS)
def test_laws_on_random_networks(recipe, dtype, number):
  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    generator.check_laws(recipe, dtype, number)


def applied(name):
  """Networks of the operator on four, three and two axes, wherever it can be applied."""
  for before in ([], [('tokens', 0, 0, 0)], [('mean_of_space', 0, 0, 0)]):
    recipe = [*before, (name, 0, 0, 1), ('cos', 0, 0, 0)]
    fn, params, x = generator.network(recipe, 'float32', 0)
    plain, shapes, _ = generator.network([*before, ('cos', 0, 0, 0)], 'float32', 0)
    if str(jax.make_jaxpr(fn)(params, x)) != str(jax.make_jaxpr(plain)(shapes, x)):
      yield recipe


@pytest.mark.parametrize('every', [False, pytest.param(True, marks=pytest.mark.slow)], ids=['one', 'every'])
@pytest.mark.parametrize('name', generator.OPERATORS)
def test_every_operator_alone(name, every):
  """On one of the numbers of axes that it can be applied to; on every one of them in the slow tests."""
  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    recipes = list(applied(name))
    for recipe in recipes if every else [recipes[len(name) % len(recipes)]]:
      generator.check_laws(recipe, 'float32', 0)


def test_a_wrong_graph_is_found(monkeypatch):
  """The laws have teeth: without the rule that a softmax pins, a counter-example turns up."""
  rules = sys.modules['effjax.graph.rules']
  forgetful = lambda a, eqn, ins, shapes, param: [v._replace(axes=tuple(
      x for i, x in enumerate(v.axes) if i not in eqn.params['axes']), zero=tuple(
          z for i, z in enumerate(v.zero) if i not in eqn.params['axes'])) for v in ins]
  monkeypatch.setitem(rules.RULES, 'reduce_max', forgetful)
  def some():
    for number in range(9):
      generator.check_laws([('over_channels', 0, 0, 1)], 'float32', number)

  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    with pytest.raises(AssertionError, match='removed|gated'):
      some()


def test_the_command_says_how_many_it_tried():
  found = subprocess.run([sys.executable, PATH, '1'], capture_output=True, text=True, timeout=600, check=True)
  assert '1 networks, ' in found.stdout and found.stdout.endswith('no counter-example\n')
