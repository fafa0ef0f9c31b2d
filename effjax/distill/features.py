"""FitNets: hidden features of the student follow the teacher's through a linear regressor."""
import jax
import jax.numpy as jnp

from effjax.distill.logits import teacher
from effjax.errors import EffjaxError
from effjax.term import Term


def features(pairs: dict[str, str], *, weight: float = 1.) -> Term:
  """`weight * sum_pairs mean((r(s) - t)^2)`, s and t the features of student and teacher, r a 1x1 regressor.

  `r(s) = s W + b` on the channels (the last axis), trained with the student and thrown away afterwards; no gradient
  to the teacher.

  Args:
    pairs: student's feature name -> teacher's; both `[batch, ..., channels]` with the same axes before the channels.
    weight: of the term.

  Head: {student's name: {'kernel': [c_student, c_teacher], 'bias': [c_teacher]}}.

  Raises:
    EffjaxError: no pairs; when called: no teacher, a name that is not there, or different sizes.

  Differs from the paper: a 1x1 regressor at equal size instead of a larger kernel that fits the sizes; the mean
  square instead of half the sum; trained jointly, not in a stage of its own.

  Source: Romero, Ballas, Kahou, Chassang, Gatta, Bengio, "FitNets: Hints for Thin Deep Nets", ICLR 2015,
  arXiv:1412.6550, survey [47].

  >>> out = lambda c: {'features': {'a': jnp.ones((2, 4, 4, c))}}
  >>> term = features({'a': 'a'})
  >>> head = term.init(jax.random.key(0), out(3), {'teacher': out(5)})
  >>> jax.tree.map(jnp.shape, head), term.loss(head, out(3), {'teacher': out(5)}).shape
  ({'a': {'bias': (5,), 'kernel': (3, 5)}}, ())
  """
  if not pairs:
    raise EffjaxError('distill.features: no pairs: give {student feature: teacher feature}')

  def matched(outputs, targets):
    hints = teacher('features', targets)
    return {s: (_named('student', outputs, s), _named('teacher', hints, t)) for s, t in pairs.items()}

  def init(key, outputs, targets):
    keys = jax.random.split(key, len(pairs))
    return {name: _regressor(k, s.shape[-1], t.shape[-1])
            for k, (name, (s, t)) in zip(keys, sorted(matched(outputs, targets).items()), strict=True)}

  def loss(head, outputs, targets):
    terms = [_distance(name, head[name], s, t) for name, (s, t) in matched(outputs, targets).items()]
    return jnp.float32(weight) * jnp.sum(jnp.stack(terms))

  return Term('features', init, loss)


def _regressor(key, student, target):
  kernel = jax.nn.initializers.lecun_normal()(key, (student, target), jnp.float32)
  return {'kernel': kernel, 'bias': jnp.zeros(target, jnp.float32)}


def _distance(name, head, s, t):
  if s.shape[:-1] != t.shape[:-1]:
    raise EffjaxError(f'distill.features: {name!r} of the student has shape {s.shape}, the teacher\'s partner '
                      f'{t.shape}: all axes before the channels must be equal, choose taps of the same resolution')
  predicted = jnp.einsum('...s,st->...t', s.astype(jnp.float32), head['kernel'])
  bias = head['bias'].reshape((1,) * (predicted.ndim - 1) + (-1,))
  return jnp.mean((predicted + bias - jax.lax.stop_gradient(t.astype(jnp.float32)))**2)


def _named(who, outputs, name):
  known = outputs.get('features', {})
  if name not in known:
    raise EffjaxError(f'distill.features: the {who} has no feature {name!r}, it has {sorted(known)}: '
                      'let its forward function return it in outputs["features"]')
  return known[name]
