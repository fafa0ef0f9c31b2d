"""A gate per channel, computed from the channels' means."""
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.conv_bias import ConvBias


class SqueezeExcite(Block):
  """`y = x gate(expand(activation(reduce(mean(x)))))`, the mean over height and width: `[n, h, w, c]` stays.

  Parameters under `reduce` and `expand`, 1x1 convolutions with biases.

  Args:
    features: channels between the two.
    activation: after the first.
    gate: after the second: `nn.sigmoid`, or `nn.hard_sigmoid` in MobileNetV3.
    others: as in `Block`.

  Source: Hu, Shen, Sun, "Squeeze-and-excitation networks", CVPR 2018, arXiv:1709.01507.

  >>> import jax
  >>> SqueezeExcite(2).init_with_output(jax.random.key(0), jnp.ones((1, 4, 4, 8)))[0].shape
  (1, 4, 4, 8)
  """
  features: int
  activation: Callable = nn.relu
  gate: Callable = nn.sigmoid

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
    s = jnp.mean(x, (1, 2), keepdims=True)
    s = ConvBias(self.features, 1, activation=self.activation, name='reduce', **self.same)(s, False)
    s = ConvBias(x.shape[-1], 1, activation=self.gate, name='expand', **self.same)(s, False)
    return x * s
