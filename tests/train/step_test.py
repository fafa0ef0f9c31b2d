"""The step: DARTS' toy, float64 references for both orders, the groups of the optimizer, one trace."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import reparam
from effjax.errors import EffjaxError
from effjax.reparam import Fact, Rule, Slots
from effjax.term import Term
from effjax.train import (
  Budget,
  augmented_lagrangian,
  compile_step,
  init_state,
  make_step,
  objective,
  optimizer,
)

KEY = jax.random.key(0)
STANDARD = jax.numpy_dtype_promotion('standard')  # optax.adam raises a float to an integer power


def pair():
  """The array that the model sees is (theta, logits, scale): each a vector of its own."""
  return Rule(
      init=lambda key, w: Slots(w[0], {'logits': w[1], 'scale': w[2]}, jnp.zeros((), w.dtype)),
      apply=lambda theta, phi, state, key: jnp.stack([theta, phi['logits'], phi['scale']]),
      facts=lambda slots, hard: Fact(choice=slots.phi['logits']),
      update=lambda slots, gradient: slots.state + gradient.sum(),
      decisions=frozenset({'logits'}))


def polynomial(w, a, c):
  """`c . (a w, w^2, a^2, a, w a^2, w)`, summed over entries; `w` and `a` numpy or JAX."""
  return (c[0] * a * w + c[1] * w * w + c[2] * a * a + c[3] * a + c[4] * w * a * a + c[5] * w).sum()


def setup(start, bilevel, tx=optax.sgd, rate=.1, budgets=None, **options):
  forward = lambda weights, model_state, batch, key: ({'logits': weights['w']}, model_state)
  loss = lambda head, outputs, targets: polynomial(outputs['logits'][0], outputs['logits'][1], targets['c']) + (
      outputs['logits'][2] ** 2).sum()
  task = objective(forward, [Term('polynomial', lambda *_: None, loss)], budgets=budgets,
                   controller=augmented_lagrangian(every_steps=1))
  r = reparam.at('w', pair())
  slots = r.init(KEY, {'w': jnp.asarray(start)})
  opt = optimizer(r, slots, weights=tx(rate), parameters=tx(rate), decisions=tx(rate))
  batch = {'c': jnp.zeros((6, 1))}
  return make_step(task, r, opt, bilevel=bilevel, **options), init_state(task, r, opt, slots, {}, batch, KEY)


def coefficients(*c):
  return {'c': jnp.asarray(c, jnp.zeros(()).dtype)[:, None]}


@pytest.mark.parametrize('xi', [0., .1, .25, .5])
def test_toy_of_the_paper_ends_at_its_fixed_point(xi):
  # L_val = a w - 2 a + 1, L_train = w^2 - 2 a w + a^2: a = w = 2 / (1 + 2 xi).
  validate, train = coefficients(1., 0., 0., -2., 0., 0.), coefficients(-2., 1., 1., 0., 0., 0.)
  options = {'bilevel': 'second', 'inner_rate': xi} if xi else {'bilevel': 'first'}
  step, state = setup([[-2.], [2.], [1.]], **options)
  state, _ = jax.lax.scan(lambda state, _: (step(state, train, validate)[0], None), state, None, length=500)
  expected = 2 / (1 + 2 * xi)
  np.testing.assert_allclose([state.slots.theta['w'][0], state.slots.phi['w']['logits'][0]], expected, rtol=1e-4)


@pytest.mark.parametrize(('bilevel', 'xi'), [('first', 0.), ('second', .3), ('finite_differences', .3)])
def test_both_orders_against_float64(bilevel, xi):
  """Equation 7 by hand for L = sum polynomial(w, a): decisions first, then the weights at the new decisions.

  dL/da is linear in w here, so that a finite difference is exact.
  """
  c, d = np.array([.3, -.4, .5, .2, .7, -.6]), np.array([-.2, .6, .1, .4, -.5, .3])  # train, held out
  w, a, s = np.array([[.7, -1.1], [.4, .9], [.5, -.5]])
  dw = lambda c, w, a: c[0] * a + 2 * c[1] * w + c[4] * a * a + c[5]
  da = lambda c, w, a: c[0] * w + 2 * c[2] * a + c[3] + 2 * c[4] * w * a
  mixed = c[0] + 2 * c[4] * a  # d2 L_train / da dw
  inner = w - xi * dw(c, w, a)
  a_new = a - .1 * (da(d, inner, a) - xi * mixed * dw(d, inner, a))
  w_new, s_new = w - .1 * dw(c, w, a_new), s - .1 * 2 * s

  options = {'bilevel': bilevel} | ({'inner_rate': xi} if xi else {})
  with jax.enable_x64(True):
    step, state = setup(np.stack([w, a, s]), **options)
    state, metrics = step(state, coefficients(*c), coefficients(*d))
    exact = 1e-9 if bilevel == 'finite_differences' else 1e-12
    np.testing.assert_allclose(state.slots.phi['w']['logits'], a_new, rtol=exact)
    np.testing.assert_allclose(state.slots.theta['w'], w_new, rtol=exact)
    np.testing.assert_allclose(state.slots.phi['w']['scale'], s_new, rtol=1e-12)
    memory = dw(c, w, a_new).sum() + da(c, w, a_new).sum() + (2 * s).sum()
    np.testing.assert_allclose(state.slots.state['w'], memory, rtol=exact)
    np.testing.assert_allclose(metrics['loss'], polynomial(w, a_new, c) + (s ** 2).sum(), rtol=1e-6)
    np.testing.assert_allclose(metrics['held_out/loss'], polynomial(inner, a, d) + (s ** 2).sum(), rtol=1e-6)


def test_a_single_level_moves_everything_along_one_gradient():
  c = np.array([.3, -.4, .5, .2, .7, -.6])
  step, state = setup([[.7], [.4], [.5]], bilevel=None)
  state, _ = step(state, coefficients(*c))
  w, a = .7, .4
  dw, da = c[0] * a + 2 * c[1] * w + c[4] * a * a + c[5], c[0] * w + 2 * c[2] * a + c[3] + 2 * c[4] * w * a
  np.testing.assert_allclose(state.slots.theta['w'][0], w - .1 * dw, rtol=1e-6)
  np.testing.assert_allclose(state.slots.phi['w']['logits'][0], a - .1 * da, rtol=1e-6)
  assert int(state.step) == 1


@pytest.mark.parametrize('options', [{'bilevel': None}, {'bilevel': 'first'}, {'bilevel': 'second', 'inner_rate': .1}])
def test_budgets_count_as_part_of_the_decisions_loss(options):
  budgets = {'sum': Budget(lambda facts: facts['w'].choice.sum(), 1.)}
  step, state = setup([[0.], [3.], [0.]], budgets=budgets, **options)
  zero = coefficients(0., 0., 0., 0., 0., 0.)
  state, metrics = step(state, zero, *([zero] if options['bilevel'] else []))
  np.testing.assert_allclose(state.slots.phi['w']['logits'], [3. - .1 * 2.], rtol=1e-6)  # lambda + rho g = 2
  reached = 2.8 if options['bilevel'] else 3.
  np.testing.assert_allclose(state.controller.values['sum'], reached - 1., rtol=1e-6)
  np.testing.assert_allclose(metrics['cost/sum'], reached, rtol=1e-6)


def test_groups_keep_optimizers_of_their_own():
  """Momentum and weight decay of one level do not move with the other: Adam's counts are 1 each after a step."""
  decay = lambda rate: optax.adamw(rate, weight_decay=.1)
  step, state = setup([[.7], [.4], [.5]], bilevel='first', tx=decay)
  one = coefficients(.3, -.4, .5, .2, .7, -.6)
  before = state
  with STANDARD:
    state, _ = step(state, one, one)
  counts = {name: [int(x) for x in jax.tree.leaves(part) if x.dtype == jnp.int32]
            for name, part in state.opt_state.inner_states.items()}
  assert all(set(count) == {1} for count in counts.values()), counts
  for old, new in zip(jax.tree.leaves(before.slots[:2]), jax.tree.leaves(state.slots[:2]), strict=True):
    assert 0. < abs(float((old - new).sum())) < .15  # one step of Adam at rate 0.1, not two


@pytest.mark.parametrize('options', [{'bilevel': None}, {'bilevel': 'first'}, {'bilevel': 'second', 'inner_rate': .1},
                                     {'bilevel': 'finite_differences', 'inner_rate': .1}])
def test_one_trace_and_strong_types_over_many_steps(options):
  chex.clear_trace_counter()
  step, state = setup([[.7], [.4], [.5]], tx=optax.adam, **options)
  run = compile_step(chex.assert_max_traces(step, n=1))
  one = coefficients(.3, -.4, .5, .2, .7, -.6)
  for _ in range(3):
    shapes = jax.eval_shape(lambda x: x, state)
    with STANDARD:
      state, metrics = run(state, one, *([one] if options['bilevel'] else []))
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, state)
    assert not any(x.weak_type for x in jax.tree.leaves(state._replace(key=None)))
    assert all(x.shape == () for x in metrics.values())


@pytest.mark.parametrize('bits', [8, jnp.int32(8), jnp.float32(8.)])
def test_facts_need_not_be_floating(bits):
  forward = lambda weights, model_state, batch, key: ({'logits': weights['w']}, model_state)
  budgets = {'bits': Budget(lambda facts: jnp.asarray(facts['w'].bits).astype(jnp.float32), 16.)}
  task = objective(forward, [Term('sum', lambda *_: None, lambda head, outputs, targets: outputs['logits'].sum())],
                   budgets=budgets)
  r = reparam.at('w', pair()._replace(facts=lambda slots, hard: Fact(bits=bits)))
  slots = r.init(KEY, {'w': jnp.zeros((3, 1))})
  opt = optimizer(r, slots, weights=optax.sgd(.1), parameters=optax.sgd(.1), decisions=optax.sgd(.1))
  state, metrics = make_step(task, r, opt)(init_state(task, r, opt, slots, {}, {}, KEY), {})
  assert (float(metrics['cost/bits']), float(state.slots.theta['w'][0])) == (8., jnp.float32(-.1))


def test_a_state_is_the_callers_arrays_copied():
  start = jnp.array([[.7], [.4], [.5]])
  step, state = setup(start, bilevel=None)
  compile_step(step)(state, coefficients(0., 0., 0., 0., 0., 0.))
  assert not start.is_deleted()


@pytest.mark.parametrize(('options', 'text'), [
    ({'bilevel': 'third'}, "must be None, 'first', 'second' or 'finite_differences', got 'third'"),
    ({'bilevel': 'second'}, "second order and inner_rate go together, got bilevel='second'"),
    ({'bilevel': 'first', 'inner_rate': .1}, 'inner_rate go together')])
def test_mistakes_in_options(options, text):
  with pytest.raises(EffjaxError, match=text):
    setup([[0.], [0.], [0.]], **options)


@pytest.mark.parametrize(('bilevel', 'held_out'), [(None, True), ('first', False)])
def test_held_out_batches_and_bilevel_go_together(bilevel, held_out):
  step, state = setup([[0.], [0.], [0.]], bilevel=bilevel)
  zero = coefficients(0., 0., 0., 0., 0., 0.)
  with pytest.raises(EffjaxError, match='a held-out batch go together'):
    step(state, zero, zero if held_out else None)


def test_bilevel_wants_decisions_and_its_own_optimizer():
  forward = lambda weights, model_state, batch, key: ({'logits': weights['w']}, model_state)
  task = objective(forward, [Term('zero', lambda *_: None, lambda head, outputs, targets: outputs['logits'].sum())])
  for r, tx, text in [(reparam.chain(), optax.sgd(.1), 'no rule has any'),
                      (reparam.at('w', pair()), optax.sgd(.1), 'keeps decisions apart')]:
    slots = r.init(KEY, {'w': jnp.zeros((3, 1))})
    state = init_state(task, r, tx, slots, {}, {}, KEY)
    with pytest.raises(EffjaxError, match=text):
      make_step(task, r, tx, bilevel='first')(state, {}, {})


def test_the_optimizer_wants_one_for_each_group():
  r = reparam.at('w', pair())
  with pytest.raises(EffjaxError, match='phi holds decisions, and no optimizer is given'):
    optimizer(r, r.init(KEY, {'w': jnp.zeros((3, 1))}), weights=optax.sgd(.1), parameters=optax.sgd(.1))
