"""Why: through which equations, on which lines of the model, entries live and die together, or cannot go at all."""
import importlib.util
import pathlib
import sysconfig
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from effjax.errors import EffjaxError
from effjax.graph.channels import Labelled, label
from effjax.graph.labels import PINNED, Labels
from effjax.graph.trace import Eqn
from effjax.tree import Path, PyTree

FRAMEWORKS = ('jax', 'jaxlib', 'flax', 'haiku', 'equinox', 'effjax')


class Step(NamedTuple):
  """One equation that joins: the primitive, what it does to the entries, the module, the line of the model."""
  primitive: str
  why: str
  scope: str
  source: str


class Explanation(NamedTuple):
  """channel: the number, or None if the entry is pinned.

  members: (path, axis, entries) of all that goes with it; of the entry alone, if it is pinned.
  steps: the equations that couple the members; or the way from the entry to what cannot go, which comes last.
  """
  channel: int | None
  members: tuple[tuple[Path, int, tuple[int, ...]], ...]
  steps: tuple[Step, ...]

  def __str__(self) -> str:
    head = 'pinned' if self.channel is None else f'channel {self.channel}'
    lines = [f'{head}:'] + [f'  {path} axis {axis} entries {list(entries)}' for path, axis, entries in self.members]
    return '\n'.join(lines + [f'  {s.primitive}: {s.why}' + ''.join(f' [{x}]' for x in (s.scope, s.source) if x)
                              for s in self.steps])


def explain(fn: Callable, params: PyTree, channel: int | tuple[Path, int, int], *args: PyTree) -> Explanation:
  """What a channel couples and through which equations; of an entry that is pinned, the way to what pins it.

  Args:
    fn, params, args: as for `channels`.
    channel: its number, or (path, axis, entry) of a parameter.

  Raises:
    EffjaxError: no such channel, or no such entry.

  >>> import jax, jax.numpy as jnp
  >>> fn = lambda p, x: jax.nn.softmax(jnp.cumsum(x @ p['a'], -1)) @ p['b']
  >>> print(explain(fn, {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}, ('a', 1, 0), jnp.ones((1, 3))))
  ... # doctest: +ELLIPSIS
  pinned:
    a axis 1 entries [0]
    cumsum: cumsum runs along it [...]
  """
  found = label(fn, params, *args)
  entry = _labels(found, *channel) if isinstance(channel, tuple) else None
  number = channel if entry is None else int(found.channel[entry])
  if number >= found.channels.size or (entry is None and number < 0):
    raise EffjaxError(f'explain: channel {number}, wanted one of 0..{found.channels.size - 1}')
  if number < 0:
    return Explanation(None, ((*channel[:2], (channel[2],)),), _steps(_way(found.analysis.labels, entry)))
  return Explanation(int(number), tuple(_members(found, number)), _steps(_coupling(found, number)))


def _labels(found: Labelled, path: Path, axis: int, entry: int) -> int:
  axes = {p: found.analysis.values[v].axes for v, p in found.program.paths.items()}
  if path not in axes or not (0 <= axis < len(axes[path]) and 0 <= entry < len(axes[path][axis])):
    shape = tuple(map(len, axes[path])) if path in axes else f'one of the leaves {sorted(axes)}'
    raise EffjaxError(f'explain: ({path!r}, {axis}, {entry}), wanted (path, axis, entry) of {shape}')
  return int(axes[path][axis][entry])


def _members(found, number) -> Iterator[tuple]:
  for path, axes in found.channels.members.items():
    for axis, channels in enumerate(axes):
      if (channels == number).any():
        yield path, axis, tuple(np.flatnonzero(channels == number).tolist())


def _coupling(found, number) -> list[tuple[Eqn, str]]:
  """The equations whose joins made the channel."""
  inside = found.channel == number
  return [(edge.at, edge.why) for edge in found.analysis.labels.edges if inside[edge.low].any()]


def _way(labels: Labels, entry: int) -> list[tuple[Eqn | None, str]]:
  """The joins from an entry to one that is pinned from the start: what came first is walked from the end."""
  came_from = {entry: None}
  frontier = [entry]
  neighbours = _neighbours(labels)
  while PINNED not in came_from and frontier:
    after = [(b, (a, edge)) for a in frontier for b, edge in neighbours.get(a, ()) if b not in came_from]
    came_from.update(after)
    frontier = [b for b, _ in after]
  way, at = [], PINNED
  while came_from.get(at) is not None:
    at, edge = came_from[at]
    way.append((labels.edges[edge].at, labels.edges[edge].why))
  return way[::-1] or [(None, 'an axis of one entry, or a parameter that nothing reads')]


def _neighbours(labels):
  out: dict[int, list[tuple[int, int]]] = {}
  pinned = labels.roots() == PINNED
  for number, edge in enumerate(labels.edges):
    for a, b in zip(edge.low.tolist(), edge.high.tolist()):
      if pinned[a]:
        out.setdefault(a, []).append((b, number))
        out.setdefault(b, []).append((a, number))
  return out


def _steps(joins) -> tuple[Step, ...]:
  made = [Step(eqn.name, why, eqn.scope, line(eqn)) if eqn else Step('output', why, '', '') for eqn, why in joins]
  return tuple(dict.fromkeys(made))


def line(eqn: Eqn) -> str:
  """`file:line (function)` of the innermost code that is not a framework's; '' if there is none."""
  for info in eqn.source:
    for frame in info.traceback.frames if info.traceback else ():
      if not _is_framework(frame.file_name):
        return f'{frame.file_name}:{frame.line_num} ({frame.function_name})'
  return ''


def _is_framework(file: str) -> bool:
  standard = sysconfig.get_paths()['stdlib']
  if file.startswith(standard) and 'site-packages' not in file:
    return True
  return any(pathlib.Path(file).is_relative_to(root) for root in _roots())


def _roots() -> list[str]:
  specs = [importlib.util.find_spec(name) for name in FRAMEWORKS]
  return [root for spec in specs if spec for root in spec.submodule_search_locations or ()]
