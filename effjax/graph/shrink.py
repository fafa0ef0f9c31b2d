"""The network without its removed channels and operators, as an ordinary JAX function of smaller parameters."""
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree
from effjax.errors import EffjaxError
from effjax.graph.channels import Labelled, check_length, label
from effjax.graph.propagate import ELEMENTWISE, Analysis, value_of, vanishes
from effjax.graph.trace import Const, Eqn, Program, Var, execute
from effjax.tree import Path, PyTree

LINEAR = frozenset('reshape squeeze expand_dims broadcast_in_dim transpose slice rev reduce_sum'.split())
RESHAPING = frozenset('reshape squeeze expand_dims broadcast_in_dim slice convert_element_type'.split())
ZERO = object()  # a value that is known to be zero everywhere: an operator that was not chosen
ONE = object()  # the weight of the operator that was chosen


def shrink(fn: Callable, params: PyTree, keep: Any, *args: PyTree,
           choose: Mapping[Path, int] | None = None) -> tuple[Callable, PyTree]:
  """`(small_fn, small_params)` of `fn(params, *args)` with only the kept channels and the chosen operators.

  Law: `small_fn(small_params, *args) == fn(mask(channels, params, keep), *args)`. The result is traced like any
  function: differentiable through the rules of custom_jvp and custom_vjp, at any batch size, and exportable. Leaves
  that it does not need are None in `small_params`.

  Args:
    fn, params, args: as for `channels`.
    keep: bool, one entry per channel.
    choose: for leaves whose entries weigh operators, the entry that stays, with weight 1; the leaf, the others and
      all that only they use are gone.

  Raises:
    EffjaxError: a mask of the wrong length; an axis of a leaf left with no entry; a path or entry that is no choice.

  >>> fn = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
  >>> p = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  >>> small, q = shrink(fn, p, np.array([True, False, True, False]), jnp.ones((1, 3)))
  >>> jax.tree.map(jnp.shape, q), small(q, jnp.ones((1, 3)))
  ({'a': (3, 2), 'b': (2, 2)}, Array([[6., 6.]], dtype=float32))
  """
  specs = jax.tree.map(lambda w: jax.ShapeDtypeStruct(jnp.shape(w), jnp.result_type(w)), params)
  keep, choose = np.asarray(keep, bool), dict(choose or {})
  plan = _plan(label(fn, specs, *args), keep, choose)
  values = plan.analysis.values
  used = {v for i in plan.live for v in _needs(plan.program.eqns[i], plan.zeros, plan.ones)}
  used |= {v for v in plan.program.outputs if not isinstance(v, Const)}
  variable = {path: v for v, path in plan.program.paths.items()}
  small = tree.map_at(lambda path, w: _cut(plan, w, values[variable[path]]) if variable[path] in used else None,
                      params, variable)
  _check_nonempty(small)

  def small_fn(small_params, *args):
    plan = _plan(label(fn, specs, *args), keep, choose)
    leaves = jax.tree.leaves(small_params, is_leaf=lambda x: x is None)
    return jax.tree.unflatten(plan.program.out_tree, _run(plan, plan.program, [*leaves, *jax.tree.leaves(args)]))

  return small_fn, small


class Plan(NamedTuple):
  """kept: for each label, whether its entry stays. zeros, ones: variables known to be so. live: equations that run."""
  program: Program
  analysis: Analysis
  kept: np.ndarray
  zeros: frozenset[Var]
  ones: frozenset[Var]
  live: frozenset[int]


def _plan(found: Labelled, keep, choose) -> Plan:
  kept = np.append(check_length(found.channels, keep), True)[found.channel]
  for path, entry in choose.items():
    n = found.channels.choices.get(path)
    if n is None or not 0 <= entry < n:
      raise EffjaxError(f'shrink: choose[{path!r}] = {entry}, wanted an entry of one of {found.channels.choices}')
  dead = {number for number, (path, entry) in found.guard.items() if choose.get(path, entry) != entry}
  kept[list(dead)] = False
  zeros, ones = _zeros(found, dead), _ones(found.program, choose)
  return Plan(found.program, found.analysis, kept, zeros, ones - zeros, _live(found.program, zeros, ones - zeros))


def _zeros(found, dead):
  """Variables that are zero everywhere, since the weight of their operator is."""
  values, zeros = found.analysis.values, set()
  for eqn in found.program.eqns:
    zero = [not isinstance(v, Const) and v in zeros for v in eqn.inputs]
    hosts = any(not dead.isdisjoint(values[v].hosts) for v in eqn.outputs)
    if hosts or (any(zero) and _stays_zero(found.analysis, eqn, zero)):
      zeros.update(eqn.outputs)
  return frozenset(zeros)


def _stays_zero(a, eqn, zero):
  if eqn.name in ELEMENTWISE:
    return bool(vanishes(eqn, [value_of(a, eqn, i) for i in range(len(zero))], zero))
  return eqn.name in ('conv_general_dilated', 'dot_general') or (zero[0] and eqn.name in LINEAR) or all(zero)


def _ones(program, choose):
  """The entries that were chosen, wherever they are sliced and reshaped to."""
  ones = {v for v, path in program.paths.items() if path in choose}
  for eqn in program.eqns:
    if eqn.name in RESHAPING and not isinstance(eqn.inputs[0], Const) and eqn.inputs[0] in ones:
      ones.update(eqn.outputs)
  return frozenset(ones)


def _needs(eqn, zeros, ones):
  """The inputs that the equation reads: a product with 1 reads the other factor only."""
  read = [v for v in eqn.inputs if not isinstance(v, Const) and v not in zeros]
  rest = [v for v in read if v not in ones] if eqn.name == 'mul' else read
  return rest or read


def _live(program, zeros, ones):
  """Indices of the equations that the outputs need."""
  needed = {v for v in program.outputs if not isinstance(v, Const)}
  live = set()
  for i in reversed(range(len(program.eqns))):
    eqn = program.eqns[i]
    if any(v in needed and v not in zeros for v in eqn.outputs):
      live.add(i)
      needed.update(_needs(eqn, zeros, ones))
  return frozenset(live)


def _cut(plan, x, value):
  for i, labels in enumerate(value.axes):
    if not plan.kept[labels].all():
      x = jnp.take(x, np.flatnonzero(plan.kept[labels]), axis=i)
  return x


def _check_nonempty(small):
  for path, w in tree.leaves(small).items():
    if 0 in w.shape:
      raise EffjaxError(f'shrink: the keep mask empties an axis of {path!r} (shape {w.shape}): keep at least one '
                        'channel of each group')


def _run(plan: Plan, program: Program, inputs) -> list:
  """Evaluates `program`, the plan's own or one within it, at the new shapes."""
  env: dict[Var, Any] = dict(zip(program.inputs, inputs, strict=True))

  def read(eqn, i):
    v = eqn.inputs[i]
    if isinstance(v, Const):
      return _cut(plan, v.value, value_of(plan.analysis, eqn, i)) if np.ndim(v.value) else v.value
    return ZERO if v in plan.zeros else env.get(v, ONE)

  for i, eqn in enumerate(program.eqns):
    if program is not plan.program or i in plan.live:
      env.update(zip(eqn.outputs, _bind(plan, eqn, [read(eqn, i) for i in range(len(eqn.inputs))])))
  return [v.value if isinstance(v, Const) else env[v] for v in program.outputs]


def _bind(plan, eqn: Eqn, args):
  shape = tuple(int(plan.kept[x].sum()) for x in plan.analysis.values[eqn.outputs[0]].axes)
  if any(x is ZERO for x in args):
    return [_sum_of_rest(eqn, args, shape)]
  if any(x is ONE for x in args):
    return [jnp.broadcast_to(args[1] if args[0] is ONE else args[0], shape)]
  if eqn.body is not None:
    return _custom(plan, eqn, args)
  rule = SHAPED.get(eqn.name)
  if rule is None:
    return execute(eqn, args)
  new = rule(eqn.params, args, shape, lambda i, axis: plan.kept[value_of(plan.analysis, eqn, i).axes[axis]])
  return execute(eqn._replace(params={**eqn.params, **new}), args) if isinstance(new, dict) else new


def _sum_of_rest(eqn, args, shape):
  """A sum drops the operand that is zero."""
  if eqn.name in ('add', 'add_any') or (eqn.name == 'sub' and args[1] is ZERO):
    return jnp.broadcast_to(args[1] if args[0] is ZERO else args[0], shape)
  raise EffjaxError(f'shrink: an operator that was not chosen reaches {eqn.name!r} in {eqn.scope!r}: the outputs of '
                    'a choice must be summed')


def _custom(plan, eqn, args):
  """A custom_jvp/vjp call at the new shapes, with its own derivative."""
  call = lambda *args: tuple(_run(plan, eqn.body, args))
  derivative = plan.analysis.derivatives.get(eqn.outputs[0])
  if derivative is None:
    return call(*args)
  moving = [i for i, x in enumerate(args) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
  run = lambda *args: _run(plan, derivative, args)
  return (_with_jvp if eqn.name == 'custom_jvp_call' else _with_vjp)(call, run, moving)(*args)


def _with_jvp(call, derivative, moving):
  wrapped = jax.custom_jvp(call)

  def rule(primals, tangents):
    out = derivative(*primals, *(tangents[i] for i in moving))
    return tuple(out[:len(out) // 2]), tuple(out[len(out) // 2:])
  wrapped.defjvp(rule)
  return wrapped


def _with_vjp(call, derivative, moving):
  wrapped = jax.custom_vjp(call)

  def backward(args, cotangents):
    found = dict(zip(moving, derivative(*args, *cotangents)))
    return tuple(found.get(i, np.zeros(jnp.shape(x), jax.dtypes.float0)) for i, x in enumerate(args))
  wrapped.defvjp(lambda *args: (call(*args), args), backward)
  return wrapped


# --- primitives whose parameters hold shapes or positions ---------------------------------------------------------

def _positions(x, axis, wanted, kept):
  """x with the entries of `axis` at the old positions `wanted` that are kept."""
  new = np.cumsum(kept) - 1
  index = new[wanted[kept[wanted]]]
  if np.array_equal(index, np.arange(x.shape[axis])):
    return x
  if len(index) and np.array_equal(index, np.arange(index[0], index[-1] + 1)):
    return jax.lax.slice_in_dim(x, int(index[0]), int(index[-1]) + 1, axis=axis)
  return jnp.take(x, index, axis=axis)


def _slice(p, args, shape, kept):
  x = args[0]
  for axis, (s, e, k) in enumerate(zip(p['start_indices'], p['limit_indices'], p['strides'] or (1,) * x.ndim)):
    x = _positions(x, axis, np.arange(s, e, k), kept(0, axis))
  return [x]


def _split(p, args, shape, kept):
  edges = np.cumsum([0, *p['sizes']])
  return [_positions(args[0], p['axis'], np.arange(s, e), kept(0, p['axis'])) for s, e in zip(edges, edges[1:])]


def _pad(p, args, shape, kept):
  config = list(p['padding_config'])
  for axis, (low, _, inner) in enumerate(config):
    if not kept(0, axis).all():
      if inner:
        raise EffjaxError('shrink: interior padding of an axis that loses channels is not supported: pin it')
      config[axis] = (low, int(shape[axis]) - int(kept(0, axis).sum()) - low, 0)
  return {'padding_config': tuple(config)}


def _conv(p, args, shape, kept):
  groups, dims = p['feature_group_count'], p['dimension_numbers']
  depthwise = groups > 1 and args[1].shape[dims.rhs_spec[1]] == 1 and kept(1, dims.rhs_spec[1]).size == 1
  return {'feature_group_count': args[0].shape[dims.lhs_spec[1]] if depthwise else groups}


SHAPED = {
    'broadcast_in_dim': lambda p, args, shape, kept: {'shape': shape},
    'reshape': lambda p, args, shape, kept: {'new_sizes': shape},
    'slice': _slice, 'split': _split, 'pad': _pad, 'conv_general_dilated': _conv,
    'iota': lambda p, args, shape, kept: {'shape': shape}}
