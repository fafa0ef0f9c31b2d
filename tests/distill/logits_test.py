"""Hinton's distillation against float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from effjax import distill
from effjax.errors import EffjaxError

Z = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32) * 3
V = np.random.default_rng(1).normal(size=(6, 10)).astype(np.float32) * 3


def loss(term, z, v):
  return term.loss(None, {'logits': z}, {'teacher': {'logits': v}})


@pytest.mark.parametrize('temperature', [1., 4., 20.])
def test_value_and_gradient(temperature):
  q, p = (special.softmax(np.float64(x) / temperature, -1) for x in (Z, V))
  expected = 0.3 * temperature**2 * (p * np.log(p / q)).sum(-1).mean()
  term = distill.logits(temperature=temperature, weight=0.3)
  value, grad = jax.value_and_grad(lambda z: loss(term, z, jnp.asarray(V)))(jnp.asarray(Z))
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  np.testing.assert_allclose(grad, 0.3 * temperature * (q - p) / 6, rtol=1e-3, atol=1e-6)


def test_at_high_temperature_it_is_the_match_of_centred_logits():
  """The gradient times N tends to z - v for zero-mean logits (section 2.1)."""
  z, v = (x - x.mean(-1, keepdims=True) for x in (Z, V))
  grad = jax.grad(lambda z: loss(distill.logits(temperature=1000.), z, jnp.asarray(v)))(jnp.asarray(z))
  np.testing.assert_allclose(grad * 6 * 10, z - v, rtol=0.05, atol=0.05)


def test_the_teacher_gets_no_gradient_and_has_no_head():
  term = distill.logits()
  np.testing.assert_array_equal(jax.grad(lambda v: loss(term, jnp.asarray(Z), v))(jnp.asarray(V)), 0.)
  assert term.name == 'logits' and term.init(jax.random.key(0), {}, {}) is None


def test_bfloat16_is_computed_in_float32():
  value = loss(distill.logits(), jnp.asarray(Z, jnp.bfloat16), jnp.asarray(V, jnp.bfloat16))
  assert value.dtype == jnp.float32


def test_errors():
  with pytest.raises(EffjaxError, match='distill.logits: temperature must be above 0, got 0.0: 2 to 8 are usual'):
    distill.logits(temperature=0.)
  with pytest.raises(EffjaxError, match=r"distill.logits: the targets have no 'teacher', only \['label'\]"):
    distill.logits().loss(None, {'logits': jnp.asarray(Z)}, {'label': jnp.zeros(6)})
  with pytest.raises(EffjaxError, match=r'the student gives logits of shape \(6, 10\), the teacher \(6, 5\)'):
    loss(distill.logits(), jnp.asarray(Z), jnp.asarray(V[:, :5]))
