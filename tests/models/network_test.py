"""What all networks have in common: checks of the input, intermediates, widths."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models
from effjax.errors import EffjaxError
from effjax.layers import ConvBN
from effjax.models import Network

KEY = jax.random.key(0)


class Tiny(Network):
  """One layer."""
  stride = 2

  def forward(self, x, train):
    """A convolution."""
    return self.classify(self.mark('features', ConvBN(4, 3, 2, name='stem', **self.same)(x, train)))


def test_logits_and_named_intermediates():
  x = jax.random.normal(KEY, (2, 8, 8, 3))
  variables = Tiny(5).init(KEY, x, False)
  assert set(variables) == {'params', 'batch_stats'}
  logits, found = Tiny(5).apply(variables, x, False, mutable=['intermediates'])
  found = found['intermediates']
  assert set(found) == {'features', 'pooled'} and found['features'].shape == (2, 4, 4, 4)
  np.testing.assert_allclose(found['pooled'], found['features'].mean((1, 2)), rtol=1e-6)
  np.testing.assert_array_equal(logits, Tiny(5).apply(variables, x, False))
  logits, new = Tiny(5).apply(variables, x, True, mutable=['batch_stats', 'intermediates'])
  assert set(new) == {'batch_stats', 'intermediates'}


def test_widths_also_within_another_module():
  class Outer(nn.Module):
    @nn.compact
    def __call__(self, x):
      return Tiny(5, widths={'stem': 3}, name='inner')(x, False)

  x = jnp.ones((1, 4, 4, 3))
  kernel = Outer().init(KEY, x)['params']['inner']['stem']['conv']['kernel']
  assert kernel.shape[-1] == 3
  assert models.widths(Tiny(5, widths={'stem': 3}).init(KEY, x, False)['params']) == {'stem': 3, 'classifier': 5}


@pytest.mark.parametrize('shape', [(1, 8, 8, 4), (1, 1, 8, 3), (8, 8, 3)])
def test_images_that_do_not_fit(shape):
  with pytest.raises(EffjaxError, match=r'Tiny: wanted images \[n, h, w, 3\] with h and w of at least 2, got \('):
    Tiny(5).init(KEY, jnp.ones(shape), False)


def test_widths_of_no_layer():
  with pytest.raises(EffjaxError, match=r"Tiny: widths of \['stm'\], which are no layers: known are \['classifier', 'stem'\]"):
    Tiny(5, widths={'stm': 3}).init(KEY, jnp.ones((1, 4, 4, 3)), False)
