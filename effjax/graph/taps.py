"""Named activations of any JAX function: the tensors that an integer device keeps, found in one trace.

A device runs a convolution, its bias, BatchNorm's affine map and its ReLU as one kernel, and rounds once, after it.
`taps` finds these places; `insert` puts a function (a quantizer) there and `collect` reads the values out.
"""
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.errors import EffjaxError
from effjax.graph.trace import (
  CUSTOM,
  Const,
  Eqn,
  Program,
  Var,
  execute,
  last_use,
  scan,
  trace,
  users,
  walk,
  weights,
)
from effjax.tree import PyTree

CLAMPS = frozenset({'max', 'min', 'clamp'})
AFFINE = frozenset({'add', 'add_any', 'sub', 'mul', 'div', 'neg'})
LAYOUT = frozenset({'reshape', 'transpose', 'squeeze', 'expand_dims', 'broadcast_in_dim', 'slice', 'split', 'pad',
                    'rev', 'dynamic_slice', 'gather', 'reduce_window_max', 'reduce_window_sum', 'reduce_max'})
SAME = frozenset({'convert_element_type', 'copy', 'copy_p', 'reduce_precision', 'optimization_barrier', 'name',
                  'select_n'})


class Tap(NamedTuple):
  """One activation that a device stores.

  name: `input` (`input_1` ...), or the path of the weight that feeds the operator, without its last part; the results
    of operators without weights append to it, e.g. `block1/project/add`, `block3/conv/mean`.
  kind: the operator: input, conv, dot, add, mul, mean, concat, affine, or an elementwise primitive's name.
  var: the variable of the traced program (`graph.trace.trace` of the same function and shapes).
  range: the tap whose range it shares: its own name, except that what is concatenated has that of the result, because
    CONCATENATION copies integers, and that what a `scan` carries has one range in all iterations.
  layers: lengths of the scans that it is in, outermost first; `collect` gives it with these as first axes.
  """
  name: str
  kind: str
  shape: tuple[int, ...]
  dtype: Any
  var: Var
  range: str
  layers: tuple[int, ...] = ()


class _State(NamedTuple):
  """What is known of an activation: 'codes' (stored as integers), 'pending' (inside a kernel) or 'float'."""
  status: str
  name: str
  kind: str
  tap: Var | None = None  # whose integers it has


def taps(fn: Callable, params: PyTree, *args: PyTree) -> list[Tap]:
  """The activations of `fn(params, *args)` that an integer device stores, in execution order.

  Stored: each floating point input; each convolution and dot product after its bias, BatchNorm and ReLU; sums and
  products of two activations; means; concatenations; what elementwise functions feed to any of these; the outputs.
  Pooling, reshape, transpose, slice and pad keep the integers of their input and have no tap of their own. Within a
  `scan` there is one tap for all iterations.
  The first axis of every activation is the batch; what is reduced over it (BatchNorm's statistics) is no activation.
  Names are those of the parameter paths (Linen's `params/` and NNX's `/value` dropped), so shrinking keeps them.

  Args:
    fn: any JAX function whose first argument is a tree of parameters, in training or inference mode.

  >>> import jax.numpy as jnp
  >>> fn = lambda p, x: jax.nn.relu(x @ p['fc']['w'] + p['fc']['b'])
  >>> [tap[:3] for tap in taps(fn, {'fc': {'w': jnp.ones((3, 2)), 'b': jnp.ones((1, 2))}}, jnp.ones((5, 3)))]
  [('input', 'input', (5, 3)), ('fc', 'dot', (5, 2))]
  """
  return find(trace(fn, params, *args))


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
  program = trace(fn, params, *args)
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


def find(program: Program) -> list[Tap]:
  """The taps of a traced program; see `taps`."""
  return _Finder(program).run()


class _Finder:
  """One pass over the equations: what is inside a kernel stays pending until something needs it as integers."""

  def __init__(self, program):
    self.program, self.weights = program, weights(program)
    self.live, self.uniform = _live(program), set()
    self.readers: dict[Var, int] = {}  # how many equations need each variable
    self.layers: dict[Var, tuple[int, ...]] = {}
    self.states: dict[Var, _State] = {}
    self.tapped: dict[Var, _State] = {}
    self.ranges: dict[Var, Var] = {}  # the tap whose range each tap has

  def run(self) -> list[Tap]:
    for v in self.program.inputs:
      if v in self.live and v not in self.program.paths:
        self.states[v] = _State('pending', 'input', 'input')
        self.store(v)
    self.pass_over(self.program, ())
    return self.named()

  def pass_over(self, program, layers):
    for v, used in users(program).items():
      self.readers[v] = sum(i == -1 or not self.live.isdisjoint(program.eqns[i].outputs) for i in used)
    for eqn in program.eqns:
      self.layers.update(dict.fromkeys(eqn.outputs, layers))
      if self.live.isdisjoint(eqn.outputs):
        self.uniform.update(eqn.outputs if all(map(self.is_uniform, eqn.inputs)) else ())
      elif eqn.name == 'scan':
        self.enter(eqn, layers)
      else:
        self.states.update(dict.fromkeys(eqn.outputs, self.visit(eqn)))
        if eqn.name == 'concatenate' and self.states[eqn.outputs[0]].status == 'pending':
          self.join(eqn.outputs[0], [v for v in eqn.inputs if not isinstance(v, Const) and v in self.states])
    for v in program.outputs:
      if v in self.states:
        self.store(v)

  def enter(self, eqn, layers):
    """A scan: what goes in and out is integers, and what is carried has one range."""
    outside = [None if isinstance(v, Const) else v for v in eqn.inputs]
    for b, v in zip(eqn.body.inputs, outside, strict=True):
      if v in self.states:
        self.store(v)
        self.states[b] = self.states[v]
    self.pass_over(eqn.body, (*layers, eqn.params['length']))
    for b, v in zip(eqn.body.outputs, eqn.outputs, strict=True):
      if b in self.states:
        self.states[v] = self.states[b]
    for i, b in zip(eqn.carry, eqn.body.outputs):
      if outside[i] in self.states and b in self.states:
        start, end = (self.ranges[self.states[v].tap] for v in (outside[i], b))
        self.ranges.update({tap: start for tap, owner in self.ranges.items() if owner == end})

  def named(self):
    counts, names = {}, {}
    for v, state in sorted(self.tapped.items()):
      counts[state.name] = i = counts.get(state.name, -1) + 1
      names[v] = f'{state.name}_{i}' if i else state.name
    aval = self.program.avals
    return [Tap(names[v], state.kind, tuple(aval[v].shape), aval[v].dtype, v, names[self.ranges[v]],
                self.layers.get(v, ())) for v, state in sorted(self.tapped.items())]

  def store(self, v):
    """From here on `v` is integers: a tap, unless it shares those of its input."""
    if self.states[v].status != 'codes':
      self.tapped[v], self.ranges[v] = self.states[v], v
      self.states[v] = self.states[v]._replace(status='codes', tap=v)

  def join(self, v, parts):
    """`v` copies the integers of `parts`: all their taps get its range."""
    self.store(v)
    joined = {self.ranges[self.states[part].tap] for part in parts}
    self.ranges.update({tap: v for tap, owner in self.ranges.items() if owner in joined})

  def visit(self, eqn: Eqn) -> _State:
    """The state of the results of an equation that reads activations."""
    read = [v for v in eqn.inputs if not isinstance(v, Const) and v in self.states]
    last = self.latest(read)
    kind = self.kind(eqn, read)
    if kind is None and last.status == 'pending' and self.readers[read[0]] == 1 and self.fuses(eqn, last.kind):
      return last
    if kind is None and all(self.states[v].status == 'float' for v in read):
      return last._replace(kind=eqn.name)
    for v in read:
      if kind or self.states[v].status == 'pending':
        self.store(v)
    last = self.latest(read)
    if kind:
      return _State('pending', self.name(eqn, last.name, kind), kind)
    if self.keeps(eqn, last):
      return last._replace(kind='pool' if eqn.name == 'reduce_window_sum' else last.kind)
    if eqn.name in AFFINE and len(read) == 1 and not (eqn.name == 'div' and eqn.inputs[0] != read[0]):
      return _State('pending', f'{last.name}/affine', 'affine')
    return _State('float', f'{last.name}/{eqn.name}', eqn.name)

  def latest(self, read):
    """The state of the operand that was computed last: it gives its name to the result."""
    made = lambda v: self.states[v].tap if self.states[v].status == 'codes' else v
    return self.states[max(read, key=made)]

  def kind(self, eqn, read):
    """The integer kernel that an equation starts, if it starts one."""
    spatial = lambda: tuple(eqn.params['axes']) != (self.program.avals[read[0]].ndim - 1,)
    if eqn.name in ('conv_general_dilated', 'dot_general'):
      return 'conv' if eqn.name.startswith('conv') else 'dot'
    if eqn.name == 'reduce_sum' and self.states[read[0]].status != 'float' and spatial():
      return 'mean'
    if all(self.states[v].status == 'float' for v in read):
      return None
    pairs = {'add': len(read) == 2, 'add_any': len(read) == 2, 'mul': len(set(read)) == 2, 'concatenate': True}
    return {'add_any': 'add', 'concatenate': 'concat'}.get(eqn.name, eqn.name) if pairs.get(eqn.name) else None

  def fuses(self, eqn, kind):
    """True if a kernel of this kind can do the equation too, before it rounds."""
    if eqn.name in SAME or self.is_clamp(eqn):
      return True
    if kind in ('conv', 'dot', 'affine'):
      return eqn.name in AFFINE and not (eqn.name == 'div' and isinstance(eqn.inputs[0], Const))
    same_size = len({int(np.prod(self.program.avals[v].shape)) for v in (eqn.inputs[0], *eqn.outputs)
                     if not isinstance(v, Const)}) == 1
    return self.scales(eqn) or (kind == 'mean' and same_size and eqn.name in ('reshape', 'broadcast_in_dim'))

  def keeps(self, eqn, state):
    """True if the result of an equation has the same integers as its input."""
    pooled = state.kind == 'pool' and eqn.name in ('mul', 'div')
    return eqn.name in LAYOUT | SAME or self.is_clamp(eqn) or self.scales(eqn) or pooled

  def scales(self, eqn):
    fixed = [v for v in eqn.inputs if isinstance(v, Const) or v not in self.states]
    return len(fixed) == 1 and eqn.name in ('mul', 'div') and self.is_uniform(fixed[0])

  def is_uniform(self, v):
    return np.size(v.value) == 1 if isinstance(v, Const) else v in self.uniform or self.program.avals[v].size == 1

  def is_clamp(self, eqn):
    """True for max and min with a scalar, and for a custom_jvp/vjp call that does nothing else (`jax.nn.relu`)."""
    if eqn.name in CUSTOM:
      return all(e.name in CLAMPS or e.name in ('convert_element_type', 'broadcast_in_dim') for e in eqn.body.eqns)
    fixed = [v for v in eqn.inputs if isinstance(v, Const) or v not in self.states]
    return eqn.name in CLAMPS and len(fixed) == len(eqn.inputs) - 1 and all(map(self.is_uniform, fixed))

  def name(self, eqn, source, kind):
    path = next((self.weights[v] for v in eqn.inputs if not isinstance(v, Const) and v in self.weights), None)
    if kind not in ('conv', 'dot') or path is None:
      return f'{source}/{kind}'
    parts = path.removeprefix('params/').removesuffix('/value').split('/')  # Linen's and NNX's own words
    return '/'.join(parts[:-1] or parts)


def _live(program):
  """Variables that differ between examples and lead to an output that does."""
  varying = {v for v in program.inputs if v not in program.paths
             and jnp.issubdtype(program.avals[v].dtype, jnp.inexact) and program.avals[v].ndim}
  _spread(program, varying)
  live: set[Var] = set()
  _needed(program, varying, live)
  if not live:
    raise EffjaxError('taps: no output of the function differs between the examples of a batch (axis 0): '
                      'give a function that returns logits, not their loss')
  return live


def _spread(program, varying):
  """Adds to `varying` what depends on it."""
  for eqn in program.eqns:
    over_batch = eqn.name.startswith('reduce_') and 0 in eqn.params.get('axes', ())
    if over_batch or not any(v in varying for v in eqn.inputs if not isinstance(v, Const)):
      continue
    varying.update(eqn.outputs)
    if eqn.name == 'scan':
      before = -1
      varying.update(b for b, v in zip(eqn.body.inputs, eqn.inputs) if not isinstance(v, Const) and v in varying)
      while before != len(varying):  # what is carried may vary from the second iteration on
        before = len(varying)
        _spread(eqn.body, varying)
        carry = zip([eqn.body.inputs[i] for i in eqn.carry], eqn.body.outputs)
        varying.update(b for b, v in carry if not isinstance(v, Const) and v in varying)


def _needed(program, varying, live):
  """Adds to `live` what varies and leads to an output of the program."""
  live.update(v for v in program.outputs if not isinstance(v, Const) and v in varying)
  for eqn in reversed(program.eqns):
    if not live.isdisjoint(eqn.outputs):
      live.update(v for v in eqn.inputs if not isinstance(v, Const) and v in varying)
      if eqn.name == 'scan':
        _needed(eqn.body, varying, live)
