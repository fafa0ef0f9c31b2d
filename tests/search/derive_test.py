"""Discretisation: rankings that raw logits get wrong, the rule of cells against a plain reference, limits on skips."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from effjax.errors import EffjaxError
from effjax.layers.cell import Cell
from effjax.search.derive import argmax, derive, derive_architecture, derive_cell

OPERATORS = ('none', 'max_pool_3x3', 'avg_pool_3x3', 'skip_connect', 'sep_conv_3x3', 'sep_conv_5x5', 'dil_conv_3x3',
             'dil_conv_5x5')
SKIP = OPERATORS.index('skip_connect')


def logits(seed, edges=14, scale=1.):
  return scale * np.random.default_rng(seed).normal(size=(edges, 8))


def states(edges):
  return [{state for _, state in edges[k:k + 2]} for k in range(0, len(edges), 2)]


def test_edges_are_ranked_by_softmax_not_by_raw_logits():
  node3 = np.array([[1.] * 4 + [5.] + [1.] * 3, [10.] * 3 + [11.] + [10.] * 4, [10., 15.] + [10.] * 6])
  alpha = np.concatenate([np.zeros((2, 8)), node3])
  assert states(derive_cell(alpha, OPERATORS))[1] == {0, 2}
  assert set(np.argsort(-node3.max(1))[:2]) == {1, 2}  # what the raw logits say
  assert derive_cell(alpha, OPERATORS)[2:] == (('sep_conv_3x3', 0), ('max_pool_3x3', 2))


def test_none_is_in_the_softmax_but_never_kept():
  alpha = np.full((5, 8), -9.)
  alpha[:, 0] = [0., 0., 9., 9., 0.]   # rows 2, 3: mostly none
  alpha[:, 4] = [1., 1., 8., 8.1, .5]  # in raw logits the strongest, of probability .27 and .29 against .62
  alpha[2, 5] = -8.
  assert derive_cell(alpha, OPERATORS) == (('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2))


@pytest.mark.parametrize('seed', range(20))
def test_the_rule_against_all_pairs(seed):
  """Of all pairs of edges into a node, that with the largest sum of strengths; each edge's best operator but none."""
  alpha = logits(seed, scale=3.)
  p = special.softmax(alpha, -1)[:, 1:]
  expected, start = (), 0
  for n in range(2, 6):
    pair = max(itertools.combinations(range(n), 2), key=lambda pair: sum(p[start + i].max() for i in pair))
    expected += tuple((OPERATORS[1 + p[start + i].argmax()], i) for i in pair)
    start += n
  assert derive_cell(alpha, OPERATORS) == expected == derive_cell(jnp.asarray(alpha, jnp.float32), OPERATORS)
  rolled = (*OPERATORS[3:], *OPERATORS[:3])  # none need not be the first
  assert derive_cell(np.roll(alpha, -3, 1), rolled) == expected


def count(edges):
  return sum(name == 'skip_connect' for name, _ in edges)


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('limit', range(9))
def test_limited_skips(seed, limit):
  alpha = logits(seed)
  alpha[:, SKIP] += 2.
  free, limited = derive_cell(alpha, OPERATORS), derive_cell(alpha, OPERATORS, max_skips=limit)
  assert count(free) >= 3 and count(limited) == min(limit, count(free))
  assert all(len(pair) == 2 for pair in states(limited)) and 'none' not in dict(limited)
  assert limited == free or limit < count(free)


def test_the_strongest_skips_stay_and_the_next_operator_takes_the_place():
  alpha = np.full((2, 8), -9.)
  alpha[0, SKIP], alpha[0, 5], alpha[1, SKIP], alpha[1, 6] = 3., 1., 2., 1.  # probabilities .88 and .73
  assert derive_cell(alpha, OPERATORS) == (('skip_connect', 0), ('skip_connect', 1))
  assert derive_cell(alpha, OPERATORS, max_skips=1) == (('skip_connect', 0), ('dil_conv_3x3', 1))
  assert derive_cell(alpha, OPERATORS, max_skips=0) == (('sep_conv_5x5', 0), ('dil_conv_3x3', 1))


def test_a_skip_less_may_make_room_for_another_edge():
  """As in P-DARTS the cell is made anew: without its skip (.39) the edge from 2 has .2, and competes with that from 0."""
  names, p = ('sep_conv_3x3', 'skip_connect', 'none'), np.full((5, 3), 1 / 3)
  p[3:] = [.4, .45, .15], [.2, .39, .41]
  for weight, state in ((.1, 2), (.3, 0)):
    p[2] = [weight, .001, .999 - weight]
    assert derive_cell(np.log(p), names)[2:] == (('skip_connect', 1), ('skip_connect', 2))
    kept = {('skip_connect', 1), ('sep_conv_3x3', state)}
    assert set(derive_cell(np.log(p), names, max_skips=1)[2:]) == kept


def test_improbable_is_not_impossible():
  alpha = np.full((2, 8), -2000.)
  alpha[:, SKIP] = 0.  # all else is exactly 0 in float64
  assert derive_cell(alpha, OPERATORS, max_skips=1) == (('max_pool_3x3', 0), ('skip_connect', 1))


@pytest.mark.parametrize('nodes', [1, 2, 3, 4, 5])
def test_a_genotype_is_a_network(nodes):
  edges = nodes * (nodes + 3) // 2
  found = derive(logits(0, edges), logits(1, edges), OPERATORS, max_skips=0)
  assert found.normal_concat == found.reduce_concat == tuple(range(2, nodes + 2))
  assert count(found.normal) == 0 and len(found.normal) == len(found.reduce) == 2 * nodes
  assert found.reduce == derive_cell(logits(1, edges), OPERATORS)
  x = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)
  cell = Cell(found.normal, found.normal_concat, features=4)
  y, _ = jax.eval_shape(lambda x: cell.init_with_output(jax.random.key(0), x, x, False), x)
  assert y.shape == (1, 8, 8, 4 * nodes)


def test_limits_hold_for_the_normal_cell_alone():
  alpha = np.zeros((2, 8))
  alpha[:, SKIP] = 1.
  found = derive(alpha, alpha, OPERATORS, max_skips=1)
  assert count(found.normal) == 1 and count(found.reduce) == 2


def test_argmax():
  choices = {'b': {'choice': jnp.array([1., 3., 3.])}, 'a': [np.array([5.]), jnp.array([-1., -2.], jnp.bfloat16)]}
  assert argmax(choices) == {'a/0': 0, 'a/1': 0, 'b/choice': 1}
  assert all(type(op) is int for op in argmax(choices).values())


def test_errors():
  with pytest.raises(EffjaxError, match=r"argmax: leaf 'a' has shape \(2, 2\): wants the vector of a Choice"):
    argmax({'a': np.ones((2, 2))})
  with pytest.raises(EffjaxError, match="argmax: leaf 'a' is not finite: did the search diverge?"):
    argmax({'a': np.array([1., np.nan])})
  with pytest.raises(EffjaxError, match=r'derive_cell: alpha has shape \(4, 8\), wanted \[2, 5, 9, 14 ... edges, 8 operators\]'):
    derive_cell(np.ones((4, 8)), OPERATORS)
  with pytest.raises(EffjaxError, match=r'derive_cell: alpha has shape \(8,\), wanted'):
    derive_cell(np.ones(8), OPERATORS)
  with pytest.raises(EffjaxError, match=r"alpha has shape \(2, 8\), wanted .* 1 operators\] for \('none',\): a node has an edge"):
    derive_cell(np.ones((2, 8)), ('none',))
  with pytest.raises(EffjaxError, match=r"derive_cell: wants max_skips >= 0 and an operator besides \['none'\], got "
                                        r"max_skips=None and \('none',\): nothing could be kept"):
    derive_cell(np.ones((2, 1)), ('none',))
  with pytest.raises(EffjaxError, match=r"an operator besides \['none', 'skip_connect'\], got max_skips=1"):
    derive_cell(np.ones((2, 2)), ('none', 'skip_connect'), max_skips=1)
  with pytest.raises(EffjaxError, match='derive_cell: wants max_skips >= 0 .* got max_skips=-1'):
    derive_cell(np.ones((2, 8)), OPERATORS, max_skips=-1)
  with pytest.raises(EffjaxError, match='derive_cell: alpha is not finite: did the search diverge?'):
    derive_cell(np.full((2, 8), np.inf), OPERATORS)


def test_the_architecture_of_a_cell_is_the_cell_and_none_elsewhere():
  random = np.random.default_rng(3)
  operators = ('none', 'skip_connect', 'sep_conv_3x3')
  edges = [(i, j) for j in range(2, 6) for i in range(j)]
  p = {f'{kind}/edge{k}/choice': random.dirichlet(np.ones(3)) for kind in ('normal', 'reduce') for k in range(14)}
  found = derive_architecture(p, operators, max_skips=1)
  assert found == derive_architecture(dict(sorted(p.items())), operators, max_skips=1) and set(found) == set(p)
  for kind, limit in (('normal', 1), ('reduce', None)):
    alpha = np.log(np.stack([p[f'{kind}/edge{k}/choice'] for k in range(14)]))
    cell = derive_cell(alpha, operators, max_skips=limit)
    kept = {(state, 2 + n // 2): operator for n, (operator, state) in enumerate(cell)}
    assert [found[f'{kind}/edge{k}/choice'] for k in range(14)] == [kept.get(edge, 'none') for edge in edges]


def test_an_architecture_of_a_cell_needs_none_and_takes_a_probability_of_zero():
  p = {f'normal/edge{k}/choice': np.eye(2)[k % 2] for k in range(5)}
  assert set(derive_architecture(p, ('none', 'skip_connect')).values()) == {'none', 'skip_connect'}
  with pytest.raises(EffjaxError, match=r"derive_architecture: 'none' is not among the operators \('a', 'b'\): an edge that is "
                                        'not kept needs it'):
    derive_architecture(p, ('a', 'b'))
