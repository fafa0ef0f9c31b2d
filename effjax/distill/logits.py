"""Knowledge distillation: the student's softened predictions follow the teacher's."""
import jax
import jax.numpy as jnp

from effjax.errors import EffjaxError
from effjax.term import Term


def logits(*, temperature: float = 4., weight: float = 1.) -> Term:
  """`weight * T^2 * mean_batch KL(softmax(v / T) || softmax(z / T))`, v the teacher's logits, z the student's.

  Gradient by z before the weight: `T (softmax(z/T) - softmax(v/T)) / n`, which the factor T^2 keeps of the size of
  the task's as T grows; none to the teacher.

  Args:
    temperature: T > 0; larger looks at the small probabilities too.
    weight: of the term; the task's cross entropy keeps its own.

  Raises:
    EffjaxError: T <= 0; when called: no teacher, or logits of another shape.

  Differs from the paper: KL instead of cross entropy, which has the same gradient and is zero at equality.

  Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531, survey [46].

  >>> z = jnp.array([[1., -1.]])
  >>> float(logits().loss(None, {'logits': z}, {'teacher': {'logits': z}}))
  0.0
  """
  if not temperature > 0.:
    raise EffjaxError(f'distill.logits: temperature must be above 0, got {temperature}: 2 to 8 are usual')

  def loss(head, outputs, targets):
    z = outputs['logits'].astype(jnp.float32) / jnp.float32(temperature)
    v = teacher('logits', targets)['logits'].astype(jnp.float32) / jnp.float32(temperature)
    if z.shape != v.shape:
      raise EffjaxError(f'distill.logits: the student gives logits of shape {z.shape}, the teacher {v.shape}: '
                        'both must be [batch, classes] of the same classes')
    log_q, log_p = jax.nn.log_softmax(z), jax.lax.stop_gradient(jax.nn.log_softmax(v))
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)
    return jnp.float32(weight * temperature**2) * jnp.mean(divergence)

  return Term('logits', lambda key, outputs, targets: None, loss)


def teacher(term: str, targets: dict) -> dict:
  """The outputs of the teacher.

  Raises:
    EffjaxError: there is none.

  >>> teacher('logits', {'teacher': {}})
  {}
  """
  if 'teacher' not in targets:
    raise EffjaxError(f"distill.{term}: the targets have no 'teacher', only {sorted(targets)}: "
                      'give the objective a teacher')
  return targets['teacher']
