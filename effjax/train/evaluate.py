"""Measuring a network that no longer trains: its accuracy, and its BatchNorm statistics once its weights are fixed."""
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax import tree
from effjax.errors import EffjaxError
from effjax.train.objective import Batch, Forward
from effjax.tree import PyTree


def accuracy(predict: Callable[[Batch], Float[Array, 'n classes']], batches: Iterable[Batch]) -> float:
  """The share of examples whose largest logit is their label, from 0 to 1; batches may differ in size.

  Raises:
    EffjaxError: no examples.

  >>> accuracy(lambda batch: batch['image'], [{'image': jnp.eye(2), 'label': jnp.array([0, 0])}])
  0.5
  """
  right = total = 0
  for batch in batches:
    hits = np.argmax(np.asarray(predict(batch)), -1) == np.asarray(batch['label'])
    right, total = right + int(hits.sum()), total + hits.size
  if not total:
    raise EffjaxError('accuracy: got no examples, wanted at least one batch')
  return right / total


def reestimate(forward: Forward, weights: PyTree, model_state: PyTree, batches: Iterable[Batch],
               key: jax.Array | None = None) -> PyTree:
  """BatchNorm statistics for fixed weights: those of all batches together instead of a moving average of the past.

  A training step maps a running statistic `r` to `m r + (1 - m) b`, `b` being the batch's own. Two calls, from 0 and
  from the first result, give `r1` and `r2`, and `b = r1^2 / (2 r1 - r2)` whatever the momentum `m` is
  (to about `eps / (1 - m)` relative, eps being the dtype's). Over
  equally large batches a `mean` becomes the average of the `b`, and a `var` beside it
  `average(var_b + mean_b^2) - mean^2`: mean and variance of the activations of all examples, each batch normalised
  by itself upstream.

  Args:
    forward: `(weights, model_state, batch, key) -> (outputs, model_state)` in training mode.
    weights: as deployed.
    model_state: whose floating leaves are running averages that start anywhere; other leaves are kept.
    batches: of equal sizes; one compilation serves all.
    key: for `forward`, None if it draws nothing.

  Raises:
    EffjaxError: no batches.

  Source: precise BatchNorm, Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3.

  >>> forward = lambda weights, r, batch, key: (None, jax.tree.map(lambda x: .9 * x + .1 * batch['image'].mean(), r))
  >>> batches = [{'image': jnp.ones(2)}, {'image': jnp.zeros(2)}]
  >>> round(float(reestimate(forward, None, {'mean': jnp.zeros(())}, batches)['mean']), 5)
  0.5
  """
  batch_moments = jax.jit(lambda batch: _moments(_batch_statistics(forward, weights, model_state, batch, key)))
  moments = [batch_moments(batch) for batch in batches]
  if not moments:
    raise EffjaxError('reestimate: got no batches, wanted at least one')
  mean = lambda *xs: sum(xs) / jnp.asarray(len(xs), xs[0].dtype) if _floating(xs[0]) else xs[0]
  return _moments(jax.tree.map(mean, *moments), -1)


def _batch_statistics(forward, weights, model_state, batch, key):
  run = lambda state: forward(weights, state, batch, key)[1]
  first = run(jax.tree.map(lambda x: jnp.zeros_like(x) if _floating(x) else x, model_state))
  second = run(jax.tree.map(lambda x, r: r if _floating(x) else x, model_state, first))
  return jax.tree.map(lambda x, r1, r2: _limit(r1, r2) if _floating(x) else x, model_state, first, second)


def _limit(r1, r2):
  slope = r1 + r1 - r2
  zero = slope == jnp.zeros_like(slope)
  return jnp.where(zero, jnp.zeros_like(r1), r1 * r1 / jnp.where(zero, jnp.ones_like(slope), slope))


def _moments(statistics, sign=1):
  """Each `var` with a `mean` beside it as second moment (sign 1), or back (sign -1)."""
  known = tree.leaves(statistics)
  beside = lambda path: path.removesuffix('var') + 'mean'
  pairs = [path for path in known if path.split('/')[-1] == 'var' and beside(path) in known]
  return tree.map_at(lambda path, var: var + jnp.asarray(sign, var.dtype) * known[beside(path)] ** 2, statistics, pairs)


def _floating(x):
  return jnp.issubdtype(jnp.result_type(x), jnp.floating)
