"""A choice between kernels: one convolution, whose kernel is their weighted sum."""
import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.block import Block
from effjax.layers.convolution import DIMENSIONS, conv_general_dilated
from effjax.layers.windows import Pair
from effjax.search.choice import name_of, weighted_sum
from effjax.search.mixed import own_decision

KNOWN = "'k<size>' such as k3 with an odd size, 'k<size>_d<dilation>' such as k3_d2, 'skip' and 'none'"


# The kernels without parameters: `skip` gives each channel of a group the entry of the same channel.
CONSTANT = {
    'skip': lambda each, features, dtype: jnp.tile(jnp.eye(each, dtype=dtype), features // each)[None, None],
    'none': lambda each, features, dtype: jnp.zeros((1, 1, each, features), dtype)}


class Candidate(NamedTuple):
  """A convolution to choose: its kernel, the steps between what that reads, and how it pads."""
  name: str
  w: Float[Array, 'kh kw each cout']
  dilation: int
  pads: tuple[Pair, Pair]

  @property
  def extents(self) -> Pair:
    """Height and width of what one output reads: `(k - 1) dilation + 1`."""
    return tuple((k - 1) * self.dilation + 1 for k in self.w.shape[:2])


class MergedConv(Block):
  """`y = sum_i p_i conv(x, w_i) = conv(x, sum_i p_i pad(w_i))`: convolution is linear in its kernel, so one is enough.

  `pad` puts zeros around a kernel, and between its entries where it is dilated, so that all have one size and meet at
  the same entry of x. Exact at every border, for strides, groups and any padding; a step takes the time and the memory
  of one convolution. No bias and nothing nonlinear: BatchNorm and activation stand behind it and are those of the sum.
  `[n, h, w, cin] -> [n, h2, w2, features]`. Parameters `choice`, as of a `Choice`, and `k3/kernel` ...

  Args:
    features: output channels.
    operators: names: `k<size>`, `k<size>_d<dilation>` with odd sizes; `skip`, the kernel of `y = x`, where strides is 1
      and the channels stay; `none`, the kernel 0.
    strides: in both directions.
    groups: of all; features == cin == groups is depthwise.
    shared: one parameter `shared/kernel` of the largest size, of which each candidate has the entries in the middle.
    merged: False runs each convolution by itself, on the same parameters. `effjax.graph` finds the operators in this
      form: profile, shrink and export with it. Of the merged form it says, truly, that one convolution of the largest
      size always runs, so that no choice changes what is computed.
    others: as in `Block`.

  `train` changes nothing; it is there so that this can be an operator of a `Choice`.

  Raises:
    EffjaxError: no operators; an unknown one; `skip` where it does not fit; outputs of different sizes, as of padding
      VALID; channels that groups do not divide.

  Differs from the paper: any weights p, not only the indicators of Single-Path NAS; OFA's matrices between a kernel and
  the middle of a larger one are left out. An expected number of parameters counts all of a shared kernel, since each
  candidate reads from it; the network that was found stores its own part.

  Source: Stamoulis et al., "Single-Path NAS", 2019, arXiv:1904.02877, and Cai et al., "Once-for-all", ICLR 2020,
  arXiv:1908.09791, for shared kernels; Cai, Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural
  Networks", CVPR 2020, arXiv:2004.05795, for the sum that is moved into the kernel.

  >>> import jax
  >>> net, x = MergedConv(4, ('k3', 'k5', 'k3_d2', 'skip')), jnp.ones((1, 8, 8, 4))
  >>> y, variables = net.init_with_output(jax.random.key(0), x, False)
  >>> y.shape, sorted(variables['params']), variables['params']['choice'].shape
  ((1, 8, 8, 4), ['choice', 'k3', 'k3_d2', 'k5'], (4,))
  """
  features: int
  operators: tuple[str, ...] = ('k3', 'k5', 'k7')
  strides: int = 1
  groups: int = 1
  shared: bool = False
  merged: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    p, who = own_decision(self, self.operators), name_of(self)
    candidates = self._candidates(who, x, p.dtype)
    _check_sizes(who, x, self.strides, candidates)
    if self.merged:
      return self._conv(x, merge(p, candidates))
    return weighted_sum(who, p, self.operators, [self._alone(x, each) for each in candidates])

  def _candidates(self, who, x, dtype):
    each, features = x.shape[-1] // self.groups, self.features_of(self.features)
    plan = {op: _parse(who, op) for op in self.operators}
    self._check(who, x.shape[-1], features)
    make = lambda name, size: _Kernel((size, size, each, features), name=name)()
    whole = make('shared', max(size for size, _ in plan.values())) if self.shared else None

    def kernel(op, size):
      if op in CONSTANT:
        return CONSTANT[op](each, features, dtype)
      return make(op, size) if whole is None else _middle(whole, size)

    return [Candidate(op, kernel(op, size), dilation, self._pads_of(x, size, dilation))
            for op, (size, dilation) in plan.items()]

  def _check(self, who, channels, features):
    if channels % self.groups or features % self.groups:
      raise EffjaxError(f'{who}: {self.groups} groups do not divide {channels} input and {features} output channels: '
                        'choose another width or other groups')
    if 'skip' in self.operators and (self.strides != 1 or features != channels):
      raise EffjaxError(f'{who}: skip goes from {channels} to {features} channels with strides {self.strides}, wanted '
                        'the same channels and strides 1: leave it out')

  def _pads_of(self, x, size, dilation):
    pads, extent = self.pads(size, dilation), (size - 1) * dilation + 1
    return tuple(lax.padtype_to_pads(x.shape[1:3], (extent,) * 2, (self.strides,) * 2, pads) if isinstance(pads, str)
                 else pads)

  def _conv(self, x, kernel):
    x, w = nn.dtypes.promote_dtype(x, kernel.w, dtype=self.dtype)
    return conv_general_dilated(x, w, (self.strides,) * 2, kernel.pads, rhs_dilation=(kernel.dilation,) * 2,
                                dimension_numbers=DIMENSIONS, feature_group_count=self.groups)

  def _alone(self, x, candidate):
    if candidate.name == 'skip':
      return nn.dtypes.promote_dtype(x, candidate.w, dtype=self.dtype)[0]
    y = self._conv(x, candidate)
    return jnp.zeros_like(y) if candidate.name == 'none' else y  # no operation, in the eyes of a profile


def merge(p: Float[Array, ' n'], candidates: Sequence[Candidate]) -> Candidate:
  """The convolution that is `sum_i p_i` of those of the candidates, of one stride and one size of outputs.

  A kernel that pads less before the image starts later in the common one: `pad` shifts it by the difference.

  >>> k3 = Candidate('k3', jnp.ones((3, 3, 1, 1)), 1, ((1, 1), (1, 1)))
  >>> k1 = Candidate('k1', jnp.ones((1, 1, 1, 1)), 1, ((0, 0), (0, 0)))
  >>> merge(jnp.array([2., 3.]), [k3, k1]).w[:, 1, 0, 0]
  Array([2., 5., 2.], dtype=float32)
  """
  before = [max(c.pads[axis][0] for c in candidates) for axis in (0, 1)]
  starts = [[before[axis] - c.pads[axis][0] for axis in (0, 1)] for c in candidates]
  extent = [max(start[axis] + c.extents[axis] for start, c in zip(starts, candidates)) for axis in (0, 1)]

  def padded(start, c):
    rest = [extent[axis] - start[axis] - c.extents[axis] for axis in (0, 1)]
    where = [(start[axis], rest[axis], c.dilation - 1) for axis in (0, 1)]
    return lax.pad(c.w.astype(p.dtype), jnp.zeros((), p.dtype), [*where, (0, 0, 0), (0, 0, 0)])

  terms = [p[i] * padded(start, c) for i, (start, c) in enumerate(zip(starts, candidates))]
  first, unread = candidates[0], [extent[axis] - before[axis] for axis in (0, 1)]
  pads = tuple((before[axis], sum(first.pads[axis]) - first.extents[axis] + unread[axis]) for axis in (0, 1))
  return Candidate('merged', functools.reduce(jnp.add, terms), 1, pads)


class _Kernel(nn.Module):
  shape: tuple[int, ...]

  @nn.compact
  def __call__(self):
    return self.param('kernel', nn.initializers.lecun_normal(), self.shape, jnp.float32)


def _parse(who, op):
  if op in CONSTANT:
    return 1, 1
  if match := re.fullmatch(r'k(\d*[13579])(?:_d([1-9]\d*))?', op):
    return int(match[1]), int(match[2] or 1)
  raise EffjaxError(f'{who}: unknown operator {op!r}: known are {KNOWN}')


def _middle(w, size):
  start = (w.shape[0] - size) // 2
  return w[start:start + size, start:start + size]


def _check_sizes(who, x, strides, candidates):
  sizes = {c.name: tuple((n + sum(pad) - extent) // strides + 1 for n, pad, extent in
                         zip(x.shape[1:3], c.pads, c.extents)) for c in candidates}
  first = candidates[0].name
  for name, size in sizes.items():
    if size != sizes[first]:
      raise EffjaxError(f'{who}: candidate {name!r} gives {size} entries, candidate {first!r} gives {sizes[first]}: '
                        "all candidates must give one shape: choose padding 'SAME' or 'symmetric'")
