"""Channels: what can be removed from a network, read off its trace.

Every entry of every axis of every parameter is a node; the equations join the nodes that must live or die
together (residual adds, concatenations, depthwise and grouped convolutions, shuffles, flattening, heads). A
connected component that reaches no input, output or unsupported operation is a channel.
"""
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from effjax import tree
from effjax.errors import EffjaxError
from effjax.graph.propagate import Analysis, propagate
from effjax.graph.trace import Program, trace, users
from effjax.tree import Path, PyTree


class Channels(NamedTuple):
  """The prunable channels of one function.

  size: how many there are; a keep mask or a vector of gates has this length.
  members: for each parameter path, per axis, the channel of each entry (-1: it stays).
  consumers: the axes that sum over channels, where a gate multiplies exactly once.
  groups: for each channel the number of its group: channels that touch the same axes.
  choices: paths of leaves whose entries multiply whole tensors (operator probabilities), with their length.
  unknown: (primitive, scope) that pinned all they touched.
  """
  size: int
  members: dict[Path, tuple[np.ndarray, ...]]
  consumers: dict[Path, tuple[int, ...]]
  groups: np.ndarray
  choices: dict[Path, int]
  unknown: tuple[tuple[str, str], ...]


class Labelled(NamedTuple):
  """A program with its labels resolved: what `shrink` and `profile` read.

  channel: for each label, its channel or -1. guard: for each label, (path, entry) of an operator choice, or None.
  """
  program: Program
  analysis: Analysis
  channel: np.ndarray
  guard: dict[int, tuple[Path, int]]
  channels: Channels


def channels(fn: Callable, params: PyTree, *args: PyTree) -> Channels:
  """The channels of `fn(params, *args)`.

  Law: masking a channel on every leaf that it touches (`mask`) gives the same output as removing it (`shrink`).

  Args:
    fn: any JAX function, in inference mode; constants that it closes over (BatchNorm statistics) are cut too.
    params, args: arrays or `jax.ShapeDtypeStruct`s.

  >>> import jax
  >>> fn = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
  >>> found = channels(fn, {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}, jnp.ones((1, 3)))
  >>> found.size, found.members['a'][1], found.consumers
  (4, array([0, 1, 2, 3]), {'b': (0,)})
  """
  return label(fn, params, *args).channels


def label(fn: Callable, params: PyTree, *args: PyTree) -> Labelled:
  """Traces `fn` and resolves the label of every axis of every value.

  Raises:
    EffjaxError: a parameter is not of a floating point type; the function reads none of its parameters.
  """
  for path, leaf in tree.leaves(params).items():
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
      raise EffjaxError(f'graph: parameter {path!r} has dtype {jnp.result_type(leaf)}, wanted floating point: pass '
                        'other state as an argument, not as a parameter')
  program = trace(fn, params, *args)
  if program.paths and program.paths.keys().isdisjoint(users(program)):
    first = next(iter(program.paths.values()))
    raise EffjaxError(f'graph: the function reads none of its {len(program.paths)} parameters ({first!r} ...): give '
                      'the parameters as its first argument')
  analysis = propagate(program)
  roots = analysis.labels.roots()
  leaves = {path: analysis.values[v].axes for v, path in program.paths.items()}
  guards = np.unique(roots[list(analysis.labels.guards)]) if analysis.labels.guards else np.array([], np.int64)
  channel, size = _numbered(roots, leaves, guards)
  guard, choices = _choices(roots, leaves, guards)
  found = Channels(size, {p: tuple(channel[x] for x in axes) for p, axes in leaves.items()},
                   _consumers(analysis.labels, roots, channel, leaves), _groups(size, leaves, channel),
                   choices, tuple(dict.fromkeys(analysis.unknown)))
  return Labelled(program, analysis, channel, guard, found)


def _numbered(roots, leaves, guards):
  """For each label its channel or -1, and how many there are: numbered as they come in the leaves."""
  seen = np.concatenate([roots[axis] for axes in leaves.values() for axis in axes] or [np.zeros(0, np.int64)])
  free, first = np.unique(seen, return_index=True)
  first = first[(free > 0) & ~np.isin(free, guards)]
  channel = np.full(len(roots), -1)
  channel[seen[np.sort(first)]] = np.arange(len(first))
  return channel[roots], len(first)


def _choices(roots, leaves, guards):
  """For each label of an operator choice its (path, entry); for each path the number of its operators."""
  entry, choices = {}, {}
  for path, axes in leaves.items():
    for axis in axes:
      for i in np.flatnonzero(np.isin(roots[axis], guards)):
        entry[int(roots[axis][i])], choices[path] = (path, int(i)), len(axis)
  members = np.flatnonzero(np.isin(roots, list(entry)))  # a guard that is in no leaf is a constant
  return {int(l): entry[int(roots[l])] for l in members}, choices


def _consumers(labels, roots, channel, leaves):
  """Axes to gate: those that sums run over; every axis of a channel that is also summed without a parameter."""
  summed = labels.summed()
  mixed = np.zeros(len(roots), bool)
  for axis in labels.mixed:
    mixed[roots[axis]] = True
  out = {}
  for path, axes in leaves.items():
    mine = tuple(i for i, axis in enumerate(axes)
                 if (channel[axis] >= 0).any() and (summed[axis].any() or mixed[roots[axis]].any()))
    if mine:
      out[path] = mine
  return out


def _groups(size, leaves, channel):
  """The channels that touch the same axes: groups are split by one axis after another."""
  group, count = np.zeros(size, np.int64), 1
  for axis in (axis for axes in leaves.values() for axis in axes):
    mine = np.unique(channel[axis][channel[axis] >= 0])
    old, part = np.unique(group[mine], return_inverse=True)
    group[mine], count = count + part, count + len(old)
  _, first, number = np.unique(group, return_index=True, return_inverse=True)
  return np.argsort(np.argsort(first))[number]


def mask(found: Channels, params: PyTree, keep: Bool[Array | np.ndarray, ' n']) -> PyTree:
  """`params` with every entry of a channel that is not kept set to zero, on every leaf that it touches.

  Raises:
    EffjaxError: `keep` has another length than `found.size`.
  """
  keep = check_length(found, jnp.asarray(keep))
  paths = [p for p, axes in found.members.items() if any((c >= 0).any() for c in axes)]
  return tree.map_at(lambda path, w: _times(w, found.members[path], keep, range(w.ndim)), params, paths)


def gate(found: Channels, params: PyTree, z: Float[Array, ' n']) -> PyTree:
  """`params` with each channel multiplied by its gate exactly once: on the axes that sum over it.

  `conv(z x, w) = conv(x, z w)`, so a residual stream is not scaled by a power of z, BatchNorm cannot undo the
  gate, and z = 1 leaves integer codes as they are. A channel that is also summed without a parameter (attention
  scores) is multiplied on every leaf that it touches.
  """
  z = check_length(found, z)
  return tree.map_at(lambda path, w: _times(w, found.members[path], z, found.consumers[path]), params,
                     found.consumers)


def check_length(found: Channels, keep: Array | np.ndarray) -> Array | np.ndarray:
  """`keep`, if it has one entry per channel."""
  if jnp.shape(keep) != (found.size,):
    raise EffjaxError(f'channels: a keep mask of shape {jnp.shape(keep)}, wanted ({found.size},): '
                      'one entry per channel')
  return keep


def _times(w, members, z, axes):
  for i in axes:
    if (members[i] >= 0).any():
      factor = jnp.where(members[i] >= 0, z[np.maximum(members[i], 0)].astype(w.dtype), jnp.ones((), w.dtype))
      w = w * factor.reshape([-1 if a == i else 1 for a in range(w.ndim)])
  return w
