"""Hierarchical representations: motifs, small graphs whose edges are motifs of the level below, at last operators."""
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from effjax.errors import EffjaxError
from effjax.search.encoding import Architecture, Space, check_space, decode, encode

PRIMITIVES = ('conv_1x1', 'depthwise_conv_3x3', 'sep_conv_3x3', 'max_pool_3x3', 'avg_pool_3x3', 'identity')
Graph = tuple[tuple[tuple[str, int], ...], ...]  # (operator, node that it reads) of nodes 1, 2 ...
Edge = tuple[int, int, int, int]  # level, motif, from node, to node


def motif_space(primitives: Sequence[str] = PRIMITIVES, motifs: Sequence[int] = (6, 1),
                nodes: Sequence[int] = (4, 5)) -> Space:
  """The space of genotypes: for each motif and pair of its nodes i < j, what the edge `level2/motif1/edge0_1` is.

  An edge of level 2 is 'none' or a primitive; one of a level above is 'none' or 'motif1', 'motif2' ... of the level
  below. The only motif of the last level is the cell. A genotype is an architecture of this space, which `encoding`
  counts, encodes and draws; the default has 7^46.

  Args:
    primitives: operators of level 1.
    motifs: how many there are on levels 2, 3 ...; 1 on the last.
    nodes: of a motif of each of these levels: node 0 is what it gets, the last what it gives.

  Raises:
    EffjaxError: no levels, or other numbers of motifs than of nodes; a last level of several motifs; motifs of less
      than two nodes; primitives of one name, or one called 'none'.

  Source: Liu, Simonyan, Vinyals, Fernando, Kavukcuoglu, "Hierarchical representations for efficient architecture
  search", ICLR 2018, arXiv:1711.00436, survey [75].

  >>> motif_space(('identity',), (2, 1), (2, 2))['level3/motif1/edge0_1']
  ('none', 'motif1', 'motif2')
  """
  if not motifs or len(motifs) != len(nodes) or motifs[-1] != 1 or min(motifs) < 1 or min(nodes) < 2:
    raise EffjaxError(f'hierarchical.motif_space: motifs={tuple(motifs)}, nodes={tuple(nodes)}, wanted for '
                      'each level 1 or more motifs (1 on the last) of 2 or more nodes')
  found, names = {}, tuple(primitives)
  for level, (m, n) in enumerate(zip(motifs, nodes), 2):
    pairs = [(i, j) for j in range(1, n) for i in range(j)]
    found |= {f'level{level}/motif{k}/edge{i}_{j}': ('none', *names) for k in range(1, m + 1) for i, j in pairs}
    names = tuple(f'motif{k}' for k in range(1, m + 1))
  check_space(found)
  return found


def identity_chain(space: Space) -> Architecture:
  """The genotype where evolution starts: edges of successive nodes are identities, or motifs of such; others are none.

  Raises:
    EffjaxError: a space that is not of motifs; one without 'identity'.

  >>> list(identity_chain(motif_space(('identity',), (1,), (3,))).values())
  ['identity', 'none', 'identity']
  """
  def name(edge, names):
    wanted = 'identity' if edge[0] == 2 else names[1]
    if wanted not in names:
      raise EffjaxError(f"hierarchical: no 'identity' among {names[1:]}: give it as a primitive")
    return wanted if edge[3] == edge[2] + 1 else 'none'
  return {path: name(edge, space[path]) for path, edge in _edges(space).items()}


def mutate_indices(key: Array, space: Space, indices: Int[Array | np.ndarray, ' edges']) -> Int[Array, ' edges']:
  """The encoded genotype with one edge changed. For `jit` and `vmap`.

  Level, motif on it, the node the edge leads to, and the one it comes from are drawn uniformly, in this order; then one
  of the other things that the edge can be. 'none' removes an edge, or adds one where it was.

  Raises:
    EffjaxError: a space that is not of motifs.

  Differs from the paper: there the new operator may be the old one.

  Source: the mutation of Liu et al., 2018, arXiv:1711.00436, survey [75].

  >>> mutate_indices(jax.random.key(0), motif_space(('identity',), (1,), (2,)), np.array([1]))
  Array([0], dtype=int32)
  """
  where, which = jax.random.split(key)
  i = jax.random.choice(where, len(space), p=jnp.asarray(probabilities(space), jnp.float32))
  indices = jnp.asarray(indices, jnp.int32)
  n = jnp.asarray([len(names) for names in space.values()], jnp.int32)[i]
  return indices.at[i].set((indices[i] + jax.random.randint(which, (), 1, n, jnp.int32)) % n)


def probabilities(space: Space) -> Float[np.ndarray, ' edges']:
  """How probably `mutate_indices` changes each edge: `1 / levels / motifs of the level / (nodes - 1) / to`.

  Raises:
    EffjaxError: a space that is not of motifs.

  >>> probabilities(motif_space(('identity',), (1,), (3,)))
  array([0.5 , 0.25, 0.25])
  """
  edges = _edges(space).values()
  levels, motifs, nodes = _sizes(edges)
  return np.array([1 / levels / motifs[level] / (nodes[level] - 1) / to for level, _, _, to in edges])


def mutate(key: Array, space: Space, architecture: Architecture) -> Architecture:
  """The genotype with one edge changed, as of `mutate_indices`.

  Raises:
    EffjaxError: a space that is not of motifs; as of `encoding.encode`.

  >>> mutate(jax.random.key(0), motif_space(('identity',), (1,), (2,)), {'level2/motif1/edge0_1': 'none'})
  {'level2/motif1/edge0_1': 'identity'}
  """
  return decode(space, mutate_indices(key, space, encode(space, architecture)))


def draw(key: Array, space: Space, mutations: int = 1000) -> Architecture:
  """The paper's random genotype: the chain of identities after that many mutations. `encoding.draw` draws uniformly.

  Raises:
    EffjaxError: as of `identity_chain`.

  >>> draw(jax.random.key(0), motif_space(('identity',), (1,), (2,)), 3)
  {'level2/motif1/edge0_1': 'none'}
  """
  start = jnp.asarray(encode(space, identity_chain(space)))
  step = lambda indices, key: (mutate_indices(key, space, indices), None)
  return decode(space, jax.lax.scan(step, start, jax.random.split(key, mutations))[0])


def flatten(space: Space, architecture: Architecture) -> Graph:
  """The genotype as one graph of primitives: every motif written out wherever it stands.

  `((operator, node that it reads), ...)` of nodes 1, 2 ...; node 0 is the input, the last one the output. A motif's
  last node goes by 'identity' to the node that its edge leads to. A node of one identity is what it reads; one without
  inputs is not there, nor what reads it alone, nor what the output does not need. So the chain of identities is (),
  whose output is its input, and a cell without a way from input to output is ((),), which gives 0.

  Raises:
    EffjaxError: a space that is not of motifs; as of `encoding.encode`.

  >>> toy = motif_space(('identity', 'max_pool_3x3'), (1, 1), (2, 3))
  >>> flatten(toy, {**dict.fromkeys(toy, 'motif1'), 'level2/motif1/edge0_1': 'max_pool_3x3'})
  ((('max_pool_3x3', 0),), (('max_pool_3x3', 0),), (('max_pool_3x3', 1),), (('identity', 2), ('identity', 3)))
  """
  encode(space, architecture)
  edges = {edge: architecture[path] for path, edge in _edges(space).items()}
  levels, _, nodes = _sizes(edges)
  found: list[tuple[tuple[str, int], ...]] = []

  def expand(level, motif, source):
    """The node that a motif's last one is, None if it is not there."""
    states = {0: source}
    for j in range(1, nodes[level]):
      inputs = []
      for i in (i for i in range(j) if states[i] is not None and edges[level, motif, i, j] != 'none'):
        name = edges[level, motif, i, j]
        last = states[i] if level == 2 else expand(level - 1, int(name.removeprefix('motif')), states[i])
        inputs += [] if last is None else [(name if level == 2 else 'identity', last)]
      states[j] = _add(found, tuple(inputs))
    return states[nodes[level] - 1]

  output = expand(levels + 1, 1, 0)
  return ((),) if output is None else _needed(found, output)


def _add(found, inputs):
  if not inputs:
    return None
  if len(inputs) == 1 and inputs[0][0] == 'identity':
    return inputs[0][1]
  found.append(inputs)
  return len(found)


def _needed(found, output) -> Graph:
  """The nodes that the output is made of, numbered anew."""
  needed = {output}
  for k in range(output, 0, -1):
    needed |= {i for _, i in found[k - 1]} if k in needed else set()
  number = {k: i for i, k in enumerate(sorted(needed | {0}))}
  return tuple(tuple((name, number[i]) for name, i in found[k - 1]) for k in number if k)


def _edges(space) -> dict[str, Edge]:
  found = {path: re.fullmatch(r'level(\d+)/motif(\d+)/edge(\d+)_(\d+)', path) for path in space}
  if strange := [path for path, match in found.items() if match is None]:
    raise EffjaxError(f'hierarchical: {strange[0]!r} is no edge of a motif: give a space of hierarchical.motif_space')
  return {path: tuple(map(int, match.groups())) for path, match in found.items()}


def _sizes(edges):
  """How many levels, and of each the number of its motifs and of a motif's nodes."""
  levels = {level for level, *_ in edges}
  most = lambda at: {level: max(edge[at] for edge in edges if edge[0] == level) for level in levels}
  return len(levels), most(1), {level: n + 1 for level, n in most(3).items()}
