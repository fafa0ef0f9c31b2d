"""The same function has the same lines; another one is told by its first other equation."""
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.graph.fingerprint import difference, digest, fingerprint
from effjax.graph.trace import flatten, trace
from effjax.layers.convolution import conv_general_dilated

PARAMS, ROW = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}, jnp.ones((1, 3))


def plain(p, x):
  return jax.nn.relu(x @ p['a']) @ p['b']


def in_scope(p, x):
  with jax.named_scope('first'):
    return jnp.tanh(x @ p['a']) @ p['b']


def looped(f):
  return lambda p, x: plain(p, jax.lax.scan(lambda h, _: (f(h), None), x, None, 3)[0])


def branched(f):
  return lambda p, x: jax.lax.cond(x[0, 0] > 0, f, jnp.sin, plain(p, x))


def shifted(mean):
  return lambda p, x: plain(p, x - mean[None])


def lines(fn, x=ROW):
  return fingerprint(trace(fn, PARAMS, x))


OTHERS = {
    'activation': (plain, in_scope, "equation 1 in 'first' is 'tanh', saved 'max'"),
    'literal': (plain, lambda p, x: jnp.maximum(x @ p['a'], 1.) @ p['b'], "equation 1 is 'max' of other inputs"),
    'more': (plain, lambda p, x: plain(p, x) + 1, "equation 3 is 'add', saved 'return'"),
    'less': (plain, lambda p, x: jax.nn.relu(x @ p['a']), "equation 2 is 'return', saved 'dot_general'"),
    'structure': (plain, lambda p, x: {'y': plain(p, x)}, "equation 3 is 'return' of other inputs"),
    'wiring': (lambda p, x: p['a'] - x.T, lambda p, x: x.T - p['a'], "is 'sub' of other inputs"),
    'constant': (shifted(np.arange(3.)), shifted(np.ones(3)), "equation 0 is '.*' of other inputs"),
    'loop': (looped(jnp.tanh), looped(jnp.sin), "equation 0 is 'scan' of other inputs"),
    'branch': (branched(jnp.tanh), branched(jnp.cos), "'cond' of other inputs")}


@pytest.mark.parametrize('name', OTHERS)
def test_another_function_is_told_by_its_first_other_equation(name):
  one, other, text = OTHERS[name]
  assert re.search(text, difference(trace(other, PARAMS, ROW), lines(one)))
  assert difference(trace(one, PARAMS, ROW), lines(one)) is None


def test_lines_are_equations():
  assert [line.split()[0] for line in lines(plain)] == [
      *(eqn.name for eqn in flatten(trace(plain, PARAMS, ROW)).eqns), 'return']


def test_shapes_belong_to_a_function_and_precision_does_not():
  assert lines(plain) != lines(plain, jnp.ones((2, 3)))
  with jax.default_matmul_precision('highest'):
    precise = lines(plain)
  assert precise == lines(plain)


@pytest.mark.parametrize('x', [np.ones((), np.float32), np.arange(6, dtype=np.int32).reshape(2, 3).T, jnp.ones(2, jnp.bfloat16), jax.random.key(1)])
def test_an_array_is_known_by_type_and_values(x):
  same, other = jnp.array(x), jax.random.key(2) if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key) else x + x
  assert digest(x) == digest(same) != digest(other)


def test_a_convolution_by_another_formulation_is_the_same_function():
  w, x = jnp.ones((3, 3, 1, 2)), jnp.ones((1, 4, 4, 2))
  options = dict(window_strides=(1, 1), padding='SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=2)
  fns = [lambda w, x: jax.lax.conv_general_dilated(x, w, **options)]
  fns += [lambda w, x, how=how: conv_general_dilated(x, w, **options, formulation=how) for how in (None, 'shifts')]
  assert len({tuple(fingerprint(trace(fn, w, x))) for fn in fns}) == 1
