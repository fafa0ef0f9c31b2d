"""Where an integer device rounds: one pass over the equations of a program, for `effjax.graph.taps`."""
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from effjax.graph.functions import recognised
from effjax.graph.live import live
from effjax.graph.simplified import simplified, variables
from effjax.graph.trace import CUSTOM, Const, Eqn, Program, Var, trace, users, weights
from effjax.tree import PyTree

CLAMPS = frozenset({'max', 'min', 'clamp'})
AFFINE = frozenset({'add', 'add_any', 'sub', 'mul', 'div', 'neg'})
LAYOUT = frozenset({'reshape', 'transpose', 'squeeze', 'expand_dims', 'broadcast_in_dim', 'slice', 'split', 'pad',
                    'rev', 'dynamic_slice', 'gather', 'reduce_window_max', 'reduce_window_sum', 'reduce_max',
                    'resize_nearest', 'resize_bilinear'})
SAME = frozenset({'convert_element_type', 'copy', 'copy_p', 'reduce_precision', 'optimization_barrier', 'name',
                  'select_n', 'stop_gradient'})
LOOKUPS = frozenset({'logistic', 'tanh', 'hard_swish', 'gelu', 'leaky_relu', 'elu', 'exp', 'log', 'sqrt', 'rsqrt',
                     'abs'})
FUNCTIONS = LOOKUPS | {'softmax', 'log_softmax', 'argmax'}  # of one activation, with a kernel of their own
POSITIVE = frozenset({'log', 'sqrt', 'rsqrt'})  # of a tensor that has no code below zero
FOLDING = frozenset({'conv', 'dot', 'affine'})  # kernels that take a factor and a constant per channel
CLAMPING = FOLDING | {'add', 'sub', 'mul'}  # kernels that clamp
CLIPS = frozenset({(0., math.inf), (0., 6.), (-1., 1.)})  # what they clamp to; other bounds are those of a range
EPSILON = 1e-3  # what is added before a root and is less than this is no sum of its own


class Tap(NamedTuple):
  """One activation that a device stores.

  name: `input` (`input_1` ...), or the path of the weight that feeds the operator, without its last part; the results
    of operators without weights append to it, e.g. `block1/project/add`, `block3/conv/mean`. A parameter that is
    added to or multiplied with an activation, but not per channel, is a tap of its own, of kind `constant`.
  kind: the operator: input, conv, dot, matmul, add, sub, mul, mean, concat, affine, constant, average (a pool or
    bilinear resizing) and mask, which share the range of their input, or a function's name.
  var: the variable of the program (`recognised(trace(...))` of the same function and shapes).
  range: the tap whose range it shares: its own name, except that what is concatenated has that of the result, because
    CONCATENATION copies integers, and that what a `scan` carries has one range in all iterations.
  layers: lengths of the scans that it is in, outermost first; `collect` gives it with these as first axes.
  bounds: what it is clamped to, where no kernel has such a clamp: its range has exactly these ends.
  positive: a kernel reads it that wants no code below zero.
  low: what it is clamped to from below, as ReLU does with 0; -inf where nothing does.
  """
  name: str
  kind: str
  shape: tuple[int, ...]
  dtype: Any
  var: Var
  range: str
  layers: tuple[int, ...] = ()
  bounds: tuple[float, float] | None = None
  positive: bool = False
  low: float = -math.inf

  @property
  def own(self) -> bool:
    """True if its range is fixed by its kernel or its clamp, so that it shares no other's."""
    return self.kind in FUNCTIONS or self.bounds is not None or self.positive


class _State(NamedTuple):
  """What is known of an activation: 'codes' (stored as integers), 'pending' (inside a kernel) or 'float'.

  channels: axes along which a constant folds into the pending kernel. low, high: what it was clamped to. scaled: these
  integers stand for a multiple of what their tap's do.
  """
  status: str
  name: str
  kind: str
  tap: Var | None = None  # whose integers it has
  channels: frozenset[int] = frozenset()
  low: float = -math.inf
  high: float = math.inf
  scaled: bool = False

  @property
  def clamped(self):
    return self.low > -math.inf or self.high < math.inf


def find(program: Program) -> list[Tap]:
  """The taps of a program as `placed` makes it; see `effjax.graph.taps.taps`."""
  return _Finder(program).run()


def placed(fn: Callable, params: PyTree, *args: PyTree) -> Program:
  """The program in which taps are found: functions recognised, arrays that it closes over as variables."""
  return variables(simplified(recognised(trace(fn, params, *args))))


def only_clamps(eqn: Eqn) -> bool:
  """True for a custom_jvp/vjp call that does nothing but clamp (`jax.nn.relu`)."""
  return eqn.name in CUSTOM and all(e.name in CLAMPS or e.name in ('convert_element_type', 'broadcast_in_dim')
                                    for e in eqn.body.eqns)


def clamps_alone(bounds: tuple[float, float], readers: Sequence[Eqn | None]) -> bool:
  """True if a clamp of stored integers is an operator of its own, which keeps their range (RELU, RELU6).

  Bounds that no such operator has, and a clamp that another one follows, become a kernel that rounds anew.
  """
  followed = len(readers) == 1 and readers[0] is not None and (readers[0].name in CLAMPS or only_clamps(readers[0]))
  return not followed and (bounds in CLIPS or bounds == (-math.inf, math.inf))


class _Finder:
  """One pass over the equations: what is inside a kernel stays pending until something needs it as integers."""

  def __init__(self, program):
    self.program, self.weights = program, weights(program)
    self.live, self.uniform = live(program), set()
    self.numbers: dict[Var, float] = {}  # constants that are one known number
    self.spread: dict[Var, frozenset[int]] = {}  # axes along which a broadcast constant differs
    self.readers: dict[Var, list[Eqn | None]] = {}  # the equations that need each variable
    self.layers: dict[Var, tuple[int, ...]] = {}
    self.states: dict[Var, _State] = {}
    self.tapped: dict[Var, _State] = {}
    self.ranges: dict[Var, Var] = {}  # the tap whose range each tap has
    self.positive: set[Var] = set()

  def run(self) -> list[Tap]:
    for v in self.program.inputs:
      if v in self.live and v not in self.program.paths:
        self.states[v] = _State('pending', 'input', 'input')
        self.store(v)
    self.pass_over(self.program, ())
    return self.named()

  def pass_over(self, program, layers):
    for v, used in users(program).items():
      self.readers[v] = [None if i == -1 else program.eqns[i] for i in used
                         if i == -1 or not self.live.isdisjoint(program.eqns[i].outputs)]
    for eqn in program.eqns:
      self.layers.update(dict.fromkeys(eqn.outputs, layers))
      if self.live.isdisjoint(eqn.outputs):
        self.constant(eqn)
      elif eqn.name == 'scan':
        self.enter(eqn, layers)
      else:
        self.states.update(dict.fromkeys(eqn.outputs, self.visit(eqn)))
        if eqn.name == 'concatenate' and self.states[eqn.outputs[0]].status == 'pending':
          self.join(eqn.outputs[0], [v for v in eqn.inputs if not isinstance(v, Const)])
    for v in program.outputs:
      if v in self.states:
        self.store(v)

  def constant(self, eqn):
    """What does not depend on the example: is it one number, and along which axes does it differ?"""
    self.uniform.update(eqn.outputs if all(map(self.is_uniform, eqn.inputs)) else ())
    if eqn.name in ('convert_element_type', 'broadcast_in_dim', 'reshape') and self.number(eqn.inputs[0]) is not None:
      self.numbers[eqn.outputs[0]] = self.number(eqn.inputs[0])
    if eqn.name == 'broadcast_in_dim':
      source, axes = eqn.inputs[0], eqn.params['broadcast_dimensions']
      self.spread[eqn.outputs[0]] = frozenset(axes[i] for i in self.varies(source))

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
    return [self.made(v, state, names) for v, state in sorted(self.tapped.items())]

  def made(self, v, state, names=None):
    aval, bounds = self.program.avals[v], (state.low, state.high)
    exact = all(map(math.isfinite, bounds)) and bounds not in CLIPS
    name = lambda tap: names[tap] if names else ''
    return Tap(name(v), state.kind, tuple(aval.shape), aval.dtype, v, name(self.ranges[v]), self.layers.get(v, ()),
               bounds if exact else None, self.ranges[v] in self.positive, state.low)

  def store(self, v):
    """From here on `v` is integers: a tap, unless it shares those of its input."""
    if self.states[v].status != 'codes' and jnp.issubdtype(self.program.avals[v].dtype, jnp.inexact):
      self.tapped[v], self.ranges[v] = self.states[v], v
      self.states[v] = self.states[v]._replace(status='codes', tap=v)

  def kept(self, eqn, state):
    """The same integers; averages and what a mask puts in are rounded to their range, unless they were scaled since."""
    if eqn.name == 'reduce_window_sum':
      return state._replace(kind='pool')
    averaged = eqn.name == 'resize_bilinear' or (state.kind == 'pool' and eqn.name in ('mul', 'div'))
    kind = 'average' if averaged else 'mask' if self.is_mask(eqn) else ''
    if not kind or state.scaled or state.tap is None:
      return state._replace(scaled=state.scaled or (self.scales(eqn) and not averaged))
    v, made = eqn.outputs[0], state._replace(name=f'{state.name}/{kind}', kind=kind, low=-math.inf, high=math.inf)
    self.tapped[v], self.ranges[v] = made, self.ranges[state.tap]
    return made._replace(status='codes', tap=v)

  def hold(self, v, source):
    """A constant operand that is stored as integers, as activations are."""
    path = self.weights.get(v, f'{source}/constant').removeprefix('params/').removesuffix('/value')
    self.states[v] = _State('pending', path, 'constant')
    self.store(v)

  def join(self, v, parts):
    """`v` copies the integers of `parts`: all their taps get its range, except for those that have one of their own."""
    self.store(v)
    for part in parts:
      if part not in self.states:
        self.hold(part, self.states[v].name)
    owners = {self.ranges[self.states[part].tap] for part in parts}
    joined = {owner for owner in owners if not any(
        self.made(tap, self.tapped[tap]).own for tap, other in self.ranges.items() if other == owner)}
    self.ranges.update({tap: v for tap, owner in self.ranges.items() if owner in joined})

  def visit(self, eqn: Eqn) -> _State:
    """The state of the results of an equation that reads activations."""
    read = [v for v in eqn.inputs if not self.is_constant(v)]
    last, kind = self.latest(read), self.kind(eqn, read)
    if kind is None and last.status == 'pending' and len(self.readers[read[0]]) == 1 and self.fuses(eqn, read[0]):
      return self.folded(eqn, last)
    if kind is None and all(self.states[v].status == 'float' for v in read):
      return last._replace(kind=eqn.name)
    for v in read:
      if kind or self.states[v].status == 'pending':
        self.store(v)
    last = self.latest(read)
    if kind:
      return self.kernel(eqn, read, last, kind)
    if self.keeps(eqn, last):
      return self.kept(eqn, last)
    if self.is_affine(eqn, read):
      return _State('pending', f'{last.name}/affine', 'affine', channels=self.varies(self.other(eqn)))
    if self.is_clamp(eqn):
      return self.folded(eqn, _State('pending', f'{last.name}/affine', 'affine'))
    return _State('float', f'{last.name}/{eqn.name}', eqn.name)

  def kernel(self, eqn, read, last, kind):
    """An operation of its own begins."""
    if eqn.name in POSITIVE:
      self.positive.add(self.ranges[last.tap])
    if kind in ('add', 'sub', 'mul') and len(read) == 1 and eqn.name in AFFINE:
      self.hold(self.other(eqn), last.name)
    return _State('pending', self.name(eqn, last.name, kind), kind, channels=self.channels(eqn, kind))

  def latest(self, read):
    """The state of the operand that was computed last: it gives its name to the result."""
    made = lambda v: self.states[v].tap if self.states[v].status == 'codes' else v
    return self.states[max(read, key=made)]

  def kind(self, eqn, read):
    """The integer kernel that an equation starts, if it starts one."""
    if eqn.name == 'conv_general_dilated':
      return 'conv'
    if eqn.name == 'dot_general':
      return 'matmul' if len(read) == 2 else 'dot'
    if eqn.name == 'reduce_sum' and self.states[read[0]].status != 'float':
      return 'mean'
    if all(self.states[v].status == 'float' for v in read):
      return None
    if eqn.name == 'square' or (eqn.name == 'integer_pow' and eqn.params['y'] == 2):
      return 'mul'
    both = len(eqn.inputs) == 2 and not any(map(self.is_constant, eqn.inputs))
    name = {'add_any': 'add', 'concatenate': 'concat'}.get(eqn.name, eqn.name)
    if name in ('add', 'sub', 'mul') and (both or not self.is_affine(eqn, read)):
      return name
    return name if name == 'concat' or name in FUNCTIONS else None

  def fuses(self, eqn, v):
    """True if the pending kernel of `v` can do the equation too, before it rounds."""
    state = self.states[v]
    if eqn.name in SAME:
      return not self.is_mask(eqn)
    if self.is_clamp(eqn):
      return state.kind in CLAMPING
    if state.kind in FOLDING and self.is_affine(eqn, [v]):
      constant = self.other(eqn)
      return self.is_uniform(constant) or (self.varies(constant) <= state.channels and not state.clamped)
    same_size = len({math.prod(self.program.avals[u].shape) for u in (v, *eqn.outputs)}) == 1
    return state.kind == 'mean' and (self.scales(eqn) or (same_size and eqn.name in ('reshape', 'broadcast_in_dim')))

  def folded(self, eqn, state):
    """The pending state after an equation that it fuses: bounds move with clamps and with numbers."""
    if self.is_clamp(eqn):
      low, high = self.clamp(eqn)
      return state._replace(low=max(state.low, low), high=min(state.high, high))
    if eqn.name not in AFFINE or not state.clamped:
      return state
    number = self.number(self.other(eqn))
    if number is None or (number <= 0 and eqn.name in ('mul', 'div')) or eqn.name == 'neg':
      return state._replace(low=-math.inf, high=math.inf)
    turn = {'add': lambda x: x + number, 'add_any': lambda x: x + number, 'sub': lambda x: x - number,
            'mul': lambda x: x * number, 'div': lambda x: x / number}[eqn.name]
    return state._replace(low=_round(turn(state.low)), high=_round(turn(state.high)))

  def keeps(self, eqn, state):
    """True if the result of an equation has the same integers as its input."""
    pooled = state.kind == 'pool' and eqn.name in ('mul', 'div')
    root = all(reader is not None and reader.name in POSITIVE for reader in self.readers[eqn.outputs[0]])
    small = eqn.name == 'add' and root and 0 <= (self.number(self.other(eqn)) or 1.) <= EPSILON
    alone = self.is_clamp(eqn) and clamps_alone(self.clamp(eqn), self.readers[eqn.outputs[0]])
    return eqn.name in LAYOUT | SAME or alone or self.scales(eqn) or pooled or small

  def is_mask(self, eqn):
    """True for a choice of entries, as attention masks make it."""
    return eqn.name == 'select_n' and self.is_constant(eqn.inputs[0]) and not self.is_uniform(eqn.inputs[0])

  def scales(self, eqn):
    fixed = list(filter(self.is_constant, eqn.inputs))
    return len(fixed) == 1 and eqn.name in ('mul', 'div') and self.is_uniform(fixed[0])

  def is_affine(self, eqn, read):
    """True for `a x + b` of the shape of x, constants along the channels (of an image, along any one axis)."""
    if eqn.name not in AFFINE or len(read) != 1 or (eqn.name == 'div' and eqn.inputs[0] not in read):
      return False
    shape = self.program.avals[read[0]].shape
    axes = frozenset() if eqn.name == 'neg' else self.varies(self.other(eqn))
    one = len(axes) <= 1 and (len(shape) == 4 or axes <= {len(shape) - 1})
    return self.program.avals[eqn.outputs[0]].shape == shape and (one or axes <= self.states[read[0]].channels)

  def other(self, eqn):
    """The constant operand."""
    return next(filter(self.is_constant, eqn.inputs), eqn.inputs[-1])

  def is_constant(self, v):
    return isinstance(v, Const) or v not in self.states or self.states[v].kind == 'constant'

  def channels(self, eqn, kind):
    """The axes of a kernel's output along which its constants may differ."""
    if kind == 'conv':
      return frozenset({eqn.params['dimension_numbers'].out_spec[1]})
    if kind == 'dot':
      (_, right), (_, batch) = eqn.params['dimension_numbers']
      free = self.rank(eqn.inputs[1]) - len(right) - len(batch)
      n = self.program.avals[eqn.outputs[0]].ndim
      return frozenset(range(n - free, n))
    return frozenset()

  def rank(self, v):
    return np.ndim(v.value) if isinstance(v, Const) else self.program.avals[v].ndim

  def varies(self, v):
    """The axes along which a constant may differ."""
    if not isinstance(v, Const) and v in self.spread:
      return self.spread[v]
    shape = np.shape(v.value) if isinstance(v, Const) else self.program.avals[v].shape
    return frozenset(i for i, n in enumerate(shape) if n > 1) if not self.is_uniform(v) else frozenset()

  def is_uniform(self, v):
    return np.size(v.value) == 1 if isinstance(v, Const) else v in self.uniform or self.program.avals[v].size == 1

  def is_clamp(self, eqn):
    """True for max and min with a scalar, and for a custom_jvp/vjp call that does nothing else (`jax.nn.relu`)."""
    if eqn.name in CUSTOM:
      return only_clamps(eqn)
    fixed = list(filter(self.is_constant, eqn.inputs))
    return eqn.name in CLAMPS and len(fixed) == len(eqn.inputs) - 1 and all(map(self.is_uniform, fixed))

  def number(self, v) -> float | None:
    """A constant that is one known number."""
    if isinstance(v, Const):
      return float(np.asarray(v.value).flat[0]) if np.size(v.value) == 1 else None
    return self.numbers.get(v)

  def clamp(self, eqn) -> tuple[float, float]:
    """The bounds of a clamp, infinite where they are no known numbers."""
    low, high = -math.inf, math.inf
    for e in eqn.body.eqns if eqn.body else (eqn,):
      known = [n for n in map(self.number, e.inputs) if n is not None]
      if e.name == 'clamp' and len(known) == 2:
        low, high = known
      elif e.name == 'max' and known:
        low = max(low, known[0])
      elif e.name == 'min' and known:
        high = min(high, known[0])
    return low, high

  def name(self, eqn, source, kind):
    path = next((self.weights[v] for v in eqn.inputs if not isinstance(v, Const) and v in self.weights), None)
    if kind not in ('conv', 'dot') or path is None:
      return f'{source}/{kind}'
    parts = path.removeprefix('params/').removesuffix('/value').split('/')  # Linen's and NNX's own words
    return '/'.join(parts[:-1] or parts)


def _round(x: float) -> float:
  """Without the error of float32 arithmetic: what is meant by 3 / 6 and 6 * (1 / 6)."""
  return float(f'{x:.6g}')
