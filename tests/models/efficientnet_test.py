"""EfficientNet against the counts of torchvision, Keras and timm."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models
from effjax.models.efficientnet import VARIANTS, EfficientNet

# At the size of the images: timm counts Lite3 and Lite4 at 300 and 380.
COUNTS = {'b0': (224, 5_288_548, 385_814_752), 'b1': (240, 7_794_184, 686_802_832), 'b2': (260, 9_109_994, 993_561_872),
          'b3': (300, 12_233_232, 1_827_141_392), 'b4': (380, 19_341_616, 4_393_771_024),
          'b5': (456, 30_389_784, 10_266_384_752), 'b6': (528, 43_040_704, 19_067_593_536),
          'b7': (600, 66_347_960, 37_745_884_192), 'lite0': (224, 4_652_008, 385_187_552),
          'lite1': (240, 5_416_680, 600_185_232), 'lite2': (260, 6_092_072, 859_736_272),
          'lite3': (300, 8_197_096, 1_607_554_544), 'lite4': (380, 13_006_568, 3_943_564_112)}
DEEP = ('b3', 'b4', 'b5', 'b6', 'b7', 'lite4')  # take seconds to trace
SMALL = EfficientNet(5, width=.25, depth=.3)


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in COUNTS])
def test_counts(name):
  size, *expected = COUNTS[name]
  # timm, whose padding is symmetric, has other sizes where an odd one is halved
  net = VARIANTS[f'efficientnet_{name}'].make(padding='symmetric')
  assert models.count(net, size) == tuple(expected)


def test_branches_are_dropped_more_and_more(variables_of):
  """With drop_path at 1 - 1e-7 per cent of the way the expectation stays; at 0 there is no randomness at all."""
  net = SMALL.copy(depth=.6, dropout=0.)
  variables, x = variables_of(net, 32)
  run = lambda net, seed: net.apply(variables, x, True, rngs={'dropout': jax.random.key(seed)}, mutable=['batch_stats'])[0]
  np.testing.assert_array_equal(run(net.copy(drop_path=0.), 0), run(net.copy(drop_path=0.), 1))
  assert any(jnp.any(run(net.copy(drop_path=.9), 0) != run(net.copy(drop_path=.9), seed)) for seed in range(1, 4))


@pytest.mark.slow
@pytest.mark.parametrize('lite', [False, True])
def test_one_step_learns(learns, lite):
  learns(SMALL.copy(lite=lite), 32)


@pytest.mark.slow
@pytest.mark.parametrize('lite', [False, True])
def test_from_gates_to_a_file(to_file, lite):
  to_file(SMALL.copy(lite=lite), 32)
