"""The protocol: compression is a reparameterisation, `weights = R(theta, phi)`.

A `Rule` says how ONE array is represented; `at` puts it on the leaves whose path matches, `chain` composes.
`apply` with `key=None` gives the weights as deployed: hard choices, values that an integer kernel can hold.
"""
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from effjax import tree
from effjax.errors import EffjaxError
from effjax.graph.channels import Channels, gate
from effjax.tree import Path, PyTree

Key = jax.Array


class Slots(NamedTuple):
  """What a reparameterised model is made of.

  theta: the model's own weights that still train; a leaf that a rule replaces holds that rule's theta.
  phi: what the method trains: scales, gate logits, factors, bit logits.
  state: what it remembers, never trained: masks, running ranges, the step.
  """
  theta: PyTree
  phi: PyTree
  state: PyTree


class Fact(NamedTuple):
  """What cost and export need to know of one leaf; None where a rule says nothing. A pytree: gradients flow.

  bits: per element, a scalar; a vector of widths while they are a choice, with `choice` their probabilities.
  scale: size of one code, broadcastable to the weight: `weight = code * scale`.
  offset: where codes do not stand for themselves but `weight = (code - offset) * scale`, broadcastable too.
  levels: where they number what they stand for, `weight = levels[code] * scale`, ascending. No integer kernel can.
  keep: probability that each channel is there (under `CHANNELS`).
  choice: probability of each operator of a choice, or of each width in `bits`.
  """
  bits: jax.Array | None = None
  scale: jax.Array | None = None
  keep: jax.Array | None = None
  choice: jax.Array | None = None
  offset: jax.Array | None = None
  levels: jax.Array | None = None


class Rule(NamedTuple):
  """The verbs for one array `w`: all that the author of a method writes.

  init(key, w) -> Slots for it. theta is normally `w` itself; None where phi replaces it.
  apply(theta, phi, state, key) -> the array that the model sees; key None: as deployed.
  facts(slots, hard) -> Fact; hard: of what is deployed, else the differentiable expectation.
  update(slots, gradient) -> the new state, given the loss's gradient by the array that the model saw.
  decisions: the entries of phi (a dict) that are discrete choices: a bilevel step trains these on held-out data.
  """
  init: Callable[[Key, jax.Array], Slots]
  apply: Callable[[PyTree, PyTree, PyTree, Key | None], jax.Array]
  facts: Callable[[Slots, bool], Fact]
  update: Callable[[Slots, jax.Array], PyTree] = lambda slots, gradient: slots.state
  decisions: frozenset[str] = frozenset()


class Reparam(NamedTuple):
  """The same verbs for a whole parameter tree. `parts` are those of a `chain`; `decisions(phi)` is a tree of bools."""
  init: Callable[[Key, PyTree], Slots]
  apply: Callable[[PyTree, PyTree, PyTree, Key | None], PyTree]
  facts: Callable[[Slots, bool], dict[Path, Fact]]
  update: Callable[[Slots, PyTree], PyTree]
  decisions: Callable[[PyTree], PyTree]
  parts: tuple['Reparam', ...] | None = None


def at(where: str | Callable[[Path], bool], rule: Rule, *, stacked: bool = False) -> Reparam:
  """`rule` on every leaf whose path matches `where`, each with phi, state and key of its own.

  Args:
    where: regular expression for the whole path, or a predicate on it.
    rule: what to do to each leaf.
    stacked: the leaf's first axis counts layers (`nn.scan`): the rule is mapped over it.

  Raises:
    EffjaxError: `where` matches nothing (the nearest paths are printed), or an integer leaf.
  """
  rule = _stacked(rule) if stacked else rule

  def init(key, params):
    chosen = {path: tree.leaves(params)[path] for path in tree.select(where, params)}
    for path, w in chosen.items():
      if not jnp.issubdtype(jnp.result_type(w), jnp.floating):
        raise EffjaxError(f'leaf {path!r} has dtype {jnp.result_type(w)}, wanted floating point: '
                          f'narrow the pattern {where!r}')
    slots = {path: rule.init(tree.fold(key, path), w) for path, w in chosen.items()}
    theta = tree.map_at(lambda path, _: slots[path].theta, params, slots)
    return Slots(theta, {p: s.phi for p, s in slots.items()}, {p: s.state for p, s in slots.items()})

  def apply(theta, phi, state, key):
    f = lambda path, part: rule.apply(part, phi[path], state[path], tree.fold(key, path))
    return tree.map_at(f, theta, phi)

  def each(slots):
    theta = {}
    tree.map_at(lambda path, part: theta.setdefault(path, part), slots.theta, slots.phi)
    return {path: Slots(theta[path], slots.phi[path], slots.state[path]) for path in slots.phi}

  def update(slots, gradients):
    by_path = tree.leaves(gradients)
    return {path: rule.update(part, by_path[path]) for path, part in each(slots).items()}

  return Reparam(
      init, apply,
      facts=lambda slots, hard: {path: rule.facts(part, hard) for path, part in each(slots).items()},
      update=update,
      decisions=lambda phi: {path: mark_decisions(rule, part) for path, part in phi.items()})


def mark_decisions(rule: Rule, phi: PyTree) -> PyTree:
  """A tree like `phi` of bools: True under the entries that `rule` calls decisions.

  >>> mark_decisions(Rule(None, None, None, decisions=frozenset({'logits'})), {'logits': 0., 'scale': 1.})
  {'logits': True, 'scale': False}
  """
  if not rule.decisions:
    return jax.tree.map(lambda _: False, phi)
  return {name: jax.tree.map(lambda _, name=name: name in rule.decisions, part) for name, part in phi.items()}


CHANNELS = 'channels'  # the key of the facts that `over` gives: keep per channel of the graph


def over(channels: Channels, rule: Rule) -> Reparam:
  """One gate per channel of the graph: `rule` on a vector of ones, multiplied onto all leaves that sum over channels.

  Put it after quantizers in a `chain`: a gate of 1 then leaves the integer codes untouched, and 0 is a channel gone.

  Args:
    channels: of `effjax.graph.channels` for the function that the parameters belong to.
    rule: on an array of shape `[channels.size]`, e.g. `sparsify.hard_concrete()`.

  Raises:
    EffjaxError: the function has no prunable channel.
  """
  if not channels.size:
    raise EffjaxError(f'over: no prunable channels; unsupported operations pinned what they touch: {channels.unknown}; '
                      'graph.explain(fn, params, (path, axis, entry), *args) says what pins an entry')

  def init(key, params):
    gates = rule.init(tree.fold(key, CHANNELS), jnp.ones((channels.size,), jnp.float32))
    if gates.theta is not None:
      raise EffjaxError('over: wants a rule whose theta is None, such as sparsify.hard_concrete: gates replace ones')
    return Slots(params, gates.phi, gates.state)

  def apply(theta, phi, state, key):
    return gate(channels, theta, rule.apply(None, phi, state, tree.fold(key, CHANNELS)))

  own = lambda slots: Slots(None, slots.phi, slots.state)
  return Reparam(init, apply, facts=lambda slots, hard: {CHANNELS: rule.facts(own(slots), hard)},
                 update=lambda slots, gradients: rule.update(own(slots), gradients),
                 decisions=lambda phi: mark_decisions(rule, phi))


def chain(*parts: Reparam) -> Reparam:
  """The parts one after another: each works on the weights that the one before it made. `chain()` is the identity.

  Associative: a chain within a chain is flattened. A part that replaces a leaf (low rank, an operator choice)
  must be the first that touches it. `update` gives every part the gradient by the weights that the network used.

  Raises:
    EffjaxError: a later part replaces a leaf that an earlier one made.
  """
  parts = tuple(q for p in parts for q in (p.parts if p.parts is not None else (p,)))

  def init(key, params):
    theta = weights = jax.tree.map(jnp.asarray, params)
    phis, states = [], []
    for i, part in enumerate(parts):
      slots = part.init(jax.random.fold_in(key, i), weights)
      theta = _merge(theta, weights, slots.theta)
      weights = part.apply(slots.theta, slots.phi, slots.state, None)
      phis.append(slots.phi), states.append(slots.state)
    return Slots(theta, tuple(phis), tuple(states))

  def apply(theta, phi, state, key):
    for i, part in enumerate(parts):
      theta = part.apply(theta, phi[i], state[i], None if key is None else jax.random.fold_in(key, i))
    return theta

  def each(slots):
    theta = slots.theta
    for i, (part, phi, state) in enumerate(zip(parts, slots.phi, slots.state, strict=True), 1):
      yield part, Slots(theta, phi, state)
      theta = part.apply(theta, phi, state, None) if i < len(parts) else theta  # nobody reads what the last one makes

  def facts(slots, hard):
    merged: dict[Path, Fact] = {}
    for part, own in each(slots):
      for path, fact in part.facts(own, hard).items():
        old = merged.get(path, Fact())
        merged[path] = Fact(*(a if b is None else b for a, b in zip(old, fact)))
    return merged

  return Reparam(
      init, apply, facts,
      update=lambda slots, gradients: tuple(part.update(own, gradients) for part, own in each(slots)),
      decisions=lambda phi: tuple(part.decisions(p) for part, p in zip(parts, phi, strict=True)),
      parts=parts)


def _merge(theta, weights, new):
  """theta of the chain: the leaves that the newest part replaced come from it, all others stay."""
  made = tree.leaves(weights)
  given = jax.tree_util.tree_flatten_with_path(new, is_leaf=lambda path, x: tree.path_string(path) in made,
                                               is_leaf_takes_path=True)[0]
  given = {tree.path_string(path): leaf for path, leaf in given}
  replaced = {path for path, w in made.items() if given.get(path) is not w}
  before = tree.leaves(theta)
  for path in sorted(replaced):
    if path not in before or before[path] is not made[path]:
      raise EffjaxError(f'chain: a part replaces leaf {path!r}, which an earlier part made already: '
                        'put the part that replaces it first')
  return tree.map_at(lambda path, _: given.get(path), theta, replaced)


def _stacked(rule: Rule) -> Rule:
  def init(key, w):
    return jax.vmap(rule.init)(jax.random.split(key, w.shape[0]), w)

  def apply(theta, phi, state, key):
    if key is None:
      return jax.vmap(lambda *slots: rule.apply(*slots, None))(theta, phi, state)
    layers = jax.tree.leaves((theta, phi, state))[0].shape[0]
    return jax.vmap(rule.apply)(theta, phi, state, jax.random.split(key, layers))

  return Rule(init, apply, facts=lambda slots, hard: jax.vmap(lambda s: rule.facts(s, hard))(slots),
              update=jax.vmap(rule.update), decisions=rule.decisions)
