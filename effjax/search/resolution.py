"""A choice of resolution: one network on images of several sizes."""
import re

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.search.choice import name_of, weighted_sum
from effjax.search.mixed import decided, own_decision


class Resolution(nn.Module):
  """`y = sum_i p_i net(resize(x, s_i), train)`: all sizes share the weights of `net`, whose output has one shape.

  `resize` is bilinear with half-pixel centres and without antialiasing, which is what the target's kernel does; it is
  part of the network, so that the device is given images [n, h, w, c] of one size whatever was chosen. Parameters
  `choice`, as of a `Choice`, and those of `net` under its name.

  Args:
    net: a module called as `net(x, train)`, such as images to logits; of no name of its own.
    operators: names: `s<size>`, such as s24: the side of the images that `net` sees.

  A profile counts resizing as XLA runs it, as two small products. BatchNorm's statistics are of all sizes together, in
  their order: estimate them again for the size that was chosen.

  Raises:
    EffjaxError: no operators; an unknown one; a net whose output's shape depends on the size.

  Source: the resolution as one of three scales, Tan, Le, "EfficientNet", ICML 2019, arXiv:1905.11946; one network for
  all of them, Cai et al., "Once-for-all", ICLR 2020, arXiv:1908.09791, there one drawn a step.

  >>> import jax.numpy as jnp
  >>> class Net(nn.Module):
  ...   @nn.compact
  ...   def __call__(self, x, train):
  ...     return nn.Conv(3, (3, 3))(x).mean((1, 2))
  >>> variables = Resolution(Net(), ('s6', 's8')).init(jax.random.key(0), jnp.ones((1, 8, 8, 1)), False)
  >>> jax.tree.map(jnp.shape, variables['params'])
  {'choice': (2,), 'net': {'Conv_0': {'bias': (3,), 'kernel': (3, 3, 1, 3)}}}
  """
  net: nn.Module
  operators: tuple[str, ...]

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, '*s']:
    p, who = own_decision(self, self.operators), name_of(self)
    sizes = [_parse(who, op) for op in self.operators]
    at = lambda size: self.net(_resized(x, size), train)
    if (made := decided(p)) is not None:
      return at(sizes[made])
    return weighted_sum(who, p, self.operators, [at(size) for size in sizes])


def _resized(x, size):
  same = x.shape[1:3] == (size, size)
  return x if same else jax.image.resize(x, (len(x), size, size, x.shape[-1]), 'bilinear', antialias=False)


def _parse(who, op):
  if match := re.fullmatch(r's([1-9]\d*)', op):
    return int(match[1])
  raise EffjaxError(f"{who}: unknown operator {op!r}: known are 's<size>' such as s24")
