import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.activations import activations, quantizers
from effjax.quantize.lsq_plus import lsq_plus


def network(p, x):
  h = jax.nn.relu(x @ p['a']['w'])
  return jnp.concatenate([h, x], -1) @ p['b']['w']


def setting():
  random = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
  return {'a': {'w': draw(4, 3)}, 'b': {'w': draw(7, 2)}}, draw(16, 4)


def test_every_tensor_is_quantized_with_the_range_it_shares():
  params, x = setting()
  quantizer = lsq_plus(4)
  fn_q, ranges = activations(network, params, x, quantizer=quantizer)
  assert sorted(ranges) == ['a/concat', 'b']  # the input is concatenated, so it has the same integers
  q = lambda name, value: quantizer.apply(ranges[name], value)
  h = q('a/concat', jax.nn.relu(q('a/concat', x) @ params['a']['w']))
  expected = q('b', jnp.concatenate([h, q('a/concat', x)], -1) @ params['b']['w'])
  np.testing.assert_allclose(fn_q(ranges, params, x), expected, rtol=1e-5, atol=1e-6)


def test_ranges_and_weights_train_together():
  params, x = setting()
  fn_q, ranges = activations(network, params, x)
  loss = lambda ranges, params: jnp.square(fn_q(ranges, params, x) - 1).mean()
  gradients = jax.jit(jax.grad(loss, (0, 1)))(ranges, params)
  assert jax.tree.structure(gradients) == jax.tree.structure((ranges, params))
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
  assert all(np.any(g != 0) for g in jax.tree.leaves(gradients[1]))


def test_eight_bits_are_close_and_a_range_taken_out_is_float():
  params, x = setting()
  fn_q, ranges = activations(network, params, x)
  exact = network(params, x)
  assert float(jnp.abs(fn_q(ranges, params, x) - exact).max()) < .1
  np.testing.assert_array_equal(fn_q({}, params, x), exact)


def test_one_trace_for_many_steps():
  params, x = setting()
  fn_q, ranges = activations(network, params, x)
  count = 0

  @jax.jit
  def step(ranges):
    nonlocal count
    count += 1
    gradient = jax.grad(lambda r: fn_q(r, params, x).sum())(ranges)
    return jax.tree.map(lambda r, g: r - jnp.asarray(1e-3, r.dtype) * g, ranges, gradient)

  for _ in range(3):
    ranges = step(ranges)
  assert count == 1


def test_ranges_that_kernels_insist_on_do_not_train():
  def fn(p, x):
    y = x @ p['w']
    return jnp.concatenate([jax.nn.sigmoid(y), jnp.tanh(y), jnp.clip(y, 0., 1.), jax.lax.rsqrt(jnp.abs(y))], -1)

  for bits, ends in ((8, [(1 / 256, -128), (1 / 128, 0), (1 / 255, -128)]),
                     (16, [(1 / 32768, 0), (1 / 32768, 0), (1 / 32767, 0)])):
    found = quantizers(fn, {'w': jnp.eye(2)}, jnp.ones((1, 2)), quantizer=lsq_plus(bits))
    fn_q, phis = activations(fn, {'w': jnp.eye(2)}, jnp.ones((1, 2)), quantizer=lsq_plus(bits))
    fixed = [tuple(map(float, found[name].facts({}))) for name in found if phis[name] == {}]
    assert sorted(fixed) == sorted((float(np.float32(scale)), float(zero)) for scale, zero in ends)
    assert fn_q(phis, {'w': jnp.eye(2)}, jnp.ones((1, 2))).shape == (1, 8)
  assert set(found) == set(phis)


def test_what_a_root_reads_starts_at_zero():
  found = quantizers(lambda p, x: jnp.sqrt(x * p), 2., jnp.ones((1, 2)))
  phi = found['input/affine' if 'input/affine' in found else 'input'].init(jnp.asarray([[.5, 3.]]))
  assert set(phi) == {'scale'}
  assert int(found['input/affine' if 'input/affine' in found else 'input'].facts(phi)[1]) == -128


def test_a_range_whose_tap_never_ran_is_refused():
  fn, params = lambda p, x: x @ p['w'], {'w': jnp.eye(2)}
  fn_q, ranges = quantize.activations(fn, params, jnp.ones((1, 2)))
  with pytest.raises(EffjaxError, match=r"activations: range 'v' belongs to no tap that ran .* choose from \['input', 'w'\]"):
    fn_q(ranges | {'v': ranges['w']}, params, jnp.ones((1, 2)))


def test_a_tap_that_another_mode_does_not_run_is_refused():
  fn = lambda p, x: jax.nn.relu(x @ p['w']) @ p['v'] if x.shape[1] == 2 else x @ p['v']
  params = {'w': jnp.eye(2), 'v': jnp.ones((2, 3))}
  fn_q, ranges = quantize.activations(fn, params, jnp.ones((1, 2)))
  params = params | {'v': jnp.ones((3, 3))}
  with pytest.raises(EffjaxError, match="tap 'w.*' is none of the 2 taps of the function: choose from"):
    fn_q(ranges, params, jnp.ones((1, 3)))


@pytest.mark.parametrize('x', [jnp.array([[1., jnp.nan]]), jnp.array([[jnp.inf, 1.]])])
def test_activations_that_are_not_finite_are_refused(x):
  fn, params = lambda p, x: x @ p['w'], {'w': jnp.eye(2)}
  with pytest.raises(EffjaxError, match="activations: the activation 'input' is not finite on this batch"):
    quantize.activations(fn, params, x)
  found = quantize.aware(fn, params, jnp.ones((1, 2)), quantizer=quantize.min_max())
  with pytest.raises(EffjaxError, match="calibrate: the activation 'input' is not finite on this batch"):
    quantize.calibrate(found, [x])
