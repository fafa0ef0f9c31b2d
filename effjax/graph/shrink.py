"""The network without its removed channels and operators, as an ordinary JAX function of smaller parameters."""
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree
from effjax.errors import EffjaxError
from effjax.graph.channels import Labelled, check_length, label
from effjax.graph.elementwise import ELEMENTWISE, vanishes
from effjax.graph.rules import static_index
from effjax.graph.trace import Const, Eqn, Program, Var, execute, scan, walk
from effjax.graph.values import Analysis, value_of
from effjax.tree import Path, PyTree

LINEAR = frozenset('reshape squeeze expand_dims broadcast_in_dim transpose slice rev reduce_sum'.split())
RESHAPING = frozenset('reshape squeeze expand_dims broadcast_in_dim slice convert_element_type'.split())
ZERO = object()  # a value that is known to be zero everywhere: an operator that was not chosen
ONE = object()  # the weight of the operator that was chosen


def shrink(fn: Callable, params: PyTree, keep: Any, *args: PyTree,
           choose: Mapping[Path, int] | None = None) -> tuple['Shrunk', PyTree]:
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
  small = Shrunk(fn, specs, np.asarray(keep, bool), dict(choose or {}))
  return small, small.cut(params, *args)


@dataclasses.dataclass(frozen=True, eq=False)
class Shrunk:
  """`fn` of smaller parameters, as `shrink` gives it. specs: shapes of the original ones; keep, choose: as given."""
  fn: Callable
  specs: PyTree
  keep: np.ndarray
  choose: dict[Path, int]

  def __call__(self, small_params: PyTree, *args: PyTree) -> PyTree:
    """The result of the small network."""
    plan = self.plan(*args)
    leaves = [*jax.tree.structure(self.specs).flatten_up_to(small_params), *jax.tree.leaves(args)]
    return jax.tree.unflatten(plan.program.out_tree, _run(plan, plan.program, leaves))

  def plan(self, *args: PyTree) -> 'Plan':
    """What stays of the program that `fn` is for these arguments."""
    return _plan(label(self.fn, self.specs, *args), self.keep, self.choose)

  def cut(self, params: PyTree, *args: PyTree) -> PyTree:
    """What stays of the original parameters."""
    return _cut_all(self.plan(*args), params)


def _cut_all(plan, params):
  values, used = plan.analysis.values, plan.used
  variable = {path: v for v, path in plan.program.paths.items()}
  small = tree.map_at(lambda path, w: _cut(plan, w, values[variable[path]]) if variable[path] in used else None,
                      params, variable)
  _check_nonempty(small)
  return small


class Plan(NamedTuple):
  """kept: for each label, whether its entry stays. zeros, ones: variables known to be so. used: those that are read."""
  program: Program
  analysis: Analysis
  kept: np.ndarray
  zeros: frozenset[Var]
  ones: frozenset[Var]
  used: frozenset[Var]


def _plan(found: Labelled, keep, choose) -> Plan:
  kept = np.append(check_length(found.channels, keep), True)[found.channel]
  for path, entry in choose.items():
    n = found.channels.choices.get(path)
    if n is None or not 0 <= entry < n:
      raise EffjaxError(f'shrink: choose[{path!r}] = {entry}, wanted an entry of one of {found.channels.choices}')
  dead = {number for number, (path, entry) in found.guard.items() if choose.get(path, entry) != entry}
  kept[list(dead)] = False
  zeros = _zeros(found, dead)
  ones = _ones(found.program, choose) - zeros
  return Plan(found.program, found.analysis, kept, zeros, ones, _used(found.analysis, found.program, zeros, ones))


def _zeros(found, dead):
  """Variables that are zero everywhere, since the weight of their operator is."""
  zeros = {v for v, value in found.analysis.values.items() if not dead.isdisjoint(value.hosts)}
  for eqn in walk(found.program):
    zero = [not isinstance(v, Const) and v in zeros for v in eqn.inputs]
    if any(zero) and eqn.body is None and _stays_zero(found.analysis, eqn, zero):
      zeros.update(eqn.outputs)
  return frozenset(zeros)


def _stays_zero(a, eqn, zero):
  if eqn.name in ELEMENTWISE:
    return bool(vanishes(eqn, [value_of(a, eqn, i) for i in range(len(zero))], zero))
  return eqn.name in ('conv_general_dilated', 'dot_general') or (zero[0] and eqn.name in LINEAR)


def _ones(program, choose):
  """The entries that were chosen, wherever they are sliced and reshaped to."""
  ones = {v for v, path in program.paths.items() if path in choose}
  for eqn in walk(program):
    if eqn.name in RESHAPING and not isinstance(eqn.inputs[0], Const) and eqn.inputs[0] in ones:
      ones.update(eqn.outputs)
    if eqn.name == 'scan':
      ones.update(b for i, (b, v) in enumerate(zip(eqn.body.inputs, eqn.inputs)) if i not in eqn.carry
                  and not isinstance(v, Const) and v in ones)
  return frozenset(ones)


def _needs(eqn, zeros, ones):
  """The inputs that the equation reads: a product with 1 reads the other factor only."""
  read = [v for v in eqn.inputs if not isinstance(v, Const) and v not in zeros]
  rest = [v for v in read if v not in ones] if eqn.name == 'mul' else read
  return rest if any(isinstance(v, Const) for v in eqn.inputs) else rest or read


def _used(a, program, zeros, ones):
  """Variables that the outputs need, those within bodies too."""
  used = {v for v in program.outputs if not isinstance(v, Const)}
  for eqn in reversed(program.eqns):
    if not eqn.outputs or any(v in used and v not in zeros for v in eqn.outputs):
      needs = _needs(eqn, zeros, ones)
      if eqn.name == 'scan':
        within = _used(a, eqn.body, zeros, ones)
        read = zip(eqn.body.inputs, eqn.inputs, strict=True)
        needs = [v for i, (b, v) in enumerate(read) if v in needs and (b in within or i in eqn.carry)]
        used |= within
      elif eqn.body is not None:
        bodies = [eqn.body, *a.derivatives.get(eqn.outputs[0], ())[:1]]
        used.update(v for body in bodies for inner in walk(body) for v in inner.outputs)
      used.update(needs)
  return frozenset(used)


def _cut(plan, x, value):
  for i, labels in enumerate(value.axes):
    if not plan.kept[labels].all():
      x = _take(x, np.flatnonzero(plan.kept[labels]), i)
  return x


def _cut_constant(plan, x, value):
  """What is one number everywhere stays so, in a trace of the small function too."""
  cut = any(not plan.kept[labels].all() for labels in value.axes)
  if cut and value.known is not None:
    return jnp.full([int(plan.kept[labels].sum()) for labels in value.axes], value.known, x.dtype)
  return _cut(plan, x, value) if cut else x


def _take(x, index, axis):
  """What is not traced is cut on the host: a compiled program for each shape would take far longer."""
  if isinstance(x, jax.core.Tracer) or not getattr(x, 'is_fully_addressable', True):
    return jnp.take(x, index, axis=axis)
  return jnp.asarray(np.take(np.asarray(x), index, axis=axis))


def _check_nonempty(small):
  for path, w in tree.leaves(small).items():
    if 0 in w.shape:
      raise EffjaxError(f'shrink: the keep mask empties an axis of {path!r} (shape {w.shape}): keep at least one '
                        'channel of each group')


def _run(plan: Plan, program: Program, inputs) -> list:
  """Evaluates `program`, the plan's own or one within it, at the new shapes."""
  env: dict[Var, Any] = dict(zip(program.inputs, inputs, strict=True))
  whole = lambda v: v.value if isinstance(v, Const) else env[v]

  def read(eqn, i):
    v = eqn.inputs[i]
    if isinstance(v, Const) or v in plan.analysis.constant:
      return _cut_constant(plan, whole(v), value_of(plan.analysis, eqn, i)) if eqn.outputs else whole(v)
    return ZERO if v in plan.zeros else ONE if v in plan.ones and env.get(v) is None else env[v]

  for eqn in program.eqns:
    if not eqn.outputs:  # a print of what there is
      args = [read(eqn, i) for i in range(len(eqn.inputs))]
      out = [] if any(x is ZERO or x is ONE for x in args) else execute(eqn, args)
    elif eqn.outputs[0] in plan.analysis.constant:
      out = execute(eqn, list(map(whole, eqn.inputs)))
    elif any(v in plan.used and v not in plan.zeros for v in eqn.outputs):
      out = _bind(plan, eqn, [read(eqn, i) for i in range(len(eqn.inputs))])
    else:
      continue
    env.update(zip(eqn.outputs, out))
  return [_zeros_at(plan, v) if v in plan.zeros else whole(v) for v in program.outputs]


def _shape(plan, v):
  return tuple(int(plan.kept[x].sum()) for x in plan.analysis.values[v].axes)


def _zeros_at(plan, v):
  return jnp.zeros(_shape(plan, v), plan.program.avals[v].dtype)


def _bind(plan, eqn: Eqn, args):
  if eqn.name == 'scan':
    return _scan(plan, eqn, args)
  shape = _shape(plan, eqn.outputs[0])
  if any(x is ZERO for x in args):
    return [_sum_of_rest(eqn, args, shape)]
  if any(x is ONE for x in args):
    return [jnp.broadcast_to(args[1] if args[0] is ONE else args[0], shape)]
  if eqn.body is not None:
    return _custom(plan, eqn, args)
  if eqn.name == 'gather' and (found := static_index(plan.analysis, eqn)):
    axis, index, place = found
    kept = plan.kept[value_of(plan.analysis, eqn, 0).axes[axis]]
    return [jnp.moveaxis(_positions(args[0], axis, index, kept), axis, place)]
  rule = SHAPED.get(eqn.name)
  if rule is None:
    return execute(eqn, args)
  value = lambda i: plan.analysis.values[eqn.outputs[0]] if i == RESULT else value_of(plan.analysis, eqn, i)
  new = rule(eqn.params, args, shape, lambda i, axis: plan.kept[value(i).axes[axis]])
  return execute(eqn._replace(params={**eqn.params, **new}), args) if isinstance(new, dict) else new


def _sum_of_rest(eqn, args, shape):
  """A sum drops the operand that is zero."""
  if eqn.name in ('add', 'add_any') or (eqn.name == 'sub' and args[1] is ZERO):
    return jnp.broadcast_to(args[1] if args[0] is ZERO else args[0], shape)
  raise EffjaxError(f'shrink: an operator that was not chosen reaches {eqn.name!r} in {eqn.scope!r}: the outputs of '
                    'a choice must be summed')


def _scan(plan, eqn, args):
  """The iterations at the new shapes; nothing is given to them that they do not read."""
  args = [x if x is not ZERO and x is not ONE else _zeros_at(plan, b) if i in eqn.carry else None
          for i, (x, b) in enumerate(zip(args, eqn.body.inputs, strict=True))]
  return scan(eqn, args, lambda inputs: (_run(plan, eqn.body, inputs), ()))[0]


def _custom(plan, eqn, args):
  """A custom_jvp/vjp call at the new shapes, with its own derivative."""
  call = lambda *args: tuple(_run(plan, eqn.body, args))
  if eqn.outputs[0] not in plan.analysis.derivatives:
    return call(*args)
  derivative, moving = plan.analysis.derivatives[eqn.outputs[0]]
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

RESULT = -1  # in place of the number of an operand

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


def _gather(p, args, shape, kept):
  whole = lambda i, n: kept(0, i).size == n
  return {'slice_sizes': tuple(int(kept(0, i).sum()) if whole(i, n) else n for i, n in enumerate(p['slice_sizes']))}


def _pad(p, args, shape, kept):
  config = list(p['padding_config'])
  for axis, (low, high, inner) in enumerate(config):
    left = kept(RESULT, axis)
    if not left.all():  # what is padded may go too
      if inner:
        raise EffjaxError('shrink: interior padding of an axis that loses channels is not supported: pin it')
      config[axis] = (int(left[:low].sum()), int(left[len(left) - high:].sum()), 0)
  return {'padding_config': tuple(config)}


def _conv(p, args, shape, kept):
  groups, dims = p['feature_group_count'], p['dimension_numbers']
  depthwise = groups > 1 and args[1].shape[dims.rhs_spec[1]] == 1 and kept(1, dims.rhs_spec[1]).size == 1
  return {'feature_group_count': args[0].shape[dims.lhs_spec[1]] if depthwise else groups}


SHAPED = {
    'broadcast_in_dim': lambda p, args, shape, kept: {'shape': shape},
    'reshape': lambda p, args, shape, kept: {'new_sizes': shape},
    'slice': _slice, 'split': _split, 'pad': _pad, 'conv_general_dilated': _conv, 'gather': _gather,
    'dynamic_slice': lambda p, args, shape, kept: {'slice_sizes': shape}}
