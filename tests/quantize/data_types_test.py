"""Code books against their definitions, codes against brute force, errors as the survey's sheet measured them."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effjax import quantize
from effjax.errors import EffjaxError

KEY = jax.random.key(9)
# bitsandbytes' table, as printed in its source
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
BOOKS = {'linear': quantize.linear_levels(), 'linear4': quantize.linear_levels(4), 'normal': quantize.normal_levels(),
         'dynamic': quantize.dynamic_levels(), 'dynamic_unsigned': quantize.dynamic_levels(signed=False)}


def test_the_dynamic_tree_is_the_sheets():
  levels = BOOKS['dynamic']
  assert len(np.unique(levels)) == 256 and levels.max() == 1
  np.testing.assert_allclose([levels.min(), levels[levels > 0].min()], [-.99296875, 5.5e-7], rtol=1e-7)
  assert np.isin(np.float32(.55 * 10.**np.arange(-6, -5)), levels).all() and 0 in levels and -1 not in levels
  positive = levels[(levels > 0) & (levels < 1)]
  np.testing.assert_array_equal(np.sort(-positive), levels[levels < 0])
  decades = np.floor(np.log10(positive * 10.0001)).astype(int)
  assert np.unique(decades, return_counts=True)[1].tolist() == [2**i for i in range(7)]


def test_without_a_sign_there_are_twice_the_midpoints():
  levels = BOOKS['dynamic_unsigned']
  assert len(levels) == 256 and levels[0] == 0 and levels[-1] == 1 and (np.diff(levels) > 0).all()
  np.testing.assert_allclose(levels[1:3], [.325e-6, .775e-6], rtol=1e-6)


def test_nf4_is_bitsandbytes_table():
  np.testing.assert_allclose(BOOKS['normal'], NF4, atol=1e-6)


def test_normal_weights_use_nf4_more_equally_than_equal_steps():
  def entropy(name):
    used = np.bincount(np.asarray(quantize.encode_blocks(jax.random.normal(KEY, (2**16,)), BOOKS[name], 64)[0])) / 2**16
    return -(used * np.log2(used)).sum()

  assert entropy('linear4') < entropy('normal') < 4


def test_linear_levels_are_equally_far_apart():
  np.testing.assert_allclose(np.diff(BOOKS['linear']), 1 / 127, rtol=1e-4)
  np.testing.assert_array_equal(BOOKS['linear'], -BOOKS['linear'][::-1])


@pytest.mark.parametrize('name', BOOKS)
@pytest.mark.parametrize('block', [1, 7, 64, 1000])
def test_codes_are_of_the_nearest_levels(name, block):
  x = np.asarray(jax.random.normal(KEY, (9, 23)))
  x = np.abs(x) if name == 'dynamic_unsigned' else x
  codes, largest = quantize.encode_blocks(jnp.asarray(x), BOOKS[name], block)
  assert codes.dtype == jnp.uint8 and codes.shape == x.shape and largest.shape == (-(-207 // block),)
  back = np.asarray(quantize.decode_blocks(codes, largest, BOOKS[name], block))
  for i, a in enumerate(largest):
    part = np.float64(x.ravel()[i * block:(i + 1) * block])
    assert a == np.float32(np.abs(part).max())
    brute = np.abs(part[:, None] - np.float64(BOOKS[name]) * np.float64(a)).min(1)
    np.testing.assert_allclose(np.abs(back.ravel()[i * block:(i + 1) * block] - part), brute, rtol=1e-3, atol=2e-7 * a)


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, 37, elements=st.floats(-2.**100, 2.**100, width=32)), st.sampled_from(sorted(BOOKS)), st.sampled_from([5, 64]))
def test_zeros_are_exact_and_nothing_overflows(x, name, block):
  x = np.abs(x) if name == 'dynamic_unsigned' else x
  codes, largest = quantize.encode_blocks(jnp.asarray(x), BOOKS[name], block)
  back = np.asarray(quantize.decode_blocks(codes, largest, BOOKS[name], block))
  assert np.isfinite(back).all() and (back[x == 0] == 0).all()
  scales = np.repeat(largest, block)[:len(x)]
  assert (np.abs(back) <= scales).all()


def test_relative_errors_are_the_sheets_and_the_squared_one_is_the_other_way_round():
  normal = np.asarray(jax.random.normal(KEY, (10**6,)))
  student = np.asarray(jax.random.t(jax.random.fold_in(KEY, 1), 2., (10**6,)))

  def errors(x, name):
    y = np.asarray(quantize.decode_blocks(*quantize.encode_blocks(jnp.asarray(x), BOOKS[name], len(x)), BOOKS[name], len(x)))
    return np.mean(np.abs(y - x) / np.abs(x)), np.sqrt(np.mean((y - x)**2))

  dynamic, linear = errors(normal, 'dynamic'), errors(normal, 'linear')
  np.testing.assert_allclose([dynamic[0], linear[0]], [.019, .047], rtol=.15)
  np.testing.assert_allclose([dynamic[1], linear[1]], [.0159, .0113], rtol=.15)
  dynamic, linear = errors(student, 'dynamic'), errors(student, 'linear')
  assert dynamic[0] < .12 and linear[0] > .8


def test_errors():
  x = jnp.ones(4)
  encode = lambda levels, block=2: quantize.encode_blocks(x, np.array(levels, np.float32), block)
  with pytest.raises(EffjaxError, match='linear_levels: bits must be a whole number from 2 to 8, got 9'):
    quantize.linear_levels(9)
  with pytest.raises(EffjaxError, match='encode_blocks: block must be a whole number from 1 on, got 0'):
    encode([-1, 0, 1], 0)
  with pytest.raises(EffjaxError, match=r'encode_blocks: levels must be 2 to 256 ascending values, got an array of shape \(3,\) '
                                        'that does not ascend: sort them, without duplicates'):
    encode([0, 0, 1])
  with pytest.raises(EffjaxError, match=r'encode_blocks: levels must be 2 to 256 ascending values, got an array of shape \(1,\):'):
    encode([1])
  with pytest.raises(EffjaxError, match='encode_blocks: levels must contain 0 and reach a magnitude of 1, got -1 to 1 without 0:'):
    encode([-1, .1, 1])
  with pytest.raises(EffjaxError, match='encode_blocks: levels must contain 0 and reach a magnitude of 1, got -2 to 1: divide'):
    encode([-2, 0, 1])
  with pytest.raises(EffjaxError, match='decode_blocks: 4 codes in blocks of 3 have 2 scales, got 4: give the block that they'):
    quantize.decode_blocks(jnp.zeros(4, jnp.uint8), jnp.ones(4), BOOKS['normal'], 3)
