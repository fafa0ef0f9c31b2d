"""Genotypes of motifs: what they flatten to, what a mutation touches, what mutations reach."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.search.encoding import count, encode
from effjax.search.encoding import draw as draw_uniformly
from effjax.search.hierarchical import (
    draw,
    flatten,
    identity_chain,
    motif_space,
    mutate,
    mutate_indices,
    probabilities,
)

KEY = jax.random.key(0)
SPACE = motif_space()
TOY = motif_space(('identity', 'max_pool_3x3'), (2, 1), (2, 3))


def genotype(space, edges):
  """'none' but for these edges, '2.1.0_1' for edge 0_1 of motif 1 of level 2."""
  full = {}
  for short, name in edges.items():
    level, motif, edge = short.split('.')
    full[f'level{level}/motif{motif}/edge{edge}'] = name
  return {**dict.fromkeys(space, 'none'), **full}


def test_sizes():
  assert count(SPACE) == 7 ** (6 * 6) * 7**10
  assert count(TOY) == 3**2 * 3**3
  assert SPACE['level2/motif6/edge2_3'][0] == 'none' and len(SPACE['level3/motif1/edge3_4']) == 7


def test_a_hierarchy_is_the_graph_that_is_written_out_by_hand():
  """Motif 1 is a triangle: 0 -a-> 1 -b-> 2 and 0 -c-> 2. The cell: 0 -motif1-> 1 -motif2-> 2, and 0 -motif1-> 2."""
  space = motif_space(('a', 'b', 'c', 'identity'), (2, 1), (3, 3))
  found = genotype(space, {'2.1.0_1': 'a', '2.1.1_2': 'b', '2.1.0_2': 'c', '2.2.0_1': 'identity', '2.2.1_2': 'c',
                           '3.1.0_1': 'motif1', '3.1.1_2': 'motif2', '3.1.0_2': 'motif1'})
  assert flatten(space, found) == (
      (('a', 0),), (('c', 0), ('b', 1)),  # motif 1: node 2 is node 1 of the cell
      (('a', 0),), (('c', 0), ('b', 3)),  # motif 1 again, on the other edge from 0: its own nodes
      (('c', 2),),  # motif 2, whose identity is no node
      (('identity', 4), ('identity', 5)))


def test_three_levels():
  space = motif_space(('a',), (1, 1, 1), (3, 3, 2))
  chain = {'2.1.0_1': 'a', '2.1.1_2': 'a', '3.1.0_1': 'motif1', '3.1.1_2': 'motif1', '4.1.0_1': 'motif1'}
  assert flatten(space, genotype(space, chain)) == tuple(((('a', i),)) for i in range(4))


def test_what_is_not_there_and_what_leads_nowhere():
  space = motif_space(('a', 'b', 'identity'), (2, 1), (4, 3))
  cell = {'3.1.0_2': 'motif1'}
  dead_end = {'2.1.0_1': 'a', '2.1.0_3': 'b'}  # node 1 of the motif leads nowhere
  assert flatten(space, genotype(space, cell | dead_end)) == ((('b', 0),),)
  from_nothing = {'2.1.2_3': 'a', '2.1.0_3': 'b'}  # node 2 reads nothing
  assert flatten(space, genotype(space, cell | from_nothing)) == ((('b', 0),),)
  cut = {'2.1.0_1': 'a', '2.1.2_3': 'b'}  # no way through the motif, so none through the cell
  assert flatten(space, genotype(space, cell | cut)) == ((),)
  beside = cut | {'3.1.0_1': 'motif2', '3.1.1_2': 'motif2', '2.2.0_3': 'a'}  # but one beside it
  assert flatten(space, genotype(space, cell | beside)) == ((('a', 0),), (('a', 1),))


@pytest.mark.parametrize('space', [SPACE, motif_space(('a', 'identity'), (2, 2, 1), (3, 2, 4))])
def test_the_chain_of_identities_is_the_identity(space):
  assert flatten(space, identity_chain(space)) == ()


def test_a_mutation_touches_one_edge():
  start = draw_uniformly(KEY, SPACE)
  for seed in range(10):
    other = mutate(jax.random.key(seed), SPACE, start)
    changed = [path for path in SPACE if other[path] != start[path]]
    assert len(changed) == 1 and other[changed[0]] in SPACE[changed[0]]


def test_edges_are_mutated_as_often_as_they_should_be():
  """Levels, motifs, targets and sources uniformly: each edge's count is within five standard deviations."""
  n, start = 20_000, jnp.zeros(len(TOY), jnp.int32)
  found = jax.jit(jax.vmap(lambda key: mutate_indices(key, TOY, start)))(jax.random.split(KEY, n))
  times = np.sum(np.asarray(found) != 0, 0)
  want = np.array([1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8])  # two motifs of one edge; 0_1, then 0_2 and 1_2
  np.testing.assert_allclose(probabilities(TOY), want)
  assert np.all(np.abs(times - n * want) < 5 * np.sqrt(n * want * (1 - want)))
  operators = np.bincount(np.asarray(found)[np.asarray(found[:, 0]) != 0, 0], minlength=3)
  assert operators[0] == 0 and abs(operators[1] - operators[2]) < 5 * np.sqrt(operators.sum())
  assert probabilities(SPACE).sum() == pytest.approx(1)


def test_mutations_reach_every_genotype():
  """Breadth first from the chain of identities; whatever 200 mutations of a genotype give is a neighbour of it."""
  step = jax.jit(jax.vmap(lambda key, x: mutate_indices(key, TOY, x), (0, None)))
  keys, start = jax.random.split(KEY, 200), tuple(encode(TOY, identity_chain(TOY)).tolist())
  distance, queue = {start: 0}, [start]
  for x in queue:
    for y in np.unique(np.asarray(step(keys, jnp.array(x))), axis=0).tolist():
      if tuple(y) not in distance:
        distance[tuple(y)] = distance[x] + 1
        queue.append(tuple(y))
  assert len(distance) == count(TOY) == 243
  assert all(d == sum(a != b for a, b in zip(x, start)) for x, d in distance.items())  # an edge a step, none in vain


def test_a_random_genotype():
  """After many mutations of a toy every edge has every operator about equally often."""
  step = jax.jit(jax.vmap(lambda key: encode_steps(key, 60)))
  found = np.asarray(step(jax.random.split(KEY, 3000)))
  for edge in range(len(TOY)):
    times = np.bincount(found[:, edge], minlength=3)
    assert np.all(np.abs(times - 1000) < 5 * np.sqrt(3000 * 2 / 9))
  a, b = draw(KEY, TOY, 5), draw(jax.random.key(1), TOY, 5)
  assert a != b and flatten(TOY, a) is not None and draw(KEY, TOY, 0) == identity_chain(TOY)


def encode_steps(key, n):
  start = jnp.asarray(encode(TOY, identity_chain(TOY)))
  return jax.lax.scan(lambda x, key: (mutate_indices(key, TOY, x), None), start, jax.random.split(key, n))[0]


WRONG = 'wanted for each level 1 or more motifs (1 on the last) of 2 or more nodes'
ERRORS = {
    f'hierarchical.motif_space: motifs=(6, 2), nodes=(4, 5), {WRONG}': lambda: motif_space(motifs=(6, 2)),
    f'hierarchical.motif_space: motifs=(1,), nodes=(4, 5), {WRONG}': lambda: motif_space(motifs=(1,)),
    f'hierarchical.motif_space: motifs=(), nodes=(), {WRONG}': lambda: motif_space(motifs=(), nodes=()),
    f'hierarchical.motif_space: motifs=(6, 1), nodes=(1, 5), {WRONG}': lambda: motif_space(nodes=(1, 5)),
    f'hierarchical.motif_space: motifs=(0, 1), nodes=(4, 5), {WRONG}': lambda: motif_space(motifs=(0, 1)),
    "space: choice 'level2/motif1/edge0_1' has two operators of one name, ('none', 'none'): give each its own":
        lambda: motif_space(('none',)),
    "hierarchical: no 'identity' among ('a', 'b'): give it as a primitive": lambda: identity_chain(motif_space(('a', 'b'))),
    "hierarchical: 'layer1/choice' is no edge of a motif: give a space of hierarchical.motif_space":
        lambda: probabilities({'layer1/choice': ('a', 'b')}),
    "architecture: choice 'level2/motif1/edge0_1' has no operator 'max': nearest are ['max_pool_3x3', ":
        lambda: flatten(TOY, {**identity_chain(TOY), 'level2/motif1/edge0_1': 'max'})}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    ERRORS[text]()
  assert str(error.value).startswith(text)
