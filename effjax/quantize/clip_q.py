"""CLIP-Q: small weights clipped to zero and the rest to the means of intervals, anew at every step."""
import jax
import jax.numpy as jnp

from effjax import ste
from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_finite
from effjax.reparam import Fact, Rule, Slots

NARROWEST = 2.**-10  # of its largest weight: the least that a side reaches, so that levels stay apart
_TINY = 1e-34


def clip_q(prune: float = .6, bits: int = 4) -> Rule:
  """The smallest `prune` of the positive and of the negative weights become 0, the others the mean of their interval.

  The clipped axis, from the smallest weight to the last kept negative one and from the first kept positive one to the
  largest, is cut into `2^bits - 1` intervals; 0 is the code that is left. All of it is found again at each step from
  the real weights, so that clipped ones come back when they grow. Gradient: `dy/dw = 1` everywhere.

  Args:
    prune: in [0, 1), of each sign; of n weights `round(prune n)`.
    bits: 2 to 8.

  Slots: theta = w; no phi, no state.
  Facts: bits; the scale 1; `2^bits` levels, 0 and the means (the middle of an interval without weights). Runs on no
    integer kernel: export refuses it.

  Raises:
    EffjaxError: prune or bits out of range; weights that are not finite.

  Differs from the paper: no interval holds both signs, whose mean would be neither: the two sides share the intervals
  by their lengths, rounded, at least one for a side with weights, so that those of one side are equal among themselves.
  `prune` and `bits` are given, not searched for by Bayesian optimisation. Of equal weights at the edge the later ones
  in the array count as larger.

  Source: Tung, Mori, "CLIP-Q: Deep Network Compression Learning by In-Parallel Pruning-Quantization", CVPR 2018,
  survey [41].

  >>> rule = clip_q(.5, 2)
  >>> slots = rule.init(jax.random.key(0), jnp.array([.1, .2, 1., 4., -.3, -2.]))
  >>> rule.apply(*slots, None), rule.facts(slots, True).levels
  (Array([ 0.,  0.,  1.,  4.,  0., -2.], dtype=float32), Array([-2.,  0.,  1.,  4.], dtype=float32))
  """
  if not 0 <= prune < 1:
    raise EffjaxError(f'clip_q: prune must be a fraction from 0 to below 1, got {prune}')
  if not (isinstance(bits, int) and 2 <= bits <= 8):
    raise EffjaxError(f'clip_q: bits must be a whole number from 2 to 8, got {bits!r}: one code is 0, and both '
                      'signs want one')

  def init(key, w):
    check_finite('clip_q', w)
    return Slots(w, {}, {})

  def apply(w, phi, state, key):
    flat = w.astype(jnp.float32).ravel()
    order = jnp.argsort(flat)
    codes, levels = _partition(flat[order], prune, bits)
    y = jnp.zeros_like(flat).at[order].set(levels[codes], unique_indices=True)
    return ste.surrogate(y.reshape(w.shape).astype(w.dtype), w, jnp.ones_like(w))

  def facts(slots, hard):
    levels = _partition(jnp.sort(slots.theta.astype(jnp.float32).ravel()), prune, bits)[1]
    return Fact(bits=jnp.float32(bits), scale=jnp.float32(1), levels=jax.lax.stop_gradient(levels))

  return Rule(init, apply, facts)


def _partition(w, prune, bits):
  """The code of each weight and the levels, both ascending, of ascending weights."""
  size, total = w.size, 2**bits - 1
  kept = lambda n: n - jnp.round(n.astype(jnp.float32) * prune).astype(jnp.int32)
  last, first = kept(jnp.sum(w < 0, dtype=jnp.int32)), size - kept(jnp.sum(w > 0, dtype=jnp.int32))
  left = _side(w, jnp.int32(0), last - 1)
  right = _side(w, first, jnp.int32(size - 1))
  share = jnp.round(left[1] * (total / jnp.maximum(left[1] + right[1], _TINY)))
  share = jnp.clip(share, (left[1] > 0).astype(jnp.float32), total - (right[1] > 0).astype(jnp.float32))
  below = share.astype(jnp.int32)
  at, place = jnp.arange(size), jnp.arange(total + 1)
  codes = jnp.where(at < last, _interval(w, *left, share),
                    jnp.where(at >= first, below + 1 + _interval(w, *right, total - share), below))
  empty = jnp.where(place < below, _middle(place, *left, share), _middle(place - below - 1, *right, total - share))
  return codes, jnp.where(place == below, 0., _means(w, codes, empty))


def _side(w, begin, end):
  """Where the kept weights of one sign start and how far they reach, which is 0 for none."""
  low, high = w[jnp.clip(begin, 0, w.size - 1)], w[jnp.clip(end, 0, w.size - 1)]
  reach = jnp.maximum(jnp.maximum(high - low, jnp.maximum(-low, high) * NARROWEST), _TINY)
  return jnp.where(begin <= end, low, 1.), jnp.where(begin <= end, reach, 0.)


def _interval(w, low, reach, n):
  """In which of n equal intervals each weight is."""
  at = jnp.floor((w - low) * (n / jnp.maximum(reach, _TINY)))
  return jnp.clip(at, 0., jnp.maximum(n - 1, 0.)).astype(jnp.int32)


def _middle(i, low, reach, n):
  """The middle of interval i of n; of a side without weights that of some interval."""
  return low + jnp.where(reach > 0, reach, 1.) * ((i.astype(jnp.float32) + .5) / jnp.maximum(n, 1.))


def _means(w, codes, empty):
  """The mean of the weights of each code, `empty` where there are none; sums in an order that no compiler changes."""
  add = lambda a, b: (a[0] | b[0], jnp.where(b[0], b[1], a[1] + b[1]))
  sums = jax.lax.associative_scan(add, (jnp.concatenate([jnp.ones(1, bool), codes[1:] != codes[:-1]]), w))[1]
  begin, end = (jnp.searchsorted(codes, jnp.arange(empty.size), side=side) for side in ('left', 'right'))
  last = jnp.maximum(end - 1, 0)
  means = sums[last] / jnp.maximum(end - begin, 1).astype(jnp.float32)
  return jnp.where(end > begin, jnp.clip(means, w[jnp.minimum(begin, w.size - 1)], w[last]), empty)
