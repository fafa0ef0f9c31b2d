"""Spaces as data: what is read off a supernet, counts, draws, mutations, and architectures of other spaces."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from effjax.errors import EffjaxError
from effjax.layers import ConvBN
from effjax.search import MBConvNet
from effjax.search.choice import Choice, Skip
from effjax.search.encoding import (
    count,
    decode,
    draw,
    draw_indices,
    encode,
    mutate,
    mutate_indices,
    one_hot,
    put,
    space_of,
)
from effjax.search.mixed import Decisions

KEY = jax.random.key(0)
SPACE = {'b/choice': ('x', 'y', 'z'), 'a/choice': ('x',), 'c/choice': ('y', 'w')}
SPACES = st.dictionaries(st.text('ab/', min_size=1, max_size=4),
                         st.lists(st.text('xyz', min_size=1, max_size=3), min_size=1, max_size=5, unique=True).map(tuple),
                         min_size=1, max_size=6)


@st.composite
def architectures(draw):
  """A space and an architecture in it, its paths in any order."""
  space = draw(SPACES)
  paths = draw(st.permutations(list(space)))
  return space, {path: draw(st.sampled_from(space[path])) for path in paths}


@given(architectures())
@settings(max_examples=200, deadline=None)
def test_decoding_undoes_encoding(both):
  space, architecture = both
  indices = encode(space, architecture)
  assert decode(space, indices) == architecture
  np.testing.assert_array_equal(encode(space, decode(space, indices)), indices)
  assert list(decode(space, indices)) == list(space)  # in the order of the space, whatever was given


@given(architectures(), st.integers(0, 2**31 - 1))
@settings(max_examples=25, deadline=None)
def test_a_mutation_changes_one_choice(both, seed):
  space, architecture = both
  if count(space) == 1:
    with pytest.raises(EffjaxError, match='mutate: the space has one architecture, nothing can change: give a choice'):
      mutate(jax.random.key(seed), space, architecture)
    return
  other = mutate(jax.random.key(seed), space, architecture)
  assert sum(other[path] != architecture[path] for path in space) == 1
  encode(space, other)


@given(st.dictionaries(st.text('ab', min_size=1), st.integers(1, 6), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_the_count_is_the_number_of_encodings(sizes):
  space = {path: tuple(map(str, range(n))) for path, n in sizes.items()}
  assert count(space) == np.indices([*sizes.values()])[0].size


def test_the_count_is_exact_beyond_integers_of_64_bits():
  assert count({str(i): ('x', 'y', 'z') for i in range(60)}) == 3**60


def test_draws_are_uniform_over_the_space():
  draws = jax.jit(jax.vmap(lambda key: draw_indices(key, SPACE)))(jax.random.split(KEY, 12_000))
  counts = np.bincount(np.ravel_multi_index(np.asarray(draws).T, (3, 1, 2)), minlength=6)
  assert counts.sum() == 12_000 and stats.chisquare(counts).pvalue > 1e-3
  assert draw(KEY, SPACE) == decode(SPACE, draw_indices(KEY, SPACE))


def test_mutations_are_uniform_over_choices_and_then_over_other_operators():
  """Of [2, 0, 1]: the first choice to 0 or 1 in a quarter of the cases each, the last one to 0 in half of them."""
  keys = jax.random.split(KEY, 12_000)
  changed = np.asarray(jax.jit(jax.vmap(lambda key: mutate_indices(key, SPACE, np.array([2, 0, 1]))))(keys))
  counts = [(changed == other).all(1).sum() for other in ([0, 0, 1], [1, 0, 1], [2, 0, 0])]
  assert sum(counts) == 12_000 and stats.chisquare(counts, [3000, 3000, 6000]).pvalue > 1e-3


def test_indices_keep_their_dtype():
  assert mutate_indices(KEY, SPACE, np.zeros(3, np.int8)).dtype == jnp.int8
  assert draw_indices(KEY, SPACE).dtype == jnp.int32


def test_one_hot_of_names_and_of_traced_indices():
  architecture = {'a/choice': 'x', 'b/choice': 'z', 'c/choice': 'y'}
  found = one_hot(SPACE, architecture)
  assert {path: p.tolist() for path, p in found.items()} == {'b/choice': [0, 0, 1], 'a/choice': [1], 'c/choice': [1, 0]}
  traced = jax.jit(lambda indices: one_hot(SPACE, indices))(encode(SPACE, architecture))
  jax.tree.map(np.testing.assert_array_equal, found, traced)


def test_vectors_are_put_into_parameters_in_their_dtype():
  params = {'b': {'choice': jnp.ones(3, jnp.bfloat16), 'w': jnp.ones(2)}}
  new = put(params, {'b/choice': jnp.array([0., 1., 0.])})
  assert new['b']['choice'].dtype == jnp.bfloat16 and new['b']['choice'].tolist() == [0, 1, 0]
  assert new['b']['w'] is params['b']['w']


def test_the_space_of_a_supernet_is_that_of_its_leaves_in_the_order_of_the_calls():
  net, x = MBConvNet(10, stem=4, blocks=((4, 1),) * 10 + ((6, 2),), operators=('mb2_k3', 'sep_k3', 'skip'), head=8), jnp.ones((1, 8, 8, 3))
  space = space_of(net, x, False)
  assert list(space) == [f'block{i}/choice' for i in range(1, 12)]
  assert space['block1/choice'] == ('mb2_k3', 'sep_k3', 'skip') and space['block11/choice'] == ('mb2_k3', 'sep_k3')
  params = jax.eval_shape(lambda: net.init(KEY, x, False))['params']
  assert {path: len(names) for path, names in space.items()} == {
      f'{name}/choice': part['choice'].shape[0] for name, part in params.items() if 'choice' in part}


def test_operators_without_names_and_shared_choices():
  assert space_of(Choice((Skip(), ConvBN(3))), jnp.ones((1, 4, 4, 3)), False) == {'choice': ('ops_0', 'ops_1')}
  assert space_of(Decisions({'e1': ('x', 'y'), 'e0': ('x',)})) == {'e1/choice': ('x', 'y'), 'e0/choice': ('x',)}


ERRORS = {
    "architecture: choice 'd/choice' is not in the space: nearest are ['c/choice', 'b/choice', 'a/choice']":
        lambda: encode(SPACE, {'d/choice': 'x'}),
    "architecture: 2 of 3 choices are not made, such as 'a/choice': give each an operator":
        lambda: encode(SPACE, {'b/choice': 'x'}),
    "architecture: choice 'c/choice' has no operator 'yy': nearest are ['y', 'w']":
        lambda: encode(SPACE, {'b/choice': 'x', 'a/choice': 'x', 'c/choice': 'yy'}),
    'decode: 2 indices, wanted one for each of 3 choices': lambda: decode(SPACE, np.array([0, 0])),
    "decode: index -1 of choice 'b/choice', wanted 0 to 2": lambda: decode(SPACE, np.array([-1, 0, 0])),
    "decode: index 1 of choice 'a/choice', wanted 0 to 0": lambda: decode(SPACE, np.array([0, 1, 0])),
    "space: choice 'a' is empty: give it an operator": lambda: draw(KEY, {'a': ()}),
    "space: choice 'a' has two operators of one name, ('x', 'x'): give each its own": lambda: count({'a': ('x', 'x')}),
    "space: no choices: give a network with a Choice in it, or {'path': ('operator', ...)}":
        lambda: space_of(ConvBN(3), jnp.ones((1, 4, 4, 3)), False),
    "put: no leaf 'b/choice': nearest are ['a/choice']":
        lambda: put({'a': {'choice': jnp.ones(2)}}, {'b/choice': jnp.ones(2)}),
    "put: leaf 'a/choice' has shape (3,), got (2,): is this the space of that network?":
        lambda: put({'a': {'choice': jnp.ones(3)}}, {'a/choice': jnp.ones(2)})}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    ERRORS[text]()
  assert str(error.value) == text
