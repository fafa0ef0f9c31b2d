"""What segmentation is trained by and judged by: functions of scores and labels per pixel."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def pixel_cross_entropy(logits: Float[Array, '*n c'], labels: Int[Array, '*n'],
                        weights: Float[Array, 'c'] | None = None) -> Float[Array, '']:
  """The mean of `-log softmax(logits)[label]` over the labelled pixels, in nats; 0 where none is.

  Args:
    labels: 0 to c - 1; any other number means that the pixel has no label.
    weights: of the classes: then `sum_p w[label_p] loss_p / sum_p w[label_p]`, as PyTorch has it.

  >>> pixel_cross_entropy(jnp.zeros((2, 3, 4)), jnp.array([[0, 1, 255], [255, 255, 3]])).item() == jnp.log(4.).item()
  True
  """
  classes = logits.shape[-1]
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  target = jax.nn.one_hot(labels, classes, dtype=jnp.float32)  # zeros where there is no label
  weight = target if weights is None else target * jnp.expand_dims(weights.astype(jnp.float32), range(labels.ndim))
  total = weight.sum()
  return -(weight * log_p).sum() / jnp.where(total > 0, total, 1)


def confusion(predicted: Int[Array, '*n'], labels: Int[Array, '*n'], num_classes: int) -> Int[Array, 'c c']:
  """How many pixels of each label (rows) were predicted to be of each class (columns); add those of several batches.

  Args:
    predicted: 0 to `num_classes - 1`, such as `logits.argmax(-1)`.
    labels: as in `pixel_cross_entropy`; pixels without one are not counted.

  >>> confusion(jnp.array([0, 1, 1, 1]), jnp.array([0, 0, 1, 255]), 2)
  Array([[1, 1],
         [0, 1]], dtype=int32)
  """
  rows = jax.nn.one_hot(labels.ravel(), num_classes, dtype=jnp.int32)
  return jnp.zeros((num_classes,) * 2, jnp.int32).at[:, predicted.ravel()].add(rows.T)


def pixel_accuracy(confusion: Int[Array, 'c c']) -> Float[Array, '']:
  """The share of labelled pixels whose class was predicted.

  >>> pixel_accuracy(jnp.array([[3, 1], [0, 4]])).item()
  0.875
  """
  return confusion.diagonal().sum() / confusion.sum()


def mean_iou(confusion: Int[Array, 'c c']) -> Float[Array, '']:
  """The mean over classes of intersection over union, `n_ii / (sum_j n_ij + sum_j n_ji - n_ii)`.

  Classes that are neither in the labels nor predicted are left out.

  >>> mean_iou(jnp.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).item()  # of 3/4 and 4/5
  0.7749999761581421
  """
  both = confusion.diagonal()
  union = confusion.sum(0) + confusion.sum(1) - both
  return jnp.mean(both / jnp.where(union > 0, union, 1), where=union > 0)
