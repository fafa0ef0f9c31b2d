"""The objective: its value against float64 numpy, the teacher, the augmentation, its mistakes."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import search
from effjax.errors import EffjaxError
from effjax.reparam import Fact
from effjax.term import Term
from effjax.train import Budget, cross_entropy, objective

KEY = jax.random.key(3)


def linear(weights, model_state, batch, key):
  return {'logits': batch['image'] @ weights}, model_state


def batch_of(n=4):
  image = jax.random.normal(jax.random.key(0), (n, 3))
  return {'id': jnp.arange(n, dtype=jnp.int32), 'image': image, 'label': jnp.arange(n, dtype=jnp.int32) % 2}


def evaluate(task, weights, batch, facts, multipliers=None):
  heads = task.init(KEY, weights, {}, batch)
  return task.loss(weights, facts, heads, {}, batch, KEY, multipliers or task.controller.init(task.budgets))


def reference_cross_entropy(logits, labels, smoothing):
  logits = logits.astype(np.float64)
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  target = (1 - smoothing) * np.eye(logits.shape[1])[labels] + smoothing / logits.shape[1]
  return -(target * log_p).sum(-1).mean()


@pytest.mark.parametrize('smoothing', [0., .1])
def test_cross_entropy_against_float64(smoothing):
  logits = np.asarray(jax.random.normal(KEY, (5, 3)))
  labels = np.array([0, 1, 2, 2, 1], np.int32)
  got = cross_entropy(smoothing).loss(None, {'logits': jnp.asarray(logits)}, {'label': jnp.asarray(labels)})
  np.testing.assert_allclose(got, reference_cross_entropy(logits, labels, smoothing), rtol=1e-6)


def test_loss_is_the_sum_of_the_terms_and_the_penalty():
  constant = Term('constant', lambda key, outputs, targets: None, lambda head, outputs, targets: jnp.bfloat16(2.))
  task = objective(linear, [cross_entropy(), constant], budgets={'bits': Budget(lambda facts: facts['w'].bits, 4.)})
  multipliers = task.controller.init(task.budgets)._replace(values={'bits': jnp.float32(3.)})
  weights, batch = jax.random.normal(KEY, (3, 2)), batch_of()
  loss, aux = evaluate(task, weights, batch, {'w': Fact(bits=jnp.float32(6.))}, multipliers)
  task_loss = reference_cross_entropy(np.asarray(batch['image'] @ weights), np.asarray(batch['label']), 0.)
  g, multiplier = 6 / 4 - 1, 3.  # rho = 1
  np.testing.assert_allclose(loss, task_loss + 2 + ((multiplier + g) ** 2 - multiplier ** 2) / 2, rtol=1e-6)
  assert sorted(aux.metrics) == ['accuracy', 'constant', 'cost/bits', 'cross_entropy', 'loss', 'multiplier/bits']
  assert (float(aux.metrics['cost/bits']), float(aux.violations['bits'])) == (6., .5)


def test_penalties_of_the_facts_are_added_and_reach_the_choices():
  entropy = lambda facts: .5 * search.total_entropy({path: fact.choice for path, fact in facts.items()})
  task = objective(linear, [cross_entropy()], penalties={'entropy': entropy})
  weights, batch, p = jnp.zeros((3, 2)), batch_of(), jnp.array([.2, .8])
  loss = lambda p: evaluate(task, weights, batch, {'w': Fact(choice=p), 'v': Fact(choice=jnp.array([1., 0.]))})
  (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(p)
  want = -.5 * np.sum(np.float64(p) * np.log(np.float64(p)))
  np.testing.assert_allclose(aux.metrics['penalty/entropy'], want, rtol=1e-6)
  np.testing.assert_allclose(value, np.log(2) + want, rtol=1e-6)
  np.testing.assert_allclose(gradient, -.5 * (np.log(np.float64(p)) + 1), rtol=1e-6)


def test_the_teacher_sees_the_augmented_images_and_gets_no_gradient():
  scale = jnp.float32(2.)
  hint = Term('hint', lambda key, outputs, targets: jnp.zeros(targets['teacher']['logits'].shape),
              lambda head, outputs, targets: ((outputs['logits'] - targets['teacher']['logits'] + head) ** 2).sum())

  def value(scale):
    teacher = lambda batch: {'logits': (batch['image'] @ jnp.ones((3, 2))) * scale}
    task = objective(linear, [hint], teacher=teacher, augment=lambda keys, images: images + jnp.float32(1.))
    return evaluate(task, jnp.ones((3, 2)), batch_of(), {})[0]

  got, slope = jax.value_and_grad(value)(scale)
  shifted = np.asarray(batch_of()['image'], np.float64) + 1
  np.testing.assert_allclose(got, 2 * (shifted.sum(-1) ** 2).sum(), rtol=1e-5)
  assert float(slope) == 0.


def test_augmentation_follows_the_example_not_its_place_in_the_shard():
  seen = []

  def forward(weights, model_state, batch, key):
    seen.append(batch['image'])
    return linear(weights, model_state, batch, key)

  noise = lambda keys, images: images + jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
  task = objective(forward, [cross_entropy()], augment=noise)
  batch, weights = batch_of(), jnp.zeros((3, 2))
  for part in (batch, jax.tree.map(lambda x: x[2:], batch)):
    task.loss(weights, {}, {'cross_entropy': None}, {}, part, KEY, task.controller.init([]))
  np.testing.assert_array_equal(seen[0][2:], seen[1])
  assert len(np.unique(np.asarray(seen[0] - batch['image']))) == 12


@pytest.mark.parametrize(('terms', 'budgets', 'text'), [
    ([], {}, 'one term or more'),
    ([cross_entropy(), cross_entropy()], {}, 'a name of its own'),
    ([cross_entropy()], {'macs': Budget(lambda facts: jnp.float32(0.), 0.)}, "budget 'macs' must be positive, got 0")])
def test_mistakes_when_made(terms, budgets, text):
  with pytest.raises(EffjaxError, match=text):
    objective(linear, terms, budgets=budgets)


@pytest.mark.parametrize(('outputs', 'text'), [
    ({'scores': 1.}, r"got outputs \['scores'\]"), (jnp.zeros((4, 2)), r'got outputs \(4, 2\)'),
    ({'logits': jnp.zeros(4)}, r"'logits': \(4,\)")])
def test_outputs_that_are_not_logits(outputs, text):
  task = objective(lambda weights, model_state, batch, key: (outputs, model_state), [cross_entropy()])
  with pytest.raises(EffjaxError, match=text):
    task.init(KEY, jnp.zeros(()), {}, batch_of())


def test_augmenting_wants_ids():
  task = objective(linear, [cross_entropy()], augment=lambda keys, images: images)
  with pytest.raises(EffjaxError, match=r"batch\['id'\].*got a batch of \['image', 'label'\]"):
    task.init(KEY, jnp.zeros((3, 2)), {}, {name: x for name, x in batch_of().items() if name != 'id'})


def test_label_smoothing_has_a_range():
  with pytest.raises(EffjaxError, match='label_smoothing must be from 0 to below 1, got 1.5'):
    cross_entropy(1.5)
