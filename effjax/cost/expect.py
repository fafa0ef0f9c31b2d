"""Expectations over facts that every cost shares: is a row there, how many bits has it, which entries stay."""
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.graph.profile import Buffer, Row
from effjax.reparam import CHANNELS, Fact
from effjax.tree import Path

FLOAT_BITS = 32


def keep_of(facts: dict[Path, Fact]) -> Float[Array, ' n'] | None:
  """The keep probability per channel, None where nothing is gated."""
  return facts[CHANNELS].keep if CHANNELS in facts else None


def present(row: Row | Buffer, facts: dict[Path, Fact]) -> Float[Array, '']:
  """The probability that a row's operator is chosen: the product over its guards."""
  p = jnp.ones((), jnp.float32)
  for path, entry in row.guards:
    if path in facts and facts[path].choice is not None:
      p = p * facts[path].choice[entry].astype(jnp.float32)
  return p


def bits_of(path: Path | None, facts: dict[Path, Fact],
            f: Callable[[Float[Array, '*k']], Float[Array, '*k']] = lambda bits: bits) -> Float[Array, '']:
  """`E[f(bits)]` of a leaf; a leaf that no quantizer touches has 32.

  A mixture over bit widths has a vector of bits and a probability for each, so that f need not be linear.
  """
  fact = facts.get(path, Fact())
  if fact.bits is None:
    return f(jnp.asarray(FLOAT_BITS, jnp.float32))
  bits = f(jnp.asarray(fact.bits, jnp.float32))
  return bits if bits.ndim == 0 else jnp.sum(bits * fact.choice.astype(jnp.float32))
