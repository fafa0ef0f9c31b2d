"""Named activations of any JAX function: the tensors that an integer device keeps, found in one trace.

A device runs a convolution, its bias, BatchNorm's affine map and its ReLU as one kernel, and rounds once, after it.
`taps` finds these places; `insert` puts a function (a quantizer) there and `collect` reads the values out.
"""
from collections.abc import Callable, Collection

import jax

from effjax.errors import EffjaxError
from effjax.graph.places import Tap, find, placed
from effjax.graph.trace import Const, execute, last_use, scan, walk
from effjax.tree import PyTree


def taps(fn: Callable, params: PyTree, *args: PyTree) -> list[Tap]:
  """The activations of `fn(params, *args)` that an integer device stores, in execution order.

  Stored: each floating point input; each convolution and dot product after its bias, BatchNorm and ReLU; sums and
  products of two activations; means; concatenations; what elementwise functions feed to any of these; the outputs.
  Largest pools, reshape, transpose, slice and pad keep the integers of their input and have no tap of their own;
  averages have one that shares their input's range. Within a `scan` there is one tap for all iterations.
  The first axis of every activation is the batch; what is reduced over it (BatchNorm's statistics) is no activation.
  Names are those of the parameter paths (Linen's `params/` and NNX's `/value` dropped), so shrinking keeps them.

  Args:
    fn: any JAX function whose first argument is a tree of parameters, in training or inference mode.

  >>> import jax.numpy as jnp
  >>> fn = lambda p, x: jax.nn.relu(x @ p['fc']['w'] + p['fc']['b'])
  >>> [tap[:3] for tap in taps(fn, {'fc': {'w': jnp.ones((3, 2)), 'b': jnp.ones((1, 2))}}, jnp.ones((5, 3)))]
  [('input', 'input', (5, 3)), ('fc', 'dot', (5, 2))]
  """
  return find(placed(fn, params, *args))


def collect(fn: Callable, names: Collection[str]) -> Callable:
  """`fn` with the activations at the named taps as a second result, `(out, {name: activation})`.

  Those of a tap within a `scan` are stacked along a first axis, in the order of the iterations.

  Raises:
    EffjaxError: a name that is not a tap of `fn`.
  """
  def collected(params, *args):
    same = dict.fromkeys(names, lambda x: x)
    program, at, out, found = _evaluate(fn, same, lambda tap: tap.name, params, *args)
    named = {tap.name: found[tap.var] for tap in find(program) if tap.var in at}
    return jax.tree.unflatten(program.out_tree, out), named
  return collected


def insert(fn: Callable, functions: dict[str, Callable]) -> Callable:
  """`fn` with the activation `x` at each tap replaced by `functions[tap.range](x)`, derivatives included.

  Taps whose range is not named stay as they are.

  Raises:
    EffjaxError: a name that is not a range of `fn`'s taps.

  >>> insert(lambda p, x: x * p, {'input': lambda x: x + 1.})(2., jax.numpy.ones((1, 1)))
  Array([[4.]], dtype=float32)
  """
  def inserted(params, *args):
    program, _, out, _ = _evaluate(fn, functions, lambda tap: tap.range, params, *args)
    return jax.tree.unflatten(program.out_tree, out)
  return inserted


def _evaluate(fn, functions, key, params, *args):
  program = placed(fn, params, *args)
  at = _by_var(find(program), functions, key)
  return program, at, *_run(program, jax.tree.leaves((params, *args)), at)


def _run(program, inputs, at):
  """The program's outputs with `at[v]` applied to each variable v that is named, and what came out of these."""
  env, found = {}, {}

  def put(variables, values):
    env.update(zip(variables, values, strict=True))
    found.update({v: at[v](env[v]) for v in variables if v in at})
    env.update({v: found[v] for v in variables if v in at})

  read = lambda v: v.value if isinstance(v, Const) else env[v]
  put(program.inputs, inputs)
  last = last_use(program)
  for i, eqn in enumerate(program.eqns):
    args, within = list(map(read, eqn.inputs)), {}
    if eqn.name == 'scan' and any(v in at for inner in walk(eqn.body) for v in inner.outputs):
      out, within = scan(eqn, args, lambda inputs, body=eqn.body: _run(body, inputs, at))
    else:
      out = execute(eqn, args)
    found.update(within)
    put(eqn.outputs, out)
    for v in last.get(i, ()):
      del env[v]
  return list(map(read, program.outputs)), found


def _by_var(found, functions, key):
  known = {key(tap) for tap in found}
  for name in functions:
    if name not in known:
      raise EffjaxError(f'tap {name!r} is none of the {len(known)} taps of the function: choose from {sorted(known)}')
  return {tap.var: functions[key(tap)] for tap in found if key(tap) in functions}
