"""The identity across which XLA's CPU backend does not fuse."""
import jax
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

_NEVER = np.uint32(2 ** 31)  # replicas are fewer


def materialize(x: Float[Array, '*s']) -> Float[Array, '*s']:
  """`y = x`, written to memory once; its gradient too: `dx = dy`.

  XLA's CPU backend computes what is elementwise anew for each that reads it. A residual stream is elementwise from end
  to end, so what is added early is computed again for all that comes later, in the backward pass as well.
  `lax.optimization_barrier` is gone before XLA fuses. For the graph this is `copy`; on other backends it is nothing.

  >>> import jax.numpy as jnp
  >>> materialize(jnp.ones(2)), jax.grad(lambda x: materialize(x).sum())(jnp.ones(2))
  (Array([1., 1.], dtype=float32), Array([1., 1.], dtype=float32))
  """
  return _copy.bind(x)


def _on_cpu(x):
  """A loop that never runs, which XLA cannot know: it does not fuse across loops."""
  return lax.while_loop(lambda carry: carry[0] > _NEVER, lambda carry: (carry[0], -carry[1]), (_replica.bind(x), x))[1]


_replica = Primitive('replica_id')
_replica.def_abstract_eval(lambda x: jax.typeof(np.uint32(0)))
mlir.register_lowering(_replica, lambda ctx, x: stablehlo.ReplicaIdOp().results)

_copy = Primitive('copy')
_copy.def_abstract_eval(lambda x: x)
_copy.def_impl(lambda x: x)
ad.deflinear2(_copy, lambda g, x: [_copy.bind(g)])
batching.defvectorized(_copy)
mlir.register_lowering(_copy, lambda ctx, x: [x])
mlir.register_lowering(_copy, mlir.lower_fun(_on_cpu, multiple_results=False), 'cpu')
