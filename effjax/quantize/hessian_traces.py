"""How sharply the loss bends along each leaf: traces of the Hessian by Hutchinson's estimate."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax import tree
from effjax.errors import EffjaxError
from effjax.tree import Path, PyTree


def hessian_traces(loss: Callable[[PyTree], Float[Array, '']], params: PyTree, key: jax.Array, *,
                   probes: int = 32) -> dict[Path, Float[Array, '']]:
  """`Tr(H_l) / n_l` of each leaf's block of the Hessian, by path: the mean of `v_l . (H v)_l / n_l` over probes of +-1.

  Unbiased: the entries of v are independent, so that nothing of the other leaves is left in the mean. One
  Hessian-vector product a probe for all leaves together, forward over reverse.

  Args:
    loss: of the parameters, twice differentiable; on a batch that it closes over. Average over batches outside.
    params: where the Hessian is taken, normally of a trained network.
    key: of the probes.
    probes: the standard deviation falls with the root of their number; a diagonal Hessian is exact with one.

  Raises:
    EffjaxError: probes below 1.

  Source: Dong, Yao, Cai, Arfeen, Gholami, Mahoney, Keutzer, "HAWQ-V2: Hessian Aware trace-Weighted Quantization of
  Neural Networks", NeurIPS 2020, arXiv:1911.03852; Hutchinson, 1990.

  >>> loss = lambda p: jnp.sum(p['a']**2) + 3 * jnp.sum(p['b']**2)
  >>> found = hessian_traces(loss, {'a': jnp.ones(4), 'b': jnp.ones(2)}, jax.random.key(0), probes=1)
  >>> {path: float(trace) for path, trace in found.items()}
  {'a': 2.0, 'b': 6.0}
  """
  if probes < 1:
    raise EffjaxError(f'hessian_traces: probes must be at least 1, got {probes}')
  slope = jax.grad(loss)

  def probe(key):
    paths = tree.leaves(params)
    v = tree.map_at(lambda path, w: jax.random.rademacher(tree.fold(key, path), w.shape, w.dtype), params, paths)
    bent = jax.jvp(slope, (params,), (v,))[1]
    dot = lambda v, h: jnp.mean(v.astype(jnp.float32) * h.astype(jnp.float32))
    return tree.leaves(jax.tree.map(dot, v, bent))

  return jax.tree.map(jnp.mean, jax.lax.map(probe, jax.random.split(key, probes)))
