"""Accuracy, and BatchNorm statistics re-estimated over batches."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.train import accuracy, reestimate

KEY = jax.random.key(0)


def test_accuracy_counts_examples_over_batches_of_any_size():
  batches = [{'image': jnp.eye(3), 'label': jnp.array([0, 1, 0])}, {'image': jnp.eye(3)[:1], 'label': jnp.array([0])}]
  assert accuracy(jax.jit(lambda batch: batch['image']), batches) == 3 / 4


@pytest.mark.parametrize('momentum', [0., .9, .99])
def test_reestimated_statistics_are_those_of_all_examples(momentum):
  norm = nn.BatchNorm(use_running_average=False, momentum=momentum)
  images = jax.random.normal(KEY, (3, 16, 4, 4, 5)) * jnp.float32(2.) + jnp.float32(3.)
  batches = [{'image': image} for image in images]
  variables = norm.init(KEY, images[0])
  stale = jax.tree.map(lambda x: x + jnp.float32(7.), variables['batch_stats'])

  def forward(weights, model_state, batch, key):
    y, new = norm.apply({'params': weights, 'batch_stats': model_state}, batch['image'], mutable='batch_stats')
    return {'logits': y}, new['batch_stats']

  found = reestimate(forward, variables['params'], stale, batches)
  every = np.asarray(images, np.float64).reshape(-1, 5)
  np.testing.assert_allclose(found['mean'], every.mean(0), rtol=1e-4)
  np.testing.assert_allclose(found['var'], every.var(0), rtol=1e-3)


def test_other_leaves_and_zero_statistics_are_kept():
  def forward(weights, r, batch, key):
    return {}, {'mean': .9 * r['mean'] + .1 * batch['image'].mean(0), 'count': r['count'] + 1}

  state = {'mean': jnp.ones(2), 'count': jnp.int32(4)}
  found = reestimate(forward, None, state, [{'image': jnp.array([[0., 5.]])}, {'image': jnp.array([[0., 7.]])}])
  np.testing.assert_allclose(found['mean'], [0., 6.], rtol=1e-5)
  assert int(found['count']) == 4


def test_nothing_to_measure():
  with pytest.raises(EffjaxError, match='accuracy: got no examples'):
    accuracy(lambda batch: batch['image'], [])
  with pytest.raises(EffjaxError, match='reestimate: got no batches'):
    reestimate(lambda *_: None, None, {}, [])
