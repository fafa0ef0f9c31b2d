"""Activations in memory, and from when to when: what a device needs RAM for."""
from collections.abc import Callable
from typing import NamedTuple

from effjax.graph.elementwise import ELEMENTWISE
from effjax.graph.guards import Guards
from effjax.graph.trace import Const, Program, Var
from effjax.graph.values import Axes

ALIASES = frozenset('reshape squeeze expand_dims broadcast_in_dim'.split())


class Buffer(NamedTuple):
  """An activation that the device holds in memory between two of the program's steps."""
  axes: Axes
  guards: Guards
  first: int
  last: int


def buffers(program: Program, axes: Callable[[Var], Axes], guards: dict[Var, Guards]) -> tuple[Buffer, ...]:
  """Activations in memory: what an elementwise step makes of one activation takes the place of its input.

  Args:
    axes: of each variable the channels.
    guards: of each variable that the outputs need (`guards`).
  """
  memory = _Memory(guards)
  for v in program.inputs:
    if v not in program.paths and v in guards:
      memory.make(v, 0)
  memory.touch(program.outputs, memory.run(program, 0))
  lives = [(v, *life) for v, life in memory.life.items()]
  return tuple(Buffer(axes(v), guards.get(v, ()), *life) for v, *life in (*lives, *memory.beside()))


class _Memory:
  """The buffer that each activation lies in, `home`, and the first and last step of each buffer's `life`.

  The values that elementwise steps make of one another share a home: `value` tells them apart, and `needed` is when
  each is made and last read by a step of another kind.
  """

  def __init__(self, guards: dict[Var, Guards]):
    self.guards, self.home, self.life, self.value, self.needed = guards, {}, {}, {}, {}
    self.held: set[Var] = set()  # buffers that a running scan reads again

  def make(self, v, now, home=None):
    self.home[v], self.value[v], self.needed[v] = v if home is None else home, v, [now, now]
    self.life.setdefault(self.home[v], [now, now])

  def alias(self, v, of):
    self.home[v], self.value[v] = self.home[of], self.value[of]

  def touch(self, variables, now, elementwise=False):
    for v in self.known_here(variables):
      self.life[self.home[v]][1] = now
      if not elementwise:
        self.needed[self.value[v]][1] = now

  def known_here(self, variables):
    return [v for v in variables if not isinstance(v, Const) and v in self.home]

  def beside(self):
    """(value, first, last) of what cannot take the place of its input, because that is read once more."""
    latest: dict[Var, int] = {}
    for v, (made, last) in self.needed.items():
      before = latest.get(self.home[v], made)
      if made < min(last, before):
        yield v, made, min(last, before)
      latest[self.home[v]] = max(last, before)

  def run(self, program, now):
    """Lives through the program from step `now` on; returns the step after its last one."""
    for eqn in program.eqns:
      if any(v in self.guards for v in eqn.outputs):
        now = self.scan(eqn, now) if eqn.name == 'scan' else self.step(eqn, now)
      now += 1
    return now

  def step(self, eqn, now):
    read = self.known_here(eqn.inputs)
    homes = {self.home[v] for v in read}
    same = len(homes) == 1 and not homes & self.held and eqn.name in ALIASES | ELEMENTWISE
    self.touch(read, now, same)
    for v in eqn.outputs if read else ():
      if same and eqn.name in ALIASES:
        self.alias(v, read[0])
      else:
        self.make(v, now, *(homes if same else ()))
    return now

  def scan(self, eqn, now):
    """Constants, what is scanned and the stacked results stay; a carry takes the place of the one before it."""
    body, carry, held = eqn.body, eqn.carry, self.held
    self.touch(eqn.inputs, now)
    for i, (inside, v) in enumerate(zip(body.inputs, eqn.inputs, strict=True)):
      if i in carry and inside in self.guards:
        self.make(inside, now + 1)
      elif i not in carry and self.known_here([v]):
        self.alias(inside, v)
        self.held = self.held | {self.home[v]}
    end = self.run(body, now + 1)
    self.touch([v for i, v in enumerate(eqn.inputs) if i not in carry] + list(body.outputs), end)
    for i, (inside, v) in enumerate(zip(body.outputs, eqn.outputs, strict=True)):
      if i < len(carry) and self.known_here([inside]):
        self.alias(v, inside)
      elif v in self.guards:
        self.make(v, now)
        self.touch([v], end)
    self.held = held
    return end
