"""ShuffleNetV2 against the counts of torchvision and of the authors' code."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.models.shufflenet_v2 import VARIANTS, ShuffleNetV2

COUNTS = {'shufflenet_v2_x0_5': (1_366_792, 40_476_448), 'shufflenet_v2_x1_0': (2_278_604, 144_907_992),
          'shufflenet_v2_x1_5': (3_503_624, 295_759_392), 'shufflenet_v2_x2_0': (7_393_996, 583_253_464)}
AUTHORS = {'shufflenet_v2_x0_5': (1_365_792, 40_476_448), 'shufflenet_v2_x1_0': (2_278_760, 145_814_296),
           'shufflenet_v2_x1_5': (3_506_720, 298_970_656), 'shufflenet_v2_x2_0': (7_402_600, 590_783_000)}
SMALL = ShuffleNetV2(5, features=(16, 24, 32), depths=(2, 1, 1), stem=8, head=48)


@pytest.mark.parametrize('name', COUNTS)
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


@pytest.mark.parametrize('name', AUTHORS)
def test_counts_of_the_authors(name):
  """Whose classifiers have no bias; the multiply-accumulates are the paper's 41, 146, 299 and 591 million in all but one."""
  parameters, macs = models.count(VARIANTS[name].make(authors=True), 224)
  assert (parameters - 1000, macs) == AUTHORS[name]


def test_sizes_of_the_stages():
  for padding in ('SAME', 'symmetric'):
    net = SMALL.copy(padding=padding)
    found = jax.eval_shape(lambda net=net: net.init_with_output(
      jax.random.key(0), jnp.ones((1, 64, 96, 3)), False, mutable=['params', 'batch_stats', 'intermediates']))[1]
    sizes = {name: leaf.shape[1:] for name, leaf in found['intermediates'].items()}
    assert sizes == {'stage1': (16, 24, 8), 'stage2': (8, 12, 16), 'stage3': (4, 6, 24), 'stage4': (2, 3, 32),
                     'features': (2, 3, 48), 'pooled': (48,)}


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
def test_one_step_of_the_authors_form_learns(learns):
  learns(SMALL.copy(authors=True), 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)


@pytest.mark.slow
def test_the_authors_form_from_gates_to_a_file(to_file):
  to_file(SMALL.copy(authors=True), 32)
