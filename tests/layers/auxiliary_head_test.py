"""The auxiliary head's weights, and its errors."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import AuxiliaryHead


@pytest.mark.parametrize(('size', 'strides', 'left', 'norm'), [(8, 3, 2, True), (7, 2, 2, False), (14, 3, 4, True)])
def test_weights(size, strides, left, norm):
  """1x1 to 128 channels, then all that is left of the image to 768, then the logits."""
  head, x = AuxiliaryHead(10, strides, norm), jax.ShapeDtypeStruct((2, size, size, 6), jnp.float32)
  logits, variables = jax.eval_shape(lambda x: head.init_with_output(jax.random.key(0), x, True), x)
  assert logits.shape == (2, 10)
  count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(variables['params']))
  assert count == 6 * 128 + 2 * 128 + left**2 * 128 * 768 + 2 * 768 * norm + 769 * 10


def test_image_too_small():
  with pytest.raises(EffjaxError, match=r'avg_pool: window \(5, 5\) is larger than x of shape \(1, 4, 4, 2\)'):
    AuxiliaryHead(10).init(jax.random.key(0), jnp.ones((1, 4, 4, 2)), True)
