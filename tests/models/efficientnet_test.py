"""EfficientNet against the counts of torchvision, Keras and timm."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models
from effjax.models.efficientnet import STAGES, VARIANTS, EfficientNet

# At the size of the images: timm counts Lite3 and Lite4 at 300 and 380.
COUNTS = {'b0': (224, 5_288_548, 385_814_752), 'b1': (240, 7_794_184, 686_802_832), 'b2': (260, 9_109_994, 993_561_872),
          'b3': (300, 12_233_232, 1_827_141_392), 'b4': (380, 19_341_616, 4_393_771_024),
          'b5': (456, 30_389_784, 10_266_384_752), 'b6': (528, 43_040_704, 19_067_593_536),
          'b7': (600, 66_347_960, 37_745_884_192), 'lite0': (224, 4_652_008, 385_187_552),
          'lite1': (240, 5_416_680, 600_185_232), 'lite2': (260, 6_092_072, 859_736_272),
          'lite3': (300, 8_197_096, 1_607_554_544), 'lite4': (380, 13_006_568, 3_943_564_112)}
DEEP = ('b1', 'b2', 'b3', 'b4', 'b5', 'b6', 'b7', 'lite2', 'lite3', 'lite4')  # take seconds to trace
SMALL = EfficientNet(5, width=.25, stages=(STAGES[0], STAGES[1], STAGES[4]), depth=.5)


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in COUNTS])
def test_counts(name):
  size, *expected = COUNTS[name]
  # timm, whose padding is symmetric, has other sizes where an odd one is halved
  net = VARIANTS[f'efficientnet_{name}'].make(padding='symmetric')
  assert models.count(net, size) == tuple(expected)


def test_branches_are_dropped_in_training(variables_of):
  """Half of the blocks come before the second one, whose rate is .5 here: its branch is gone, or doubled."""
  net = SMALL.copy(stages=((1, 3, 16, 2, 2),), depth=1.)
  variables, x = variables_of(net, 32, 8)

  @functools.partial(jax.jit, static_argnums=0)
  def run(rate, params):
    found = net.copy(drop_path=rate).apply({**variables, 'params': params}, x, True, rngs={'dropout': jax.random.key(0)},
                                           mutable=['batch_stats', 'intermediates'])[1]
    return found['intermediates']['stage1']

  params = variables['params']
  without = {**params, 'stage1_block2': jax.tree.map(jnp.zeros_like, params['stage1_block2'])}
  kept, dropped, alone = run(0., params), run(1., params), run(0., without)
  gone = np.isclose(dropped, alone, atol=1e-5).all((1, 2, 3))
  assert 0 < gone.sum() < 8
  np.testing.assert_allclose(dropped[~gone], (2 * kept - alone)[~gone], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_intermediates(padding):
  net, x = SMALL.copy(padding=padding), jnp.ones((1, 32, 32, 3))
  kinds = ['params', 'batch_stats', 'intermediates']
  found = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, False, mutable=kinds))[1]['intermediates']
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage1': (16, 16, 8), 'stage2': (8, 8, 8), 'stage3': (8, 8, 32), 'features': (8, 8, 320),
                   'pooled': (320,)}


@pytest.mark.slow
@pytest.mark.parametrize('lite', [False, True])
def test_one_step_learns(learns, lite):
  learns(SMALL.copy(lite=lite), 32)


@pytest.mark.slow
@pytest.mark.parametrize('lite', [False, True])
def test_from_gates_to_a_file(to_file, lite):
  to_file(SMALL.copy(lite=lite), 32)
