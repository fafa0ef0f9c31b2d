"""RepVGG against the counts of timm and the paper; the deployed network against the one that was trained."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import graph, models
from effjax.errors import EffjaxError
from effjax.models.repvgg import VARIANTS, RepVGG, reparameterize

# Of timm, three branches.
COUNTS = {'repvgg_a0': (9_108_968, 1_512_581_120), 'repvgg_a1': (14_092_264, 2_626_488_320),
          'repvgg_a2': (28_210_600, 5_685_345_280), 'repvgg_b0': (15_817_960, 3_397_191_680),
          'repvgg_b1': (57_415_016, 13_128_089_600), 'repvgg_b2': (89_022_376, 20_418_170_880),
          'repvgg_b3': (123_085_288, 29_120_696_320)}
# By hand: 3x3 convolutions with a bias, and a dense layer. The paper prints these, cut off after two digits.
DEPLOYED = {'repvgg_a0': (8_309_384, 1_361_451_008), 'repvgg_a1': (12_789_864, 2_363_967_488),
            'repvgg_a2': (25_499_944, 5_116_951_552), 'repvgg_b0': (14_339_048, 3_057_600_512),
            'repvgg_b1': (51_829_480, 11_815_485_440), 'repvgg_b2': (80_315_112, 18_376_609_792),
            'repvgg_b3': (110_960_872, 26_208_882_688)}
SMALL = RepVGG(5, width=.125, depths=(1, 2, 1, 1))


def names(counts):
  """Those of deep networks take seconds to trace."""
  return [pytest.param(name, marks=[pytest.mark.slow] * (name > 'repvgg_a1')) for name in counts]


@pytest.mark.parametrize('name', names(COUNTS))
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


@pytest.mark.parametrize('name', names(DEPLOYED))
def test_counts_of_the_deployed_network(name):
  parameters, macs = models.count(VARIANTS[name].make(deployed=True), 224)
  assert (parameters, macs) == DEPLOYED[name]
  assert f'{parameters // 10_000 / 100:.2f} M, {macs / 1e9:.1f} G' == VARIANTS[name].paper


def stepped(net, variables, x, steps=2):
  """The variables after steps of gradient descent, which move the statistics."""
  @jax.jit
  def step(variables):
    def loss(params):
      out, new = net.apply({**variables, 'params': params}, x, True, mutable=['batch_stats'])
      return jnp.mean(jnp.square(out - 1)), new
    gradient, new = jax.grad(loss, has_aux=True)(variables['params'])
    return {'params': jax.tree.map(lambda p, g: p - .01 * g, variables['params'], gradient), **new}

  for _ in range(steps):
    variables = step(variables)
  return variables


@pytest.mark.slow
@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_deployed_after_training_and_shrinking(padding, variables_of):
  net = SMALL.copy(padding=padding)
  variables, x = variables_of(net, 36, 4)
  before, variables = variables, stepped(net, variables, x)
  assert all(jnp.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before, variables))))
  same(net, variables, x)
  fn = lambda variables, x: net.apply(variables, x, False)
  keep = np.random.default_rng(0).uniform(size=graph.channels(fn, variables, x).size) > .2
  _, less = graph.shrink(fn, variables, keep, x)
  same(net.copy(widths=models.widths(less['params'])), less, x)


def same(net, variables, x):
  """The deployed network has its counts, and gives what the other one does."""
  merged = reparameterize(net, variables)
  deployed = net.copy(deployed=True, widths=models.widths(merged['params']))
  assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, models.shapes(deployed, x.shape[1:3])[0])
  out, wanted = jax.jit(lambda: (deployed.apply(merged, x, False), net.apply(variables, x, False)))()
  assert np.ptp(wanted) > 0
  np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_a_deployed_network_is_not_deployed_again():
  with pytest.raises(EffjaxError, match='reparameterize: this network is deployed already: give the one that was trained'):
    reparameterize(SMALL.copy(deployed=True), {})


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_intermediates(padding):
  net, x = SMALL.copy(padding=padding), jnp.ones((1, 32, 32, 3))
  kinds = ['params', 'batch_stats', 'intermediates']
  found = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, False, mutable=kinds))[1]['intermediates']
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage1': (8, 8, 8), 'stage2': (4, 4, 16), 'stage3': (2, 2, 24), 'stage4': (1, 1, 160), 'features':
                   (1, 1, 160), 'pooled': (160,)}


@pytest.mark.slow
@pytest.mark.parametrize('deployed', [False, True])
def test_one_step_learns(learns, deployed):
  learns(SMALL.copy(deployed=deployed), 32)


@pytest.mark.slow
@pytest.mark.parametrize('deployed', [False, True])
def test_from_gates_to_a_file(to_file, deployed):
  to_file(SMALL.copy(deployed=deployed), 32)
