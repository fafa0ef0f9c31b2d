"""The width of a layer as a choice: one operator at full width times the expected mask of its channels."""
import functools
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.graph.profile import Profile
from effjax.reparam import CHANNELS, Fact
from effjax.search.choice import name_of
from effjax.search.encoding import Space
from effjax.search.mixed import Decision
from effjax.tree import Path


class MaskedWidth(nn.Module):
  """`y = op(x) sum_i p_i mask_i`, `mask_i` 1 for the first `widths[i]` channels; p is the parameter `width/choice`.

  All widths share the operator, so that a choice among many costs what the widest does, and the derivative by p_i is
  `<dy, op(x) mask_i>`. Rules on that leaf search as they do on a `Choice`'s; with a one-hot p, y is what the operator
  with its first channels alone gives, beside zeros. `Derived` leaves it at full width, masked; `graph.shrink` makes it
  small, with the mask of `kept_widths`.

  Args:
    op: module called as `op(x, train)`, which gives `max(widths)` channels last; its own name is kept in the tree. What
      follows must keep zeros: a depthwise convolution whose BatchNorm has a bias belongs into op, before the mask.
    widths: that are on offer; in the space they are called '16', '24' and so on.

  Raises:
    EffjaxError: an operator of another width; widths that are not distinct positive numbers.

  Differs from the paper: no resolution is chosen here. There it is a sum of runs at each resolution, which is a
  `Choice` whose operators subsample, run and spread what they get; a mask of one run would not be the smaller run.

  Source: Wan et al., "FBNetV2: differentiable neural architecture search for spatial and channel dimensions", CVPR
  2020, arXiv:2004.05565 (DMaskingNAS).

  >>> import jax
  >>> from effjax.search.choice import Skip
  >>> MaskedWidth(Skip(name='skip'), (1, 3)).init_with_output(jax.random.key(0), jnp.ones((1, 3)), False)[0]
  Array([[1. , 0.5, 0.5]], dtype=float32)
  """
  op: nn.Module
  widths: tuple[int, ...]
  preserve_adopted_names = True

  @nn.compact
  def __call__(self, x: Float[Array, '*s'], train: bool) -> Float[Array, '*s2']:
    where = name_of(self)
    if min(self.widths, default=0) < 1 or len(set(self.widths)) < len(self.widths):
      raise EffjaxError(f'{where}: widths {self.widths}, wanted distinct positive numbers')
    p, y = Decision(tuple(map(str, self.widths)), name='width')(), self.op(x, train)
    if y.shape[-1] != max(self.widths):
      raise EffjaxError(f'{where}: {self.op.name!r} gives {y.shape[-1]} channels, wanted the largest of widths '
                        f'{self.widths}: make it that wide')
    mask = expected_mask(p, self.widths).astype(y.dtype)
    return y * jnp.broadcast_to(mask, y.shape)


def expected_mask(p: Float[Array | np.ndarray, ' n'], widths: Sequence[int]) -> Float[Array, ' widest']:
  """`sum_i p_i mask_i`: the probability that each channel is there. Its sum is the expected width `sum_i p_i widths_i`.

  Use it where layers share a width, or where one block has several, on what they give.

  Raises:
    EffjaxError: another number of probabilities than of widths.

  >>> expected_mask(jnp.array([.25, .75]), (1, 3))
  Array([1.  , 0.75, 0.75], dtype=float32)
  """
  if len(p) != len(widths):
    raise EffjaxError(f'expected_mask: {len(p)} probabilities, wanted one for each of {len(widths)} widths')
  channel = jnp.arange(max(widths))
  # A product of each entry with its mask, and no matrix product: so `effjax.graph` sees a choice.
  return functools.reduce(jnp.add, [p[i] * (channel < width).astype(p.dtype) for i, width in enumerate(widths)])


def kept_widths(profile: Profile, space: Space, leaves: Mapping[Path, Path],
                facts: dict[Path, Fact]) -> dict[Path, Fact]:
  """The facts, with the expected mask of each width choice on the channels of the graph: what costs need to know.

  The graph sees the leaf `width/choice`, but not that its entries end channels; with `keep` of these facts
  `cost.macs(profile, facts)` is the expectation over widths. It is exact where the axes of each layer hang on different
  choices, drawn independently. Of a layer that reads and gives channels of one choice it is `E[w]^2`, not `E[w^2]`.
  With hard facts `keep > 0` is the mask that `graph.shrink` takes.

  Args:
    profile: of the supernet.
    space: of the supernet; the names of these choices are widths.
    leaves: for the path of each width choice the path of a parameter whose last axis has the masked channels: the last
      kernel of the operator, or the scale of the BatchNorm behind it.
    facts: of `Reparam.facts`; what they keep of channels is multiplied.

  Raises:
    EffjaxError: a path that is no choice of the space or has no fact, one that is no leaf, or whose last axis has
      another size than the widest; a masked channel that the graph cannot remove.

  Source: the expected cost of FBNetV2, Wan et al., CVPR 2020, arXiv:2004.05565.

  >>> from effjax.graph import profile
  >>> fn = lambda p, x: (x @ p['a']) @ p['b']
  >>> found = profile(fn, {'a': jnp.ones((2, 3)), 'b': jnp.ones((3, 4))}, jnp.ones((1, 2)))
  >>> facts = {'width/choice': Fact(choice=jnp.array([.25, .75]))}
  >>> kept_widths(found, {'width/choice': ('1', '3')}, {'width/choice': 'a'}, facts)[CHANNELS].keep
  Array([1.  , 0.75, 0.75], dtype=float32)
  """
  keep = facts[CHANNELS].keep if CHANNELS in facts else jnp.ones(profile.groups.size, jnp.float32)
  for choice, leaf in leaves.items():
    for known, path, what in ((space, choice, 'choice of the space'), (facts, choice, 'fact'),
                              (profile.leaves, leaf, 'leaf of the network')):
      if path not in known:
        raise EffjaxError(f'kept_widths: {path!r} is no {what}: known are {list(known)}')
    widths, channels = tuple(map(int, space[choice])), profile.leaves[leaf][-1]
    if len(channels) != max(widths):
      raise EffjaxError(f'kept_widths: the last axis of {leaf!r} has {len(channels)} entries, {choice!r} has widths '
                        f'{widths}: name the leaf whose channels it masks')
    masked = channels[min(widths):]
    if np.any(masked < 0):
      raise EffjaxError(f'kept_widths: {int(np.sum(masked < 0))} channels that {choice!r} masks cannot be removed from '
                        f'{leaf!r}: they reach an input or output, ask graph.explain')
    mask = expected_mask(facts[choice].choice, widths).astype(jnp.float32)
    keep = keep * jnp.ones_like(keep).at[masked].set(mask[min(widths):])
  return {**facts, CHANNELS: facts.get(CHANNELS, Fact())._replace(keep=keep)}
