"""Expectations over facts that every cost shares: is a row there, how many bits has it, which entries stay."""
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.graph.buffers import Buffer
from effjax.graph.profile import Row
from effjax.reparam import CHANNELS, Fact
from effjax.tree import Path

FLOAT_BITS = 32


def keep_of(facts: dict[Path, Fact]) -> Float[Array, ' n'] | None:
  """The keep probability per channel, None where nothing is gated."""
  return facts[CHANNELS].keep if CHANNELS in facts else None


def present(rows: Sequence[Row | Buffer], facts: dict[Path, Fact]) -> Float[Array, ' rows']:
  """The probability that each row's operator is chosen: the product over its guards."""
  paths = {path for row in rows for path, _ in row.guards if path in facts and facts[path].choice is not None}
  known = [jnp.ones(1, jnp.float32)] + [facts[path].choice.astype(jnp.float32) for path in sorted(paths)]
  first = dict(zip(sorted(paths), np.cumsum([len(p) for p in known[:-1]]), strict=True))
  places = [[first[path] + entry for path, entry in row.guards if path in paths] for row in rows]
  p, every = jnp.ones(len(rows), jnp.float32), jnp.concatenate(known)
  for depth in range(max(map(len, places), default=0)):
    p = p * every[np.array([place[depth] if depth < len(place) else 0 for place in places])]
  return p


def bits_of(rows: Sequence[Row], facts: dict[Path, Fact],
            f: Callable[[jax.Array], jax.Array] = lambda bits: bits) -> Float[Array, ' rows']:
  """`E[f(bits)]` of each row's weight; one that no quantizer touches has 32.

  A mixture over bit widths has a vector of bits and a probability for each, so that f need not be linear.
  """
  found = [facts.get(row.path, Fact()) for row in rows]
  bits = [jnp.atleast_1d(jnp.asarray(FLOAT_BITS if fact.bits is None else fact.bits, jnp.float32)) for fact in found]
  mixed = [b.size > 1 for b in bits]
  p = [fact.choice.astype(jnp.float32) if m else jnp.ones(1, jnp.float32) for fact, m in zip(found, mixed, strict=True)]
  width = max((b.size for b in bits), default=1)
  padded = lambda parts: jnp.stack([jnp.pad(x, (0, width - x.size)) if x.size < width else x for x in parts])
  return jnp.sum(f(padded(bits)) * padded(p), 1)
