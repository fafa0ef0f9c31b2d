"""ADMM against a float64 loop of section 3 of the paper, and against rounding at once."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import quantize, train
from effjax.errors import EffjaxError
from effjax.reparam import at
from effjax.term import Term

KEY = jax.random.key(3)
W = jax.random.normal(KEY, (3, 4, 8))
PENALTY = r'admm_penalty: the memory has \[\'v\'\], which the weights lack: wanted some of \[\'w\'\]'


def nearest(v, codes):
  """The best scale and codes of one array, by trying the codes of every interval between break points; float64."""
  c = np.float64(codes)
  middles = (c[1:] + c[:-1]) / 2
  points = np.sort(np.append((np.abs(v).ravel()[:, None] / middles).ravel(), 0.))
  best = (np.inf, None)
  for a in np.append((points[1:] + points[:-1]) / 2, points[-1] + 1):
    q = c[np.abs(np.abs(v)[..., None] / max(a, 1e-12) - c).argmin(-1)] * np.where(v >= 0, 1, -1)
    a = np.sum(v * q) / np.sum(q * q) if q.any() else 0.
    best = min(best, (np.sum((v - a * q)**2), a * q), key=lambda each: each[0])
  return best[1]


@pytest.mark.parametrize('codes', [(1,), (0, 1), (0, 1, 2), (0, 1, 2, 4)])
def test_the_iterates_are_those_of_the_paper(codes):
  rule, w = quantize.admm(codes), np.float64(W)
  slots, dual = rule.init(KEY, W), np.zeros(W.shape)
  np.testing.assert_allclose(rule.apply(*slots, None), nearest(w, codes), rtol=1e-5)
  for i in range(4):
    w = w + .2 * np.float64(jax.random.normal(jax.random.fold_in(KEY, i), W.shape))
    slots = slots._replace(theta=jnp.asarray(w, jnp.float32))
    slots = slots._replace(state=rule.update(slots, W))
    projected = nearest(w + dual, codes)
    dual = dual + w - projected
    np.testing.assert_allclose(rule.apply(*slots, None), projected, rtol=1e-5)
    np.testing.assert_allclose(slots.state['dual'], dual, atol=1e-5)


def test_the_model_trains_in_the_open():
  rule = quantize.admm()
  slots = rule.init(KEY, W)
  y, pull = jax.vjp(lambda w: rule.apply(w, {}, slots.state, KEY), W)
  np.testing.assert_array_equal(y, W)
  np.testing.assert_array_equal(pull(jnp.cos(W))[0], jnp.cos(W))


def test_the_penalty_and_its_gradient():
  state = {'projected': jnp.sin(W), 'dual': jnp.cos(W)}
  value, gradient = jax.value_and_grad(lambda w: quantize.admm_penalty({'w': w, 'b': W}, {'w': state}, .3))(W)
  off = np.float64(W) - np.sin(np.float64(W)) + np.cos(np.float64(W))
  np.testing.assert_allclose(value, .15 * np.sum(off**2), rtol=1e-5)
  np.testing.assert_allclose(gradient, .3 * off, rtol=1e-4, atol=1e-6)


def test_updates_wait_for_their_step():
  rule = quantize.admm(every_steps=3)
  slots = rule.init(KEY, W)
  slots = slots._replace(theta=-2 * W)
  moved = []
  for _ in range(6):
    before, slots = slots, slots._replace(state=jax.jit(rule.update)(slots, W))
    moved.append(bool((before.state['dual'] != slots.state['dual']).any()))
  assert moved == [False, False, True, False, False, True]


def quadratics(n, size):
  """Correlated quadratics `(w - w0)' H (w - w0) / 2`: H and w0."""
  rng = np.random.default_rng(0)
  mixed = rng.normal(size=(n, size, size))
  return mixed @ mixed.transpose(0, 2, 1) / size + .05 * np.eye(size), rng.normal(size=(n, size))


@pytest.mark.parametrize(('rho', 'last'), [(.3, False), (1., False), (1., True)])
def test_it_beats_rounding_at_once_on_quadratics(rho, last):
  h, w0 = (jnp.asarray(x, jnp.float32) for x in quadratics(40, 7))
  loss = lambda h, w0, w: .5 * (w - w0) @ h @ (w - w0)
  rule = quantize.admm((0, 1))

  def best(h, w0):
    slots = rule.init(KEY, w0)
    pulled = h + rho * jnp.eye(7)

    def iterate(slots, _):
      target = h @ w0 + rho * (slots.state['projected'] - slots.state['dual'])
      slots = slots._replace(theta=jnp.linalg.solve(pulled, target))  # the exact step by W
      slots = slots._replace(state=rule.update(slots, w0))
      return slots, loss(h, w0, slots.state['projected'])

    losses = jax.lax.scan(iterate, slots, None, 100)[1]
    return losses[-1] if last else losses.min(), loss(h, w0, slots.state['projected'])

  found, at_once = (np.float64(x) for x in jax.jit(jax.vmap(best))(h, w0))
  t = np.array(list(itertools.product((-1, 0, 1), repeat=7)), np.float64)
  t = t[np.any(t != 0, 1)]
  least = []
  for hi, wi in zip(*quadratics(40, 7)):
    saved = (t @ hi @ wi)**2 / np.einsum('ij,jk,ik->i', t, hi, t)
    least.append(.5 * (wi @ hi @ wi - saved.max()))
  assert (found >= np.array(least) - 1e-4).all()
  better, worse = np.sum(found < at_once * .999), np.sum(found > at_once * 1.001)
  assert better >= 4 * max(worse, 1) and found.mean() < .7 * at_once.mean()


def test_in_the_joint_step():
  x = jax.random.normal(KEY, (32, 5))
  batch = {'image': x, 'label': (x @ jnp.arange(15.).reshape(5, 3) % 3).argmax(1)}
  forward = lambda weights, model_state, batch, key: ({'logits': batch['image'] @ weights['w'], 'weights': weights}, model_state)
  pull = Term('admm', lambda *_: None, lambda _, out, targets: quantize.admm_penalty(out['weights'], targets['memory'], .5))
  task, reparam, tx = train.objective(forward, [train.cross_entropy(), pull]), at('w', quantize.admm(every_steps=10)), optax.sgd(.3)
  slots = reparam.init(KEY, {'w': jax.random.normal(KEY, (5, 3))})
  made = train.make_step(task, reparam, tx)
  step = train.compile_step(lambda state, batch, held_out=None: made(state, batch | {'memory': state.slots.state}, held_out))
  state = train.init_state(task, reparam, tx, slots, {}, batch | {'memory': slots.state}, KEY)
  for _ in range(300):
    state, metrics = step(state, batch)
  w, g = state.slots.theta['w'], reparam.apply(*state.slots, None)['w']
  assert float(jnp.linalg.norm(w - g)) < .2 * float(jnp.linalg.norm(g)) and float(metrics['admm']) < 10.


@pytest.mark.parametrize('w', [jnp.zeros((4, 2)), jnp.ones(1), jnp.array([1e-20, -1e-20])])
@pytest.mark.parametrize('codes', [(1,), (0, 1, 2)])
def test_degenerate_arrays_are_finite(w, codes):
  rule = quantize.admm(codes)
  slots = rule.init(KEY, w)
  slots = slots._replace(state=rule.update(slots, w))
  assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(slots))
  assert bool((rule.facts(slots, True).scale > 0).all())


@pytest.mark.parametrize(('options', 'w', 'message'), [
    ({'codes': (2, 4)}, W, r'admm: codes must be ascending whole numbers, the first 0 or 1, the last 1 to 127, got \(2, 4\)'),
    ({'every_steps': 0}, W, 'admm: every_steps must be a whole number from 1 on, got 0'),
    ({'per_channel': True}, jnp.ones(3), r'admm: per_channel wants at least 2 axes, got shape \(3,\)'),
    ({}, W.at[0].set(jnp.nan), r'admm: an array of shape \(3, 4, 8\) has entries that are not finite')])
def test_errors(options, w, message):
  with pytest.raises(EffjaxError, match=message):
    quantize.admm(**options).init(KEY, w)


def test_a_memory_of_other_weights_is_refused():
  state = {'projected': W, 'dual': W}
  with pytest.raises(EffjaxError, match=PENALTY):
    quantize.admm_penalty({'w': W}, {'v': state}, .1)
