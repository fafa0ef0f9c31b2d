"""Half the height and width without losing entries to the stride."""
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block
from effjax.layers.conv import Conv


class FactorizedReduce(Block):
  """`y = BatchNorm([even(x), odd(x)])`: two 1x1 convolutions of relu(x) with strides 2, the second one pixel further.

  `[n, h, w, cin] -> [n, ceil(h / 2), ceil(w / 2), features]`. Behind an odd size the second reads zeros. Parameters
  under `even`, `odd` and `bn`.

  Args:
    features: output channels, of which the first convolution gives the smaller half.
    others: as in `Block`.

  Source: Zoph, Vasudevan, Shlens, Le, 2018, arXiv:1707.07012, survey [6]; implementations of DARTS [68] do not pad, and
  so take even sizes alone.

  >>> import jax
  >>> FactorizedReduce(4).init_with_output(jax.random.key(0), jnp.ones((1, 5, 8, 3)), False)[0].shape
  (1, 3, 4, 4)
  """
  features: int

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    x, (h, w), half = nn.relu(x), x.shape[1:3], self.features // 2
    shifted = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0))) if h % 2 or w % 2 else x
    even = Conv(half, 1, 2, name='even', **self.same)(x)
    odd = Conv(self.features - half, 1, 2, name='odd', **self.same)(shifted[:, 1:, 1:])
    return BatchNorm(name='bn', **self.same)(jnp.concatenate([even, odd], -1), train)
