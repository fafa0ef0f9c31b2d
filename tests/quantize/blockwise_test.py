"""Weights in blocks: the levels times the largest magnitude of each."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError

KEY = jax.random.key(6)
W = jax.random.normal(KEY, (3, 3, 4, 8))


@pytest.mark.parametrize('levels', [None, quantize.dynamic_levels(), quantize.linear_levels(4)], ids=['nf4', 'dynamic', 'linear'])
@pytest.mark.parametrize('block', [16, 64, 100])
def test_values_are_those_of_decoded_codes_and_the_gradient_is_1(levels, block):
  rule = quantize.blockwise(levels, block=block)
  book = quantize.normal_levels() if levels is None else levels
  y, pull = jax.vjp(lambda w: rule.apply(w, {}, {}, None), W)
  np.testing.assert_array_equal(y, quantize.decode_blocks(*quantize.encode_blocks(W, book, block), book, block))
  np.testing.assert_array_equal(pull(jnp.cos(W))[0], jnp.cos(W))
  fact = rule.facts(rule.init(KEY, W), True)
  assert fact.bits == (8 if len(book) > 16 else 4) and fact.scale.shape == W.shape


def test_nf4_is_nearer_to_normal_weights_than_four_linear_bits():
  error = lambda rule: float(jnp.mean((rule.apply(W, {}, {}, None) - W)**2))
  assert error(quantize.blockwise()) < .9 * error(quantize.blockwise(quantize.linear_levels(4)))


def test_zeros_stay_zeros_and_do_not_disturb():
  rule = quantize.blockwise(block=32)
  y = rule.apply(*rule.init(KEY, W.at[0].set(0.)), None)
  np.testing.assert_array_equal(y[0], 0.)
  np.testing.assert_array_equal(y[1:], rule.apply(W, {}, {}, None)[1:])


def test_errors():
  with pytest.raises(EffjaxError, match='blockwise: block must be a whole number from 1 on, got 0'):
    quantize.blockwise(block=0)
  with pytest.raises(EffjaxError, match='blockwise: levels must contain 0 and reach a magnitude of 1'):
    quantize.blockwise(np.array([0., 2.]))
  with pytest.raises(EffjaxError, match=r'blockwise: an array of shape \(3, 3, 4, 8\) has entries that are not finite'):
    quantize.blockwise().init(KEY, W.at[0].set(jnp.nan))
