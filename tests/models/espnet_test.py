"""ESPNet against the counts of the authors' code."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.errors import EffjaxError
from effjax.models.espnet import VARIANTS, ESPNet

COUNTS = {'espnet_c_q3': (187_529, 1_079_717_888), 'espnet_c_q5': (252_297, 1_341_861_888),
          'espnet_c_q8': (349_449, 1_735_077_888), 'espnet_q3': (203_189, 1_734_750_208),
          'espnet_q5': (267_957, 1_996_894_208), 'espnet_q8': (365_109, 2_390_110_208)}
QUICK = ('espnet_c_q3', 'espnet_q3')  # the others differ in numbers alone
SMALL = ESPNet(6, width=.5, depths=(1, 1))


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in COUNTS])
def test_counts(name):
  assert models.count(VARIANTS[name].make(), VARIANTS[name].size) == COUNTS[name]


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_logits_of_every_pixel_and_of_every_eighth(padding):
  shapes = lambda net: jax.eval_shape(lambda: net.init_with_output(
    jax.random.key(0), jnp.ones((2, 24, 40, 3)), False, mutable=['params', 'batch_stats', 'intermediates']))
  out, variables = shapes(SMALL.copy(padding=padding))
  assert out.shape == (2, 24, 40, 6)
  sizes = {name: leaf.shape[1:] for name, leaf in variables['intermediates'].items()}
  assert sizes == {'stage1': (12, 20, 11), 'stage2': (6, 10, 67), 'stage3': (3, 5, 128), 'features': (3, 5, 128),
                   'decode2': (6, 10, 12)}
  out, of_encoder = shapes(SMALL.copy(decoder=False, padding=padding))
  assert out.shape == (2, 3, 5, 6)
  assert of_encoder['params'].items() <= variables['params'].items()  # so that it may be trained first


def test_the_encoder_takes_any_size_and_the_decoder_multiples_of_8():
  init = lambda net: jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.ones((1, 20, 24, 3)), False))
  init(SMALL.copy(decoder=False))
  with pytest.raises(EffjaxError, match=r'ESPNet: height and width \(20, 24\) are no multiples of 8, .* decoder=False'):
    init(SMALL)


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 16)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL.copy(depths=(0, 0), decoder=False), 8)


@pytest.mark.slow
def test_from_gates_to_a_file_with_the_decoder(to_file):
  to_file(SMALL, 16)
