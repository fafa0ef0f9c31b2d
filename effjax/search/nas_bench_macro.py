"""NAS-Bench-Macro: eight layers, each of three blocks, 6,561 networks."""
import dataclasses
from types import MappingProxyType

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.block import Block
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.inverted_residual import InvertedResidual
from effjax.layers.operations import Identity
from effjax.search.choice import Choice
from effjax.search.encoding import Space

OPERATORS = ('identity', 'mb3_k3', 'mb6_k5')
LAYERS = ((64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1))  # (features, strides)
SPACE: Space = MappingProxyType({f'layer{i}/choice': OPERATORS for i in range(1, len(LAYERS) + 1)})


class NASBenchMacro(Block):
  """Images to logits: stem 3x3, eight layers, head 1x1, mean, dense layer.

  A layer is the identity, or an `InvertedResidual` of expansion 3 and kernel 3 or of 6 and 5, which the paper calls
  MB3-K3 and MB6-K5. Where it has strides 2 the identity is a 1x1 convolution with those and BatchNorm. Parameters under
  `stem`, `layer1/mb3_k3` ..., `head`, `classifier`, the choices under `layer1/choice` .... The network of one
  architecture is `Derived(NASBenchMacro(), architecture)`.

  Args:
    num_classes: logits.
    width: multiplies all channels.
    others: as in `Block`.

  Raises:
    EffjaxError: a width that leaves a layer without channels.

  Source: Su et al., "Prioritized architecture sampling with Monto-Carlo tree search", CVPR 2021, arXiv:2103.11922.

  >>> import jax, jax.numpy as jnp
  >>> net, x = NASBenchMacro(10, width=1 / 16), jnp.ones((1, 16, 16, 3))
  >>> params = jax.eval_shape(lambda key: net.init(key, x, False), jax.random.key(0))['params']
  >>> params['layer1']['choice'].shape, sorted(params['layer1']), sorted(params['layer2'])
  ((3,), ['choice', 'identity', 'mb3_k3', 'mb6_k5'], ['choice', 'mb3_k3', 'mb6_k5'])
  """
  num_classes: int = 10
  width: float = 1.
  epsilon: float = dataclasses.field(default=1e-5, kw_only=True)

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n classes']:
    x = ConvBN(self._channels(32), name='stem', **self.same)(x, train)
    for i, (features, strides) in enumerate(LAYERS, 1):
      x = self._layer(f'layer{i}', self._channels(features), strides, x, train)
    x = ConvBN(self._channels(1280), 1, name='head', **self.same)(x, train)
    return Dense(self.num_classes, name='classifier', **self.same)(x.mean((1, 2)))

  def _channels(self, channels):
    if not round(channels * self.width):
      raise EffjaxError(f'NASBenchMacro: width={self.width} leaves none of {channels} channels: wanted 1/64 or more')
    return round(channels * self.width)

  def _layer(self, name, features, strides, x, train):
    make = lambda op: _operator(op, features, strides, name=op, parent=None, **self.same)
    return Choice(tuple(map(make, OPERATORS)), name=name)(x, train)


def _operator(op, features, strides, **same):
  if op != 'identity':
    return InvertedResidual(features, strides, int(op[2]), int(op[-1]), **same)
  return Identity(**same) if strides == 1 else ConvBN(features, 1, strides, activation=None, **same)
