"""Which operator choices a value hangs on: all that it is multiplied by on every way to the outputs."""
from effjax.graph.channels import Labelled
from effjax.graph.trace import Const, Program, Var
from effjax.tree import Path

Guards = tuple[tuple[Path, int], ...]


def guards(found: Labelled, program: Program) -> dict[Var, Guards]:
  """For each variable that the outputs need, the choices that every use of it is multiplied by."""
  met: dict[Var, frozenset] = {v: frozenset() for v in program.outputs if not isinstance(v, Const)}
  _back(found, program, met)
  return {v: tuple(sorted(g)) for v, g in met.items()}


def _back(found, program, guards):
  for eqn in reversed(program.eqns):
    below = [(v, _with_hosts(found, guards, v)) for v in eqn.outputs if v in guards]
    if below and eqn.name == 'scan':
      _meet(guards, _back_scan(found, eqn, guards))
    elif below:
      mine = frozenset.intersection(*(g for _, g in below))
      _meet(guards, ((v, mine) for v in eqn.inputs))


def _back_scan(found, eqn, guards):
  """From the results through the body, until nothing that is carried changes: what the inputs get."""
  body, carry = eqn.body, eqn.carry
  across = [(b, v) for b, v in zip(body.outputs, eqn.outputs, strict=True)]
  across += [(b, body.inputs[i]) for b, i in zip(body.outputs, carry, strict=False)]
  before, now = None, [guards.get(v) for _, v in across]
  while before != now:
    _meet(guards, [(b, _with_hosts(found, guards, v)) for b, v in across if v in guards])
    _back(found, body, guards)
    before, now = now, [guards.get(v) for _, v in across]
  return [(v, guards[b]) for v, b in zip(eqn.inputs, body.inputs, strict=True) if b in guards]


def _with_hosts(found, guards, v):
  value = found.analysis.values.get(v)  # None within a call that is constant as a whole
  return guards[v] | frozenset(found.guard[h] for h in (value.hosts if value else ()) if h in found.guard)


def _meet(guards, pairs):
  for v, mine in pairs:
    if not isinstance(v, Const):
      guards[v] = guards[v] & mine if v in guards else mine
