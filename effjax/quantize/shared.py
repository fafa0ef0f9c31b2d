"""Trained weight sharing of Deep Compression: few values for an array, found by k-means and trained on."""
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_finite
from effjax.quantize.levels import distinct, nearest
from effjax.reparam import Fact, Rule, Slots


def shared(bits: int = 4, *, zero: bool = True) -> Rule:
  """`y_i = c[k_i]`: the centroids c train, the index k that k-means gave each weight stays.

  Gradient: `dL/dc_k = sum of dL/dy_i over the weights of index k`.

  Args:
    bits: 1 to 8 of an index.
    zero: index 0 is an exact 0 that does not train, for weights that are 0 at the start (pruned ones): they stay 0, and
      `2^bits - 1` centroids are left for the others. Else `2^bits` centroids, and a 0 is a weight like others.

  Slots: theta = None; phi = {'centroids': [entries], dtype of w}; state = {'index': uint8, shape of w}.
  Facts: bits; the levels, 0 among them, of a scale 1: values in ascending order that no integer kernel multiplies by.

  Raises:
    EffjaxError: bits outside 1..8; weights that are not finite.

  Differs from the paper: an exact 0 is one of the `2^bits` symbols, so that an array can also be stored densely;
  centroids train in the dtype of the array. A cluster that runs empty keeps its centroid.

  Source: Han, Mao, Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and
  Huffman Coding", ICLR 2016, arXiv:1510.00149, section 3, survey [4].

  >>> rule = shared(2)
  >>> rule.apply(*rule.init(jax.random.key(0), jnp.array([1., 1.5, 0., -2., .25])), None)
  Array([ 1.25,  1.25,  0.  , -2.  ,  0.25], dtype=float32)
  """
  if not (isinstance(bits, int) and 1 <= bits <= 8):
    raise EffjaxError(f'shared: bits must be a whole number from 1 to 8, got {bits!r}: an index is one byte')

  def init(key, w):
    check_finite('shared', w)
    used = (w != 0) | (not zero)
    centroids = k_means(w, used, 2**bits - zero)
    index = jnp.where(used, nearest(w.astype(jnp.float32), centroids) + int(zero), 0)
    return Slots(None, {'centroids': centroids.astype(w.dtype)}, {'index': index.astype(jnp.uint8)})

  book = lambda centroids: jnp.concatenate([jnp.zeros(int(zero), centroids.dtype), centroids])
  return Rule(
      init, lambda theta, phi, state, key: book(phi['centroids']).at[state['index'].astype(jnp.int32)].get(mode='clip'),
      lambda slots, hard: Fact(bits=jnp.float32(bits), scale=jnp.float32(1),
                               levels=distinct(book(slots.phi['centroids']).astype(jnp.float32))))


@functools.partial(jax.jit, static_argnames=('entries', 'iterations'))
def k_means(w: Float[Array, '*s'], used: Bool[Array, '*s'], entries: int, iterations: int = 300) -> Float[Array, ' k']:
  """Lloyd's iterations on the entries that are `used`, until no weight changes its cluster; float32, ascending.

  They start from `entries` values at equal distances from the smallest entry to the largest, which keeps centroids for
  the few large weights. A cluster without weights keeps its centroid.

  Args:
    iterations: at most.

  >>> k_means(jnp.array([0., 1., 4., 6.]), jnp.array([True, True, True, True]), 2)
  Array([0.5, 5. ], dtype=float32)
  """
  v, used = w.astype(jnp.float32).ravel(), used.ravel()
  index_of = lambda centroids: nearest(v, centroids)

  def move(carry):
    centroids, index, _, step = carry
    moved = _means(v, used, centroids, index)
    new = index_of(moved)
    return moved, new, jnp.any((new != index) & used), step + 1

  first = _linear(v, used, entries)
  start = first, index_of(first), jnp.asarray(True), jnp.int32(0)
  return jax.lax.while_loop(lambda carry: carry[2] & (carry[3] < iterations), move, start)[0]


def _linear(v, used, entries):
  """Equal distances from the smallest to the largest entry that is used; zeros if none is."""
  end = lambda f, worst: jnp.where(jnp.any(used), f(jnp.where(used, v, worst)), 0)
  low, high = end(jnp.min, jnp.inf), end(jnp.max, -jnp.inf)
  part = jnp.arange(entries, dtype=jnp.float32) * (1 / max(entries - 1, 1))
  return low * (1 - part) + high * part


def _means(v, used, centroids, index):
  """Of each cluster. Sums are of distances from the old centroid: small numbers, whose rounding does not show."""
  add = lambda each: jax.ops.segment_sum(each, index, len(centroids))
  count = add(used.astype(jnp.int32))
  return centroids + add(jnp.where(used, v - centroids[index], 0)) / jnp.maximum(count, 1).astype(jnp.float32)


def sharing_rate(weights: int, entries: int, bits: int = 32) -> float:
  """How many times smaller `weights` numbers of `bits` bits become: `n b / (n log2 k + k b)`, the code book counted.

  >>> sharing_rate(16, 4)
  3.2
  """
  return weights * bits / (weights * math.log2(entries) + entries * bits)
