"""A term of the training loss: what a task or a distillation method adds to the objective."""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from effjax.tree import PyTree

Key = jax.Array
Outputs = dict[str, Any]
Targets = dict[str, Any]


class Term(NamedTuple):
  """One summand of the objective, with whatever it has to train of its own.

  name: what the metrics call it.
  init(key, outputs, targets) -> head: the term's own trainable parameters (None if it has none), from arrays or
    `jax.ShapeDtypeStruct`s of the shapes that `loss` will get.
  loss(head, outputs, targets) -> scalar, its weight included.

  outputs: what the network returned: `logits` and, if it gives them, `features` by tap name.
  targets: the batch, and under `teacher` the outputs of the teacher where there is one.
  """
  name: str
  init: Callable[[Key, Outputs, Targets], PyTree]
  loss: Callable[[PyTree, Outputs, Targets], jax.Array]
