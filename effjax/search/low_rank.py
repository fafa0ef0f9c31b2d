"""A choice of rank: two factors, of which the first columns and rows are kept."""
import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.search.choice import name_of, weighted_sum
from effjax.search.mixed import own_decision


class LowRank(nn.Module):
  """`y = sum_i p_i x U[:, :r_i] V[:r_i] = ((x U) * m) V` with `m_j = sum_{i: r_i > j} p_i`, of the last axis of x.

  A product with a matrix of rank r_i: a dense layer or a 1x1 convolution without bias, `[*, cin] -> [*, features]`. The
  sum is moved into the factors, as in `MergedConv`: a step takes two products of the largest rank R. Parameters
  `choice`, as of a `Choice`, `u` [cin, R] and `v` [R, features]; a singular value decomposition, in descending order,
  is a good start for both.

  Args:
    features: output channels.
    operators: names: `r<rank>`, such as r4.
    merged: False multiplies each candidate by itself, on the same parameters: what `effjax.graph` profiles, shrinks and
      exports, as in `MergedConv`.
    dtype: of products and outputs; parameters are float32.

  `train` changes nothing.

  Raises:
    EffjaxError: no operators; an unknown one.

  Source: Denil et al., "Predicting parameters in deep learning", NeurIPS 2013, arXiv:1306.0543, for the factors; nested
  columns as the nested channels of Yu, Huang, "Universally slimmable networks", ICCV 2019, arXiv:1903.05134.

  >>> import jax
  >>> net, x = LowRank(3, ('r1', 'r2')), jnp.ones((5, 4))
  >>> y, variables = net.init_with_output(jax.random.key(0), x, False)
  >>> y.shape, jax.tree.map(jnp.shape, variables['params'])
  ((5, 3), {'choice': (2,), 'u': (4, 2), 'v': (2, 3)})
  """
  features: int
  operators: tuple[str, ...] = ('r1', 'r2', 'r4', 'r8')
  merged: bool = True
  dtype: DTypeLike | None = None

  @nn.compact
  def __call__(self, x: Float[Array, '*s cin'], train: bool) -> Float[Array, '*s features']:
    p, who = own_decision(self, self.operators), name_of(self)
    ranks = [_parse(who, op) for op in self.operators]
    u = self.param('u', nn.initializers.lecun_normal(), (x.shape[-1], max(ranks)), jnp.float32)
    v = self.param('v', nn.initializers.lecun_normal(), (max(ranks), self.features), jnp.float32)
    x, u, v = nn.dtypes.promote_dtype(x, u, v, dtype=self.dtype)
    if not self.merged:
      return weighted_sum(who, p, self.operators, [(x @ u[:, :r]) @ v[:r] for r in ranks])
    kept = np.arange(max(ranks)) < np.array(ranks)[:, None]
    m = jnp.sum(jnp.where(kept, p[:, None], jnp.zeros((), p.dtype)), 0)
    return (x @ u) @ (m.astype(v.dtype)[:, None] * v)


def _parse(who, op):
  if match := re.fullmatch(r'r([1-9]\d*)', op):
    return int(match[1])
  raise EffjaxError(f"{who}: unknown operator {op!r}: known are 'r<rank>' such as r4")
