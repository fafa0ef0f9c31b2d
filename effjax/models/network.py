"""What all networks have in common: the call, its checks, named intermediates, and widths read off parameters."""
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from effjax import tree
from effjax.errors import EffjaxError
from effjax.layers.block import Block
from effjax.layers.dense import Dense
from effjax.tree import PyTree


class Network(Block):
  """Images to logits, `net.apply(variables, x, train)`: `[n, h, w, channels] -> [n, num_classes]`.

  The list of blocks is the method `forward(x, train)`, which a family of networks writes. `mark` names what it passes:
  `logits, found = net.apply(variables, x, False, mutable=['intermediates'])` returns it in `found['intermediates']`.
  With `train`, make `batch_stats` mutable and, where there is dropout, give `rngs={'dropout': key}`.

  Args:
    num_classes: logits.
    width: multiplies the channels of every layer, before the family's rounding.
    channels: of the images.
    others: as in `Block`; `widths(params)` of a shrunk network as `widths` builds that network.

  Raises:
    EffjaxError: images of another rank or number of channels, or smaller than `stride`; a path in `widths` that is no
      layer.
  """
  num_classes: int = 1000
  width: float = 1.
  channels: int = 3
  stride: ClassVar[int] = 32  # of the last features: the least height and width

  @property
  def same(self) -> dict[str, Any]:
    """As of `Block`; `widths` speaks of paths from here, wherever the network itself stands."""
    below = {'/'.join((*self.path, path)): features for path, features in (self.widths or {}).items()}
    return {**super().same, 'widths': below}

  @nn.compact
  def __call__(self, x: Float[Array, '*shape'], train: bool) -> PyTree:
    name = type(self).__name__
    if x.ndim != 4 or x.shape[-1] != self.channels or min(x.shape[1:3]) < self.stride:
      raise EffjaxError(f'{name}: wanted images [n, h, w, {self.channels}] with h and w of at least {self.stride}, got '
                        f'{x.shape}: resize them, or give channels=')
    out = self.forward(x, train)
    if self.widths:
      known = widths(self.variables['params'])
      if unknown := set(self.widths) - set(known):
        raise EffjaxError(f'{name}: widths of {sorted(unknown)}, which are no layers: known are {sorted(known)}')
    return out

  def forward(self, x: Float[Array, 'n h w c'], train: bool) -> PyTree:
    """The blocks of the family."""
    raise NotImplementedError

  def mark(self, name: str, x: Float[Array, '...']) -> Float[Array, '...']:
    """x itself, which is returned as the intermediate `name` where these are asked for."""
    self.sow('intermediates', name, x, init_fn=lambda: None, reduce_fn=lambda _, new: new)
    return x

  def classify(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n classes']:
    """The mean over height and width, and a dense layer `classifier`."""
    return Dense(self.num_classes, name='classifier', **self.same)(self.mark('pooled', x.mean((1, 2))))


def widths(params: PyTree) -> Mapping[str, int]:
  """Output channels by path of the layer, of the `params` of a network: what `widths=` takes.

  >>> import jax, jax.numpy as jnp
  >>> from effjax.models.mobilenet_v2 import MobileNetV2
  >>> shapes = jax.eval_shape(lambda key: MobileNetV2(10).init(key, jnp.ones((1, 32, 32, 3)), False), jax.random.key(0))
  >>> widths(shapes['params'])['stage2_block1/expand']
  96
  """
  kernels = {path: leaf for path, leaf in tree.leaves(params).items() if path.split('/')[-1] == 'kernel'}
  return {path.removesuffix('/kernel').removesuffix('/conv'): leaf.shape[-1] for path, leaf in kernels.items()}
